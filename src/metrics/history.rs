//! The last hour of the figures, in buckets of ten seconds: what the watching page opens with.
//!
//! Made from the text that Prometheus reads, so that both tell the same. Memory is bounded: [`KEPT`] buckets, each with at
//! most `NAMES` names of a kind, and only those that counted anything: some 200 KB in a busy hour, 3 MB at the very
//! most. Nothing of it survives the process.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;

/// How long a bucket is.
pub const BUCKET: Duration = Duration::from_secs(10);
/// How many full buckets are kept: an hour.
pub const KEPT: usize = 360;
/// Names of one kind (areas, reasons) in one bucket; what comes after them is counted under [`OTHERS`].
const NAMES: usize = 64;
/// The name for those beyond [`NAMES`].
const OTHERS: &str = "others";

/// A name and how many; nothing that is zero.
type Counts = BTreeMap<Arc<str>, u64>;

/// What happened in some seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Bucket {
    /// When it began, ms since 1970.
    pub from: u64,
    /// How long it lasted.
    pub seconds: f64,
    /// Open sessions at its end, by transport.
    pub sessions: Counts,
    /// Events that arrived: `recorded`, `live`.
    pub events: Counts,
    /// The same by area.
    pub areas: Counts,
    /// Events handed to sessions.
    pub deliveries: u64,
    /// From an event's arrival to its last write; `None` where nothing was delivered.
    pub latency_ms: Option<Latency>,
    /// Whether the link to Redis was proven at its end.
    pub link_up: bool,
    /// Times that the link was lost in it.
    pub link_losses: u64,
    /// Round trip of the last probe, ms.
    pub probe_ms: f64,
    /// Resyncs by reason.
    pub resyncs: Counts,
    /// Refusals by cause.
    pub refused: Counts,
    /// Outboxes that overflowed.
    pub overflows: u64,
}

/// Percentiles, ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Half were faster.
    pub p50: f64,
    /// 90 of 100 were faster.
    pub p90: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
}

/// The hour. Filled by whoever has a clock.
#[derive(Debug, Default)]
pub struct MetricsHistory {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What stood in the figures when the open bucket began, and when that was.
    opened: Option<(u64, Sample)>,
    full: VecDeque<Bucket>,
    names: BTreeSet<Arc<str>>,
}

impl MetricsHistory {
    /// Ends the open bucket and begins the next; called every [`BUCKET`] with the figures and the time (ms since 1970).
    pub fn close(&self, text: &str, now: u64) {
        let sample = Sample::read(text);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = inner.bucket(&sample, now) {
            inner.full.push_back(bucket);
            while inner.full.len() > KEPT {
                inner.full.pop_front();
            }
        }
        inner.opened = Some((now, sample));
    }

    /// The buckets that began at `since` (ms since 1970) or later, with the one that is open as it stands at `now`.
    pub fn since(&self, since: u64, text: &str, now: u64) -> Vec<Bucket> {
        let sample = Sample::read(text);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let open = inner.bucket(&sample, now);
        inner.full.iter().filter(|bucket| bucket.from >= since).cloned().chain(open).collect()
    }
}

impl Inner {
    fn bucket(&mut self, now: &Sample, at: u64) -> Option<Bucket> {
        let (from, before) = self.opened.take()?;
        let bucket = self.between(from, &before, now, at);
        self.opened = Some((from, before));
        Some(bucket)
    }

    fn between(&mut self, from: u64, before: &Sample, now: &Sample, at: u64) -> Bucket {
        // A clock that was set back must not make a bucket without length.
        let ms = at.saturating_sub(from).max(1);
        let gained = |family: &str| gained(before.one(family), now.one(family));
        let deliveries = gained("carillon_deliveries_total");
        Bucket {
            from,
            seconds: ms as f64 / 1000.0,
            sessions: self.counts(now.by("carillon_sessions", "transport"), &BTreeMap::new()),
            events: self.gained("carillon_events_received_total", "kind", before, now),
            areas: self.gained("carillon_events_received_total", "area", before, now),
            deliveries,
            latency_ms: (deliveries > 0).then(|| Latency::between(before, now)).flatten(),
            link_up: now.one("carillon_link_up") > 0.0,
            link_losses: gained("carillon_link_losses_total"),
            probe_ms: now.one("carillon_probe_round_trip_seconds") * 1000.0,
            resyncs: self.gained("carillon_resyncs_total", "reason", before, now),
            refused: self.gained("carillon_refused_total", "reason", before, now),
            overflows: gained("carillon_outbox_overflows_total"),
        }
    }

