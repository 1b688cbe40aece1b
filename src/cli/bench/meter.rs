//! Meters: the CPU time and memory of the measured processes, from `/proc` or from a node's `/metrics`.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// Clock ticks per second in `/proc/<pid>/stat` (`USER_HZ`, 100 on every Linux).
const TICKS: f64 = 100.0;

/// A client for the internal listeners.
pub(super) type Http = Client<HttpConnector, Full<bytes::Bytes>>;

/// A client for the internal listeners.
pub(super) fn http() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_mins(1)).build(connector)
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    /// User and system CPU time of all threads, seconds.
    pub(super) cpu: f64,
    /// Resident memory, bytes.
    pub(super) memory: u64,
}

/// The measured processes.
#[derive(Debug, Clone)]
pub(super) enum Meter {
    /// On this machine.
    Process(u32),
    /// Anywhere: the URL of `/metrics`.
    Metrics(String),
}

impl Meter {
    /// Reads one.
    pub(super) async fn read(&self, http: &Http) -> Result<Reading> {
        match self {
            Self::Process(pid) => process(*pid),
            Self::Metrics(url) => {
                let answer = http.get(url.parse()?).await.with_context(|| format!("cannot read {url}"))?;
                let text = answer.into_body().collect().await?.to_bytes();
                metrics(&String::from_utf8_lossy(&text)).with_context(|| {
                    format!("{url} tells no CPU time and memory; with --pid they are read on this machine")
                })
            }
        }
    }

    /// Reads all; the sum.
    pub(super) async fn sum(meters: &[Self], http: &Http) -> Result<Reading> {
        let mut sum = Reading::default();
        for meter in meters {
            let reading = meter.read(http).await?;
            sum.cpu += reading.cpu;
            sum.memory += reading.memory;
        }
        Ok(sum)
    }
}

/// Reads a process on this machine.
pub(super) fn process(pid: u32) -> Result<Reading> {
    let read = |file| {
        fs::read_to_string(format!("/proc/{pid}/{file}"))
            .with_context(|| format!("there is no process {pid} to measure"))
    };
    let stat = read("stat")?;
    let status = read("status")?;
    parse(&stat, &status).with_context(|| format!("/proc/{pid} does not look as it should"))
}

fn parse(stat: &str, status: &str) -> Option<Reading> {
    // The name in parentheses may hold spaces; utime and stime are the 12th and 13th field after it.
    let fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Reading { cpu: ticks as f64 / TICKS, memory: kilobytes * 1024 })
}

fn metrics(text: &str) -> Option<Reading> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let cpu = value("carillon_process_cpu_seconds_total ")?.parse().ok()?;
    Some(Reading { cpu, memory: value("carillon_process_resident_memory_bytes ")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 2 0 100 1 1 1";
        let reading = parse(stat, "Name:\tx\nVmRSS:\t    2048 kB\n").unwrap();
        assert!((reading.cpu - 2.0).abs() < 1e-9);
        assert_eq!(reading.memory, 2 << 20);
        let own = process(std::process::id()).unwrap();
        assert!(own.memory > 0);
        let text =
            "# TYPE x\ncarillon_process_cpu_seconds_total 1.5\ncarillon_process_resident_memory_bytes 4096\n";
        assert_eq!(metrics(text).map(|reading| reading.memory), Some(4096));
    }
}
