//! How long ago a canary last came through: read when it is asked for, so that it goes on growing while none comes.
//!
//! A canary is an event that a node publishes and then reads from a socket, as an editor would. Where it is switched off
//! nothing is told.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Unit,
};

/// When the last canary came through, and how long it took.
#[derive(Debug, Clone, Copy)]
struct Last {
    seen: Instant,
    took: Option<Duration>,
}

/// The last canary. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LastCanary(Arc<Mutex<Option<Last>>>);

impl LastCanary {
    fn set(&self, took: Option<Duration>) {
        let last = Last { seen: Instant::now(), took };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    fn get(&self) -> Option<Last> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Canaries are sent from now on: the age counts from here until one comes.
    pub fn begin(&self) {
        self.set(None);
    }

    /// One came through.
    pub fn came(&self, took: Duration) {
        self.set(Some(took));
    }

    /// Time since the last one; since the beginning where none has come; `None` where none is sent.
    pub fn age(&self) -> Option<Duration> {
        self.get().map(|last| last.seen.elapsed())
    }

    /// How long the last one took.
    pub fn took(&self) -> Option<Duration> {
        self.get()?.took
    }
}

impl Collector for LastCanary {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(age) = self.age() else { return Ok(()) };
        let age = ConstGauge::new(age.as_secs_f64());
        let help = "Time since an event that the node sent itself last came out of a socket";
        age.encode(encoder.encode_descriptor("canary_age", help, Some(&Unit::Seconds), age.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::metrics::Metrics;

    #[test]
    fn nothing_is_told_before_the_first_is_sent() {
        let metrics = Metrics::new();
        let age = || {
            let text = metrics.text();
            let line = text.lines().find_map(|line| line.strip_prefix("carillon_canary_age_seconds "));
            line.map(|age| age.parse::<f64>().expect("a number"))
        };
        assert_eq!(age(), None);
        metrics.canary().begin();
        let first = age().expect("the age is told");
        assert!(age().expect("the age is told") > first);
        assert_eq!(metrics.canary().took(), None);
        metrics.canary().came(Duration::from_millis(7));
        assert_eq!(metrics.canary().took(), Some(Duration::from_millis(7)));
    }
}
