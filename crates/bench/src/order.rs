//! What the bench and its child processes say to each other: one JSON object a line, over stdin and stdout.
//!
//! The clients are processes of their own so that their sockets and their CPU time are not the servers'.

use std::{collections::BTreeMap, net::SocketAddr};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// What the bench asks of a reader or of the floor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Reader: open the sessions `first..first + count` of the plan, `events` having been published. → `Connected`
    Connect { plan: Plan, first: u32, count: u32, events: u64 },
    /// Reader: open plain sockets to the floor. → `Connected`
    ConnectFloor { address: SocketAddr, count: u32 },
    /// Reader: what was received since the last time. → `Figures`
    Figures(Side),
    /// Reader: stop (or go on) reading the plan's slow sessions. → `Done`
    Slow(bool),
    /// Reader: close all sessions (the floor's sockets stay). → `Done`
    Leave,
    /// Floor: take so many connections. → `Done`
    Accept(u32),
    /// Floor: write so many events, counted from the given one, of so many bytes. Each goes to every `stride`th socket, in turn,
    /// so that it has as many followers as one of the plan. → `Done`
    Send { from: u64, events: u64, bytes: usize, stride: u64 },
    /// Floor: follow these channels in this Redis. → `Done`
    Follow { redis: SocketAddr, channels: Vec<String> },
    /// Floor: write the next so many events that come from Redis; each goes to every `stride`th socket, from that of its
    /// channel's number. → `Done`
    Forward { events: u64, stride: u64 },
}

/// What they answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Floor: it listens here.
    Listening(SocketAddr),
    /// Reader, unasked: events received or known to be lost so far, from the node and from the floor, and sessions welcomed.
    Progress { node: u64, floor: u64, welcomed: u64 },
    /// How connecting went.
    Connected(Connected),
    /// What was received.
    Figures(Box<Figures>),
    /// It is done.
    Done,
}

/// Whom sockets lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Side {
    /// A node.
    Node,
    /// The bare loop.
    Floor,
    /// A node, and the session is one of those that are not always read.
    Slow,
}

/// How connecting went.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Connected {
    /// Sessions that were welcomed.
    pub(super) welcomed: u64,
    /// Those that were not, by reason.
    pub(super) failed: BTreeMap<String, u64>,
    /// From the first packet to the `welcome`, µs.
    pub(super) times: Times,
    /// Followers by topic, without the slow sessions.
    pub(super) followers: Vec<u64>,
}

/// What sessions received.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Figures {
    /// Events, each once.
    pub(super) delivered: u64,
    /// Events that were missing when a later one came, without a `resync`.
    pub(super) lost: u64,
    /// Events that were missing and covered by a `resync`.
    pub(super) resynced: u64,
    /// Events that came more than once.
    pub(super) doubled: u64,
    /// Events that came after a later one of their topic.
    pub(super) unordered: u64,
    /// `resync`s by reason.
    pub(super) resyncs: BTreeMap<String, u64>,
    /// Sessions that ended unasked, by reason.
    pub(super) ended: BTreeMap<String, u64>,
    /// Bytes of the last event's frame.
    pub(super) frame_bytes: usize,
    /// From publishing to reading, µs.
    pub(super) latency: Times,
}

impl Figures {
    /// Adds another reader's.
    pub(super) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.resynced += other.resynced;
        self.doubled += other.doubled;
        self.unordered += other.unordered;
        self.frame_bytes = self.frame_bytes.max(other.frame_bytes);
        self.latency.add(&other.latency);
        for (mine, others) in [(&mut self.resyncs, &other.resyncs), (&mut self.ended, &other.ended)] {
            for (reason, count) in others {
                *mine.entry(reason.clone()).or_default() += count;
            }
        }
    }

    /// Whether every session has received every event once and in order.
    pub(super) fn is_flawless(&self) -> bool {
        self.lost + self.resynced + self.doubled + self.unordered == 0 && self.ended.is_empty()
    }
}

/// Durations in µs, to three digits, up to a minute.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub(super) struct Times(Histogram<u64>);

impl Times {
    /// Notes a duration.
    pub(super) fn note(&mut self, micros: u64) {
        self.0.saturating_record(micros.max(1));
    }

    /// Adds another's.
    pub(super) fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// The duration that the share `q` (0 to 1) does not exceed.
    pub(super) fn quantile(&self, q: f64) -> u64 {
        self.0.value_at_quantile(q)
    }

    /// The longest.
    pub(super) fn max(&self) -> u64 {
        self.0.max()
    }
}

impl Default for Times {
    fn default() -> Self {
        // One minute fits into three digits: the bounds are right.
        #[expect(clippy::unwrap_used, reason = "constants that the constructor accepts")]
        Self(Histogram::new_with_bounds(1, 60_000_000, 3).unwrap())
    }
}

impl From<Vec<(u64, u64)>> for Times {
    fn from(pairs: Vec<(u64, u64)>) -> Self {
        let mut times = Self::default();
        for (value, count) in pairs {
            times.0.saturating_record_n(value, count);
        }
        times
    }
}

impl From<Times> for Vec<(u64, u64)> {
    fn from(times: Times) -> Self {
        times.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_pipe() {
        let mut times = Times::default();
        (1..=1000).for_each(|n| times.note(n * 10));
        times.note(u64::MAX);
        let json = serde_json::to_string(&times).unwrap();
        let back: Times = serde_json::from_str(&json).unwrap();
        assert_eq!(back.0.len(), 1001);
        assert_eq!(back.quantile(0.5), times.quantile(0.5));
        assert!((4990..=5015).contains(&back.quantile(0.5)));
        assert!(back.max() >= 60_000_000);
    }
}
