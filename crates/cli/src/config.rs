//! `carillon config default | check | show`.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use carillon::{
    app::wiring,
    bus::{
        self,
        redis::{Weight, examine},
    },
    config::{AuthMode, Config, DEFAULT_TOML},
    http::Certificates,
    shutdown::Tasks,
};
use clap::Subcommand;

use super::{print, say, settings};

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
        /// Do not ask Redis whether it would let a node work
        #[arg(long)]
        offline: bool,
    },
    /// Print the configuration in effect and where each value was written; secrets are hidden
    #[command(
        after_help = "Example:\n  CARILLON__HTTP__LISTEN=127.0.0.1:8000 carillon config show --config carillon.toml"
    )]
    Show {
        #[command(flatten)]
        file: settings::ConfigFile,
        /// Print JSON: each key with its value and source
        #[arg(long)]
        json: bool,
    },
}

impl ConfigCommand {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Default => print(DEFAULT_TOML)?,
            Self::Check { file, offline } => {
                let config = file.load()?;
                // Reads keys, areas, certificates and addresses as a node would.
                let areas = wiring::areas(&config)?;
                wiring::authenticator(&config, &areas)?;
                let bus = wiring::bus(&config, &areas);
                if let Some(redis) = &bus.redis {
                    redis.check()?;
                }
                wiring::check_traces(&config)?;
                if let Some(tls) = config.http.tls.clone() {
                    Certificates::load(tls).map_err(anyhow::Error::msg)?;
                }
                for warning in config.internal.warning().into_iter().chain(config.warnings()) {
                    say(warning);
                }
                if bus.redis.is_some() && !offline {
                    ask_redis(&bus).await?;
                }
                print(&summary(&config))?;
            }
            Self::Show { file, json: false } => print(&file.load()?.show())?,
            Self::Show { file, json: true } => {
                print(&format!("{}\n", serde_json::to_string_pretty(&file.load()?.show_json())?))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether Redis would let a node work: what keeps it from that is the error, advice goes to standard error.
async fn ask_redis(settings: &bus::Settings) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    let findings = examine(settings, &tasks).await;
    tasks.end(Duration::from_secs(1)).await;
    let mut bad = Vec::new();
    for finding in findings {
        match finding.weight {
            Weight::Good => {}
            Weight::Advice => say(format_args!("{}: {}", finding.what, finding.detail)),
            Weight::Bad => bad.push(format!("{}: {}", finding.what, finding.detail)),
        }
    }
    if bad.is_empty() {
        return Ok(());
    }
    bail!(
        "a node cannot work with this Redis: {} (--offline checks the rest without asking Redis)",
        bad.join("; ")
    )
}

fn summary(config: &Config) -> String {
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    let auth = match config.auth.mode {
        Some(AuthMode::Jwt(_)) => "signed tokens (jwt)",
        Some(AuthMode::Callback(_)) => "the CMS' word (callback)",
        Some(AuthMode::None) | None => "nothing: everybody is let in (none)",
    };
    let bus = config.redis.shown_url().unwrap_or_else(|| "none: an in-memory bus, one node only".into());
    let nodes = match (&config.redis.url, &config.redis.node_secret, config.redis.node_secret_required) {
        (None, ..) => "",
        (_, None, _) => {
            "  nodes     rights in Redis alone keep others from speaking for them (redis.node_secret is not set)\n"
        }
        (_, Some(_), false) => {
            "  nodes     sign what they tell each other, and believe what is not signed too (redis.node_secret_required)\n"
        }
        (_, Some(_), true) => "  nodes     sign what they tell each other, and believe nothing else\n",
    };
    format!(
        "good: a node would start with this\n  public    {scheme}://{}{}\n  internal  http://{}\n  redis     {bus}\n{nodes}  auth      {auth}\n",
        config.http.listen, config.http.base_path, config.internal.listen,
    )
}
