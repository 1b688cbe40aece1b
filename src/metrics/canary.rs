//! How long ago a canary last came through: read when it is asked for, so that it goes on growing while none comes.
//!
//! A canary is an event that a node publishes and then reads from a socket, as an editor would. Where it is switched off
//! nothing is told.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::age::encode_age;

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
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(age) = self.age() else { return Ok(()) };
        let help = "Time since an event that the node sent itself last came out of a socket";
        encode_age(encoder, "canary_age", help, age)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::metrics::{Metrics, age::read_age};

    #[test]
    fn nothing_is_told_before_the_first_is_sent() {
        let metrics = Metrics::new();
        let age = || read_age(&metrics, "canary_age");
        assert_eq!(age(), None);
        metrics.canary().begin();
        let first = age().expect("the age is told");
        assert!(age().expect("the age is told") > first);
        assert_eq!(metrics.canary().took(), None);
        metrics.canary().came(Duration::from_millis(7));
        assert_eq!(metrics.canary().took(), Some(Duration::from_millis(7)));
    }
}
