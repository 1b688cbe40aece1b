//! A feed: what a node knows of one topic's log. Pure: values in, verdicts out, no clock but the one it is given.
//!
//! The tail is a contiguous run of encoded entries that ends at the feed's head. A live event extends it forwards, a read
//! of the log backwards; what it covers is replayed without asking Redis. Must not know sessions.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    bus::{Head, History},
    hub::{Frame, Replay},
    mutant,
    protocol::{EntryId, Event, Lineage, Position, Reason, Topic},
};

/// Entries that the tail keeps without need.
const SHORT: usize = 32;
/// How long the tail keeps an entry that may soon be asked for.
const FRESH: Duration = Duration::from_mins(1);

/// Whether a feed can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not yet subscribed, or its head is not yet known.
    Opening,
    /// In step with the wire.
    Live,
    /// The log is being read to close a gap; what arrives is held.
    Filling,
    /// The link was interrupted: its head must be compared; what arrives is held.
    Doubt,
}

/// The verdict on a recorded message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The successor of the last one.
    Next,
    /// Known already.
    Duplicate,
    /// Something is missing before it.
    Gap,
    /// Of another epoch: the log was replaced.
    Replaced,
    /// Of an epoch before: late, or the log was replaced by a master whose clock is behind.
    Earlier,
}

/// How a session that comes back can be served.
#[derive(Debug)]
pub enum Resumed {
    /// It has everything.
    InStep,
    /// It lacks these.
    Replay(Replay),
    /// The log must be read from after this number.
    Read(u64),
    /// It has been further than this feed is: the log must be read forwards.
    Ahead,
    /// It must refetch.
    Resync(Reason),
}

/// What reading the log has shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Merged {
    /// These follow the feed's last entry, in order; `None` for what is not an event.
    Forward(Vec<(EntryId, Option<Event>)>),
    /// The feed starts anew at the log's end, and everybody must refetch.
    Replaced(Reason),
}

#[derive(Debug)]
struct Kept {
    seq: u64,
    frame: Option<Frame>,
    since: Instant,
}

/// What a node knows of one topic's log.
#[derive(Debug)]
pub struct Feed {
    /// Whether it can be relied on.
    pub state: State,
    head: Option<Head>,
    /// Number of the last entry that came by the wire itself, in the head's epoch.
    wire: u64,
    tail: VecDeque<Kept>,
    /// The log is known not to reach further back than this number.
    floor: u64,
    shared: Option<(u64, Arc<[Frame]>)>,
    read_until: Option<Instant>,
    longest: usize,
    /// The head when the read of the log that is under way was asked for.
    asked: Option<EntryId>,
    /// The feed has started anew since: the read is one of another log, and may be older than what is known of this.
    void: bool,
}

impl Feed {
    /// A feed that is being opened.
    /// `longest`: entries that the tail keeps at most (`log.length`), so that it never reaches further back than the log.
    pub fn opening(longest: usize) -> Self {
        Self {
            longest,
            state: State::Opening,
            head: None,
            wire: 0,
            tail: VecDeque::new(),
            floor: 0,
            shared: None,
            read_until: None,
            asked: None,
            void: false,
        }
    }

    /// The last entry that the feed has, and its lineage.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The feed's position.
    pub fn position(&self) -> Option<Position> {
        self.head.as_ref().map(|head| Position { lineage: head.lineage.clone(), id: head.top })
    }

    /// Starts (anew) at the end of a log.
    pub fn start(&mut self, head: Head) {
        self.wire = 0;
        self.tail = VecDeque::new();
        self.floor = 0;
        self.shared = None;
        self.void |= self.asked.take().is_some();
        self.head = Some(head);
        self.state = State::Live;
    }

    /// The verdict on a recorded message.
    pub fn judge(&self, id: EntryId) -> Step {
        let Some(head) = &self.head else { return Step::Gap };
        if id.epoch != head.top.epoch {
            return if id.epoch < head.top.epoch { Step::Earlier } else { Step::Replaced };
        }
        match id.seq {
            seq if seq <= head.top.seq => Step::Duplicate,
            seq if seq == head.top.seq + 1 || mutant::is("contiguity") => Step::Next,
            _ => Step::Gap,
        }
    }

