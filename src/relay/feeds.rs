//! All feeds of a node: which of them are behind, which cannot be followed at the moment, and whose logs are read.
//!
//! At most one read per log is under way, whoever waits for it, and at most [`READS`] in all: that bounds what a lost link
//! costs.

mod by_area;
mod opening;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

pub(super) use self::opening::Opened;
use super::{
    area_progress::EarlyProgress,
    behind::BehindRooms,
    feed::{Arrival, Feed, FeedState},
    log::{LogEntry, Resumed},
    question::{Question, Questions, Stamp},
};
use crate::{
    bus::{BusError, Head, History},
    hub::RoomId,
    protocol::{EntryId, Lineage, Position, Reason, Subject, Topic},
};

/// Entries that a read fetches at least, where the log has them: what one session lacks others will lack as well.
const LOOKBACK: usize = 1000;
/// How long what was read is kept for sessions that come next.
const KEEP: Duration = Duration::from_secs(15);
/// Bytes of frames that all feeds keep; beyond them a read fetches only what is asked for.
const KEPT: usize = 64 << 20;
/// Reads of logs under way at the same time.
const READS: usize = 32;

/// Why the last question about a feed failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// For this topic alone, at the moment: other topics need not wait for it.
    Alone,
    /// For this topic alone, and it will not change soon: sessions need not wait for it either.
    Refused,
    /// For all topics: Redis was away, or refuses everything at the moment.
    WithOthers,
}

/// A read of a log that is still to be asked for.
#[derive(Debug)]
struct Wanted {
    topic: Topic,
    /// From after this number; `None`: from where the feed is.
    from: Option<u64>,
}

/// A read of a log that was made.
#[derive(Debug)]
pub(super) struct Read<'a> {
    /// The log.
    pub(super) topic: &'a Topic,
    /// The number after which it was read.
    pub(super) after: u64,
    /// The question.
    pub(super) stamp: Stamp,
}

/// All feeds, by room.
#[derive(Debug)]
pub(super) struct Feeds {
    by_room: FxHashMap<RoomId, Feed>,
    /// Those of the node's canary.
    own: BTreeSet<RoomId>,
    /// Feeds that are not live.
    behind: BehindRooms,
    /// Feeds whose last question failed.
    failed: BTreeMap<RoomId, Failed>,
    wanted: BTreeMap<RoomId, Wanted>,
    reads: BTreeSet<Stamp>,
    /// What the wire may still bring of topics that have no feed any more.
    early: EarlyProgress,
    /// Bytes of frames, counted now and then.
    kept: usize,
    /// `log.length`.
    longest: usize,
    /// The lineage of the last head that was read over this link.
    lineage: Option<Lineage>,
}

impl Feeds {
    /// No feeds. `longest`: entries that a log keeps at least (`log.length`).
    pub(super) fn new(longest: usize) -> Self {
        Self {
            by_room: FxHashMap::default(),
            own: BTreeSet::new(),
            behind: BehindRooms::default(),
            failed: BTreeMap::new(),
            wanted: BTreeMap::new(),
            reads: BTreeSet::new(),
            early: EarlyProgress::default(),
            kept: 0,
            longest,
            lineage: None,
        }
    }

    /// A feed.
    pub(super) fn get(&self, room: RoomId) -> Option<&Feed> {
        self.by_room.get(&room)
    }

    /// How many there are that sessions follow.
    pub(super) fn len(&self) -> usize {
        self.by_room.len() - self.own.len()
    }

    /// All rooms that have a feed.
    pub(super) fn rooms(&self) -> impl Iterator<Item = RoomId> {
        self.by_room.keys().copied()
    }

    /// Feeds that are not live, in the order of their rooms.
    pub(super) fn behind(&self) -> impl Iterator<Item = RoomId> {
        self.behind.iter()
    }

    /// Feeds that have become live since the last call.
    pub(super) fn take_caught_up(&mut self) -> BTreeSet<RoomId> {
        self.behind.take_caught_up()
    }

    /// Whether a room's feed can be relied on; a room without one lacks nothing.
    pub(super) fn is_live(&self, room: RoomId) -> bool {
        self.by_room.get(&room).is_none_or(Feed::is_live)
    }

    /// Whether its last question failed: the next answer may take long, and nobody should wait for it.
    pub(super) fn has_failed(&self, room: RoomId) -> bool {
        self.failed.contains_key(&room)
    }

