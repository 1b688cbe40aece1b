//! The bus of a node without Redis: the embedded default, for one node and for `carillon dev`.
//!
//! It behaves as Redis with the publish function does (positions, trimmed logs with a time to live, lineage,
//! de-duplication, marks), so that what works here works there; nothing survives the process, and the lineage says so.
//! One suite (`tests/integration/bus.rs`) runs against both.

mod log;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};

use self::log::{Logs, Recent};
use super::{
    BusError, BusEvent, Content, Delivery, Head, Health, History, Marks, Settings, arrivals::Arrivals, check,
};
use crate::{
    metrics::Metrics,
    protocol::{EntryId, Event, Heard, Kind, Lineage, Revocation, Subject, Topic, Whom, time::now_ms},
    shutdown::Tasks,
};

/// The version that `/status` shows in the place of Redis'.
const VERSION: &str = "memory";

/// A bus within the process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryBus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    lineage: Lineage,
    started: u64,
    metrics: Metrics,
    arrivals: Arrivals,
    state: Mutex<MemoryState>,
}

#[derive(Debug)]
struct MemoryState {
    clock: u64,
    wanted: HashSet<Subject>,
    logs: Logs,
    recent: HashMap<Topic, Recent>,
    marks: BTreeMap<String, u64>,
    nodes: BTreeMap<String, (Instant, Bytes)>,
}

impl MemoryState {
    /// Milliseconds that never go back.
    fn now(&mut self) -> u64 {
        self.clock = self.clock.max(now_ms());
        self.clock
    }
}

impl MemoryBus {
    /// Starts the bus; the link is up at once.
    pub fn start(settings: Settings, metrics: Metrics, tasks: &Tasks) -> (Self, mpsc::Receiver<BusEvent>) {
        metrics.link_up.set(1);
        let (arrivals, events) = Arrivals::new(&settings, metrics.clone());
        let state = MemoryState {
            clock: 0,
            wanted: HashSet::new(),
            logs: Logs::new(settings.log_length, settings.log_ttl),
            recent: HashMap::new(),
            marks: BTreeMap::new(),
            nodes: BTreeMap::new(),
        };
        let lineage = Lineage::new(&format!("{:016x}", rand::random::<u64>()));
        let interval = settings.probe_interval;
        let inner =
            Inner { settings, lineage, started: now_ms(), metrics, arrivals, state: Mutex::new(state) };
        let bus = Self { inner: Arc::new(inner) };
        bus.inner.arrivals.tell_up();
        bus.prove();
        let prover = bus.clone();
        tasks.spawn_until_end(async move {
            let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
            loop {
                ticks.tick().await;
                prover.prove();
            }
        });
        (bus, events)
    }

    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the relay that everything up to now was handed over (true, because the state is locked here), and drops what has
    /// expired.
    fn prove(&self) {
        let asked = std::time::Instant::now();
        let mut state = self.state();
        let at = state.now();
        state.logs.expire();
        state.recent.retain(|_, recent| !recent.is_over());
        state.nodes.retain(|_, (until, _)| *until > Instant::now());
        self.inner.arrivals.push(BusEvent::Proof { at, asked });
    }

    fn deliver(&self, state: &MemoryState, topic: &Topic, content: Content) {
        let every = !state.wanted.contains(&Subject::Topic(topic.clone()));
        let followed = !every || (!topic.is_wide() && state.wanted.contains(&Subject::Every(topic.wide())));
        if followed {
            self.inner.arrivals.deliver(Delivery { topic: topic.clone(), every, content });
        }
    }

    fn head(&self, top: EntryId) -> Head {
        Head { lineage: self.inner.lineage.clone(), top }
    }

    /// See [`super::Bus::subscribe`].
    #[allow(clippy::unused_async)] // the same signature as over Redis
    pub async fn subscribe(&self, subjects: Vec<Subject>) -> Vec<Result<(), BusError>> {
        let mut state = self.state();
        let results = vec![Ok(()); subjects.len()];
        state.wanted.extend(subjects);
        results
    }

    /// See [`super::Bus::unsubscribe`].
    #[allow(clippy::unused_async)] // the same signature as over Redis
    pub async fn unsubscribe(&self, subjects: Vec<Subject>) {
        let mut state = self.state();
        for subject in subjects {
            state.wanted.remove(&subject);
        }
    }

    /// See [`super::Bus::heads`].
    #[allow(clippy::unused_async)] // the same signature as over Redis
    pub async fn heads(&self, topics: Vec<Topic>) -> Vec<Result<Head, BusError>> {
        let mut state = self.state();
        let now = state.now();
        topics.into_iter().map(|topic| Ok(self.head(state.logs.open(topic, now).top()))).collect()
    }

