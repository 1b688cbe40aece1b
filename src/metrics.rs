//! The figures that a node keeps about itself, in Prometheus' terms (`GET /metrics`).
//!
//! All families are registered once, at the start; the delivery path touches plain atomics. Labels are bounded: an
//! area, a transport, a reason or one of 64 sources, never a topic, a user or an address.

mod age;
pub mod busiest;
pub mod canary;
pub mod history;
pub mod process;
pub mod proof;

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
    sync::{Arc, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Label: the transport of a session (`websocket`, `sse`, `poll`).
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TransportLabel {
    /// Name of the transport.
    pub transport: &'static str,
}

/// Label: why.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabel {
    /// A name from a fixed table.
    pub reason: &'static str,
}

/// Labels: an area and the kind of event (`recorded`, `live`).
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct AreaLabels {
    /// A configured area.
    pub area: String,
    /// `recorded` or `live`.
    pub kind: &'static str,
}

/// Label: a source that publishers vouch for; at most 64 are known.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SourceLabel {
    /// Its name.
    pub source: String,
}

/// Label: the close code of a session.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CodeLabel {
    /// The number.
    pub code: u16,
}

/// A gauge of seconds.
pub type Seconds = Gauge<f64, AtomicU64>;

/// All figures. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    figures: Arc<Figures>,
    memory: Arc<Memory>,
}

/// What is remembered beside the counts: bounded, and gone with the process.
#[derive(Debug, Default)]
struct Memory {
    history: history::MetricsHistory,
    busiest: busiest::Busiest,
    proof: proof::LastProof,
    canary: canary::LastCanary,
}

macro_rules! figures {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ty = $make:expr, $name:literal $(, $unit:expr)?;)*) => {
        /// The figures by name.
        #[derive(Debug)]
        pub struct Figures { $($(#[doc = $doc])+ pub $field: $kind,)* }

        impl Figures {
            fn register(registry: &mut Registry) -> Self {
                let figures = Self { $($field: $make,)* };
                $(figures!(@register registry, $name, concat!($($doc),+), figures.$field.clone() $(, $unit)?);)*
                figures
            }
        }
    };
    (@register $registry:ident, $name:literal, $help:expr, $figure:expr) => {
        $registry.register($name, $help.trim().trim_end_matches('.'), $figure)
    };
    (@register $registry:ident, $name:literal, $help:expr, $figure:expr, $unit:expr) => {
        $registry.register_with_unit($name, $help.trim().trim_end_matches('.'), $unit, $figure)
    };
}

/// Bounds from 50 µs to 10 s.
fn latency() -> Histogram {
    Histogram::new([
        0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
        2.5, 10.0,
    ])
}

figures! {
    /// Open sessions by transport.
    sessions: Family<TransportLabel, Gauge> = Family::default(), "sessions";
    /// Sessions that were welcomed, by transport.
    welcomed: Family<TransportLabel, Counter> = Family::default(), "sessions_welcomed";
    /// Sessions that a node closed, by close code.
    closed: Family<CodeLabel, Counter> = Family::default(), "sessions_closed";
    /// Sessions and requests that were refused, by reason.
    refused: Family<ReasonLabel, Counter> = Family::default(), "refused";
    /// Events that arrived from Redis, by area and kind.
    events: Family<AreaLabels, Counter> = Family::default(), "events_received";
    /// Messages from publishers that are not events, by reason.
    invalid: Family<ReasonLabel, Counter> = Family::default(), "events_invalid";
    /// Events handed to sessions.
    deliveries: Counter = Counter::default(), "deliveries";
    /// Resyncs by reason; one for each session and message.
    resyncs: Family<ReasonLabel, Counter> = Family::default(), "resyncs";
    /// Outboxes that overflowed because their session was slow.
    overflows: Counter = Counter::default(), "outbox_overflows";
    /// Whether the link to Redis is proven: 1 or 0.
    link_up: Gauge = Gauge::default(), "link_up";
    /// Times that the link to Redis was lost.
    link_losses: Counter = Counter::default(), "link_losses";
    /// Whether changes made through a source may be late: 1 or 0.
    source_late: Family<SourceLabel, Gauge> = Family::default(), "source_late";
    /// Age of the oldest event that waits at a source to be published; 0: none waits.
    source_oldest: Family<SourceLabel, Seconds> = Family::default(), "source_oldest", Unit::Seconds;
    /// Round trip of the last probe.
    probe_round_trip: Seconds = Seconds::default(), "probe_round_trip", Unit::Seconds;
    /// Gaps found in the stream of a topic.
    gaps: Counter = Counter::default(), "gaps";
    /// Events that were read from a log to close a gap or for a session that came back.
    backfilled: Counter = Counter::default(), "backfilled";
    /// Reads of a log in Redis.
    history_reads: Counter = Counter::default(), "history_reads";
    /// Sessions that were brought up to date from the node's own tail.
    tail_replays: Counter = Counter::default(), "tail_replays";
    /// Topics that this node follows.
    topics: Gauge = Gauge::default(), "topics";
    /// Events published through this node, by result (`recorded`, `live`, `refused`, `away`).
    published: Family<ReasonLabel, Counter> = Family::default(), "published";
    /// From the arrival of an event at the node until it is written to (or queued for) the last session.
    delivery_latency: Histogram = latency(), "delivery_latency", Unit::Seconds;
    /// From the `time` attribute of an event until it is written, where publishers set one and clocks agree.
    publish_latency: Histogram = latency(), "publish_to_write", Unit::Seconds;
    /// From before a node publishes an event to itself until it reads it from a socket (`telemetry.canary_seconds`).
    canary_latency: Histogram = latency(), "canary_latency", Unit::Seconds;
}

impl Metrics {
    /// Figures that are all zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("carillon");
        let figures = Arc::new(Figures::register(&mut registry));
        registry.register_collector(Box::new(process::Process));
        let memory: Arc<Memory> = Arc::default();
        registry.register_collector(Box::new(memory.proof.clone()));
        registry.register_collector(Box::new(memory.canary.clone()));
        Self { registry: Arc::new(registry), figures, memory }
    }

    /// When everything was last proven to be delivered.
    pub fn proof(&self) -> &proof::LastProof {
        &self.memory.proof
    }

    /// When an event that the node sent itself last came through.
    pub fn canary(&self) -> &canary::LastCanary {
        &self.memory.canary
    }

    /// The last hour of these figures.
    pub fn history(&self) -> &history::MetricsHistory {
        &self.memory.history
    }

    /// The topics with most events.
    pub fn busiest(&self) -> &busiest::Busiest {
        &self.memory.busiest
    }

    /// The text that Prometheus reads (`OpenMetrics` 1.0).
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The same in the older format that everything else reads (Prometheus text 0.0.4): there a counter's family has the
    /// name of its samples, and units and the end are not said.
    pub fn plain_text(&self) -> String {
        let text = self.text();
        let typed = |line: &'_ str| line.strip_prefix("# TYPE ")?.strip_suffix(" counter").map(str::to_owned);
        let counters: HashSet<_> = text.lines().filter_map(typed).collect();
        let mut plain = String::with_capacity(text.len());
        for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                    let _ = writeln!(plain, "# {what} {name}_total {rest}");
                }
                _ => drop(writeln!(plain, "{line}")),
            }
        }
        plain
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::ops::Deref for Metrics {
    type Target = Figures;

    fn deref(&self) -> &Figures {
        &self.figures
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
