//! `carillon bench`: the load generator (`crates/bench`) with the configuration that the nodes have.

use std::process::ExitCode;

use clap::Args;

use super::{Usage, print, settings::ConfigFile};

/// Measure nodes under load, and check every delivery
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon bench --spawn 1 --sessions 1000 --pace 20
  carillon bench --spawn 2 --redis redis://127.0.0.1:6379 --sessions 10000 --floor

Sessions are checked for order, loss and duplicates; the exit code is 1 where anything was wrong.")]
pub(super) struct Bench {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    options: carillon_bench::Options,
}

impl Bench {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let outcome = self.options.run(self.file.layers()).await.map_err(|error| match error
            .downcast::<carillon_bench::Usage>(
        ) {
            Ok(usage) => Usage(usage.0).into(),
            Err(error) => error,
        })?;
        print(&outcome.report)?;
        Ok(if outcome.flawless { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
