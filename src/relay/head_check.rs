//! Comparing all heads once in a while: a subscription may have died on a live link, or a log been replaced.
//!
//! A head that is ahead of its feed is only a suspect at first: what it is ahead by may be on its way. When two probes
//! have come back before it, it is lost.

use std::time::{Duration, Instant};

use super::{
    feeds::Feeds,
    question::{FeedPlace, Question, Questions, Stamp},
};
use crate::{
    bus::{BusError, Head},
    hub::{Hub, RoomId},
    protocol::{EntryId, Subject, Topic},
};

/// How often every head is checked: as often as this where topics are few, ...
const OFTEN: Duration = Duration::from_secs(8);
/// ... and at least so often where they are many, ...
const SELDOM: Duration = Duration::from_secs(45);
/// ... so that Redis is asked for about so many heads per second.
const PER_SECOND: usize = 100;
/// Probes that must come back before a suspect is lost.
const PROOFS: u8 = 2;

/// A head that is ahead of its feed.
#[derive(Debug)]
struct Suspect {
    topic: Topic,
    top: EntryId,
    /// Probes that have come back since.
    proofs: u8,
}

/// What a head says about a live feed.
#[derive(Debug, PartialEq, Eq)]
enum HeadVerdict {
    Nothing,
    /// The log was replaced by this one.
    Replaced,
    /// It is ahead.
    Ahead,
}

/// The rounds of comparing heads.
#[derive(Debug)]
pub(super) struct HeadCheck {
    next: Instant,
    asked: Option<Stamp>,
    suspects: Vec<Suspect>,
    log_ttl: Duration,
}

impl HeadCheck {
    /// The first round comes after a while. `log_ttl`: how long a log lives untouched; rounds keep it alive.
    pub(super) fn new(log_ttl: Duration, now: Instant) -> Self {
        Self { next: now + OFTEN, asked: None, suspects: Vec::new(), log_ttl }
    }

    /// The link is lost: all heads are compared when it is back.
    pub(super) fn interrupt(&mut self, now: Instant) {
        *self = Self::new(self.log_ttl, now);
    }

    /// Logs live so long untouched from now on.
    pub(super) fn keep_alive(&mut self, log_ttl: Duration) {
        self.log_ttl = log_ttl;
    }

    /// Asks for all heads, where it is time. `chance`: a random number from 0 to 1.
    pub(super) fn tick(
        &mut self,
        hub: &Hub,
        feeds: &Feeds,
        questions: &mut Questions,
        chance: f64,
        now: Instant,
    ) {
        if now < self.next || self.asked.is_some() {
            return;
        }
        let mut live: Vec<RoomId> = feeds.rooms().filter(|room| feeds.is_live(*room)).collect();
        live.sort_unstable();
        let places = live.into_iter().filter_map(|room| match hub.subject(room)? {
            Subject::Topic(topic) => Some(FeedPlace { topic: topic.clone(), top: Some(feeds.top(room)?) }),
            Subject::Every(_) => None,
        });
        let places: Vec<FeedPlace> = places.collect();
        self.next = now + period(places.len(), self.log_ttl).mul_f64(0.8 + 0.2 * chance);
        if !places.is_empty() {
            self.asked = Some(questions.ask(Question::Heads(places)));
        }
    }

    /// Takes the heads; returns the rooms whose logs were replaced, and by what, and those that may be published where this node
    /// hears nothing.
    pub(super) fn take(
        &mut self,
        stamp: Stamp,
        heads: Vec<(FeedPlace, Result<Head, BusError>)>,
        hub: &Hub,
        feeds: &Feeds,
    ) -> (Vec<(RoomId, Head)>, Vec<RoomId>) {
        let (mut replaced, mut astray) = (Vec::new(), Vec::new());
        if self.asked.take_if(|asked| *asked == stamp).is_none() {
            return (replaced, astray);
        }
        for (place, head) in heads {
            let (Some(asked), Some(room)) = (place.top, hub.find_topic(&place.topic)) else { continue };
            let head = match head {
                Ok(head) => head,
                Err(error) => {
                    astray.extend((error.is_astray() && feeds.is_live(room)).then_some(room));
                    continue;
                }
            };
            let Some(feed) = feeds.get(room).filter(|feed| feed.is_live()) else { continue };
            // Of another lineage: the bus sees it too, and interrupts the link.
            let Some(mine) = feed.head().filter(|mine| mine.lineage == head.lineage) else { continue };
            match compare(mine.top, asked, head.top) {
                HeadVerdict::Replaced => replaced.push((room, head)),
                HeadVerdict::Ahead => {
                    self.suspects.push(Suspect { topic: place.topic, top: head.top, proofs: 0 });
                }
                HeadVerdict::Nothing => {}
            }
        }
        (replaced, astray)
    }

