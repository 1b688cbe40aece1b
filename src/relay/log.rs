//! What a node has of one topic's log: where it ends, and its tail.
//!
//! Pure. It says what a head or a read of the log shows, and what somebody lacks who comes back.

use std::time::Instant;

use super::tail::{Covered, Tail};
use crate::{
    bus::{Head, History},
    hub::{Frame, Replay},
    mutant,
    protocol::{EntryId, Event, Lineage, Position, Reason, Topic},
};

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
    /// It comes from a log of another epoch. Which of the two is the present one the log itself must say: another node may
    /// have seen sooner that it was replaced, and a Redis whose clock is behind gives it an earlier epoch.
    OtherEpoch,
    /// It must refetch.
    Resync(Reason),
}

/// A recorded message; `None` for what is not an event.
pub type LogEntry = (EntryId, Option<Event>);

/// Drops held messages that came before the log was read (the first `heard` of them) and still lie beyond its `end`: somebody has
/// published them by hand, and no read will ever bring what comes before them. Returns whether there were any.
pub(super) fn drop_strays(held: &mut Vec<LogEntry>, heard: usize, end: EntryId) -> bool {
    let (before, mut at) = (held.len(), 0);
    held.retain(|(id, _)| {
        at += 1;
        at > heard || id.epoch != end.epoch || id.seq <= end.seq
    });
    held.len() < before
}

/// The end of a log as a node knows it, and the entries before it.
#[derive(Debug)]
pub(super) struct Log {
    head: Option<Head>,
    /// The latest epoch that was known of the topic.
    latest: u64,
    tail: Tail,
}

impl Log {
    /// A log that is not known yet. `longest`: entries that the tail keeps at most.
    pub(super) fn unknown(longest: usize) -> Self {
        Self { head: None, latest: 0, tail: Tail::new(longest) }
    }

    /// The last entry, and its lineage.
    pub(super) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The tail, to trim it or to keep it.
    pub(super) fn tail(&mut self) -> &mut Tail {
        &mut self.tail
    }

    /// See [`Tail::touch`].
    pub(super) fn touch(&self) -> u64 {
        self.latest.wrapping_add(self.tail.touch())
    }

