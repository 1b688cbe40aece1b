//! `carillon config default | check | show`.

use std::process::ExitCode;

use clap::Subcommand;

use super::{print, settings};
use crate::{
    app::wiring,
    auth::Authenticator,
    config::{AuthMode, Config, DEFAULT_TOML},
    http::Certificates,
};

/// Print, check or show the configuration
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  carillon config default > carillon.toml
  carillon config check --config carillon.toml
  carillon config show --config carillon.toml")]
pub(super) enum ConfigCommand {
    /// Print every key with its default and what it means
    #[command(after_help = "Example:\n  carillon config default > carillon.toml")]
    Default,
    /// Say whether a node would start with this configuration
    #[command(
        after_help = "Example:\n  carillon config check --config carillon.toml && systemctl restart carillon"
    )]
    Check {
        #[command(flatten)]
        file: settings::ConfigFile,
    },
    /// Print the configuration in effect and where each value was written; secrets are hidden
    #[command(
        after_help = "Example:\n  CARILLON__HTTP__LISTEN=127.0.0.1:8000 carillon config show --config carillon.toml"
    )]
    Show {
        #[command(flatten)]
        file: settings::ConfigFile,
    },
}

impl ConfigCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Default => print(DEFAULT_TOML)?,
            Self::Check { file } => {
                let config = file.load()?;
                // Reads keys, areas, certificates and addresses as a node would.
                let areas = settings::areas(&config)?;
                Authenticator::new(&config, &areas)?;
                wiring::bus(&config, &areas).redis.map_or(Ok(()), |redis| redis.check())?;
                wiring::check_traces(&config)?;
                if let Some(tls) = config.http.tls.clone() {
                    Certificates::load(tls).map_err(anyhow::Error::msg)?;
                }
                if let Some(warning) = config.internal.warning() {
                    eprintln!("carillon: {warning}");
                }
                print(&summary(&config))?;
            }
            Self::Show { file } => print(&file.load()?.show())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn summary(config: &Config) -> String {
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    let auth = match config.auth.mode {
        Some(AuthMode::Jwt(_)) => "signed tokens (jwt)",
        Some(AuthMode::Callback(_)) => "the CMS' word (callback)",
        Some(AuthMode::None) | None => "nothing: everybody is let in (none)",
    };
    let bus = config.redis.shown_url().unwrap_or_else(|| "none: an in-memory bus, one node only".into());
    format!(
        "good: a node would start with this\n  public    {scheme}://{}{}\n  internal  http://{}\n  redis     {bus}\n  auth      {auth}\n",
        config.http.listen, config.http.base_path, config.internal.listen,
    )
}
