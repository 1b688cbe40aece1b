//! `carillon redis-function`: the function library as a node would load it, or the ACL users that it needs.

use std::process::ExitCode;

use clap::Args;

use super::{print, settings};
use crate::{app::wiring, bus::redis};

/// Print the Redis function library, or with --acl the least-privilege users for nodes and publishers
#[derive(Debug, Args)]
#[command(after_help = "\
--acl prints one user for publishers (recorded events with FCALL, live ones with PUBLISH) and one for nodes; put your
passwords in the place of CHANGE-ME. Take +function|load from the node's user if you load the library by hand.

Examples:
  carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE
  carillon redis-function --acl --config carillon.toml
  carillon redis-function --acl | sed \"s/CHANGE-ME/$PASSWORD/\" | redis-cli")]
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
