//! `carillon serve`: run a node until SIGTERM or SIGINT.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::settings::ConfigFile;

/// Run a node
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon serve --config /etc/carillon/carillon.toml
  CARILLON__AUTH__MODE=jwt CARILLON__AUTH__SECRET_FILE=/run/secrets/carillon carillon serve")]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) file: ConfigFile,
}

#[expect(clippy::unused_async, reason = "being built")]
impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        bail!("`carillon serve` is being built")
    }
}
