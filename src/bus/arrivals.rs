//! The queue from the bus to the relay, with the figures and the complaints about what arrives.
//!
//! Putting something in never waits, because Redis cuts off a reader that is slow. What does not fit is lost, and a
//! [`BusEvent::Doubt`] goes before the next thing that fits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use rustc_hash::FxHashMap;
use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use super::{BusEvent, Content, Delivery, LinkChange, Settings};
use crate::{
    metrics::{AreaLabels, Metrics, ReasonLabel},
    protocol::{Areas, time::now_ms},
};

/// At most one complaint of a kind is logged in this time; it says how many others there were.
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);

/// The sending end. Cheap to clone; clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct Arrivals {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sender: mpsc::Sender<BusEvent>,
    metrics: Metrics,
    /// Events by area: recorded and live.
    counters: FxHashMap<String, (Counter, Counter)>,
    areas: Areas,
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Something did not fit since the last doubt was told.
    overflowed: bool,
    complaints: HashMap<&'static str, Complaint>,
}

#[derive(Debug)]
struct Complaint {
    logged: Instant,
    muted: u64,
}

impl Arrivals {
    /// A queue of [`super::QUEUE`] events.
    pub(super) fn new(settings: &Settings, metrics: Metrics) -> (Self, mpsc::Receiver<BusEvent>) {
        let (sender, receiver) = mpsc::channel(super::QUEUE);
        let counter =
            |area: &str, kind| metrics.events.get_or_create(&AreaLabels { area: area.into(), kind }).clone();
        let both = |area: &str| (area.to_owned(), (counter(area, "recorded"), counter(area, "live")));
        let counters = settings.areas.names().map(|area| both(&area)).collect();
        let inner =
            Inner { sender, counters, areas: settings.areas.clone(), state: Mutex::default(), metrics };
        (Self { inner: Arc::new(inner) }, receiver)
    }

    /// Hands over a delivery and counts it.
    pub(super) fn deliver(&self, delivery: Delivery) {
        if delivery.topic.is_canary() {
            return self.push(BusEvent::Delivery(delivery));
        }
        let kind = match delivery.content {
            Content::Recorded(..) => Some("recorded"),
            Content::Live(_) => Some("live"),
            Content::Invalid(_) | Content::Erased(_) => None,
        };
        match (self.inner.counters.get(delivery.topic.area()), kind) {
            (Some((recorded, live)), Some(kind)) => {
                if kind == "live" { live } else { recorded }.inc();
            }
            // An area that was adopted later.
            (None, Some(kind)) => {
                let labels = AreaLabels { area: delivery.topic.area().into(), kind };
                self.inner.metrics.events.get_or_create(&labels).inc();
            }
            (_, None) => {}
        }
        self.note(&delivery);
        self.push(BusEvent::Delivery(delivery));
    }

    /// For the list of the busiest topics. The keys of private areas are people: they are counted together.
    fn note(&self, delivery: &Delivery) {
        if matches!(delivery.content, Content::Invalid(_) | Content::Erased(_)) {
            return;
        }
        let (topic, busiest) = (&delivery.topic, self.inner.metrics.busiest());
        if topic.key().is_some() && self.inner.areas.is_private(topic.area()) {
            busiest.count(&format!("{}:…", topic.area()), now_ms());
        } else {
            busiest.count(topic.as_str(), now_ms());
        }
    }

    /// Hands over anything else that may be lost in an overflow.
    pub(super) fn push(&self, event: BusEvent) {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.overflowed {
            if self.inner.sender.try_send(BusEvent::Doubt(None)).is_err() {
                return;
            }
            state.overflowed = false;
        }
        if let Err(mpsc::error::TrySendError::Full(_)) = self.inner.sender.try_send(event) {
            state.overflowed = true;
            complain(&mut state, "overflow", "", "the node is slower than what arrives from Redis");
        }
    }

    /// Hands over what must not be lost; waits for room. Not for the reader of a link. A link that is up or down makes
    /// every head be compared, which answers an overflow too.
    pub(super) async fn tell(&self, event: BusEvent) {
        if matches!(event, BusEvent::Link(_)) {
            self.inner.state.lock().unwrap_or_else(PoisonError::into_inner).overflowed = false;
        }
        // The relay is gone only when the node ends.
        let _ = self.inner.sender.send(event).await;
    }

    /// Hands over settings that were adopted since those of this generation were told.
    pub(super) async fn tell_adopted(&self, settings: &Settings, told: &mut u64) {
        let generation = settings.generation();
        if *told != generation {
            let areas = settings.areas.names().collect();
            self.tell(BusEvent::Adopted { areas, log_ttl: settings.log_ttl() }).await;
            // Not before: the link may be lost while it waits for room.
            *told = generation;
        }
    }

    /// Like [`Arrivals::tell`], from where one cannot wait; without room it comes back as an overflow.
    pub(super) fn tell_up(&self) {
        self.push(BusEvent::Link(LinkChange::Up));
    }

    /// Counts something that is dropped, and logs it now and then.
    pub(super) fn reject(&self, reason: &'static str, channel: &str, detail: &str) {
        self.inner.metrics.invalid.get_or_create(&ReasonLabel { reason }).inc();
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        complain(&mut state, reason, channel, detail);
    }
}

fn complain(state: &mut QueueState, reason: &'static str, channel: &str, detail: &str) {
    let now = Instant::now();
    let muted = match state.complaints.get_mut(reason) {
        Some(complaint) if now - complaint.logged < COMPLAINT_EVERY => {
            complaint.muted += 1;
            return;
        }
        Some(complaint) => complaint.muted,
        None => 0,
    };
    state.complaints.insert(reason, Complaint { logged: now, muted });
    warn!(reason, channel, muted, "dropped what arrived from Redis: {detail}");
}