    /// Whether a message has come by the wire for the first time. Backfilling may have brought it already.
    pub fn first_on_wire(&mut self, id: EntryId) -> bool {
        let known = self.head.as_ref().is_some_and(|head| head.top.epoch == id.epoch && id.seq <= self.wire);
        if !known {
            self.wire = id.seq;
        }
        !known
    }

    /// Takes the successor of the last entry; `None` for what is not an event. Returns the encoded frame.
    pub fn append(
        &mut self,
        topic: &Topic,
        id: EntryId,
        event: Option<Event>,
        at: u64,
        now: Instant,
    ) -> Option<Frame> {
        let head = self.head.as_mut()?;
        head.top = id;
        let lineage = head.lineage.clone();
        let frame = event.map(|event| Frame::new(topic.clone(), Some((lineage, id)), at, event));
        self.tail.push_back(Kept { seq: id.seq, frame: frame.clone(), since: now });
        self.shared = None;
        let asked_for = self.read_until.is_some_and(|until| until >= now);
        if self.tail.len() > if asked_for { self.longest } else { SHORT.min(self.longest) } {
            self.tail.pop_front();
        }
        frame
    }

    /// Drops what the tail keeps without need.
    pub fn trim(&mut self, now: Instant) {
        if self.read_until.is_some_and(|until| until >= now) {
            return;
        }
        self.read_until = None;
        while self.tail.len() > SHORT
            || self.tail.front().is_some_and(|kept| now.duration_since(kept.since) > FRESH)
        {
            self.tail.pop_front();
            self.shared = None;
        }
        if self.tail.is_empty() {
            self.tail = VecDeque::new();
        }
    }

    /// Keeps the whole tail until then, for sessions that will ask for it.
    pub fn keep_until(&mut self, until: Instant) {
        self.read_until = Some(until);
    }

    /// How a session that was at `position` can be served. Only while the feed is live.
    pub fn resume(&mut self, position: &Position) -> Resumed {
        let Some(head) = self.head.clone() else { return Resumed::Resync(Reason::Gap) };
        if position.lineage != head.lineage && !mutant::is("lineage") {
            return Resumed::Resync(Reason::RedisChanged);
        }
        if position.id.epoch > head.top.epoch {
            // Another node may have seen sooner that the log was replaced.
            return Resumed::Ahead;
        }
        if position.id.epoch != head.top.epoch {
            return Resumed::Resync(Reason::LogReplaced);
        }
        let seq = position.id.seq;
        if seq == head.top.seq {
            return Resumed::InStep;
        }
        if seq > head.top.seq {
            return Resumed::Ahead;
        }
        if seq + 1 < self.floor {
            return Resumed::Resync(Reason::Trimmed);
        }
        if self.tail.front().is_none_or(|kept| kept.seq > seq + 1) {
            return Resumed::Read(seq);
        }
        if self.tail.iter().rev().any(|kept| kept.frame.is_none() && kept.seq > seq) {
            return Resumed::Resync(Reason::Invalid);
        }
        let (first, frames) = self.shared_frames();
        let skip = if mutant::is("filter") { 0 } else { (seq + 1 - first) as usize };
        Resumed::Replay(Replay::new(Arc::clone(&frames), skip, frames.len()))
    }

    /// The frames after the last invalid entry, and the number of the first. Made once for all who ask.
    fn shared_frames(&mut self) -> (u64, Arc<[Frame]>) {
        if let Some((first, frames)) = &self.shared {
            return (*first, Arc::clone(frames));
        }
        let start = self.tail.iter().rposition(|kept| kept.frame.is_none()).map_or(0, |at| at + 1);
        let frames: Arc<[Frame]> =
            self.tail.iter().skip(start).filter_map(|kept| kept.frame.clone()).collect();
        let first = self.tail.get(start).map_or(0, |kept| kept.seq);
        self.shared = Some((first, Arc::clone(&frames)));
        (first, frames)
    }

