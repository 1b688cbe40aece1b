//! The report: what was run on what, every round, and the comparison with the floor; for people and as JSON.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    order::{Connected, Times},
    round::{Round, RoundKind},
};

/// Everything that a bench has found out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) machine: Machine,
    /// The options that shape the load, as they were used.
    pub(super) load: BTreeMap<&'static str, Value>,
    pub(super) sessions: u64,
    pub(super) connects: Vec<Connects>,
    pub(super) idle: Option<Idle>,
    #[serde(serialize_with = "rounds")]
    pub(super) rounds: Vec<Round>,
    pub(super) flawless: bool,
    /// Node ÷ floor.
    pub(super) ratio: Option<Spread>,
    /// Node ÷ bare receive and send.
    pub(super) ratio_to_forward: Option<Spread>,
    /// Memory of the nodes, bytes: at first, and after the sessions of each cycle have left.
    pub(super) memory_after: Vec<u64>,
}

/// The machine it was measured on.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cpus: usize,
    model: String,
    kernel: String,
}

/// One time of connecting everybody.
#[derive(Debug, Serialize)]
pub(super) struct Connects {
    pub(super) seconds: f64,
    pub(super) cpu_micros_each: Option<f64>,
    /// User-space memory of the nodes per session, bytes.
    pub(super) memory_each: Option<f64>,
    #[serde(serialize_with = "connected")]
    pub(super) result: Connected,
}

/// Sessions to which nothing happens.
#[derive(Debug, Serialize)]
pub(super) struct Idle {
    pub(super) seconds: f64,
    /// CPU time per session and second, µs.
    pub(super) cpu_micros: f64,
}

/// The least, the middle and the most of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Machine {
    /// This one.
    pub(super) fn this() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            model: model.map_or_else(|| "unknown".into(), |(_, name)| name.to_owned()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

impl Spread {
    /// Of so many values; `None` without any.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            n if n % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { min: *values.first()?, median, max: *values.last()? })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} / {:.2} / {:.2}", self.min, self.median, self.max)
    }
}

/// Cost of each node's round over that of the other way's round before it.
pub(super) fn ratio(rounds: &[Round], to: RoundKind) -> Option<Spread> {
    let mut other = None;
    let mut ratios = Vec::new();
    for round in rounds {
        match (round.way, round.cost(), other) {
            (way, cost, _) if way == to => other = cost,
            (RoundKind::Node, Some(cost), Some(other)) => ratios.push(cost / other),
            _ => {}
        }
    }
    Spread::of(ratios.into_iter())
}

impl Report {
    /// Rounds of a way.
    pub(super) fn of(&self, way: RoundKind) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter(move |round| round.way == way)
    }

    /// The report for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let machine = &self.machine;
        writeln!(out, "machine   {} × {}, Linux {}", machine.cpus, machine.model, machine.kernel)?;
        let load: Vec<String> = self.load.iter().map(|(name, value)| format!("{name} {value}")).collect();
        writeln!(out, "load      {}", load.join(", "))?;
        for connects in &self.connects {
            let Connects { seconds, result, .. } = connects;
            let (p50, p99) = (result.times.quantile(0.5), result.times.quantile(0.99));
            write!(
                out,
                "connect   {} in {seconds:.2} s ({:.0}/s)",
                result.welcomed,
                result.welcomed as f64 / seconds
            )?;
            write!(out, ", p50 {} p99 {}", millis(p50), millis(p99))?;
            if let Some(cpu) = connects.cpu_micros_each {
                write!(out, ", {cpu:.0} µs CPU each")?;
            }
            if let Some(bytes) = connects.memory_each {
                write!(out, ", {bytes:.0} B each")?;
            }
            writeln!(out, ", failed {}", reasons(&result.failed))?;
        }
        if let Some(idle) = &self.idle {
            writeln!(
                out,
                "idle      {:.2} µs CPU per session and second, over {:.0} s",
                idle.cpu_micros, idle.seconds
            )?;
        }
        self.write_rounds(out)?;
        self.write_costs(out)?;
        if self.memory_after.len() > 1 {
            let sizes = self.memory_after.iter().map(|bytes| format!("{:.1}", *bytes as f64 / 1_048_576.0));
            writeln!(
                out,
                "memory MiB       at first, and when all had left: {}",
                sizes.collect::<Vec<_>>().join(", ")
            )?;
        }
        let verdict = if self.flawless {
            "every session got every event once and in order"
        } else {
            "NOT flawless: see above"
        };
        writeln!(out, "{verdict}")
    }

    fn write_costs(&self, out: &mut String) -> std::fmt::Result {
        for (way, name) in [
            (RoundKind::Floor, "floor"),
            (RoundKind::Forward, "receive and send"),
            (RoundKind::Node, "node"),
            (RoundKind::NodeWithSlow, "node, slow held"),
        ] {
            if let Some(cost) = Spread::of(self.of(way).filter_map(Round::cost)) {
                writeln!(out, "{name:<16} µs CPU per delivery, min / median / max: {cost}")?;
            }
        }
        for (name, ratio) in
            [("node ÷ floor", self.ratio), ("node ÷ receive and send", self.ratio_to_forward)]
        {
            if let Some(ratio) = ratio {
                writeln!(out, "{name:<16} min / median / max: {ratio}")?;
            }
        }
        Ok(())
    }

    fn write_rounds(&self, out: &mut String) -> std::fmt::Result {
        if self.rounds.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "{:<15}{:>7}{:>12}{:>12}{:>9}{:>10}{:>10}{:>10}{:>10}  faults",
            "round", "events", "deliveries", "per second", "µs CPU", "p50", "p99", "p99.9", "max"
        )?;
        for round in &self.rounds {
            let figures = &round.figures;
            let name = match round.way {
                RoundKind::Floor => "floor",
                RoundKind::Forward => "receive, send",
                RoundKind::Node => "node",
                RoundKind::NodeWithSlow => "node, slow held",
            };
            let cost = round.cost().map_or_else(|| "-".into(), |cost| format!("{cost:.2}"));
            write!(
                out,
                "{name:<15}{:>7}{:>12}{:>12.0}{cost:>9}",
                round.events,
                figures.delivered,
                round.rate()
            )?;
            for q in [0.5, 0.99, 0.999] {
                write!(out, "{:>10}", millis(figures.latency.quantile(q)))?;
            }
            write!(out, "{:>10}  ", millis(figures.latency.max()))?;
            if figures.is_flawless() {
                writeln!(out, "none")?;
            } else {
                let (lost, resynced) = (figures.lost, figures.resynced);
                write!(out, "lost {lost}, resynced {resynced}, doubled {}, ", figures.doubled)?;
                writeln!(out, "out of order {}, ended {}", figures.unordered, reasons(&figures.ended))?;
            }
        }
        Ok(())
    }
}

