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

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::age::encode_age;

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
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Time since a probe last took an event's way from Redis through this node";
        encode_age(encoder, "proof_age", help, self.age())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, age::read_age};

    #[test]
    fn the_age_grows_until_there_is_a_proof() {
        let metrics = Metrics::new();
        let age = || read_age(&metrics, "proof_age").expect("the age is told");
        let (first, second) = (age(), age());
        assert!(first < second, "{first} {second}");
        *metrics.proof().0.lock().unwrap() -= Duration::from_secs(60);
        assert!(age() >= 60.0);
        metrics.proof().renew();
        assert!(age() < 60.0);
    }
}
