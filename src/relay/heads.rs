//! What the relay asks of logs: opening feeds, reading what is missing, and checking heads now and then.
//!
//! One read per topic is under way at a time, whoever waits for it.

use std::time::{Duration, Instant};

use super::{
    feed::{Feed, Merged, State, Step},
    question::{Place, Question},
    switch::Switch,
};
use crate::{
    bus::{BusError, Content, Head, History},
    hub::RoomId,
    protocol::{EntryId, Reason, Subject, Topic},
};

/// Entries that a read fetches at least, where the log has them: what one session lacks others will lack as well.
const LOOKBACK: usize = 1000;
/// How long what was read is kept for sessions that come next.
const KEEP: Duration = Duration::from_secs(15);
/// How often every head is checked: as often as this where topics are few, ...
const CHECK_OFTEN: Duration = Duration::from_secs(8);
/// ... and at least so often where they are many, ...
const CHECK: Duration = Duration::from_secs(45);
/// ... so that Redis is asked for about so many heads per second.
const CHECKED_PER_SECOND: usize = 100;

/// Which heads are to be checked next.
#[derive(Debug)]
pub(super) struct Check {
    next: Instant,
    running: bool,
    /// Heads that were ahead of the feed, and how many proofs have come since.
    suspects: Vec<(RoomId, EntryId, u8)>,
}

impl Check {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now + CHECK_OFTEN, running: false, suspects: Vec::new() }
    }
}

impl Switch {
    /// Subscribes to and unsubscribes from what the turn has left to do; one question at a time keeps them in order.
    pub(super) fn open_and_close(&mut self) {
        if self.opening || !self.connection.is_settled() {
            return;
        }
        if !self.to_close.is_empty() {
            let rooms = std::mem::take(&mut self.to_close);
            let subjects = rooms.iter().filter_map(|room| self.take_down(*room)).collect::<Vec<_>>();
            if !subjects.is_empty() {
                self.opening = true;
                self.ask(Question::Close(subjects));
                return;
            }
        }
        if self.to_open.is_empty() {
            return;
        }
        let rooms = std::mem::take(&mut self.to_open);
        let subjects = rooms.into_iter().filter_map(|room| self.hub.subject(room).cloned()).collect();
        self.opening = true;
        self.ask(Question::Open(subjects));
    }

    /// Forgets a room that nobody stands in; the subject to unsubscribe from.
    fn take_down(&mut self, room: RoomId) -> Option<Subject> {
        if !self.hub.is_empty(room) {
            return None;
        }
        let subject = self.hub.subject(room)?.clone();
        self.feeds.remove(&room);
        self.held.remove(&room);
        self.reads.remove(&room);
        self.hub.close(room);
        Some(subject)
    }

    /// A room that was left empty is closed after a while, unless somebody comes.
    pub(super) fn left_empty(&mut self, rooms: Vec<RoomId>) {
        let due = self.now.instant + self.settings.linger;
        self.idle.extend(rooms.into_iter().map(|room| (room, due)));
    }

    pub(super) fn close_idle(&mut self, now: Instant) {
        let due: Vec<RoomId> =
            self.idle.iter().filter(|(_, due)| **due <= now).map(|(room, _)| *room).collect();
        for room in due {
            self.idle.remove(&room);
            self.to_open.remove(&room);
            self.to_close.insert(room);
        }
    }

    pub(super) fn take_opened(
        &mut self,
        results: Vec<(Subject, Result<Option<Head>, BusError>)>,
        stale: bool,
    ) {
        self.opening = false;
        for (subject, result) in results {
            let Some(room) = self.hub.find(&subject) else { continue };
            let Some(feed) = self.feeds.get_mut(&room).filter(|feed| feed.state == State::Opening) else {
                continue;
            };
            match result {
                // The link was lost meanwhile: all heads are read when it is back.
                _ if stale => {}
                Ok(Some(head)) => {
                    feed.start(head);
                    self.release(room);
                    self.wake_joins(room);
                }
                Ok(None) => {
                    feed.state = State::Live;
                    self.wake_joins(room);
                }
                Err(error) => {
                    tracing::warn!(topic = %subject, %error, "a topic cannot be followed; trying again");
                    self.connection.excuse(room);
                }
            }
        }
        self.end_settling();
    }

