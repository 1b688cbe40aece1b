//! A feed: what a node knows of one topic's log. Pure: values in, verdicts out; it reads no clock.
//!
//! It is in step while every message is the successor of the one before. When something is missing, what arrives is
//! held, the log is read once, and what was held follows.

mod by_area;

use std::time::Instant;

use super::{
    area_progress::AreaProgress,
    log::{Log, LogEntry, Resumed, drop_strays},
    question::Stamp,
};
use crate::{
    bus::{Head, History},
    hub::Frame,
    mutant,
    protocol::{EntryId, Event, Position, Reason, Topic},
};

/// Recorded messages that are held while a log is read; what is more is looked for in the log afterwards.
const HELD: usize = 512;

/// Whether a feed can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedState {
    /// Not yet subscribed, or its head is not yet known.
    Opening,
    /// It has every entry up to the last message from Redis.
    Live,
    /// The log is being read to close a gap; what arrives is held.
    Filling,
    /// Something may be missing: its head must be compared; what arrives is held.
    Doubt,
}

/// The verdict on what was learned of a log.
#[derive(Debug)]
pub enum Arrival {
    /// The successor of the last entry: an event for everybody in step.
    Deliver(Frame),
    /// Known already, or held.
    Nothing,
    /// The successor of the last entry, which is not an event.
    Invalid,
    /// Entries after this one are missing: the log must be read.
    Read(EntryId),
    /// The log is another one, or is not what was believed: everybody must refetch.
    Replaced(Reason),
    /// The message is of another epoch, but not of a new one: it is late, or a master whose clock is behind has replaced the log.
    /// The log's head tells which.
    Earlier,
}

impl Arrival {
    /// A name for counting.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Deliver(_) => "deliver",
            Self::Nothing => "nothing",
            Self::Invalid => "invalid",
            Self::Read(_) => "read",
            Self::Replaced(_) => "replaced",
            Self::Earlier => "earlier",
        }
    }
}

/// The read of the log that is under way.
#[derive(Debug)]
struct Reading {
    stamp: Stamp,
    /// The feed's last entry when the read was asked for: the answer is not older than that.
    top: EntryId,
    /// The feed has started anew since: the answer is of another log, or too old.
    void: bool,
    /// More was found missing since: another read must follow.
    again: bool,
    /// How many of the held messages had come when the read was asked for: the answer has them, or the log never had them.
    heard: usize,
}

/// What a node knows of one topic's log.
#[derive(Debug)]
pub struct Feed {
    state: FeedState,
    log: Log,
    /// What followers of the whole area (`area:*`) were handed of it.
    handed: AreaProgress,
    held: Vec<LogEntry>,
    /// The last message for which there was no room among the held ones.
    unheld: Option<EntryId>,
    reading: Option<Reading>,
    /// The latest question at the time when the subscription or the head was last confirmed: only a later read of marks counts.
    confirmed: Option<Stamp>,
    refusal: Option<SubscriptionRefusal>,
}

/// Redis has refused the subscription, and has not confirmed it since.
#[derive(Debug)]
struct SubscriptionRefusal {
    /// The latest question at that time: confirmations that were asked for before do not count.
    latest: Stamp,
    /// Whether it was followed before: then it may lack something when it is open again.
    followed: bool,
}

impl Feed {
    /// A feed that is being opened. `longest`: entries of its tail at most (`log.length`): it never reaches further back than the log.
    pub fn opening(longest: usize) -> Self {
        Self {
            state: FeedState::Opening,
            log: Log::unknown(longest),
            handed: AreaProgress::default(),
            held: Vec::new(),
            unheld: None,
            reading: None,
            confirmed: None,
            refusal: None,
        }
    }

    /// Whether it can be relied on.
    pub fn state(&self) -> FeedState {
        self.state
    }

    /// Whether it has every entry up to the last message from Redis.
    pub fn is_live(&self) -> bool {
        self.state == FeedState::Live
    }

