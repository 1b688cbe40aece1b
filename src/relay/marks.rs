//! Live events and their marks.
//!
//! Redis keeps no live event, but for each area the time of the last one: its mark. The node writes the mark *before* it delivers
//! an event, and sets it a few seconds ahead, so that not every event needs a write. A mark holds until that time by Redis' clock,
//! which is counted from when the write was asked for, because the answer may have been long on its way.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use super::{
    probe_echo::ProbeEcho,
    question::{Question, Questions, Stamp, is_refusal},
    recent::{Absence, RecentLive},
};
use crate::{
    bus::{BusError, Marks},
    hub::Frame,
    mutant,
    protocol::{Event, Topic},
};

/// How far ahead a mark is written.
pub(super) const AHEAD: Duration = Duration::from_secs(2);
/// How far ahead at most, where Redis takes long to answer.
const FURTHEST: Duration = Duration::from_secs(30);
/// A mark is written anew when it is used with less than this left.
const RENEW: Duration = Duration::from_secs(1);
/// An event is delivered while its mark has at least this left.
const LEFT: Duration = Duration::from_millis(250);
/// Live events that wait for a mark; what is more becomes a `resync`.
const HELD: usize = 1024;
/// Behind the name of an area: its second mark, the time at which a node found that it may have lost live events. A session that
/// was last in step before that time may have been told wrongly that there were none.
const LOST: &str = "!";

/// A look at all marks, to renew them or to see that they are there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Renewal {
    #[default]
    None,
    /// It is asked for.
    Asked(Stamp),
    /// It could not be had: the next tick tries again.
    Due,
}

/// The mark of each area, ms of Redis' clock, as this node last read it. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct KnownMarks(Arc<RwLock<BTreeMap<String, u64>>>);

impl KnownMarks {
    /// The mark of an area.
    pub fn get(&self, area: &str) -> Option<u64> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(area).copied()
    }

    fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn learn(&self, marks: &Marks) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (area, mark) in &marks.marks {
            let known = known.entry(area.clone()).or_default();
            *known = (*known).max(*mark);
        }
    }

    /// Areas that had a mark, and have none by now.
    fn gone(&self, marks: &Marks) -> Vec<String> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let gone = known.keys().filter(|area| !area.ends_with(LOST) && !marks.marks.contains_key(*area));
        gone.cloned().collect()
    }

    fn replace(&self, marks: &Marks) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clone_from(&marks.marks);
    }
}

/// The areas to mark again after live events may have been lost: all that have a mark.
pub fn to_renew(marks: &Marks) -> Vec<String> {
    let areas = marks.marks.keys().filter(|area| !area.ends_with(LOST));
    areas.flat_map(|area| [area.clone(), format!("{area}{LOST}")]).collect()
}

/// The write of a mark that is under way.
#[derive(Debug)]
struct Writing {
    stamp: Stamp,
    since: Instant,
}

/// The live events of an area.
#[derive(Debug)]
struct Area {
    /// Until when the mark holds.
    until: Option<Instant>,
    held: VecDeque<(Topic, Event)>,
    writing: Option<Writing>,
    /// Events were dropped, because the mark could not be written or too many waited for it.
    lost: bool,
    /// Whoever follows something here is not live, because Redis refuses the mark, or the link was lost before it was written.
    withheld: bool,
    /// How far ahead the next mark is written.
    ahead: Duration,
}

impl Default for Area {
    fn default() -> Self {
        Self { until: None, held: VecDeque::new(), writing: None, lost: false, withheld: false, ahead: AHEAD }
    }
}

/// What can be delivered once a mark is written.
#[derive(Debug, Default)]
pub(super) struct Freed {
    /// Live events that waited for it, in order.
    pub(super) events: VecDeque<(Topic, Event)>,
    /// Others were dropped: who follows the area must refetch.
    pub(super) lost: bool,
    /// None is delivered from now on: who follows the area must be told.
    pub(super) withheld: bool,
}

/// Areas with live events, and what is known of their marks.
#[derive(Debug, Default)]
pub(super) struct LiveMarks {
    areas: BTreeMap<String, Area>,
    known: KnownMarks,
    recent: RecentLive,
    last: Option<ProbeEcho>,
    renewal: Renewal,
    /// Whether the marks are still there.
    check: Renewal,
}

impl LiveMarks {
    /// The marks, for those who look at them without asking.
    pub(super) fn known(&self) -> &KnownMarks {
        &self.known
    }

