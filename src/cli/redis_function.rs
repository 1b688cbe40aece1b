//! `carillon redis-function`: the function library as a node would load it, or the ACL users that it needs.

use std::process::ExitCode;

use clap::Args;

use super::{print, settings};
use crate::{app::wiring, bus::redis};

/// Print the Redis function library, or with --acl the least-privilege users for nodes and publishers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE
  carillon redis-function --acl --config carillon.toml")]
pub(super) struct RedisFunction {
    #[command(flatten)]
    file: settings::ConfigFile,
    /// Print ACL lines instead
    #[arg(long)]
    acl: bool,
}

impl RedisFunction {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.file.load()?;
        let settings = wiring::bus(&config, &settings::areas(&config)?);
        let text = if self.acl { redis::acl(&settings) } else { redis::library(&settings) };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}
