//! What a process has used, as `/proc` tells it: read when it is asked for, so that it costs nothing otherwise.
//!
//! Linux only, as Carillon is; elsewhere the figures are missing.

use std::{fmt, fs, io};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Clock ticks per second in `/proc/<pid>/stat` (`USER_HZ`, 100 on every Linux).
const TICKS: f64 = 100.0;

/// What a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Footprint {
    /// User and system CPU time of all threads, seconds.
    pub cpu: f64,
    /// Resident memory, bytes.
    pub memory: u64,
}

impl Footprint {
    /// Of a process on this machine; `None` for this one.
    pub fn read(pid: Option<u32>) -> io::Result<Self> {
        let place = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let read = |file| fs::read_to_string(format!("/proc/{place}/{file}"));
        parse(&read("stat")?, &read("status")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// How many files this process may have open; `None` where that is not known or there is no limit.
pub fn file_limit() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn parse(stat: &str, status: &str) -> Option<Footprint> {
    // The name in parentheses may hold spaces; utime and stime are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Footprint { cpu: ticks as f64 / TICKS, memory: kilobytes * 1024 })
}

/// This process in `/metrics`.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Ok(usage) = Footprint::read(None) else { return Ok(()) };
        let cpu = ConstCounter::new(usage.cpu);
        let unit = Some(&Unit::Seconds);
        let help = "User and system CPU time of the node";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, unit, cpu.metric_type())?)?;
        let memory = ConstGauge::new(i64::try_from(usage.memory).unwrap_or(i64::MAX));
        let unit = Some(&Unit::Bytes);
        let help = "Resident memory of the node";
        memory.encode(encoder.encode_descriptor(
            "process_resident_memory",
            help,
            unit,
            memory.metric_type(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 2 0 100 1 1 1";
        let usage = parse(stat, "Name:\tx\nVmRSS:\t    2048 kB\n");
        assert_eq!(usage, Some(Footprint { cpu: 2.0, memory: 2 << 20 }));
        assert!(Footprint::read(None).unwrap().memory > 0);
    }

    #[test]
    fn a_node_tells_what_it_uses() {
        let text = crate::metrics::Metrics::new().text();
        for name in ["carillon_process_cpu_seconds_total ", "carillon_process_resident_memory_bytes "] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in\n{text}");
        }
    }
}