    /// Feeds whose subscription was refused are tried again.
    pub(super) fn retry_opening(&mut self) {
        if self.opening || !self.connection.is_settled() {
            return;
        }
        let stuck = self.feeds.iter().filter(|(_, feed)| feed.state == State::Opening).map(|(room, _)| *room);
        self.to_open.extend(stuck);
    }

    /// Closes a gap: what arrives is held until the log was read from after the feed's head.
    pub(super) fn fill(&mut self, room: RoomId) {
        let Some(feed) = self.feeds.get_mut(&room) else { return };
        feed.state = State::Filling;
        let seq = feed.head().map_or(0, |head| head.top.seq);
        self.read_log(room, seq);
    }

    /// Reads a log from after a number, or further back, unless a read is under way.
    pub(super) fn read_log(&mut self, room: RoomId, seq: u64) {
        let Some(Subject::Topic(topic)) = self.hub.subject(room) else { return };
        if self.reads.contains_key(&room) {
            return;
        }
        let Some(feed) = self.feeds.get_mut(&room) else { return };
        feed.asking();
        let Some(head) = feed.head() else { return };
        let lookback = self.settings.log_length.min(LOOKBACK) as u64;
        let asked = if seq < head.top.seq { seq.min(head.top.seq.saturating_sub(lookback)) } else { seq };
        let after = EntryId { epoch: head.top.epoch, seq: asked };
        self.reads.insert(room, false);
        self.metrics.history_reads.inc();
        let topic = topic.clone();
        self.ask(Question::Read { topic, after });
    }

    pub(super) fn take_read(&mut self, topic: &Topic, after: EntryId, result: Result<History, BusError>) {
        let subject = Subject::Topic(topic.clone());
        let Some(room) = self.hub.find(&subject) else { return };
        let Some(again) = self.reads.remove(&room) else { return };
        let (now, at, asked) = (self.now.instant, self.at(), after.seq);
        let Some(feed) = self.feeds.get_mut(&room) else { return };
        match result {
            Ok(history) => {
                let was = feed.state;
                let merged = feed.merge(topic, asked, history, at, now);
                feed.keep_until(now + KEEP);
                match merged {
                    Merged::Replaced(reason) => self.owe_all(room, reason),
                    Merged::Forward(entries) => {
                        feed.state = State::Live;
                        self.take_forward(room, topic, entries, was == State::Filling);
                    }
                }
                self.release(room);
                if again {
                    self.fill(room);
                }
            }
            Err(error) => {
                tracing::warn!(topic = %topic, %error, "the log of a topic cannot be read");
                if feed.state == State::Filling {
                    // The next tick reads it again: until then nothing is delivered, and nothing is lost.
                    feed.state = State::Doubt;
                }
            }
        }
        self.wake_joins(room);
        self.hub.flush();
        self.end_settling();
    }

    /// Entries after the feed's head are delivered as if they had come by the wire.
    fn take_forward(
        &mut self,
        room: RoomId,
        topic: &Topic,
        entries: Vec<(EntryId, Option<crate::protocol::Event>)>,
        gap: bool,
    ) {
        if gap {
            self.metrics.backfilled.inc_by(entries.len() as u64);
        }
        for (id, event) in entries {
            self.advance(room, topic, id, event, false);
        }
    }

    /// Delivers what was held while a log was read.
    pub(super) fn release(&mut self, room: RoomId) {
        let Some(Subject::Topic(topic)) = self.hub.subject(room).cloned() else { return };
        let mut earlier = false;
        for (id, content) in self.held.remove(&room).unwrap_or_default() {
            if self.feeds.get(&room).is_some_and(|f| f.state == State::Live && f.judge(id) == Step::Earlier) {
                // One look at the log answers for all of them.
                earlier = true;
                continue;
            }
            let event = if let Content::Recorded(_, event) = content { Some(event) } else { None };
            self.advance(room, &topic, id, event, false);
        }
        if earlier {
            self.doubt(Some(&Subject::Topic(topic)));
        }
        self.hub.flush();
    }

