//! `carillon dev`: one node to look around with: in-memory bus, a secret of its own, the demo page.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::settings::ConfigFile;

/// Run one node to look around with, and print a link to its demo
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon dev
  carillon dev --redis redis://127.0.0.1:6379 --listen 127.0.0.1:8000")]
pub(super) struct Dev {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// Use this Redis instead of memory
    #[arg(long, value_name = "URL")]
    pub(super) redis: Option<String>,
    /// Public listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(super) listen: std::net::SocketAddr,
    /// Internal listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    pub(super) internal: std::net::SocketAddr,
}

#[expect(clippy::unused_async, reason = "being built")]
impl Dev {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        bail!("`carillon dev` is being built")
    }
}