    /// A probe has come back; returns the rooms of suspects that are lost.
    pub(super) fn prove(&mut self, hub: &Hub, feeds: &Feeds) -> Vec<RoomId> {
        let mut lost = Vec::new();
        self.suspects.retain_mut(|suspect| {
            let Some(room) = hub.find_topic(&suspect.topic) else { return false };
            let behind = |top: EntryId| top.epoch == suspect.top.epoch && top.seq < suspect.top.seq;
            if !feeds.is_live(room) || !feeds.top(room).is_some_and(behind) {
                return false;
            }
            suspect.proofs += 1;
            let is_lost = suspect.proofs >= PROOFS;
            if is_lost {
                lost.push(room);
            }
            !is_lost
        });
        lost
    }
}

/// `mine`: where the feed is; `asked`: where it was when the head was asked for.
fn compare(mine: EntryId, asked: EntryId, head: EntryId) -> HeadVerdict {
    // An earlier epoch: the log was opened anew by a Redis whose clock is behind.
    let replaced = (head.epoch > mine.epoch && (head.epoch != asked.epoch || mine.epoch == asked.epoch))
        || (head.epoch < asked.epoch && mine.epoch == asked.epoch)
        || (head.epoch == asked.epoch && mine.epoch == asked.epoch && head.seq < asked.seq);
    if replaced {
        HeadVerdict::Replaced
    } else if head.epoch == mine.epoch && head.seq > mine.seq {
        HeadVerdict::Ahead
    } else {
        HeadVerdict::Nothing
    }
}

/// How long after a check of so many heads the next one comes. A log must not expire between two.
fn period(heads: usize, log_ttl: Duration) -> Duration {
    let spread = Duration::from_secs((heads / PER_SECOND) as u64);
    spread.clamp(OFTEN, SELDOM).min(log_ttl / 3).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_heads_are_checked_often_and_many_now_and_then() {
        let day = Duration::from_secs(86_400);
        let periods = [0, 800, 2_000, 100_000].map(|heads| period(heads, day).as_secs());
        assert_eq!(periods, [8, 8, 20, 45]);
        assert_eq!(period(100_000, Duration::from_secs(30)).as_secs(), 10, "before a log expires");
        assert_eq!(period(1, Duration::ZERO).as_secs(), 1);
    }

    #[test]
    fn a_head_shows_what_became_of_its_log() {
        let id = |epoch, seq| EntryId { epoch, seq };
        assert_eq!(compare(id(5, 9), id(5, 9), id(5, 9)), HeadVerdict::Nothing);
        assert_eq!(compare(id(5, 12), id(5, 9), id(5, 10)), HeadVerdict::Nothing, "merely older");
        assert_eq!(compare(id(5, 9), id(5, 9), id(5, 11)), HeadVerdict::Ahead);
        assert_eq!(compare(id(5, 9), id(5, 9), id(6, 0)), HeadVerdict::Replaced);
        assert_eq!(compare(id(5, 9), id(5, 9), id(5, 8)), HeadVerdict::Replaced, "it went back");
        assert_eq!(compare(id(5, 9), id(5, 9), id(4, 1)), HeadVerdict::Replaced, "a clock that is behind");
        assert_eq!(compare(id(6, 2), id(5, 9), id(5, 9)), HeadVerdict::Nothing, "of the log before");
        assert_eq!(
            compare(id(6, 2), id(5, 9), id(5, 3)),
            HeadVerdict::Nothing,
            "of the log before, replaced since"
        );
        assert_eq!(
            compare(id(5, 2), id(6, 9), id(6, 9)),
            HeadVerdict::Nothing,
            "of the log before, replaced since by a Redis whose clock is behind"
        );
    }
}