    /// Feeds whose log could not be read are read again.
    pub(super) fn retry_reads(&mut self) {
        if !self.connection.is_settled() {
            return;
        }
        let stuck =
            |(room, feed): &(&RoomId, &Feed)| feed.state == State::Doubt && !self.reads.contains_key(room);
        let stuck: Vec<RoomId> = self.feeds.iter().filter(stuck).map(|(room, _)| *room).collect();
        for room in stuck {
            self.fill(room);
        }
    }

    /// Compares every head once in a while: a subscription may have died on a live link, or a log been replaced.
    pub(super) fn check_heads(&mut self, chance: f64) {
        let now = self.now.instant;
        if now < self.check.next || self.check.running || !self.connection.is_settled() {
            return;
        }
        let live: Vec<Place> = self
            .feeds
            .iter()
            .filter(|(_, feed)| feed.state == State::Live)
            .filter_map(|(room, feed)| match self.hub.subject(*room)? {
                Subject::Topic(topic) => Some(Place { topic: topic.clone(), top: Some(feed.head()?.top) }),
                Subject::Every(_) => None,
            })
            .collect();
        let period = check_period(live.len(), self.settings.log_ttl);
        self.check.next = now + period.mul_f64(0.8 + 0.2 * chance);
        if live.is_empty() {
            return;
        }
        self.check.running = true;
        self.ask(Question::Heads(live));
    }

    pub(super) fn take_checked(&mut self, heads: Vec<(Place, Result<Head, BusError>)>) {
        self.check.running = false;
        for (place, head) in heads {
            let (Some(asked), Ok(head)) = (place.top, head) else { continue };
            let Some(room) = self.hub.find(&Subject::Topic(place.topic)) else { continue };
            let Some(feed) = self.feeds.get_mut(&room).filter(|feed| feed.state == State::Live) else {
                continue;
            };
            let Some(mine) = feed.head().cloned() else { continue };
            if head.lineage != mine.lineage {
                // The bus sees it too, and interrupts the link.
                continue;
            }
            // An earlier epoch: the log was opened anew by a Redis whose clock is behind.
            let replaced = head.top.epoch > mine.top.epoch
                || (head.top.epoch < asked.epoch && mine.top.epoch == asked.epoch)
                || (head.top.epoch == asked.epoch && head.top.seq < asked.seq);
            if replaced {
                feed.start(head);
                self.owe_all(room, Reason::LogReplaced);
                self.wake_joins(room);
            } else if head.top.epoch == mine.top.epoch && head.top.seq > mine.top.seq {
                // It may be on its way: it is missing when two probes have come back before it.
                self.check.suspects.push((room, head.top, 0));
            }
        }
    }

    /// A probe has come back: suspects that are still behind have lost something.
    pub(super) fn check_suspects(&mut self) {
        for (room, top, proofs) in std::mem::take(&mut self.check.suspects) {
            let Some(feed) = self.feeds.get(&room).filter(|feed| feed.state == State::Live) else { continue };
            if feed.head().is_none_or(|head| head.top.epoch != top.epoch || head.top.seq >= top.seq) {
                continue;
            }
            if proofs == 0 {
                self.check.suspects.push((room, top, 1));
            } else if let Some(subject) = self.hub.subject(room).cloned() {
                tracing::warn!(topic = %subject, "events of a topic did not arrive on a live link: reading its log");
                self.metrics.gaps.inc();
                self.doubt(Some(&subject));
            }
        }
    }

    pub(super) fn forget_checks(&mut self) {
        self.check = Check::new(self.now.instant);
    }
}

/// How long after a check of so many heads the next one comes. A log must not expire between two.
fn check_period(heads: usize, log_ttl: Duration) -> Duration {
    let spread = Duration::from_secs((heads / CHECKED_PER_SECOND) as u64);
    spread.clamp(CHECK_OFTEN, CHECK).min(log_ttl / 3).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_heads_are_checked_often_and_many_now_and_then() {
        let day = Duration::from_secs(86_400);
        let periods = [0, 800, 2_000, 100_000].map(|heads| check_period(heads, day).as_secs());
        assert_eq!(periods, [8, 8, 20, 45]);
        assert_eq!(check_period(100_000, Duration::from_secs(30)).as_secs(), 10, "before a log expires");
        assert_eq!(check_period(1, Duration::ZERO).as_secs(), 1);
    }
}