    fn gained(&mut self, family: &str, label: &str, before: &Sample, now: &Sample) -> Counts {
        self.counts(now.by(family, label), &before.by(family, label))
    }

    /// What was gained by name, without zeros; every name is kept once, however many buckets have it.
    fn counts(&mut self, now: BTreeMap<&str, f64>, before: &BTreeMap<&str, f64>) -> Counts {
        let mut counts = Counts::new();
        for (name, value) in now {
            let gained = gained(*before.get(name).unwrap_or(&0.0), value);
            if gained > 0 {
                let name = if counts.len() < NAMES { name } else { OTHERS };
                *counts.entry(self.name(name)).or_default() += gained;
            }
        }
        counts
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        self.names.insert(Arc::clone(&new));
        new
    }
}

/// By how much a count went up; a count that went down has begun anew.
#[expect(clippy::cast_sign_loss, reason = "it is not negative")]
fn gained(before: f64, now: f64) -> u64 {
    (now - before).max(0.0) as u64
}

/// The figures at one moment: `(family, labels)` and value.
#[derive(Debug, Default)]
struct Sample {
    values: Vec<(String, String, f64)>,
}

impl Sample {
    /// Reads the families that a bucket needs.
    fn read(text: &str) -> Self {
        const FAMILIES: [&str; 10] = [
            "carillon_sessions",
            "carillon_events_received_total",
            "carillon_deliveries_total",
            "carillon_resyncs_total",
            "carillon_refused_total",
            "carillon_outbox_overflows_total",
            "carillon_link_up",
            "carillon_link_losses_total",
            "carillon_probe_round_trip_seconds",
            LATENCY,
        ];
        let line = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let (family, labels) = name.split_once('{').unwrap_or((name, ""));
            FAMILIES.contains(&family).then_some(())?;
            Some((family.to_owned(), labels.trim_end_matches('}').to_owned(), value.parse().ok()?))
        };
        Self { values: text.lines().filter_map(line).collect() }
    }

    fn of<'a>(&'a self, family: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let own = self.values.iter().filter(move |(name, ..)| name == family);
        own.map(|(_, labels, value)| (labels.as_str(), *value))
    }

    fn one(&self, family: &str) -> f64 {
        self.of(family).map(|(_, value)| value).sum()
    }

    /// The sums by the value of one label.
    fn by<'a>(&'a self, family: &'a str, label: &str) -> BTreeMap<&'a str, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.of(family) {
            if let Some(name) = label_value(labels, label) {
                *sums.entry(name).or_default() += value;
            }
        }
        sums
    }
}

/// The value of a label in `a="x",b="y"`. Areas, kinds and reasons have no quotes in them.
fn label_value<'a>(labels: &'a str, label: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| pair.strip_prefix(label)?.strip_prefix("=\"")?.strip_suffix('"'))
}

const LATENCY: &str = "carillon_delivery_latency_seconds_bucket";