    /// The live events that a returning session lacks; `None` if this node cannot say. `read`: the marks as they were read for it.
    pub(super) fn missed(&self, absence: &Absence<'_>, read: &Marks) -> Option<Vec<Frame>> {
        let area = absence.topic.area();
        let lost = format!("{area}{LOST}");
        let lost = read.marks.get(&lost).copied().max(self.known.get(&lost));
        let told = lost.is_none_or(|lost| lost <= absence.at) || mutant::is("lost-mark");
        // A proof that Redis' clock has not reached yet proves nothing.
        if absence.at > read.now || !told {
            return None;
        }
        let ahead = AHEAD.as_millis() as u64;
        let mark = read.marks.get(area).copied().max(self.known.get(area)).unwrap_or(0);
        self.recent.missed(&Absence { marked: mark.saturating_sub(ahead), ..*absence })
    }

    /// A live event was delivered to those who follow its topic by key.
    pub(super) fn delivered(&mut self, frame: &Frame) {
        self.recent.push(frame);
    }

    /// Messages were lost on a link that works, and live events may be among them. `unmarked`: nobody has asked yet to renew the
    /// marks, which must happen before `at` moves on.
    pub(super) fn lose(&mut self, unmarked: bool, questions: &mut Questions) {
        self.recent.forget();
        if unmarked && self.renewal == Renewal::None && !self.known.is_empty() {
            self.renew(questions);
        }
    }

    /// Takes a live event. Gives it back if it can be delivered now: its area's mark holds.
    pub(super) fn take(
        &mut self,
        topic: &Topic,
        event: Event,
        now: Instant,
        questions: &mut Questions,
    ) -> Option<Event> {
        if let Some(proof) = self.last {
            self.recent.hear(topic.area(), proof.now(now));
        }
        if !self.areas.contains_key(topic.area()) {
            self.areas.insert(topic.area().to_owned(), Area::default());
        }
        let area = self.areas.get_mut(topic.area())?;
        let left = area.left(now);
        let ready = left >= LEFT && area.held.is_empty();
        if left < RENEW && area.writing.is_none() && !area.lost {
            area.write(topic.area(), now, questions);
        }
        if ready {
            return Some(event);
        }
        if area.held.len() < HELD && !area.lost {
            area.held.push_back((topic.clone(), event));
        } else {
            area.lost = true;
            self.recent.forget();
        }
        None
    }

    /// A mark was written, or could not be.
    pub(super) fn marked(
        &mut self,
        stamp: Stamp,
        name: &str,
        marks: Result<Marks, BusError>,
        now: Instant,
        questions: &mut Questions,
    ) -> Freed {
        let Some(area) = self.areas.get_mut(name) else { return Freed::default() };
        let Some(writing) = area.writing.take_if(|writing| writing.stamp == stamp) else {
            return Freed::default();
        };
        match marks {
            Ok(marks) => {
                self.known.learn(&marks);
                let ahead = marks.marks.get(name).map_or(0, |mark| mark.saturating_sub(marks.now));
                let since = if mutant::is("mark-latency") { now } else { writing.since };
                // The mark may lie further ahead than was asked for, if a new master's clock is behind. It is not relied on for
                // longer than that: Redis may be emptied meanwhile.
                area.until = Some(since + Duration::from_millis(ahead).min(area.ahead));
                if area.left(now) < LEFT {
                    // The write took so long that the mark has ended: the next one is written further ahead.
                    area.ahead = (now.saturating_duration_since(writing.since) * 2 + AHEAD).min(FURTHEST);
                    area.write(name, now, questions);
                    return Freed::default();
                }
                (area.ahead, area.withheld) = (AHEAD, false);
                let (events, lost) = (std::mem::take(&mut area.held), std::mem::take(&mut area.lost));
                Freed { events, lost, withheld: false }
            }
            Err(error) => {
                // However long this answer took, the next one may come at once.
                area.ahead = AHEAD;
                // What was delivered lies under the mark before. The next event asks again.
                if area.held.is_empty() && !area.lost {
                    return Freed::default();
                }
                // Without a mark nothing is delivered: sessions that are away could not be told. The next tick tries again.
                let first = !std::mem::replace(&mut area.lost, true);
                // Whatever else goes wrong ends the link, which is told.
                let withheld = is_refusal(&error) && !std::mem::replace(&mut area.withheld, true);
                if first || withheld {
                    tracing::warn!(area = name, %error, "live events are withheld: their mark cannot be written");
                }
                area.held.clear();
                self.recent.forget();
                Freed { withheld, ..Freed::default() }
            }
        }
    }

