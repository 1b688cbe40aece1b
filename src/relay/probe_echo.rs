//! A probe that came back, and what it says of Redis' clock.

use std::time::{Duration, Instant};

use crate::mutant;

/// How much faster than this machine's clock Redis' may run between two proofs.
const FASTER: Duration = Duration::from_millis(100);

/// A probe that has come back.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProbeEcho {
    /// Its own time, ms of Redis' clock: when it was published, or shortly before.
    pub(super) at: u64,
    /// When it was asked for, at the latest.
    pub(super) asked: Instant,
}

impl ProbeEcho {
    /// Redis' clock by now, ms, if it runs as this machine's does.
    pub(super) fn now(self, now: Instant) -> u64 {
        self.at + now.saturating_duration_since(self.asked).as_millis() as u64
    }

    /// Redis' clock by now at the latest, ms.
    pub(super) fn now_at_most(self, now: Instant) -> u64 {
        let at_most = self.now(now) + FASTER.as_millis() as u64;
        if mutant::is("sent-later") { self.at } else { at_most }
    }

    /// Whether Redis' clock has moved further since then than this machine's.
    pub(super) fn was_set_ahead_of(self, at: u64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.asked) + FASTER;
        Duration::from_millis(at.saturating_sub(self.at)) > passed
    }
}