    /// After an interruption: what the log's head says of the feed. `Ok(true)` where nothing is missing, `Ok(false)`
    /// where the log must be read.
    pub fn compare(&self, now: &Head) -> Result<bool, Reason> {
        let Some(head) = &self.head else { return Err(Reason::Gap) };
        if now.lineage != head.lineage && !mutant::is("lineage") {
            return Err(Reason::RedisChanged);
        }
        if now.top.epoch != head.top.epoch || now.top.seq < head.top.seq {
            return Err(Reason::LogReplaced);
        }
        Ok(now.top.seq == head.top.seq)
    }

    /// As [`Feed::compare`], for a head that was asked for when the feed was at `asked`: the feed may have gone on by the
    /// wire or by a read since, and then the head is merely older.
    pub fn compare_since(&self, now: &Head, asked: Option<EntryId>) -> Result<bool, Reason> {
        if let (Some(asked), Some(head)) = (asked, &self.head) {
            let started_anew = asked.epoch != head.top.epoch && asked.epoch == now.top.epoch;
            if now.lineage == head.lineage && (started_anew || self.overtook(now, Some(asked))) {
                return Ok(true);
            }
        }
        self.compare(now)
    }

    /// A read of the log is asked for: what it answers is not older than the feed is now.
    pub fn asking(&mut self) {
        self.void = false;
        self.asked = self.head.as_ref().map(|head| head.top);
    }

    /// Whether the feed has gone on by the wire while its log was read: then the read shows what was, and nothing new.
    fn overtook(&self, read: &Head, asked: Option<EntryId>) -> bool {
        let (Some(asked), Some(head)) = (asked, &self.head) else { return false };
        let same =
            read.lineage == head.lineage && read.top.epoch == head.top.epoch && asked.epoch == read.top.epoch;
        same && (asked.seq..head.top.seq).contains(&read.top.seq)
    }

    /// Takes in a read of the log from after number `asked`: entries before the tail extend it, entries after the head
    /// are returned.
    pub fn merge(&mut self, topic: &Topic, asked: u64, history: History, at: u64, now: Instant) -> Merged {
        if std::mem::take(&mut self.void) {
            return Merged::Forward(Vec::new());
        }
        let asked_at = self.asked.take();
        let overtaken = self.overtook(&history.head, asked_at);
        if let Err(reason) = self.compare(&history.head)
            && !overtaken
        {
            self.start(history.head);
            return Merged::Replaced(reason);
        }
        let Some(head) = self.head.clone() else { return Merged::Replaced(Reason::Gap) };
        let before = self.tail.front().map_or(head.top.seq + 1, |kept| kept.seq);
        let mut back = Vec::new();
        let mut forward = Vec::new();
        for (id, event) in history.entries {
            if id.epoch != head.top.epoch {
                continue;
            }
            if id.seq < before {
                back.push((id, event.ok()));
            } else if id.seq > head.top.seq {
                forward.push((id, event.ok()));
            }
        }
        let reached = self.extend_back(topic, &head.lineage, back, before, at, now);
        // A read that ends before the tail begins says nothing of what lies between.
        if reached > asked + 1 && history.head.top.seq + 1 >= before {
            self.floor = self.floor.max(reached);
        }
        if overtaken {
            return Merged::Forward(forward);
        }
        let expected = forward.iter().zip(head.top.seq + 1..).all(|((id, _), seq)| id.seq == seq);
        if !expected || forward.len() as u64 != history.head.top.seq - head.top.seq {
            self.start(history.head);
            return Merged::Replaced(Reason::Trimmed);
        }
        Merged::Forward(forward)
    }

    fn extend_back(
        &mut self,
        topic: &Topic,
        lineage: &Lineage,
        mut back: Vec<(EntryId, Option<Event>)>,
        before: u64,
        at: u64,
        now: Instant,
    ) -> u64 {
        let mut next = before;
        while let Some((id, event)) = back.pop() {
            if id.seq + 1 != next {
                break;
            }
            let frame = event.map(|event| Frame::new(topic.clone(), Some((lineage.clone(), id)), at, event));
            self.tail.push_front(Kept { seq: id.seq, frame, since: now });
            next = id.seq;
        }
        self.shared = None;
        next
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "feed_model.rs"]
mod model;