    /// See [`super::Bus::history`].
    #[allow(clippy::unused_async)] // the same signature as over Redis
    pub async fn history(&self, topic: Topic, after: EntryId) -> Result<History, BusError> {
        let mut state = self.state();
        let now = state.now();
        let log = state.logs.open(topic, now);
        let entries = log.after(after).into_iter().map(|(id, event)| (id, Ok(event))).collect();
        Ok(History { head: self.head(log.top()), entries })
    }

    /// See [`super::Bus::publish`].
    #[allow(clippy::unused_async)] // the same signature as over Redis
    pub async fn publish(&self, topic: Topic, events: Vec<Event>) -> Result<Vec<EntryId>, BusError> {
        let count = events.len();
        let good = events.iter().try_for_each(|event| check::recorded(&self.inner.settings, &topic, event));
        let result: Result<Vec<_>, _> =
            good.map(|()| events.into_iter().map(|event| self.record(&topic, event)).collect());
        check::count_all(&self.inner.metrics, count, &result);
        result
    }

    fn record(&self, topic: &Topic, event: Event) -> EntryId {
        let attributes = event.attributes();
        let name = attributes.id.map(|id| (attributes.source.unwrap_or_default(), id));
        let mut state = self.state();
        let now = state.now();
        let first = name.as_ref().and_then(|name| state.recent.get_mut(topic)?.seen(name));
        if let Some(first) = first {
            return first;
        }
        let id = state.logs.open(topic.clone(), now).append(event.clone());
        if let Some(name) = name {
            state.recent.entry(topic.clone()).or_default().remember(name, id);
        }
        self.deliver(&state, topic, Content::Recorded(id, event));
        id
    }

    /// See [`super::Bus::publish_live`].
    #[allow(clippy::unused_async)] // the same signature as over Redis
    pub async fn publish_live(&self, topic: Topic, event: Event) -> Result<(), BusError> {
        let result = check::live(&self.inner.settings, &topic, &event);
        check::count(&self.inner.metrics, "live", &result);
        result?;
        self.deliver(&self.state(), &topic, Content::Live(event));
        Ok(())
    }

    /// See [`super::Bus::marks`].
    #[allow(clippy::unused_async)] // the same signature as over Redis
    pub async fn marks(&self) -> Result<Marks, BusError> {
        let mut state = self.state();
        Ok(Marks { now: state.now(), marks: state.marks.clone() })
    }

    /// See [`super::Bus::mark`].
    #[allow(clippy::unused_async)] // the same signature as over Redis
    pub async fn mark(&self, areas: Vec<String>, ahead: Duration) -> Result<Marks, BusError> {
        let mut state = self.state();
        let now = state.now();
        for area in areas {
            let mark = state.marks.entry(area).or_default();
            *mark = (*mark).max(now + ahead.as_millis() as u64);
        }
        Ok(Marks { now, marks: state.marks.clone() })
    }

    /// See [`super::Bus::revoke`].
    #[allow(clippy::unused_async)] // the same signature as over Redis
    pub async fn revoke(&self, kind: Kind, whom: Whom) -> Result<u64, BusError> {
        let at = self.inner.settings.revocations.next(kind, &whom, now_ms());
        let orders = vec![Revocation { kind, whom, at }];
        self.inner.arrivals.push(BusEvent::Revoked { orders, heard: Heard::AtOnce });
        Ok(at)
    }

    /// See [`super::Bus::announce`].
    #[allow(clippy::unused_async)] // the same signature as over Redis
    pub async fn announce(&self, json: Bytes) -> Result<(), BusError> {
        let until = Instant::now() + self.inner.settings.probe_interval * 3;
        self.state().nodes.insert(self.inner.settings.node.clone(), (until, json));
        Ok(())
    }

    /// See [`super::Bus::nodes`].
    #[allow(clippy::unused_async)] // the same signature as over Redis
    pub async fn nodes(&self) -> Result<BTreeMap<String, Bytes>, BusError> {
        let now = Instant::now();
        let state = self.state();
        let alive = state.nodes.iter().filter(|(_, (until, _))| *until > now);
        Ok(alive.map(|(node, (_, json))| (node.clone(), json.clone())).collect())
    }

    /// See [`super::Bus::event_bytes`].
    pub fn event_bytes(&self) -> usize {
        self.inner.settings.event_bytes()
    }

    /// See [`super::Bus::health`].
    pub fn health(&self) -> Health {
        Health {
            live: true,
            trouble: None,
            round_trip: Some(Duration::ZERO),
            version: Some(VERSION.into()),
            since: self.inner.started,
        }
    }
}
