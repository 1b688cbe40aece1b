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

/// What is done with an entry that a read has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AreaVerdict {
    /// It follows what they have: they get it.
    Pass,
    /// They have it, or were told.
    Nothing,
    /// Something before it may still be on the way to them: they get a `resync`, and neither this entry nor the missing one.
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
    /// What they lack of what messages have passed over while something was missing already.
    hole: Option<Hole>,
    /// A message has come that may be of another log, and they neither got it nor were told yet: the log's head will show what it means.
    withheld: bool,
    /// They were told of that before the head was shown, and get whatever comes until it is.
    open: bool,
}

/// Entries of one log between two others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hole {
    after: EntryId,
    before: u64,
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
        (self.withheld, self.open) = (false, false);
        self.hole.take_if(|hole| hole.after.epoch != up_to.epoch || hole.before <= up_to.seq + 1);
        self.hole.iter_mut().for_each(|hole| hole.after = hole.after.max(up_to));
        let told = seq_of(self.told, up_to).filter(|told| *told >= up_to.seq);
        if told.is_none() {
            self.told = Some(up_to);
        }
    }

    /// The topic's head was shown, and is the feed's own: `top`. What was kept from them is of another log, and comes again with what
    /// was `held`. But if the last that came lies beyond `top` and is not held, somebody published that number by hand: what was kept
    /// may have been kept because of it. Returns whether they must be told.
    pub(super) fn explain(&mut self, top: EntryId, held: impl Iterator<Item = EntryId> + Clone) -> bool {
        let by_hand = seq_of(self.last, top).is_some_and(|last| last > top.seq)
            && !held.clone().any(|id| self.last == Some(id));
        let lacks = self.withheld && by_hand;
        (self.withheld, self.open) = (false, false);
        if by_hand {
            // They have, or are told of, what follows the head without a hole.
            let mut reach = top;
            for id in held.take_while(|id| id.epoch == top.epoch) {
                if id.seq > reach.seq + 1 {
                    break;
                }
                reach = reach.max(id);
            }
            (self.last, self.hole) = (Some(reach), None);
            if lacks {
                self.tell(reach);
            }
        }
        lacks
    }

    /// Redis does not let the topic be followed any more: what came may be of a number that its log will never have.
    pub(super) fn unfollow(&mut self) {
        self.last = self.early;
    }

    /// A message was kept from them, and the topic's head will show what it means.
    pub(super) fn withhold(&mut self) {
        self.withheld = true;
    }

    /// Whether a message was kept from them that the topic's head has yet to explain. They count as told then.
    pub(super) fn take_withheld(&mut self) -> bool {
        self.open |= self.withheld;
        std::mem::take(&mut self.withheld)
    }

    /// Takes a message. Returns whether its entry comes for the first time and belongs to the present log, whose last known entry
    /// is `end`. `new`: whether its epoch is later than any that was known.
    pub(super) fn by_wire(&mut self, id: EntryId, end: Option<EntryId>, sight: LogSight, new: bool) -> bool {
        let sight = if self.open { LogSight::Unknown } else { sight };
        let same = sight == LogSight::Unknown || end.is_none_or(|end| end.epoch == id.epoch);
        let read = seq_of(self.early, id).is_some_and(|early| id.seq <= early);
        self.early.take_if(|early| early.epoch == id.epoch && early.seq <= id.seq);
        // It may look like one that came already because somebody published by hand a number that no log has yet. While the log is in
        // step, its end says what is new.
        let known = read || seq_of(end, id).is_some_and(|end| id.seq <= end);
        let later = seq_of(self.last, id).is_none_or(|last| id.seq > last);
        let shown = !known && sight != LogSight::Doubtful && !mutant::is("wire-epoch");
        let first = same && (later || shown);
        self.withheld |= !first && !known;
        if let Some(end) = end.filter(|_| !same && mutant::is("wire-epoch")) {
            self.last = Some(EntryId { seq: id.seq, ..end });
            return true;
        }
        if first && sight == LogSight::Doubtful {
            self.note_hole(id, end);
        }
        // A late entry of a log before must not move the mark.
        if first || !same && new && self.last < Some(id) {
            self.last = Some(id);
        }
        first
    }

    /// A message that they get while something is missing already: what lies between it and the one before is missing as well, and
    /// was perhaps published after they were told.
    fn note_hole(&mut self, id: EntryId, end: Option<EntryId>) {
        let known = [self.last, self.told, end].into_iter().filter_map(|entry| seq_of(entry, id));
        let after = EntryId { seq: known.max().unwrap_or(0), ..id };
        if id.seq > after.seq + 1 && !mutant::is("second-hole") {
            let earlier = self.hole.filter(|hole| hole.after.epoch == id.epoch);
            self.hole = Some(Hole { after: earlier.map_or(after, |hole| hole.after), before: id.seq });
        }
    }

    /// What is done with an entry that a read has brought.
    pub(super) fn by_read(&mut self, id: EntryId) -> AreaVerdict {
        let last = seq_of(self.last, id);
        if last.is_some_and(|last| id.seq <= last) {
            let lacks = |hole: &mut Hole| {
                seq_of(Some(hole.after), id).is_some_and(|after| (after + 1..hole.before).contains(&id.seq))
            };
            return self.hole.take_if(lacks).map_or(AreaVerdict::Nothing, |_| AreaVerdict::Gap);
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
mod tests {
    use super::*;

    fn id(epoch: u64, seq: u64) -> EntryId {
        EntryId { epoch, seq }
    }

    #[test]
    fn what_a_read_brings_is_handed_on_where_it_follows_what_came() {
        let mut handed = AreaProgress::default();
        assert!(
            handed.by_wire(id(7, 4), None, LogSight::InStep, true)
                && handed.by_wire(id(7, 5), None, LogSight::InStep, true)
        );
        assert_eq!(
            [4, 5, 6, 7].map(|seq| handed.by_read(id(7, seq))),
            [AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Pass, AreaVerdict::Pass]
        );
        let end = Some(id(7, 7));
        assert!(
            !handed.by_wire(id(7, 6), end, LogSight::InStep, true)
                && !handed.by_wire(id(7, 7), end, LogSight::InStep, true),
            "the read was sooner"
        );
        assert!(handed.by_wire(id(7, 8), end, LogSight::InStep, true));
    }

    #[test]
    fn what_a_read_brings_is_not_handed_on_while_what_is_before_it_is_on_its_way() {
        let mut handed = AreaProgress::default();
        // The log was at number 7 when it was opened, and nothing has come since.
        assert_eq!(handed.by_read(id(7, 8)), AreaVerdict::Gap);
        assert_eq!(handed.by_read(id(7, 9)), AreaVerdict::Pass, "what came before was told");
        let end = Some(id(7, 9));
        assert!(
            [7, 8, 9].iter().all(|seq| !handed.by_wire(id(7, *seq), end, LogSight::InStep, true)),
            "nobody gets it after that"
        );
        assert!(handed.by_wire(id(7, 10), end, LogSight::InStep, true));
    }

    #[test]
    fn what_was_told_is_not_handed_on_by_a_read_and_what_follows_it_is() {
        let mut handed = AreaProgress::default();
        assert!(handed.by_wire(id(7, 5), None, LogSight::InStep, true));
        handed.tell(id(7, 8));
        assert_eq!(
            [6, 7, 8, 9].map(|seq| handed.by_read(id(7, seq))),
            [AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Pass]
        );
    }

    #[test]
    fn what_came_before_the_log_was_known_is_not_handed_on_again() {
        let mut handed = AreaProgress::default();
        assert!(
            handed.by_wire(id(7, 9), None, LogSight::InStep, true)
                && handed.by_wire(id(7, 10), None, LogSight::InStep, true),
            "8 is lost"
        );
        handed.tell(id(7, 9));
        assert_eq!(
            [8, 9, 10, 11].map(|seq| handed.by_read(id(7, seq))),
            [AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Pass]
        );
    }

    #[test]
    fn another_log_is_counted_anew() {
        let mut handed = AreaProgress::default();
        assert!(handed.by_wire(id(7, 50), Some(id(7, 49)), LogSight::InStep, true));
        assert!(!handed.by_wire(id(8, 1), Some(id(7, 50)), LogSight::InStep, true), "its followers are told");
        handed.tell(id(8, 1));
        assert_eq!(handed.by_read(id(8, 2)), AreaVerdict::Pass);
        assert!(!handed.by_wire(id(7, 51), Some(id(8, 2)), LogSight::InStep, false), "late");
        assert!(
            !handed.by_wire(id(9, 51), Some(id(8, 2)), LogSight::InStep, false),
            "late, of a master whose clock was ahead"
        );
        assert!(
            !handed.by_wire(id(8, 2), Some(id(8, 2)), LogSight::InStep, true)
                && handed.by_wire(id(8, 3), Some(id(8, 2)), LogSight::InStep, true)
        );
    }

    #[test]
    fn what_the_wire_may_still_bring_is_remembered_until_it_has_or_until_probes_have_overtaken_it() {
        let areas = crate::protocol::Areas::new(["comments"], [], []).unwrap();
        let topic = |name| Topic::parse(name, &areas).unwrap();
        let (one, other) = (topic("comments:1"), topic("comments:2"));
        let read = |seqs: &[u64]| {
            let mut handed = AreaProgress::default();
            assert!(handed.by_wire(id(7, 4), None, LogSight::InStep, true));
            for seq in seqs {
                assert_eq!(handed.by_read(id(7, *seq)), AreaVerdict::Pass);
            }
            handed
        };
        let mut early = EarlyProgress::default();
        early.leave(&one, &read(&[5, 6]));
        early.leave(&other, &read(&[]));
        assert_eq!(early.topics.len(), 1, "the wire has brought all of the other");
        early.prove();
        assert!(!early.by_wire(&one, id(7, 5)) && !early.by_wire(&one, id(7, 6)));
        assert!(early.by_wire(&one, id(7, 7)) && early.by_wire(&other, id(7, 5)));
        early.prove();
        assert!(early.topics.is_empty());
        early.leave(&one, &read(&[5]));
        let mut handed = early.take(&one);
        assert!(!handed.by_wire(id(7, 5), Some(id(7, 5)), LogSight::InStep, true) && early.topics.is_empty());
    }

    #[test]
    fn a_message_with_a_number_that_no_log_has_holds_nothing_back_when_its_topic_was_left() {
        let areas = crate::protocol::Areas::new(["comments"], [], []).unwrap();
        let topic = Topic::parse("comments:1", &areas).unwrap();
        let mut handed = AreaProgress::default();
        assert!(handed.by_wire(id(7, 4), None, LogSight::InStep, true));
        assert_eq!(handed.by_read(id(7, 5)), AreaVerdict::Pass);
        assert!(
            !handed.by_wire(id(9, 1), Some(id(7, 5)), LogSight::InStep, false),
            "of another log: it shows nothing of this one"
        );
        let mut early = EarlyProgress::default();
        early.leave(&topic, &handed);
        assert!(early.by_wire(&topic, id(7, 900)) && early.by_wire(&topic, id(9, 1)), "published by hand");
        assert!(!early.by_wire(&topic, id(7, 5)), "the read was sooner");
        assert!(early.by_wire(&topic, id(7, 6)), "the next one");
        let mut handed = early.take(&topic);
        assert!(
            !handed.by_wire(id(7, 5), None, LogSight::InStep, true)
                && handed.by_wire(id(7, 6), None, LogSight::InStep, true)
        );
        assert_eq!(handed.by_read(id(7, 7)), AreaVerdict::Pass);
    }
}
