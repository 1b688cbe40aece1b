//! `carillon redis-function`: the function library as a node would load it, or the ACL users that it needs.

use std::process::ExitCode;

use carillon::{app::wiring, bus::redis};
use clap::Args;

use super::{print, settings};

/// Print the Redis function library of this configuration, or with --acl the least-privilege users for nodes and publishers
#[derive(Debug, Args)]
#[command(after_help = "\
--acl prints one user for publishers (recorded events with FCALL, live ones with PUBLISH) and one for nodes; \
replace each CHANGE-ME by a password. The library has the settings of this configuration \
(areas, log, limits.event_bytes, settings.generation) and no other. \
Take +function|load from the node's user if you load the library by hand.

Examples:
  carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE
  carillon redis-function --acl --config carillon.toml
  carillon redis-function --acl --areas comments,content    # a publisher of these areas only
  carillon redis-function --acl | sed \"/-node/s/CHANGE-ME/$NODE/; s/CHANGE-ME/$CMS/\" | redis-cli")]
pub(super) struct RedisFunction {
    #[command(flatten)]
    file: settings::ConfigFile,
    /// Print ACL lines instead
    #[arg(long)]
    acl: bool,
    /// With --acl: the publisher's areas, comma-separated; all configured ones without it
    #[arg(long, value_name = "AREA,...", value_delimiter = ',', requires = "acl")]
    areas: Vec<String>,
}

impl RedisFunction {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.file.load()?;
        let settings = wiring::bus(&config, &wiring::areas(&config)?);
        let known = settings.areas.names().collect::<Vec<_>>();
        if let Some(unknown) = self.areas.iter().find(|area| !known.contains(area)) {
            anyhow::bail!("--areas: {unknown:?} is not one of the configured areas ({})", known.join(", "));
        }
        let text = match (self.acl, self.areas.is_empty()) {
            (false, _) => redis::library(&settings),
            (true, true) => redis::acl(&settings, &known),
            (true, false) => redis::acl(&settings, &self.areas),
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}
