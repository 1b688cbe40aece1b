//! `carillon bench`: measure a node: sessions, deliveries, latencies.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

/// Measure: sessions, deliveries per second, latencies
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon bench --sessions 5000 --rate 10")]
pub(super) struct Bench {
    /// Sessions to open
    #[arg(long, default_value_t = 1000)]
    pub(super) sessions: usize,
    /// Events per second
    #[arg(long, default_value_t = 10)]
    pub(super) rate: u32,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(super) duration: std::time::Duration,
}

#[expect(clippy::unused_async, reason = "being built")]
impl Bench {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        bail!("`carillon bench` is being built")
    }
}