    /// Writes marks that could not be written.
    pub(super) fn retry(&mut self, now: Instant, questions: &mut Questions) {
        for (name, area) in &mut self.areas {
            if area.lost && area.writing.is_none() {
                area.write(name, now, questions);
            }
        }
        if self.renewal == Renewal::Due {
            self.renew(questions);
        }
        if self.check == Renewal::Due {
            self.replaced(questions);
        }
    }

    /// A probe came back. A mark that lies before it has ended, whatever this node's clock says: Redis' clock may have been set
    /// ahead. Another node may still rely on such a mark, so all marks are renewed before anybody is told of this proof.
    pub(super) fn prove(&mut self, proof: ProbeEcho, now: Instant, questions: &mut Questions) {
        let at = proof.at;
        self.recent.prove(at, proof.now_at_most(now), questions.latest());
        if self.last.replace(proof).is_some_and(|last| last.was_set_ahead_of(at, now))
            && !mutant::is("clock-ahead")
        {
            tracing::warn!("Redis' clock was set ahead: the marks of live events are renewed");
            self.renew(questions);
        }
        for (name, area) in &mut self.areas {
            if area.until.is_some() && self.known.get(name).is_none_or(|mark| mark <= at) {
                area.until = None;
            }
        }
    }

    /// A log was replaced: Redis may have been emptied, and nodes may rely on marks that are gone. A new mark, as far ahead as one is
    /// ever written, stands for all of them.
    pub(super) fn replaced(&mut self, questions: &mut Questions) {
        let under_way = matches!(self.check, Renewal::Asked(_));
        if !under_way && !self.known.is_empty() && !mutant::is("emptied") {
            self.check = Renewal::Asked(questions.ask(Question::Look { places: Vec::new(), renew: false }));
        }
    }

    fn renew(&mut self, questions: &mut Questions) {
        self.renewal = Renewal::Asked(questions.ask(Question::Look { places: Vec::new(), renew: true }));
    }

    /// Takes the answer to a look at all marks. Returns whether it was one.
    pub(super) fn looked(
        &mut self,
        stamp: Stamp,
        marks: &Result<Marks, BusError>,
        questions: &mut Questions,
    ) -> bool {
        let next = if marks.is_ok() { Renewal::None } else { Renewal::Due };
        if self.check == Renewal::Asked(stamp) {
            self.check = next;
            for area in marks.iter().flat_map(|marks| self.known.gone(marks)) {
                questions.ask(Question::Mark { area, ahead: AHEAD });
            }
            return true;
        }
        if self.renewal != Renewal::Asked(stamp) {
            return false;
        }
        self.renewal = next;
        if let Ok(marks) = marks {
            self.known.learn(marks);
        }
        true
    }

    /// Whether live events are held back somewhere, or may have been delivered after their mark ended: then `at` must not move.
    pub(super) fn withhold(&self) -> bool {
        self.renewal != Renewal::None || self.areas.values().any(|area| area.lost || !area.held.is_empty())
    }

    /// Whether live events of this area are not delivered for now.
    pub(super) fn withholds(&self, area: &str) -> bool {
        self.areas.get(area).is_some_and(|area| area.withheld)
    }

    /// Whether live events of any area are not delivered for now.
    pub(super) fn withholds_any(&self) -> bool {
        self.areas.values().any(|area| area.withheld)
    }

    /// The link is lost: no mark is known to hold any more.
    pub(super) fn interrupt(&mut self) {
        for area in self.areas.values_mut() {
            area.lost |= !area.held.is_empty();
            area.withheld |= area.lost;
            area.held.clear();
            area.until = None;
            area.writing = None;
        }
        self.recent.forget();
        // The look that follows a lost link renews them.
        (self.last, self.renewal, self.check) = (None, Renewal::None, Renewal::None);
    }

    /// Remembers marks that were read.
    pub(super) fn learn(&self, marks: &Marks) {
        self.known.learn(marks);
    }

    /// The link is back: forgets the marks of the Redis before, whose clock may have been ahead of this one's.
    pub(super) fn relearn(&self, marks: &Marks) {
        if mutant::is("known-marks") { self.known.learn(marks) } else { self.known.replace(marks) }
    }
}

impl Area {
    /// How long the mark holds.
    fn left(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    fn write(&mut self, name: &str, now: Instant, questions: &mut Questions) {
        let stamp = questions.ask(Question::Mark { area: name.to_owned(), ahead: self.ahead });
        self.writing = Some(Writing { stamp, since: now });
    }
}
