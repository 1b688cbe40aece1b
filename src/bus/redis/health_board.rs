//! How well Redis is, for those who ask: `/readyz`, `/status`, metrics and the log.
//!
//! A cause is logged once, where it begins and where it ends.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::{info, warn};

use crate::{bus::Health, metrics::Metrics, protocol::time::now_ms};

const REFUSING: &str = "Redis refuses writes";

/// The present health.
#[derive(Debug)]
pub(super) struct HealthBoard {
    health: Mutex<Health>,
    metrics: Metrics,
    place: String,
}

impl HealthBoard {
    pub(super) fn new(metrics: Metrics, place: String) -> Self {
        let trouble = Some("not yet connected to Redis".into());
        let health = Health { since: now_ms(), trouble, ..Health::default() };
        Self { health: Mutex::new(health), metrics, place }
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn health(&self) -> Health {
        self.lock().clone()
    }

    /// The reason why Redis cannot be used now, for errors.
    pub(super) fn trouble(&self) -> String {
        self.lock().trouble.clone().unwrap_or_else(|| "the connection is being built".into())
    }

    /// The server's version was read.
    pub(super) fn version(&self, version: String) {
        self.lock().version = Some(version);
    }

    /// A round of probes came back; `refusing` where Redis accepts no writes.
    pub(super) fn proven(&self, round_trip: Duration, refusing: Option<String>) {
        let mut health = self.lock();
        if !health.live {
            info!(redis = self.place, "the link to Redis is up");
            health.live = true;
            health.since = now_ms();
            self.metrics.link_up.set(1);
        }
        let trouble = refusing.map(|text| format!("{REFUSING}: {text}"));
        let was_refusing = health.trouble.as_ref().is_some_and(|text| text.starts_with(REFUSING));
        match &trouble {
            Some(text) if !was_refusing => warn!(redis = self.place, "{text}"),
            None if was_refusing => info!(redis = self.place, "Redis accepts writes again"),
            _ => {}
        }
        health.trouble = trouble;
        health.round_trip = Some(round_trip);
        self.metrics.probe_round_trip.set(round_trip.as_secs_f64());
    }

    /// The link is lost, or cannot be built; logged where the reason is another one than before.
    pub(super) fn lost(&self, reason: &str) {
        let mut health = self.lock();
        let text = format!("no link to Redis at {}: {reason}", self.place);
        if health.live {
            health.live = false;
            health.since = now_ms();
            self.metrics.link_up.set(0);
            self.metrics.link_losses.inc();
        }
        if health.trouble.as_ref() != Some(&text) {
            warn!("{text}; trying again");
        }
        health.round_trip = None;
        health.trouble = Some(text);
    }
}
