//! What those who follow a whole area (`area:*`) were handed of one topic's log.
//!
//! They have no positions, and get each entry by a message ("the wire") or by a read of the log, whichever comes first. Messages
//! come in order; a read may overtake them. What a read brings is handed to these followers if it is the next that they lack. If
//! something before it may still be on its way, they get a `resync` instead. When nobody follows the topic by key any more, what
//! messages may still bring is remembered for a while. Pure.

use std::collections::BTreeMap;

use crate::{
    mutant,
    protocol::{EntryId, Topic},
};

/// Probes that must come back before the wire has brought whatever was published before the first of them was asked for.
const PROOFS: u8 = 2;

/// What is done with an entry that a message or a read has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AreaVerdict {
    /// It follows what they have: they get it.
    Pass,
    /// They have it, or were told.
    Nothing,
    /// Something before it is missing, or may still be on the way to them: they get a `resync`, and neither this entry nor the missing one.
    Gap,
}

/// How far those who follow the whole area have come in a topic's log.
#[derive(Debug, Default)]
pub(super) struct AreaProgress {
    /// The last entry that came, by the wire or by a read; nothing up to it is handed to them any more.
    last: Option<EntryId>,
    /// Up to this entry they were told that something is missing.
    told: Option<EntryId>,
    /// The last entry that a read has brought, until the wire has brought it too.
    early: Option<EntryId>,
    /// The last message that passed over others while something was missing already: they were told, and did not get it.
    beyond: Option<EntryId>,
    /// A message has come that may be of another log, and they neither got it nor were told yet: the log's head will show what it means.
    withheld: bool,
    /// A message of this log has come that looked like one that came already, because of a number that somebody published by hand: what
    /// is known of the log once it is in step again will show it.
    hidden: bool,
    /// They were told of what was withheld before the head was shown, and get whatever comes until it is.
    open: bool,
}

/// What is known of a topic's log when a message comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogSight {
    /// Nothing that counts: its end was not shown yet, or is old.
    Unknown,
    /// Where it ends.
    InStep,
    /// Where it ended; something may be missing since.
    Doubtful,
}

/// Topics that nobody follows by key any more, and whose last entries came by a read: the wire may bring them yet.
#[derive(Debug, Default)]
pub(super) struct EarlyProgress {
    /// The last entry that a read has brought, and the probes that have come back since.
    topics: BTreeMap<Topic, (EntryId, u8)>,
}

impl EarlyProgress {
    /// A topic is not followed by key any more.
    pub(super) fn leave(&mut self, topic: &Topic, handed: &AreaProgress) {
        if let Some(early) = handed.early.filter(|_| !mutant::is("wire-left")) {
            self.topics.insert(topic.clone(), (early, 0));
        }
    }

    /// A topic is followed by key again.
    pub(super) fn take(&mut self, topic: &Topic) -> AreaProgress {
        let early = self.topics.remove(topic).map(|(early, _)| early);
        AreaProgress { last: early, early, ..AreaProgress::default() }
    }

    /// Whether an entry of a topic that nobody follows by key comes for the first time, by the wire. What comes moves nothing:
    /// somebody may have published it by hand, under any number.
    pub(super) fn by_wire(&self, topic: &Topic, id: EntryId) -> bool {
        let early = self.topics.get(topic).and_then(|(early, _)| seq_of(Some(*early), id));
        early.is_none_or(|early| id.seq > early)
    }

    /// A probe has come back.
    pub(super) fn prove(&mut self) {
        self.topics.retain(|_, (_, proofs)| {
            *proofs += 1;
            *proofs < PROOFS
        });
    }

    /// The link is lost, and with it all that was on its way.
    pub(super) fn interrupt(&mut self) {
        self.topics.clear();
    }
}

impl AreaProgress {
    /// Forgets everything: other entries may come under the same numbers.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// A log's end was read, and messages lay beyond it that it never had. They are told that something up to there may be missing, and
    /// those messages hide nothing any more.
    pub(super) fn tell_strays(&mut self, end: EntryId) {
        let end = Some(end);
        *self = Self { last: end, told: end, early: end, ..Self::default() };
    }

    /// They are told that something up to this entry is missing.
    pub(super) fn tell(&mut self, up_to: EntryId) {
        (self.withheld, self.hidden, self.open) = (false, false, false);
        let told = seq_of(self.told, up_to).filter(|told| *told >= up_to.seq);
        if told.is_none() {
            self.told = Some(up_to);
        }
    }

    /// The topic's head was shown, and is the feed's own: `top`. What was kept from them comes again with what was `held`. If the last
    /// that came lies beyond `top` and is not held, somebody published that number by hand: it hides nothing any more.
    pub(super) fn explain(&mut self, top: EntryId, held: impl Iterator<Item = EntryId> + Clone) {
        (self.withheld, self.open) = (false, false);
        let beyond = seq_of(self.last, top).is_some_and(|last| last > top.seq && !mutant::is("wire-epoch"));
        if beyond && !held.clone().any(|id| self.last == Some(id)) {
            // What was held shows what is missing before it.
            self.last = Some(held.filter(|id| id.epoch == top.epoch).fold(top, EntryId::max));
        }
    }