    /// Whether Redis refuses it, and will do so for a while.
    pub(super) fn is_refused(&self, room: RoomId) -> bool {
        self.failed.get(&room) == Some(&Failed::Refused)
    }

    /// Feeds that are live, but whose log could not be read for somebody.
    pub(super) fn unread(&self) -> Vec<RoomId> {
        self.failed.keys().copied().filter(|room| self.is_live(*room)).collect()
    }

    /// Whether all feeds are in step but those that are opened for the first time (only who waits for them is concerned) and those
    /// that Redis refuses alone.
    pub(super) fn are_live(&self) -> bool {
        let opening = |room: &RoomId| self.get(*room).is_none_or(|feed| feed.state() == FeedState::Opening);
        self.behind.iter().all(|room| {
            opening(&room) || matches!(self.failed.get(&room), Some(Failed::Alone | Failed::Refused))
        })
    }

    /// The feed's position.
    pub(super) fn position(&self, room: RoomId) -> Option<Position> {
        self.by_room.get(&room)?.position()
    }

    /// Forgets a room.
    pub(super) fn close(&mut self, room: RoomId, subject: &Subject) {
        if let (Some(mut feed), Subject::Topic(topic)) = (self.by_room.remove(&room), subject) {
            self.early.leave(topic, feed.handed());
        }
        self.own.remove(&room);
        self.behind.forget(room);
        self.failed.remove(&room);
        self.wanted.remove(&room);
    }

    /// Takes a recorded message of a room that has a feed.
    pub(super) fn arrive(
        &mut self,
        room: RoomId,
        topic: &Topic,
        (id, event): LogEntry,
        at: u64,
        now: Instant,
    ) -> Arrival {
        let Some(feed) = self.by_room.get_mut(&room) else { return Arrival::Nothing };
        let arrival = feed.arrive(topic, id, event, at, now);
        if matches!(arrival, Arrival::Read(_)) {
            self.behind.extend([room]);
        }
        arrival
    }

    /// A probe has come back, behind all messages that were published before it.
    pub(super) fn prove(&mut self) {
        self.early.prove();
    }

    /// See [`super::tail::Tail::touch`].
    pub(super) fn touch(&self, room: RoomId) -> u64 {
        self.by_room.get(&room).map_or(0, Feed::touch)
    }

    /// Whether the room's head was compared over this link: then its log is the one whose messages come.
    pub(super) fn is_proven(&self, room: RoomId) -> bool {
        self.get(room).is_some_and(|feed| feed.confirmed().is_some())
    }

    /// The last entry of a feed.
    pub(super) fn top(&self, room: RoomId) -> Option<EntryId> {
        self.by_room.get(&room)?.head().map(|head| head.top)
    }

    /// See [`Feed::release`].
    pub(super) fn release(&mut self, room: RoomId) -> (Vec<LogEntry>, Option<EntryId>) {
        let live = self.by_room.get_mut(&room).filter(|feed| feed.is_live());
        live.map(Feed::release).unwrap_or_default()
    }

    /// See [`Feed::keep_unheld`].
    pub(super) fn keep_unheld(&mut self, room: RoomId, unheld: EntryId) {
        if let Some(feed) = self.by_room.get_mut(&room) {
            feed.keep_unheld(unheld);
        }
    }

    /// How a session that was at `position` can be served.
    pub(super) fn resume(&mut self, room: RoomId, position: &Position) -> Option<Resumed> {
        Some(self.by_room.get_mut(&room)?.resume(position))
    }

    /// Messages of a room may be missing.
    pub(super) fn doubt(&mut self, room: RoomId) {
        if let Some(feed) = self.by_room.get_mut(&room) {
            feed.doubt();
            self.behind.extend([room]);
        }
    }

    /// The link is lost.
    pub(super) fn interrupt(&mut self) {
        self.behind.extend(self.by_room.keys().copied());
        self.by_room.values_mut().for_each(Feed::interrupt);
        self.failed.clear();
        self.wanted.clear();
        self.reads.clear();
        self.early.interrupt();
        self.lineage = None;
    }

    /// Takes a head that was asked for when the feed was at `asked`.
    pub(super) fn compare(
        &mut self,
        room: RoomId,
        head: &Head,
        asked: Option<EntryId>,
        latest: Stamp,
    ) -> Arrival {
        let Some(feed) = self.by_room.get_mut(&room) else { return Arrival::Nothing };
        let arrival = feed.compare(head, asked, latest);
        if matches!(arrival, Arrival::Nothing) && feed.is_live() {
            feed.explain();
        }
        self.lineage = Some(head.lineage.clone());
        self.failed.remove(&room);
        self.settle(room);
        arrival
    }

