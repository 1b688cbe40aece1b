//! Meters: the CPU time and memory of the measured processes, from `/proc` or from a node's `/metrics`.

use std::time::Duration;

use anyhow::{Context, Result};
use carillon::metrics::process::Footprint;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// A client for the internal listeners.
pub(super) type Http = Client<HttpConnector, Full<bytes::Bytes>>;

/// A client for the internal listeners.
pub(super) fn http() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_mins(1)).build(connector)
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
    pub(super) async fn read(&self, http: &Http) -> Result<Footprint> {
        match self {
            Self::Process(pid) => {
                Footprint::read(Some(*pid)).with_context(|| format!("there is no process {pid} to measure"))
            }
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
    pub(super) async fn sum(meters: &[Self], http: &Http) -> Result<Footprint> {
        let mut sum = Footprint::default();
        for meter in meters {
            let reading = meter.read(http).await?;
            sum.cpu += reading.cpu;
            sum.memory += reading.memory;
        }
        Ok(sum)
    }
}

fn metrics(text: &str) -> Option<Footprint> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let cpu = value("carillon_process_cpu_seconds_total ")?.parse().ok()?;
    Some(Footprint { cpu, memory: value("carillon_process_resident_memory_bytes ")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read() {
        let text =
            "# TYPE x\ncarillon_process_cpu_seconds_total 1.5\ncarillon_process_resident_memory_bytes 4096\n";
        assert_eq!(metrics(text), Some(Footprint { cpu: 1.5, memory: 4096 }));
    }
}