fn reasons(reasons: &BTreeMap<String, u64>) -> String {
    let each = reasons.iter().map(|(reason, count)| format!("{count} ({reason})"));
    if reasons.is_empty() { "0".into() } else { each.collect::<Vec<_>>().join(", ") }
}

fn millis(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1000.0)
}

fn quantiles(times: &Times) -> Value {
    let q = |q| times.quantile(q);
    json!({ "p50": q(0.5), "p90": q(0.9), "p99": q(0.99), "p99.9": q(0.999), "max": times.max() })
}

fn connected<S: serde::Serializer>(connected: &Connected, serializer: S) -> Result<S::Ok, S::Error> {
    let Connected { welcomed, failed, times, .. } = connected;
    json!({ "welcomed": welcomed, "failed": failed, "micros": quantiles(times) }).serialize(serializer)
}

fn rounds<S: serde::Serializer>(rounds: &[Round], serializer: S) -> Result<S::Ok, S::Error> {
    let rounds = rounds.iter().map(|round| {
        let figures = &round.figures;
        let mut value = serde_json::to_value(round).unwrap_or_default();
        value["deliveries"] = json!(figures.delivered);
        value["deliveries_per_second"] = json!(round.rate());
        value["cpu_micros_per_delivery"] = json!(round.cost());
        value["client_micros_per_delivery"] = json!(round.client_cost());
        value["frame_bytes"] = json!(figures.frame_bytes);
        value["latency_micros"] = quantiles(&figures.latency);
        value["faults"] = json!({
            "lost": figures.lost, "resynced": figures.resynced, "doubled": figures.doubled,
            "out_of_order": figures.unordered, "resyncs": figures.resyncs, "ended": figures.ended,
        });
        value
    });
    serializer.collect_seq(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Figures;

    pub(super) fn round(way: RoundKind, cpu: f64) -> Round {
        let figures = Figures { delivered: 1_000_000, ..Figures::default() };
        Round { way, events: 100, seconds: 2.0, cpu: Some(cpu), client_cpu: 1.0, memory: 0, figures }
    }

    #[test]
    fn a_node_is_compared_with_the_floor_before_it() {
        let rounds = [
            (RoundKind::Floor, 5.0),
            (RoundKind::Node, 6.0),
            (RoundKind::Floor, 4.0),
            (RoundKind::Node, 6.0),
            (RoundKind::NodeWithSlow, 9.0),
        ];
        let rounds: Vec<Round> = rounds.into_iter().map(|(way, cpu)| round(way, cpu)).collect();
        let ratio = ratio(&rounds, RoundKind::Floor).unwrap();
        assert_eq!(ratio.to_string(), "1.20 / 1.35 / 1.50");
        assert!(rounds[0].cost().is_some_and(|cost| (cost - 5.0).abs() < 1e-9));
    }

    #[test]
    fn a_spread_needs_values() {
        assert_eq!(Spread::of([].into_iter()), None);
        assert_eq!(Spread::of([3.0, 1.0, 2.0].into_iter()), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
    }
}