impl Latency {
    /// Of what was measured between two moments; within a bound of the histogram as if spread evenly.
    fn between(before: &Sample, now: &Sample) -> Option<Self> {
        let bounds = |sample: &Sample| -> Vec<(f64, f64)> {
            let bound = |labels| label_value(labels, "le").and_then(|le| le.replace('+', "").parse().ok());
            sample
                .of(LATENCY)
                .map(|(labels, count)| (bound(labels).unwrap_or(f64::INFINITY), count))
                .collect()
        };
        let old = bounds(before);
        let counts: Vec<(f64, f64)> = bounds(now)
            .into_iter()
            .enumerate()
            .map(|(i, (bound, count))| (bound, count - old.get(i).map_or(0.0, |(_, count)| *count)))
            .collect();
        let percentile = |part: f64| -> Option<f64> {
            let wanted = part * counts.last()?.1;
            let at = counts.iter().position(|(_, count)| wanted > 0.0 && *count >= wanted)?;
            let (from, below) = at.checked_sub(1).map_or((0.0, 0.0), |at| counts[at]);
            let (to, count) = counts[at];
            let within = if to.is_finite() { (to - from) * (wanted - below) / (count - below) } else { 0.0 };
            Some((from + within) * 1000.0)
        };
        Some(Self { p50: percentile(0.5)?, p90: percentile(0.9)?, p99: percentile(0.99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{AreaLabels, Metrics, ReasonLabel, TransportLabel};

    fn events(metrics: &Metrics, area: &str, kind: &'static str, count: u64) {
        metrics.events.get_or_create(&AreaLabels { area: area.into(), kind }).inc_by(count);
    }

    #[test]
    fn a_bucket_holds_what_happened_in_it() {
        let (metrics, history) = (Metrics::new(), MetricsHistory::default());
        events(&metrics, "comments", "recorded", 7);
        history.close(&metrics.text(), 1_000);
        events(&metrics, "comments", "recorded", 3);
        events(&metrics, "projects", "live", 2);
        metrics.sessions.get_or_create(&TransportLabel { transport: "sse" }).set(4);
        metrics.deliveries.inc_by(12);
        for _ in 0..100 {
            metrics.delivery_latency.observe(0.000_2);
        }
        metrics.resyncs.get_or_create(&ReasonLabel { reason: "gap" }).inc_by(5);
        metrics.refused.get_or_create(&ReasonLabel { reason: "forbidden" }).inc();
        metrics.link_losses.inc();
        metrics.probe_round_trip.set(0.002);
        history.close(&metrics.text(), 11_000);
        let all = history.since(0, &metrics.text(), 12_000);
        assert_eq!(all.len(), 2, "a full one, and the open one");
        let bucket = serde_json::to_value(&all[0]).unwrap();
        assert_eq!((bucket["from"].as_u64(), bucket["seconds"].as_f64()), (Some(1_000), Some(10.0)));
        assert_eq!(bucket["events"], serde_json::json!({"recorded": 3, "live": 2}), "not what was before");
        assert_eq!(bucket["areas"], serde_json::json!({"comments": 3, "projects": 2}));
        assert_eq!(bucket["sessions"], serde_json::json!({"sse": 4}));
        assert_eq!(bucket["resyncs"], serde_json::json!({"gap": 5}));
        assert_eq!(bucket["refused"], serde_json::json!({"forbidden": 1}));
        assert_eq!((all[0].deliveries, all[0].link_losses, all[0].link_up), (12, 1, false));
        assert!((all[0].probe_ms - 2.0).abs() < 1e-9);
        let latency = all[0].latency_ms.unwrap();
        assert!((0.1..=0.25).contains(&latency.p50) && latency.p50 < latency.p99 && latency.p99 <= 0.25);
        assert_eq!((all[1].deliveries, all[1].latency_ms, all[1].from), (0, None, 11_000));
        assert_eq!(history.since(11_000, &metrics.text(), 12_000).len(), 1, "only the news");
    }

    #[test]
    fn latency_is_told_only_where_something_was_delivered() {
        let (metrics, history) = (Metrics::new(), MetricsHistory::default());
        history.close(&metrics.text(), 0);
        metrics.delivery_latency.observe(0.001);
        assert_eq!(history.since(0, &metrics.text(), 5_000)[0].latency_ms, None);
        metrics.deliveries.inc();
        assert!(history.since(0, &metrics.text(), 5_000)[0].latency_ms.is_some());
    }

    #[test]
    fn an_hour_is_kept_and_no_more_whatever_happens() {
        let (metrics, history) = (Metrics::new(), MetricsHistory::default());
        let areas: Vec<String> = (0..200).map(|n| format!("area-{n:027}")).collect();
        let mut now = 0;
        for _ in 0..KEPT + 50 {
            for area in &areas {
                events(&metrics, area, "recorded", 1);
            }
            now += 10_000;
            history.close(&metrics.text(), now);
        }
        let all = history.since(0, &metrics.text(), now + 1);
        assert_eq!(all.len(), KEPT + 1);
        assert_eq!(all[0].from, now - KEPT as u64 * 10_000, "the oldest have gone");
        assert_eq!(all[0].areas.len(), NAMES + 1);
        assert_eq!(all[0].areas.values().sum::<u64>(), 200, "none is lost from the sum");
        // Names stand once for all buckets; a map's entry has up to as much room again. Areas and causes may reach the
        // bound; transports, kinds and reasons are few.
        let entries = 2 * (NAMES + 1) + 16;
        let kept = size_of::<Bucket>() + entries * 2 * size_of::<(Arc<str>, u64)>();
        assert!(KEPT * kept < 3 << 20, "{kept} bytes a bucket");
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_nonsense() {
        let (metrics, history) = (Metrics::new(), MetricsHistory::default());
        history.close(&metrics.text(), 50_000);
        metrics.deliveries.inc_by(3);
        history.close(&metrics.text(), 20_000);
        let all = history.since(0, &metrics.text(), 21_000);
        assert!(all.iter().all(|bucket| bucket.seconds > 0.0 && bucket.seconds.is_finite()));
        assert_eq!(all[0].deliveries, 3);
    }
}