    /// Whether its log is being read.
    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Whether this is the read that is under way.
    pub fn reads(&self, stamp: Stamp) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.stamp == stamp)
    }

    /// The last entry that the feed has, and its lineage.
    pub fn head(&self) -> Option<&Head> {
        self.log.head()
    }

    /// The feed's position.
    pub fn position(&self) -> Option<Position> {
        self.head().map(|head| Position { lineage: head.lineage.clone(), id: head.top })
    }

    /// The question since which its subscription is known to have held without interruption.
    pub fn confirmed(&self) -> Option<Stamp> {
        self.confirmed
    }

    /// See [`super::tail::Tail::touch`].
    pub(super) fn touch(&self) -> u64 {
        self.log.touch().wrapping_add(u64::from(self.is_live()))
    }

    /// Bytes of the frames that it keeps.
    pub fn bytes(&self) -> usize {
        self.log.bytes()
    }

    /// Starts (anew) at the end of a log.
    pub fn start(&mut self, head: Head) {
        self.reading.iter_mut().for_each(|reading| reading.void = true);
        self.log.start(head);
        self.state = FeedState::Live;
    }

    /// The log is another one than was believed. Followers of the whole area count as told; the caller tells them.
    pub(super) fn replace(&mut self, head: Head, reason: Reason) {
        // The same numbers may stand for other events now.
        if matches!(reason, Reason::RedisChanged | Reason::Invalid) {
            self.handed.forget();
        }
        self.handed.tell(head.top);
        self.start(head);
    }

    /// Redis has confirmed the subscription; `head`: where the log ends, `None` for a whole area.
    pub fn open(&mut self, head: Option<Head>, latest: Stamp) {
        match head {
            Some(head) => self.start(head),
            None => self.state = FeedState::Live,
        }
        self.confirmed = Some(latest);
    }

    /// Redis refuses the subscription that it had: it must be subscribed to again.
    pub fn refuse(&mut self, latest: Stamp) {
        let followed = self.state != FeedState::Opening || self.refusal.as_ref().is_some_and(|r| r.followed);
        self.forget();
        self.state = FeedState::Opening;
        self.refusal = Some(SubscriptionRefusal { latest, followed });
    }

    /// Whether Redis has refused it after this question was asked: its answer is void.
    pub fn was_refused_since(&self, question: Stamp) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| question <= refusal.latest)
    }

    /// It is subscribed to once more. Returns whether it had been followed before: then it is in doubt from now on.
    pub fn reopen(&mut self) -> bool {
        let followed = self.refusal.take().is_some_and(|refusal| refusal.followed);
        if followed {
            self.state = FeedState::Doubt;
        }
        followed
    }

    /// Messages may be missing: what arrives is held until the head was compared.
    pub fn doubt(&mut self) {
        if self.state != FeedState::Opening {
            self.state = FeedState::Doubt;
        }
    }

    /// The link is lost. The next one may lead to another Redis, with other events under the same numbers.
    pub fn interrupt(&mut self) {
        self.handed.forget();
        self.forget();
    }

    /// Drops what was held, and makes every answer that is due void.
    fn forget(&mut self) {
        self.doubt();
        (self.reading, self.confirmed) = (None, None);
        (self.held, self.unheld) = (Vec::new(), None);
    }

    /// Takes a recorded message: from Redis, out of what was held, or from a read of the log.
    pub fn arrive(
        &mut self,
        topic: &Topic,
        id: EntryId,
        event: Option<Event>,
        at: u64,
        now: Instant,
    ) -> Arrival {
        let Some(head) = self.log.head().filter(|_| self.state == FeedState::Live) else {
            self.hold(id, event);
            return Arrival::Nothing;
        };
        if id.epoch < head.top.epoch || id.epoch != head.top.epoch && !self.log.is_new(id.epoch) {
            return Arrival::Earlier;
        }
        if id.epoch != head.top.epoch {
            let lineage = head.lineage.clone();
            self.replace(Head { lineage, top: id }, Reason::LogReplaced);
            return Arrival::Replaced(Reason::LogReplaced);
        }
        if id.seq <= head.top.seq {
            let differs = self.log.contradicts(id.seq, event.as_ref());
            return if differs { Arrival::Replaced(Reason::Invalid) } else { Arrival::Nothing };
        }
        if id.seq > head.top.seq + 1 && !mutant::is("contiguity") {
            let top = head.top;
            self.handed.tell(id);
            self.hold(id, event);
            self.state = FeedState::Filling;
            return Arrival::Read(top);
        }
        let frame = self.log.append(topic, (id, event), at, now);
        frame.map_or(Arrival::Invalid, Arrival::Deliver)
    }

    fn hold(&mut self, id: EntryId, event: Option<Event>) {
        if self.held.len() < HELD {
            self.held.push((id, event));
        } else if !mutant::is("unheld") {
            self.unheld = Some(id);
        }
    }

    /// The held messages, to arrive again, and the last one that there was no room for.
    pub fn release(&mut self) -> (Vec<LogEntry>, Option<EntryId>) {
        (std::mem::take(&mut self.held), self.unheld.take())
    }

    /// There is still one that there was no room for: more is missing before it.
    pub fn keep_unheld(&mut self, unheld: EntryId) {
        self.unheld.get_or_insert(unheld);
    }

    /// Whether the feed has this entry.
    pub fn has(&self, id: EntryId) -> bool {
        self.head().is_some_and(|head| head.top.epoch == id.epoch && id.seq <= head.top.seq)
    }

    /// Drops what the tail keeps without need.
    pub fn trim(&mut self, now: Instant) {
        self.log.tail().trim(now);
    }

    /// Keeps the whole tail until then, for sessions that will ask for it.
    pub fn keep_until(&mut self, until: Instant) {
        self.log.tail().keep_until(until);
    }

    /// How a session that was at `position` can be served. Only while the feed is live.
    pub fn resume(&mut self, position: &Position) -> Resumed {
        self.log.resume(position)
    }

    /// Takes a head that was asked for when the feed was at `asked`. If the feed has gone on since, the head is merely older.
    /// [`Arrival::Nothing`]: in step again.
    pub fn compare(&mut self, now: &Head, asked: Option<EntryId>, latest: Stamp) -> Arrival {
        if self.state == FeedState::Opening {
            return Arrival::Nothing;
        }
        match if self.log.is_older(now, asked) { Ok(true) } else { self.log.judge(now) } {
            Ok(true) => self.state = FeedState::Live,
            Ok(false) => {
                self.state = FeedState::Filling;
                self.handed.tell(now.top);
                self.confirmed = Some(latest);
                self.reading.iter_mut().for_each(|reading| reading.again = true);
                return Arrival::Read(self.head().map_or(now.top, |head| head.top));
            }
            Err(reason) => {
                self.replace(now.clone(), reason);
                self.confirmed = Some(latest);
                return Arrival::Replaced(reason);
            }
        }
        self.confirmed = Some(latest);
        Arrival::Nothing
    }

    /// A read of the log is asked for.
    pub fn asking(&mut self, stamp: Stamp) {
        let top = self.head().map(|head| head.top).unwrap_or_default();
        let heard = self.held.len();
        self.reading = Some(Reading { stamp, top, void: false, again: false, heard });
    }

    /// The read could not be made. Returns whether it is the one that is under way.
    pub fn give_up_reading(&mut self, stamp: Stamp) -> bool {
        let mine = self.reading.take_if(|reading| reading.stamp == stamp).is_some();
        if mine && self.state == FeedState::Filling {
            self.state = FeedState::Doubt;
        }
        mine
    }

    /// Takes in the read of the log from after number `asked`: entries before the tail extend it. The entries after the
    /// head are returned, to arrive; the verdict says what follows from the log as a whole, once they have.
    pub fn merge(
        &mut self,
        topic: &Topic,
        asked: u64,
        history: History,
        at: u64,
        now: Instant,
    ) -> (Vec<LogEntry>, Arrival) {
        let Some(reading) = self.reading.take() else { return (Vec::new(), Arrival::Nothing) };
        let Some(top) = self.head().map(|head| head.top) else { return (Vec::new(), Arrival::Nothing) };
        if reading.void {
            // The answer is of another log. If this one has a gap as well, it must be read itself.
            let gap = self.state == FeedState::Filling;
            return (Vec::new(), if gap { Arrival::Read(top) } else { Arrival::Nothing });
        }
        let end = history.head.top;
        match self.log.merge(topic, asked, history, reading.top, at, now) {
            Err((head, reason)) => {
                self.replace(head, reason);
                (Vec::new(), Arrival::Replaced(reason))
            }
            // The head is being compared: it will show what is missing, which may be more than was read here.
            Ok(_) if self.state == FeedState::Doubt => (Vec::new(), Arrival::Nothing),
            Ok(entries) => {
                self.state = FeedState::Live;
                let strays = !reading.again && drop_strays(&mut self.held, reading.heard, end);
                if strays {
                    self.handed.tell_strays(end);
                }
                let otherwise = if strays { Arrival::Invalid } else { Arrival::Nothing };
                (entries, if reading.again { Arrival::Earlier } else { otherwise })
            }
        }
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
