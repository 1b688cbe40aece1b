//! `carillon publish`: publish events, through a node or straight into Redis.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::settings::ConfigFile;

/// Publish an event
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon publish comments:42 '{\"type\":\"comment.created\"}'
  carillon publish comments:42 @event.json --url http://10.0.0.5:9090 --token-file /run/secrets/publish
  producer | carillon publish comments:42 - --redis redis://127.0.0.1:6379")]
pub(super) struct Publish {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// The topic: area or area:key
    pub(super) topic: String,
    /// The event: JSON, @FILE, or - for one JSON a line on standard input
    pub(super) event: String,
    /// Live: delivered to whoever is connected now, and not kept
    #[arg(long)]
    pub(super) live: bool,
    /// Internal listener of a node [default: the configured one on this machine]
    #[arg(long, value_name = "URL", conflicts_with = "redis")]
    pub(super) url: Option<String>,
    /// Publish straight into this Redis
    #[arg(long, value_name = "URL")]
    pub(super) redis: Option<String>,
    /// File with the token that authorises [default: the configured internal.publish_token]
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<std::path::PathBuf>,
}

#[expect(clippy::unused_async, reason = "being built")]
impl Publish {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        bail!("`carillon publish` is being built")
    }
}