    /// Bytes of the frames that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.tail.bytes()
    }

    /// Starts (anew) at the end of a log.
    pub(super) fn start(&mut self, head: Head) {
        self.tail.clear();
        self.latest = self.latest.max(head.top.epoch);
        self.head = Some(head);
    }

    /// Whether an epoch is later than any that was known of the topic: then its log is a new one. Any other epoch but the present
    /// one may be that of a log before: a log that a Redis whose clock is behind has opened has an earlier epoch than that.
    pub(super) fn is_new(&self, epoch: u64) -> bool {
        epoch > self.latest || mutant::is("late-epoch")
    }

    /// Takes the successor of the last entry. Returns the encoded frame, `None` for what is not an event.
    pub(super) fn append(
        &mut self,
        topic: &Topic,
        (id, event): LogEntry,
        at: u64,
        now: Instant,
    ) -> Option<Frame> {
        let head = self.head.as_mut()?;
        head.top = id;
        let lineage = head.lineage.clone();
        let frame = event.map(|event| Frame::new(topic.clone(), Some((lineage, id)), at, &event));
        self.tail.push(id.seq, frame.clone(), now);
        frame
    }

    /// Whether the tail has another event under this number. Then none of it can be trusted: it is dropped, and whoever comes back
    /// is answered by the log itself.
    pub(super) fn contradicts(&mut self, seq: u64, event: Option<&Event>) -> bool {
        let contradicts = self.tail.differs(seq, event);
        if contradicts {
            self.tail.clear();
        }
        contradicts
    }

    /// How a session that was at `position` can be served. Only while the feed is live.
    pub(super) fn resume(&mut self, position: &Position) -> Resumed {
        let Some(head) = &self.head else { return Resumed::Resync(Reason::Gap) };
        if position.lineage != head.lineage && !mutant::is("lineage") {
            return Resumed::Resync(Reason::RedisChanged);
        }
        if position.id.epoch != head.top.epoch {
            return Resumed::OtherEpoch;
        }
        let seq = position.id.seq;
        if seq == head.top.seq {
            return Resumed::InStep;
        }
        if seq > head.top.seq {
            return Resumed::Ahead;
        }
        match self.tail.after(seq) {
            Covered::Replay(replay) => Resumed::Replay(replay),
            Covered::Invalid => Resumed::Resync(Reason::Invalid),
            Covered::Trimmed => Resumed::Resync(Reason::Trimmed),
            Covered::NotHere => Resumed::Read(seq),
        }
    }

    /// Compares with a head. `Ok(true)`: nothing is missing; `Ok(false)`: the log must be read; an error: it is another log.
    pub(super) fn judge(&self, now: &Head) -> Result<bool, Reason> {
        let Some(head) = &self.head else { return Err(Reason::Gap) };
        if now.lineage != head.lineage && !mutant::is("lineage") {
            return Err(Reason::RedisChanged);
        }
        if now.top.epoch != head.top.epoch {
            return Err(Reason::LogReplaced);
        }
        // A log never shrinks: what came beyond its end was published by hand, and never in it.
        if now.top.seq < head.top.seq {
            return Err(Reason::Invalid);
        }
        Ok(now.top.seq == head.top.seq)
    }

    /// Whether a head that was asked for when the last entry was `asked` is older than what has come since. `asked` is `None` if
    /// nothing was known of the log then.
    pub(super) fn is_older(&self, now: &Head, asked: Option<EntryId>) -> bool {
        let Some(head) = self.head.as_ref().filter(|head| head.lineage == now.lineage) else { return false };
        match asked {
            Some(asked) if asked.epoch == head.top.epoch => self.overtook(now, asked),
            // All that is known of this log came after the question.
            _ if now.top.epoch == head.top.epoch => now.top.seq <= head.top.seq,
            _ => asked.is_some_and(|asked| asked.epoch == now.top.epoch),
        }
    }

    /// Whether newer messages came while the log was read: then the answer shows nothing new.
    fn overtook(&self, read: &Head, asked: EntryId) -> bool {
        let Some(head) = &self.head else { return false };
        let same =
            read.lineage == head.lineage && read.top.epoch == head.top.epoch && asked.epoch == read.top.epoch;
        same && (asked.seq..head.top.seq).contains(&read.top.seq)
    }

    /// Takes in a read of the log from after number `asked`, made when this was at `top`: entries before the tail extend
    /// it, those after the head are returned.
    pub(super) fn merge(
        &mut self,
        topic: &Topic,
        asked: u64,
        history: History,
        top: EntryId,
        at: u64,
        now: Instant,
    ) -> Result<Vec<LogEntry>, (Head, Reason)> {
        let overtaken = self.overtook(&history.head, top);
        if let Err(reason) = self.judge(&history.head)
            && !overtaken
        {
            return Err((history.head, reason));
        }
        let Some(head) = self.head.clone() else { return Err((history.head, Reason::Gap)) };
        let before = self.tail.first().unwrap_or(head.top.seq + 1);
        let (mut back, mut forward) = (Vec::new(), Vec::new());
        let mut first = None;
        for (id, event) in history.entries {
            if id.epoch != head.top.epoch {
                continue;
            }
            first.get_or_insert(id.seq);
            if id.seq < before {
                back.push((id, event.ok()));
            } else if id.seq > head.top.seq {
                forward.push((id, event.ok()));
            } else if !overtaken && self.tail.differs(id.seq, event.as_ref().ok()) {
                return Err((history.head, Reason::Invalid));
            }
        }
        // All that the log has was asked for: it begins with the first entry. That holds where the tail has gone on meanwhile, too.
        if let Some(first) = first.filter(|first| *first > asked + 1) {
            self.tail.raise_floor(first.min(before));
        }
        let reached = self.extend_back(topic, &head.lineage, back, before, at, now);
        // A read that ends before the tail begins says nothing of what lies between.
        if reached > asked + 1 && history.head.top.seq + 1 >= before {
            self.tail.raise_floor(reached);
        }
        if overtaken {
            return Ok(forward);
        }
        let expected = forward.iter().zip(head.top.seq + 1..).all(|((id, _), seq)| id.seq == seq);
        if !expected || forward.len() as u64 != history.head.top.seq - head.top.seq {
            return Err((history.head, Reason::Trimmed));
        }
        Ok(forward)
    }

    fn extend_back(
        &mut self,
        topic: &Topic,
        lineage: &Lineage,
        mut back: Vec<LogEntry>,
        before: u64,
        at: u64,
        now: Instant,
    ) -> u64 {
        let mut next = before;
        while let Some((id, event)) = back.pop() {
            if id.seq + 1 != next {
                break;
            }
            let frame = event.map(|event| Frame::new(topic.clone(), Some((lineage.clone(), id)), at, &event));
            self.tail.push_front(id.seq, frame, now);
            next = id.seq;
        }
        next
    }
}
