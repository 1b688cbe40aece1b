//! Sources: which of those that vouch for themselves may be late, and what sessions are told of it.
//!
//! A source is late when its oldest event waits for more than [`MAY_WAIT_MS`], or when nobody vouches for it any more. Times are
//! ages: how long a report holds is counted by this machine's clock from when it is first seen, so that a clock that was set,
//! or another Redis with another one, makes nobody late. While Redis is away nobody can report, so nobody becomes late then,
//! nor for a while after. What Redis loses is remembered here, and put back.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use super::question::{Question, Questions, Stamp};
use crate::{
    bus::{BusError, LostSource, MAY_WAIT_MS, Source, Sources},
    metrics::{Metrics, SourceLabel},
    protocol::Late,
};

/// How often sources are read.
const EVERY: Duration = Duration::from_secs(2);
/// How long sources have to report when Redis is back, ms.
const GRACE: i64 = 10_000;
/// Sources that are known at most.
const MOST: usize = 64;

/// A source as others see it (`GET /status`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// Its name.
    pub name: String,
    /// Since when it is late, ms since 1970; `None`: it is not.
    pub late: Option<u64>,
    /// For how long it is still vouched for, ms; below 0: it has ended.
    pub left_ms: i64,
    /// The age of its oldest event that waits, ms; 0: none waits.
    pub oldest_ms: u64,
}

/// The sources as this node last read them. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct KnownSources(Arc<RwLock<Vec<SourceState>>>);

impl KnownSources {
    /// All of them, in the order of their names.
    pub fn all(&self) -> Vec<SourceState> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is known of a source. Times without a word are ms of this node's own count.
#[derive(Debug)]
struct KnownSource {
    /// As Redis had it.
    read: Source,
    until: i64,
    /// Since when its oldest event waits.
    waits: Option<i64>,
    /// Since when it is late, ms since 1970.
    late: Option<u64>,
    /// Redis does not have it any more.
    lost: bool,
}

/// All sources that are known.
#[derive(Debug)]
pub(super) struct LateSources {
    known: BTreeMap<String, KnownSource>,
    late: Late,
    asked: Option<Stamp>,
    next: Instant,
    /// Since the last look Redis was away, or refused to tell.
    interrupted: bool,
    /// Nobody becomes late before this.
    pardon: i64,
    /// It was said why sources cannot be read.
    warned: bool,
    forget: i64,
    origin: Instant,
    shared: KnownSources,
    metrics: Metrics,
}

impl LateSources {
    /// None yet. `forget`: how long after its vouching has ended a source is forgotten.
    pub(super) fn new(forget: Duration, metrics: Metrics, now: Instant) -> Self {
        Self {
            known: BTreeMap::new(),
            late: Late::default(),
            asked: None,
            next: now,
            interrupted: false,
            pardon: 0,
            warned: false,
            forget: forget.as_millis() as i64,
            origin: now,
            shared: KnownSources::default(),
            metrics,
        }
    }

    /// For those who look without asking.
    pub(super) fn shared(&self) -> &KnownSources {
        &self.shared
    }

    /// What a session is told in passing; `None` where there are no sources.
    pub(super) fn told(&self) -> Option<Late> {
        (!self.known.is_empty()).then(|| self.late.clone())
    }

    /// What sessions are told where it has changed.
    pub(super) fn late(&self) -> Late {
        self.late.clone()
    }

    /// The link is lost.
    pub(super) fn interrupt(&mut self) {
        self.asked = None;
        self.interrupted = true;
    }

    /// Reads the sources, where it is time.
    pub(super) fn tick(&mut self, questions: &mut Questions, now: Instant) {
        if now < self.next || self.asked.is_some() {
            return;
        }
        self.next = now + EVERY;
        let clock = self.clock(now);
        let lost = self.known.values().filter(|known| known.lost).map(|known| LostSource {
            name: known.read.name.clone(),
            left_ms: known.until - clock,
            oldest_ms: known.oldest(clock),
        });
        self.asked = Some(questions.ask(Question::Sources(lost.collect())));
    }

