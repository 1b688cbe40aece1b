//! `carillon tail`: print events as they come, one JSON a line.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::settings::ConfigFile;

/// Print events as they come, one JSON a line
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon tail comments:42 projects
  carillon tail 'comments:*' --url https://cms.example.com/realtime --token-file token
  carillon tail comments:42 --redis redis://127.0.0.1:6379")]
pub(super) struct Tail {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// Topics: area, area:key or area:*
    #[arg(required = true, value_name = "TOPIC")]
    pub(super) topics: Vec<String>,
    /// Public address of a node [default: the configured one on this machine]
    #[arg(long, value_name = "URL", conflicts_with = "redis")]
    pub(super) url: Option<String>,
    /// Follow this Redis directly
    #[arg(long, value_name = "URL")]
    pub(super) redis: Option<String>,
    /// File with the token [default: one minted with the configured auth.secret]
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<std::path::PathBuf>,
}

#[expect(clippy::unused_async, reason = "being built")]
impl Tail {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        bail!("`carillon tail` is being built")
    }
}