    /// The log is in step again, up to `top`, and what was held was taken. Returns whether a message of it was hidden by a number that
    /// somebody published by hand. They count as told then.
    pub(super) fn take_hidden(&mut self, top: EntryId) -> bool {
        let hidden = self.hidden;
        if hidden {
            self.tell_strays(top);
        }
        hidden
    }

    /// Redis does not let the topic be followed any more: what came may be of a number that its log will never have.
    pub(super) fn unfollow(&mut self) {
        (self.last, self.told) = (self.early, None);
    }

    /// A message was kept from them, and the topic's head will show what it means.
    pub(super) fn withhold(&mut self) {
        self.withheld = true;
    }

    /// Whether a message was kept from them that the topic's head has yet to explain. They count as told then.
    pub(super) fn take_withheld(&mut self) -> bool {
        let withheld = self.withheld || self.hidden;
        self.open |= withheld;
        (self.withheld, self.hidden) = (false, false);
        withheld
    }

    /// What is done with the entry of a message: it is handed to them if it comes for the first time and belongs to the present log,
    /// whose last known entry is `end`. `new`: whether its epoch is later than any that was known.
    pub(super) fn by_wire(
        &mut self,
        id: EntryId,
        end: Option<EntryId>,
        sight: LogSight,
        new: bool,
    ) -> AreaVerdict {
        let lacks = sight == LogSight::Doubtful && !self.is_next(id, end);
        let sight = if self.open { LogSight::Unknown } else { sight };
        let same = sight == LogSight::Unknown || end.is_none_or(|end| end.epoch == id.epoch);
        let read = seq_of(self.early, id).is_some_and(|early| id.seq <= early);
        // What lies further beyond the log's end may have been published by hand.
        let near = seq_of(end, id).is_some_and(|end| id.seq <= end + 1);
        self.early.take_if(|early| near && early.epoch == id.epoch && early.seq <= id.seq);
        // It may look like one that came already because somebody published by hand a number that no log has yet. While the log is in
        // step, its end says what is new.
        let known = read || seq_of(end, id).is_some_and(|end| id.seq <= end);
        let later = seq_of(self.last, id).is_none_or(|last| id.seq > last);
        let shown = !known && sight != LogSight::Doubtful && !mutant::is("wire-epoch");
        let first = same && (later || shown);
        if !first && !known && !same {
            (self.withheld, self.beyond) = (true, Some(id));
        }
        self.hidden |= !first && !known && same && !mutant::is("wire-epoch");
        if let Some(end) = end.filter(|_| !same && mutant::is("wire-epoch")) {
            self.last = Some(EntryId { seq: id.seq, ..end });
            return AreaVerdict::Pass;
        }
        if first && lacks {
            // They count as told only up to what a read of the log shows: somebody may have published this by hand.
            self.beyond = Some(id);
            return AreaVerdict::Gap;
        }
        // A late entry of a log before must not move the mark.
        if first || !same && new && self.last < Some(id) {
            self.last = Some(id);
        }
        if first { AreaVerdict::Pass } else { AreaVerdict::Nothing }
    }

    /// Whether a message is the next one, while something is missing already.
    fn is_next(&self, id: EntryId, end: Option<EntryId>) -> bool {
        let next = |entry| seq_of(entry, id).map(|seq| seq + 1);
        let all = [self.last, self.told, end];
        let known = all.into_iter().filter_map(next).max();
        // The first that is known of another log than before begins it, or something before it is missing.
        known.map_or(id.seq == 1 || all == [None; 3], |next| id.seq <= next)
            || next(self.beyond) == Some(id.seq)
            || mutant::is("second-hole")
    }

    /// What is done with an entry that a read has brought.
    pub(super) fn by_read(&mut self, id: EntryId) -> AreaVerdict {
        let last = seq_of(self.last, id);
        if last.is_some_and(|last| id.seq <= last) {
            return AreaVerdict::Nothing;
        }
        (self.last, self.early) = (Some(id), Some(id));
        let told = seq_of(self.told, id);
        if told.is_some_and(|told| id.seq <= told) {
            return AreaVerdict::Nothing;
        }
        // A log begins with number 1. Where nothing came yet, whatever is before this may be on its way.
        let before = last.max(told).unwrap_or(0);
        if id.seq == before + 1 || mutant::is("wire-ahead") {
            return AreaVerdict::Pass;
        }
        self.told = Some(id);
        AreaVerdict::Gap
    }
}

/// The number of an entry, where it is of the same log as another.
fn seq_of(entry: Option<EntryId>, other: EntryId) -> Option<u64> {
    entry.filter(|entry| entry.epoch == other.epoch).map(|entry| entry.seq)
}

#[cfg(test)]
#[path = "area_progress_tests.rs"]
mod tests;