    /// Takes what was read. Returns whether other sources are late now.
    pub(super) fn take(&mut self, stamp: Stamp, read: Result<Sources, BusError>, now: Instant) -> bool {
        if self.asked.take_if(|asked| *asked == stamp).is_none() {
            return false;
        }
        let clock = self.clock(now);
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(%error, "the sources cannot be read: who is late stays as it is; trying again");
                }
                self.interrupted = true;
                return false;
            }
        };
        self.warned = false;
        if std::mem::take(&mut self.interrupted) && !self.known.is_empty() {
            self.pardon = clock + GRACE;
        }
        self.learn(&read, clock);
        self.judge(&read, clock);
        self.forget(clock);
        self.publish(clock)
    }

    fn clock(&self, now: Instant) -> i64 {
        now.saturating_duration_since(self.origin).as_millis() as i64
    }

    fn learn(&mut self, read: &Sources, clock: i64) {
        let now = read.now as i64;
        self.known.values_mut().for_each(|known| known.lost = true);
        for source in &read.list {
            if source.until == 0 {
                self.remove(&source.name, "it has said good-bye");
                continue;
            }
            let until = clock + (source.until as i64).saturating_sub(now);
            match self.known.get_mut(&source.name) {
                Some(known) => {
                    known.lost = false;
                    if known.read != *source {
                        known.until = until;
                        known.waits = waits(source, now, clock);
                        known.read = source.clone();
                    }
                }
                // One that others have forgotten is nothing new.
                None if clock - until < self.forget => {
                    let known = KnownSource {
                        read: source.clone(),
                        until,
                        waits: waits(source, now, clock),
                        late: None,
                        lost: false,
                    };
                    self.known.insert(source.name.clone(), known);
                }
                None => {}
            }
        }
        while self.known.len() > MOST {
            let order = |known: &KnownSource| (!known.lost, known.until);
            let least = self.known.values().min_by_key(|known| order(known));
            let Some(name) = least.map(|known| known.read.name.clone()) else { break };
            self.remove(&name, "there are too many");
        }
    }

    fn judge(&mut self, read: &Sources, clock: i64) {
        let pardoned = clock < self.pardon;
        for (name, known) in &mut self.known {
            let ended = (clock >= known.until).then_some(known.read.until);
            let waits = (known.oldest(clock) > MAY_WAIT_MS).then_some(known.read.since);
            match (known.late, ended.into_iter().chain(waits).min()) {
                (None, Some(since)) if !pardoned => {
                    known.late = Some(since.min(read.now));
                    let why = if waits.is_some() { "its oldest event waits" } else { "it has fallen silent" };
                    tracing::warn!(
                        source = name,
                        why,
                        "changes made through a source may be late: sessions are told"
                    );
                }
                (Some(_), None) => {
                    known.late = None;
                    tracing::info!(source = name, "a source reports again that nothing is late");
                }
                _ => {}
            }
        }
    }

    fn forget(&mut self, clock: i64) {
        let over = self.known.values().filter(|known| clock - known.until >= self.forget);
        for name in over.map(|known| known.read.name.clone()).collect::<Vec<_>>() {
            self.remove(&name, "it has been silent for sources.forget_seconds");
        }
    }

    fn remove(&mut self, name: &str, why: &'static str) {
        if self.known.remove(name).is_some() {
            tracing::info!(source = name, why, "a source is forgotten");
            let label = SourceLabel { source: name.into() };
            self.metrics.source_late.remove(&label);
            self.metrics.source_oldest.remove(&label);
        }
    }

    /// Shows what is known now. Returns whether other sources are late than before.
    fn publish(&mut self, clock: i64) -> bool {
        let states = self.known.values().map(|known| SourceState {
            name: known.read.name.clone(),
            late: known.late,
            left_ms: known.until - clock,
            oldest_ms: known.oldest(clock),
        });
        let states: Vec<_> = states.collect();
        for state in &states {
            let label = SourceLabel { source: state.name.clone() };
            self.metrics.source_late.get_or_create(&label).set(i64::from(state.late.is_some()));
            self.metrics.source_oldest.get_or_create(&label).set(state.oldest_ms as f64 / 1000.0);
        }
        let late: Vec<_> =
            states.iter().filter_map(|state| Some((state.name.as_str(), state.late?))).collect();
        let late = Late::new(&late);
        let changed = late.digest() != self.late.digest();
        self.late = late;
        *self.shared.0.write().unwrap_or_else(PoisonError::into_inner) = states;
        changed
    }
}

impl KnownSource {
    /// The age of its oldest event, ms; 0: none waits.
    fn oldest(&self, clock: i64) -> u64 {
        self.waits.map_or(0, |since| clock.saturating_sub(since).max(1).unsigned_abs())
    }
}

/// Since when the oldest event of a source waits, by this node's count.
fn waits(source: &Source, now: i64, clock: i64) -> Option<i64> {
    (source.since > 0).then(|| clock.saturating_sub(now.saturating_sub(source.since as i64)))
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
