//! Live events and their marks.
//!
//! Nothing of a live event is kept, so Redis remembers, per area, a time that is not earlier than the last one. The mark
//! is written *before* an event is delivered, ahead of time, so that it need not be written for each.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use super::{question::Question, switch::Switch};
use crate::{
    bus::{BusError, Marks},
    hub::RoomId,
    protocol::{Event, Reason, Subject, Topic},
};

/// How far ahead a mark is written.
pub(super) const AHEAD: Duration = Duration::from_secs(2);
/// A mark is written anew when it is used with less than this left.
const RENEW: Duration = Duration::from_secs(1);
/// An event is delivered while its mark has at least this left.
const LEFT: Duration = Duration::from_millis(250);
/// Live events that wait for a mark; what is more becomes a `resync`.
const HELD: usize = 1024;

/// Until when each area has had live events, ms of Redis' clock, as this node last read it. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct KnownMarks(Arc<RwLock<BTreeMap<String, u64>>>);

impl KnownMarks {
    /// The mark of an area.
    pub fn get(&self, area: &str) -> Option<u64> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(area).copied()
    }

    fn learn(&self, marks: &Marks) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (area, mark) in &marks.marks {
            let known = known.entry(area.clone()).or_default();
            *known = (*known).max(*mark);
        }
    }
}

/// The live events of an area.
#[derive(Debug, Default)]
pub(super) struct LiveArea {
    /// Until when the mark holds.
    until: Option<Instant>,
    held: VecDeque<(Topic, Event)>,
    writing: bool,
    /// Events were dropped, because the mark could not be written or too many waited for it.
    lost: bool,
}

impl Switch {
    pub(super) fn take_live(&mut self, topic: &Topic, event: Event, lone: bool) {
        let now = self.now.instant;
        let area = self.live_areas.entry(topic.area().to_owned()).or_default();
        let left = area.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let ready = left >= LEFT && area.held.is_empty();
        if !ready {
            if area.held.len() < HELD && !area.lost {
                area.held.push_back((topic.clone(), event.clone()));
            } else {
                area.lost = true;
            }
        }
        if left < RENEW && !area.writing {
            area.writing = true;
            self.write_mark(topic.area().to_owned());
        }
        if ready {
            self.pass_live(topic, event, lone);
        }
    }

    fn write_mark(&mut self, area: String) {
        self.ask(Question::Mark { area, ahead: AHEAD });
    }

    pub(super) fn take_marked(&mut self, name: &str, result: Result<Marks, BusError>) {
        let now = self.now.instant;
        let Some(area) = self.live_areas.get_mut(name) else { return };
        area.writing = false;
        match result {
            Ok(marks) => {
                let ahead = marks.marks.get(name).map_or(0, |mark| mark.saturating_sub(marks.now));
                area.until = Some(now + Duration::from_millis(ahead).min(AHEAD));
                let held = std::mem::take(&mut area.held);
                let lost = std::mem::take(&mut area.lost);
                self.learn_marks(&marks);
                for (topic, event) in held {
                    self.pass_live(&topic, event, false);
                }
                self.hub.flush();
                if lost {
                    self.owe_area(name, Reason::Live);
                }
            }
            Err(error) => {
                // Withheld, not delivered: who is away could not be told. The next tick tries again.
                let known = std::mem::replace(&mut area.lost, true);
                area.held.clear();
                if !known {
                    tracing::warn!(area = name, %error, "live events are withheld: their mark cannot be written");
                }
            }
        }
    }

    /// Writes marks that could not be written.
    pub(super) fn retry_live(&mut self) {
        if !self.connection.is_settled() {
            return;
        }
        let due: Vec<String> = self
            .live_areas
            .iter_mut()
            .filter(|(_, area)| area.lost && !area.writing)
            .map(|(name, area)| {
                area.writing = true;
                name.clone()
            })
            .collect();
        for area in due {
            self.write_mark(area);
        }
    }

    /// Whether live events are withheld somewhere: then nobody was told everything.
    pub(super) fn withholds_live(&self) -> bool {
        self.live_areas.values().any(|area| area.lost || !area.held.is_empty())
    }

    /// The link was interrupted: marks were written with what is no longer known to hold.
    pub(super) fn forget_live(&mut self) {
        for area in self.live_areas.values_mut() {
            area.lost |= !area.held.is_empty();
            area.held.clear();
            area.until = None;
            area.writing = false;
        }
    }

    /// Owes a `resync` to all who follow something in an area.
    pub(super) fn owe_area(&mut self, area: &str, reason: Reason) {
        let rooms: Vec<RoomId> = self
            .feeds
            .keys()
            .copied()
            .filter(|room| self.hub.subject(*room).is_some_and(|subject| subject.area() == area))
            .collect();
        for room in rooms {
            self.owe_all(room, reason);
        }
    }

    /// Owes `resync` (`live`) to who follows a subject, where its area has had live events.
    pub(super) fn owe_live(&mut self, room: RoomId, marks: &BTreeMap<String, u64>) {
        if self.hub.subject(room).map(Subject::area).is_some_and(|area| marks.contains_key(area)) {
            self.owe_all(room, Reason::Live);
        }
    }

    /// Remembers marks for those who look at them without asking.
    pub(super) fn learn_marks(&self, marks: &Marks) {
        self.known_marks.learn(marks);
    }

    /// The latest mark of an area that this node has read or written.
    pub(super) fn known_mark(&self, area: &str) -> Option<u64> {
        self.known_marks.get(area)
    }

    /// Reads the marks for sessions that came back: one read at a time, for all who came before it started.
    pub(super) fn read_marks(&mut self) {
        if self.mark_reads.0.is_empty() && !self.mark_reads.1.is_empty() && self.connection.is_up() {
            self.mark_reads.0 = std::mem::take(&mut self.mark_reads.1);
            self.ask(Question::Marks);
        }
    }

    pub(super) fn take_marks(&mut self, result: Result<Marks, BusError>) {
        let ids = std::mem::take(&mut self.mark_reads.0);
        let Ok(marks) = result else {
            // Read again with the next session that asks, or when the link is back.
            self.mark_reads.1.extend(ids);
            return;
        };
        self.learn_marks(&marks);
        let marks = Arc::new(marks);
        for id in ids {
            if let Some(join) = self.joins.get_mut(&id) {
                join.marks = Some(Arc::clone(&marks));
            }
            self.try_finish(id);
        }
        self.read_marks();
    }
}
