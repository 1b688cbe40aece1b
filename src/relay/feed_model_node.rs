//! A node with one feed, led as the switch leads it, with sessions that check what they receive.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use super::super::{Feed, Merged, Resumed, State, Step};
use super::{Happening, Redis, Session, event, lineage, number, receive, topic};
use crate::{
    bus::{Head, History},
    hub::Frame,
    protocol::{EntryId, Position, Reason},
};

/// Entries that the log and the tail keep at most, and a read fetches at least.
pub(super) const LONGEST: usize = 20;

/// A node with one feed, as the switch leads it.
pub(super) struct Node {
    redis: Redis,
    wire: VecDeque<(EntryId, Option<u64>)>,
    sent: Vec<(EntryId, Option<u64>)>,
    feed: Feed,
    held: Vec<(EntryId, Option<u64>)>,
    /// The read under way: from where, and what Redis has answered.
    read: Option<(u64, EntryId, Option<History>)>,
    /// More was found missing since it was asked for.
    again: bool,
    up: bool,
    /// Heads are to be compared on a link that is up.
    doubted: bool,
    /// Something has happened that only a look at the head will show, sooner or later.
    unseen: bool,
    now: Instant,
    sessions: Vec<Session>,
}

impl Node {
    pub(super) fn new() -> Self {
        let mut redis =
            Redis { lineage: 1, epoch: 100, first: 1, published: 0, histories: BTreeMap::default() };
        redis.entries();
        let mut feed = Feed::opening(LONGEST);
        feed.start(redis.head());
        Self {
            sessions: vec![Session::in_step(feed.position().unwrap())],
            redis,
            wire: VecDeque::new(),
            sent: Vec::new(),
            feed,
            held: Vec::new(),
            read: None,
            again: false,
            up: true,
            doubted: false,
            unseen: false,
            now: Instant::now(),
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        if happening.is_trouble() {
            for session in self.sessions.iter_mut().filter(|session| session.waiting.is_some()) {
                session.disturbed = true;
            }
        }
        match happening {
            Happening::Publish { good } => {
                let message = self.redis.publish(good);
                self.sent.push(message);
                // A node without a link hears nothing.
                if self.up {
                    self.wire.push_back(message);
                }
            }
            Happening::Arrive => {
                if let Some((id, entry)) = self.wire.pop_front() {
                    self.advance(id, entry);
                }
            }
            Happening::Lose { told } => {
                if self.wire.pop_front().is_some() {
                    if told {
                        self.doubt();
                    }
                    self.unseen |= !told;
                }
            }
            // Only what this lineage has sent: a new one begins with a new link.
            Happening::Repeat(back) => {
                if self.up && back < self.sent.len() {
                    let (id, entry) = self.sent[self.sent.len() - 1 - back];
                    self.advance(id, entry);
                }
            }
            Happening::Trim(kept) => {
                let top = self.redis.top().seq;
                self.redis.first = self.redis.first.max((top + 1).saturating_sub(kept as u64));
            }
            Happening::Replace { behind } => self.replace(behind),
            Happening::Interrupt { lost } => self.interrupt(lost),
            Happening::Doubt => self.doubt(),
            Happening::Back => self.back(),
            Happening::Answer => {
                if let Some((_, after, answer @ None)) = &mut self.read {
                    *answer = Some(self.redis.history(*after));
                }
            }
            Happening::Take => self.take_read(),
            Happening::Pass => {
                self.now += Duration::from_secs(40);
                self.feed.trim(self.now);
            }
            Happening::Resume { history, seq, beyond } => {
                let histories = &self.redis.histories;
                let (&(number, epoch), entries) = histories.iter().nth(history % histories.len()).unwrap();
                let disturbed = self.unseen || self.doubted || !self.up;
                let forged = beyond && seq > entries.len();
                let seq = if forged { seq } else { seq.min(entries.len()) } as u64;
                let place = Position { lineage: lineage(number), id: EntryId { epoch, seq } };
                self.sessions.push(Session { place, waiting: Some(0), forged, disturbed });
                self.join(self.sessions.len() - 1);
            }
        }
    }

    fn replace(&mut self, behind: bool) {
        let highest = self.redis.histories.keys().map(|(_, epoch)| *epoch).max().unwrap();
        let lowest = self.redis.histories.keys().map(|(_, epoch)| *epoch).min().unwrap();
        self.redis.epoch = if behind { lowest - 1 } else { highest + 1 };
        self.redis.first = 1;
        self.redis.entries();
        self.unseen = true;
    }

    fn interrupt(&mut self, lost: Option<usize>) {
        (self.up, self.doubted) = (false, false);
        self.wire.clear();
        self.held.clear();
        self.read = None;
        for reads in self.sessions.iter_mut().filter_map(|session| session.waiting.as_mut()) {
            *reads = 0;
        }
        self.feed.state = State::Doubt;
        if let Some(lost) = lost {
            let mut entries = self.redis.entries().clone();
            entries.truncate(entries.len().saturating_sub(lost));
            self.redis.lineage += 1;
            self.redis.first = self.redis.first.min(entries.len() as u64 + 1);
            *self.redis.entries() = entries;
            self.sent.clear();
        }
    }

    fn doubt(&mut self) {
        if self.up {
            self.doubted = true;
            if self.feed.state == State::Live {
                self.feed.state = State::Doubt;
            }
        }
    }

    fn back(&mut self) {
        if self.up && !self.doubted {
            return;
        }
        (self.up, self.doubted, self.unseen) = (true, false, false);
        let head = self.redis.head();
        match self.feed.compare(&head) {
            Ok(true) => {
                self.feed.state = State::Live;
                self.release();
            }
            Ok(false) => {
                self.again = self.read.is_some();
                self.fill();
            }
            Err(reason) => {
                self.feed.start(head);
                self.resync(reason, None);
                self.release();
            }
        }
        self.join_all();
    }

    fn fill(&mut self) {
        self.feed.state = State::Filling;
        let seq = self.feed.head().unwrap().top.seq;
        self.ask(seq);
    }

    fn ask(&mut self, seq: u64) {
        if self.read.is_none() {
            self.feed.asking();
            let EntryId { epoch, seq: top } = self.feed.head().unwrap().top;
            let seq = if seq < top { seq.min(top.saturating_sub(LONGEST as u64)) } else { seq };
            self.read = Some((seq, EntryId { epoch, seq }, None));
        }
    }

    fn take_read(&mut self) {
        if !self.read.as_ref().is_some_and(|(_, _, answer)| answer.is_some()) {
            return;
        }
        let (asked, _, Some(history)) = self.read.take().unwrap() else { return };
        let (before, read_head) = (self.feed.position().unwrap(), history.head.clone());
        let merged = self.feed.merge(&topic(), asked, history, 0, self.now);
        self.feed.keep_until(self.now + Duration::from_secs(15));
        match merged {
            Merged::Replaced(reason) => self.resync(reason, Some((before, read_head))),
            Merged::Forward(entries) => {
                self.feed.state = State::Live;
                for (id, event) in entries {
                    self.advance(id, event.map(|event| number(&event)));
                }
            }
        }
        self.release();
        if std::mem::take(&mut self.again) {
            self.fill();
        }
        self.join_all();
    }

    fn release(&mut self) {
        let (earlier, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(id, _)| self.feed.state == State::Live && self.feed.judge(*id) == Step::Earlier);
        for (id, entry) in held {
            self.advance(id, entry);
        }
        // One look at the log answers for all of them.
        if !earlier.is_empty() {
            self.doubt();
        }
    }

    fn advance(&mut self, id: EntryId, entry: Option<u64>) {
        if self.feed.state != State::Live {
            self.held.push((id, entry));
            return;
        }
        match self.feed.judge(id) {
            Step::Duplicate => {}
            Step::Next => {
                let frame = self.feed.append(&topic(), id, entry.map(event), 0, self.now);
                assert_eq!(frame.is_some(), entry.is_some());
                match frame {
                    Some(frame) => self.deliver(&frame),
                    None => self.resync(Reason::Invalid, None),
                }
            }
            Step::Gap => {
                self.held.push((id, entry));
                self.fill();
            }
            Step::Replaced => {
                let lineage = self.feed.head().unwrap().lineage.clone();
                self.feed.start(Head { lineage, top: id });
                self.resync(Reason::LogReplaced, None);
                self.join_all();
            }
            Step::Earlier => self.doubt(),
        }
    }

    fn deliver(&mut self, frame: &Frame) {
        let truth = &self.redis.histories;
        for session in self.sessions.iter_mut().filter(|session| session.waiting.is_none()) {
            let (lineage, id) = frame.position().unwrap();
            if (&session.place.lineage, session.place.id.epoch) == (lineage, id.epoch)
                && id.seq <= session.place.id.seq
            {
                continue;
            }
            receive(session, frame, truth);
        }
    }

    /// Everybody in step is told to refetch, from where the feed is now.
    fn resync(&mut self, reason: Reason, read: Option<(Position, Head)>) {
        if let (Reason::Trimmed, Some((before, head))) = (reason, read) {
            assert!(
                self.redis.first > before.id.seq + 1 || head.top != self.redis.top(),
                "nothing was trimmed"
            );
        }
        let place = self.feed.position().unwrap();
        for session in self.sessions.iter_mut().filter(|session| session.waiting.is_none()) {
            session.place = place.clone();
        }
    }

    fn join_all(&mut self) {
        for index in 0..self.sessions.len() {
            self.join(index);
        }
    }

    fn join(&mut self, index: usize) {
        let Some(reads) = self.sessions[index].waiting else { return };
        if self.feed.state != State::Live || !self.up {
            return;
        }
        let place = self.sessions[index].place.clone();
        let resumed = self.feed.resume(&place);
        let (reason, wanted) = match &resumed {
            Resumed::Read(seq) => (Reason::Gap, Some(*seq)),
            Resumed::Ahead => (Reason::LogReplaced, Some(self.feed.head().unwrap().top.seq)),
            Resumed::Resync(reason) => (*reason, None),
            Resumed::InStep | Resumed::Replay(_) => (Reason::Gap, None),
        };
        if wanted.is_some() && self.read.is_some() {
            return;
        }
        if let Some(seq) = wanted.filter(|_| reads < 2) {
            self.sessions[index].waiting = Some(reads + 1);
            self.ask(seq);
            return;
        }
        self.sessions[index].waiting = None;
        match resumed {
            Resumed::InStep => assert_eq!(Some(&place), self.feed.position().as_ref()),
            Resumed::Replay(replay) => {
                let (session, truth) = (&mut self.sessions[index], &self.redis.histories);
                for frame in replay.frames() {
                    receive(session, frame, truth);
                }
                assert_eq!(
                    Some(&session.place),
                    self.feed.position().as_ref(),
                    "a replay ends where the feed is"
                );
            }
            _ => {
                // What reason a forgery is told does not matter, but that it is told.
                let session = &self.sessions[index];
                if !(session.forged || session.disturbed && reason == Reason::Gap) {
                    self.justify(&place, reason);
                }
                self.sessions[index].place = self.feed.position().unwrap();
            }
        }
    }

    /// A session that comes back is told to refetch only for a reason that is true.
    fn justify(&self, place: &Position, reason: Reason) {
        let head = self.feed.head().unwrap();
        let same_lineage = place.lineage == head.lineage;
        let same = same_lineage && place.id.epoch == head.top.epoch;
        let here =
            |(number, epoch): &(u32, u64)| lineage(*number) == head.lineage && *epoch == head.top.epoch;
        let entries = self.redis.histories.iter().find(|(history, _)| here(history));
        let entries = entries.map_or(&[][..], |(_, entries)| entries.as_slice());
        let current = head.lineage == lineage(self.redis.lineage) && head.top.epoch == self.redis.epoch;
        let good = match reason {
            Reason::RedisChanged => !same_lineage,
            Reason::LogReplaced => same_lineage && (!same || place.id.seq > head.top.seq),
            Reason::Invalid => same && entries[place.id.seq as usize..].contains(&None),
            // What is missing is not there any more, and so cannot be read.
            Reason::Trimmed | Reason::Gap => same && (!current || self.redis.first > place.id.seq + 1),
            _ => false,
        };
        assert!(good, "{place} is told {reason:?} at {head:?}");
    }

    fn answer_all(&mut self) {
        // Each session that waits may want reads of its own, one after the other.
        for _ in 0..20 + 3 * self.sessions.len() {
            self.back();
            self.happen(Happening::Answer);
            self.happen(Happening::Take);
        }
    }

    /// The trouble ends: the link is back, the wire is empty, reads are answered, heads are compared.
    pub(super) fn settle(&mut self) {
        let unseen = self.unseen;
        while !self.wire.is_empty() {
            self.happen(Happening::Arrive);
        }
        self.answer_all();
        // A late message of a log that was replaced leads astray until the next event, or the next look.
        if unseen || self.feed.head().unwrap().top.epoch != self.redis.epoch {
            self.doubt();
            self.answer_all();
        }
        assert_eq!(self.feed.state, State::Live);
        assert_eq!(self.feed.head(), Some(&self.redis.head()));
        let end = self.feed.position().unwrap();
        for session in &self.sessions {
            assert!(session.waiting.is_none(), "still waiting: {session:?}");
            assert_eq!(session.place, end, "silently stale");
        }
    }
}
