//! `carillon doctor`: what stands between a browser and a node.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

/// Find out what stands between browsers and a node: proxies, headers, origins, tokens
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon doctor https://cms.example.com/realtime
  carillon doctor https://cms.example.com/realtime --origin https://cms.example.com --token-file token")]
pub(super) struct Doctor {
    /// Public address of a node, as browsers use it
    pub(super) url: String,
    /// Origin to present
    #[arg(long, value_name = "ORIGIN")]
    pub(super) origin: Option<String>,
    /// File with a token to connect with
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<std::path::PathBuf>,
}

#[expect(clippy::unused_async, reason = "being built")]
impl Doctor {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        bail!("`carillon doctor` is being built")
    }
}
