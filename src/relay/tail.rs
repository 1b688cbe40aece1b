//! The tail of a log: a contiguous run of encoded entries that ends where the feed is.
//!
//! An event from pub/sub extends it forwards, a read of the log backwards; what it covers is replayed without asking Redis.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    hub::{Frame, Replay},
    mutant,
    protocol::Event,
};

/// Entries that the tail always keeps.
const SHORT: usize = 32;
/// How long the tail keeps more than that: sessions that come back may soon ask for it.
const FRESH: Duration = Duration::from_mins(1);

/// What the tail says to a session that has everything up to a number.
#[derive(Debug)]
pub(super) enum Covered {
    /// It lacks these.
    Replay(Replay),
    /// It lacks something that is not an event.
    Invalid,
    /// It lacks something that the log does not hold any more.
    Trimmed,
    /// It lacks something that is not in the tail.
    NotHere,
}

#[derive(Debug)]
struct Kept {
    seq: u64,
    /// `None` for what is not an event.
    frame: Option<Frame>,
    since: Instant,
}

/// The last entries of a log, encoded.
#[derive(Debug)]
pub(super) struct Tail {
    kept: VecDeque<Kept>,
    /// The log is known not to reach further back than this number.
    floor: u64,
    shared: Option<(u64, Arc<[Frame]>)>,
    until: Option<Instant>,
    longest: usize,
    bytes: usize,
}

impl Tail {
    /// An empty tail that never keeps more than `longest` entries, so that it does not reach further back than the log.
    pub(super) fn new(longest: usize) -> Self {
        Self { kept: VecDeque::new(), floor: 0, shared: None, until: None, longest, bytes: 0 }
    }

    /// Forgets everything: another log begins.
    pub(super) fn clear(&mut self) {
        *self = Self { until: self.until, ..Self::new(self.longest) };
    }

    /// Reads what the next event needs of it: where it ends, and what it will drop. The result means nothing.
    pub(super) fn touch(&self) -> u64 {
        let last = self.kept.back().map_or(0, |kept| kept.seq);
        let first = self.kept.front().and_then(|kept| kept.frame.as_ref());
        first.map_or(last, |frame| last.wrapping_add(frame.at()))
    }

    /// Bytes of the frames that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first number that is kept, where there is any.
    pub(super) fn first(&self) -> Option<u64> {
        self.kept.front().map(|kept| kept.seq)
    }

    /// Whether another event is kept under this number.
    pub(super) fn differs(&self, seq: u64, event: Option<&Event>) -> bool {
        let at = self.first().and_then(|first| seq.checked_sub(first));
        let kept = at.and_then(|at| self.kept.get(usize::try_from(at).ok()?));
        kept.is_some_and(|kept| {
            kept.frame.as_ref().map(Frame::event) != event.map(|event| event.json().as_ref())
        })
    }

    /// Adds the successor of the last entry.
    pub(super) fn push(&mut self, seq: u64, frame: Option<Frame>, now: Instant) {
        self.bytes += size(frame.as_ref());
        self.kept.push_back(Kept { seq, frame, since: now });
        self.shared = None;
        let asked_for = self.until.is_some_and(|until| until >= now);
        if self.kept.len() > if asked_for { self.longest } else { SHORT.min(self.longest) } {
            self.drop_first();
        }
    }

    /// Adds the entry before the first one.
    pub(super) fn push_front(&mut self, seq: u64, frame: Option<Frame>, now: Instant) {
        self.bytes += size(frame.as_ref());
        self.kept.push_front(Kept { seq, frame, since: now });
        self.shared = None;
    }

    /// The log does not reach further back than this.
    pub(super) fn raise_floor(&mut self, seq: u64) {
        self.floor = self.floor.max(seq);
    }

    /// Keeps everything until then, for sessions that will ask for it.
    pub(super) fn keep_until(&mut self, until: Instant) {
        self.until = Some(until);
    }

    /// Drops what is kept without need.
    pub(super) fn trim(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until >= now) {
            return;
        }
        self.until = None;
        while self.kept.len() > SHORT
            || self.kept.front().is_some_and(|kept| now.saturating_duration_since(kept.since) > FRESH)
        {
            self.drop_first();
        }
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
    }

    fn drop_first(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.bytes -= size(kept.frame.as_ref());
            self.shared = None;
        }
    }

    /// What a session lacks that has everything up to `seq`, which is before the end.
    pub(super) fn after(&mut self, seq: u64) -> Covered {
        if seq + 1 < self.floor {
            return Covered::Trimmed;
        }
        if self.kept.front().is_none_or(|kept| kept.seq > seq + 1) {
            return Covered::NotHere;
        }
        if self.kept.iter().rev().any(|kept| kept.frame.is_none() && kept.seq > seq) {
            return Covered::Invalid;
        }
        let (first, frames) = self.shared_frames();
        let skip = if mutant::is("filter") { 0 } else { (seq + 1 - first) as usize };
        Covered::Replay(Replay::new(Arc::clone(&frames), skip, frames.len()))
    }

    /// The frames after the last invalid entry, and the number of the first. Made once for all who ask.
    fn shared_frames(&mut self) -> (u64, Arc<[Frame]>) {
        if let Some((first, frames)) = &self.shared {
            return (*first, Arc::clone(frames));
        }
        let start = self.kept.iter().rposition(|kept| kept.frame.is_none()).map_or(0, |at| at + 1);
        let frames: Arc<[Frame]> =
            self.kept.iter().skip(start).filter_map(|kept| kept.frame.clone()).collect();
        let first = self.kept.get(start).map_or(0, |kept| kept.seq);
        self.shared = Some((first, Arc::clone(&frames)));
        (first, frames)
    }
}

fn size(frame: Option<&Frame>) -> usize {
    frame.map_or(0, |frame| frame.bytes().len())
}
