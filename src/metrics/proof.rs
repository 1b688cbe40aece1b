//! How long ago everything was last proven to be delivered: read when it is asked for, so that it goes on growing while
//! nothing comes.
//!
//! A proof is a probe that was published the way events are, came back by the link and passed the relay behind all that
//! was before it.

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

/// The moment of the last proof. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LastProof(Arc<Mutex<Instant>>);

impl Default for LastProof {
    /// Nothing is proven yet: counted from now.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl LastProof {
    /// Everything up to now is proven.
    pub fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Time since the last proof; since the start where there was none.
    pub fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Collector for LastProof {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let age = ConstGauge::new(self.age().as_secs_f64());
        let help = "Time since a probe last took an event's way from Redis through this node";
        age.encode(encoder.encode_descriptor("proof_age", help, Some(&Unit::Seconds), age.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn the_age_grows_until_there_is_a_proof() {
        let metrics = Metrics::new();
        let age = |text: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix("carillon_proof_age_seconds "));
            line.and_then(|age| age.parse().ok()).expect("the age is told")
        };
        let first = age(&metrics.text());
        let second = age(&metrics.text());
        assert!(first < second, "{first} {second}");
        *metrics.proof().0.lock().unwrap() -= Duration::from_secs(60);
        assert!(age(&metrics.text()) >= 60.0);
        metrics.proof().renew();
        assert!(age(&metrics.text()) < 60.0);
    }
}