    /// A whole area was subscribed to again.
    pub(super) fn follow_again(&mut self, room: RoomId, latest: Stamp) {
        if let Some(feed) = self.by_room.get_mut(&room).filter(|feed| feed.state() != FeedState::Opening) {
            feed.open(None, latest);
        }
        self.settle(room);
    }

    /// A log begins anew where this head is.
    pub(super) fn restart(&mut self, room: RoomId, head: Head, reason: Reason) {
        if let Some(feed) = self.by_room.get_mut(&room) {
            feed.replace(head, reason);
        }
        self.settle(room);
    }

    fn settle(&mut self, room: RoomId) {
        if self.is_live(room) {
            self.behind.catch_up(room);
            self.failed.remove(&room);
        } else {
            self.behind.extend([room]);
        }
    }

    /// A log is to be read: from after a number, or from where the feed is.
    pub(super) fn want(&mut self, room: RoomId, topic: &Topic, from: Option<u64>) {
        let wanted = self.wanted.entry(room).or_insert_with(|| Wanted { topic: topic.clone(), from });
        wanted.from = match (wanted.from, from) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// Whether a log is being read, or is about to be.
    pub(super) fn is_reading(&self, room: RoomId) -> bool {
        self.wanted.contains_key(&room) || self.by_room.get(&room).is_some_and(Feed::is_reading)
    }

    /// Asks for as many of the wanted reads as may be under way. Returns how many.
    pub(super) fn ask(&mut self, questions: &mut Questions) -> u64 {
        let (mut asked, mut later) = (0, Vec::new());
        while self.reads.len() < READS
            && let Some((room, wanted)) = self.wanted.pop_first()
        {
            let Some(feed) = self.by_room.get_mut(&room) else { continue };
            if feed.is_reading() {
                later.push((room, wanted));
                continue;
            }
            if wanted.from.is_none() && feed.is_live() {
                // Another read has shown it.
                continue;
            }
            let Some(top) = feed.head().map(|head| head.top) else { continue };
            let lookback = if self.kept < KEPT { self.longest.min(LOOKBACK) as u64 } else { 0 };
            let seq = match wanted.from {
                Some(seq) if seq < top.seq => seq.min(top.seq.saturating_sub(lookback)),
                _ => top.seq,
            };
            let after = EntryId { epoch: top.epoch, seq };
            let stamp = questions.ask(Question::Read { topic: wanted.topic, after });
            feed.asking(stamp);
            self.reads.insert(stamp);
            asked += 1;
        }
        self.wanted.extend(later);
        asked
    }

    /// Takes in a read of a log; `None` where nobody waits for it any more.
    pub(super) fn take_read(
        &mut self,
        room: RoomId,
        read: &Read<'_>,
        history: History,
        at: u64,
        now: Instant,
    ) -> Option<(Vec<LogEntry>, Arrival)> {
        if !self.reads.remove(&read.stamp) {
            return None;
        }
        let feed = self.by_room.get_mut(&room).filter(|feed| feed.reads(read.stamp))?;
        let before = feed.bytes();
        let merged = feed.merge(read.topic, read.after, history, at, now);
        self.kept = (self.kept + feed.bytes()).saturating_sub(before);
        feed.keep_until(now + KEEP);
        self.failed.remove(&room);
        self.settle(room);
        Some(merged)
    }

    /// A log was read that nobody follows any more.
    pub(super) fn forget_read(&mut self, stamp: Stamp) {
        self.reads.remove(&stamp);
    }

    /// A log could not be read; whether somebody waits for it.
    pub(super) fn give_up_reading(&mut self, room: RoomId, stamp: Stamp, error: &BusError) -> bool {
        if !self.reads.remove(&stamp) {
            return false;
        }
        let mine = self.by_room.get_mut(&room).is_some_and(|feed| feed.give_up_reading(stamp));
        if mine {
            self.fail(room, error);
        }
        mine
    }

    /// Drops what is kept without need.
    pub(super) fn trim(&mut self, now: Instant) {
        self.kept = 0;
        for feed in self.by_room.values_mut() {
            feed.trim(now);
            self.kept += feed.bytes();
        }
    }

    /// The lineage of the last head that was read over this link.
    pub(super) fn lineage(&self) -> Option<&Lineage> {
        self.lineage.as_ref()
    }
}
