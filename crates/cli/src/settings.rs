//! What several commands need from the configuration: the option that names the file, and the values of higher rungs
//! that are made from it.

use std::path::{Path, PathBuf};

use carillon::config::{Config, ConfigError, Layers, ValueSource};
use clap::Args;

use super::{Usage, dev_file};

/// The option that names the configuration file.
#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// Configuration file (TOML); CARILLON__SECTION__KEY wins over it
    #[arg(long = "config", short = 'c', value_name = "FILE", env = "CARILLON_CONFIG")]
    path: Option<PathBuf>,
}

impl ConfigFile {
    /// The file, where one was named.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref().filter(|path| !path.as_os_str().is_empty())
    }

    /// Defaults ← file ← environment, for commands that add something.
    pub(super) fn layers(&self) -> Layers {
        Layers::new().file(self.path()).environment()
    }

    /// The configuration.
    pub(super) fn load(&self) -> Result<Config, ConfigError> {
        self.layers().load()
    }
}

/// Where a command that needs Redis itself finds it.
#[derive(Debug, Args)]
pub(super) struct RedisPlace {
    #[command(flatten)]
    file: ConfigFile,
    /// Use this Redis [default: the configured one]
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

impl RedisPlace {
    /// The configuration, with a Redis in it; `why` says what Redis is needed for.
    pub(super) fn load(&self, why: &str) -> anyhow::Result<Config> {
        let mut layers = self.file.layers();
        if let Some(url) = &self.redis {
            layers = layers.set("redis.url", url, "--redis");
        }
        let config = layers.load()?;
        if config.redis.url.is_none() {
            let missing = "and none is configured: name one with --redis, or a configuration with --config";
            return Err(Usage(format!("{why}, {missing}")).into());
        }
        Ok(config)
    }
}

/// Adds what a running `carillon dev` of this user left, unless something was configured: a file, a Redis, a listener
/// or a secret.
pub(super) fn beside_dev(layers: Layers) -> Result<Layers, ConfigError> {
    const OWN: [&str; 8] = [
        "redis.url",
        "http.listen",
        "internal.listen",
        "internal.publish_token",
        "internal.publish_token_file",
        "auth.mode",
        "auth.secret",
        "auth.secret_file",
    ];
    let config = layers.clone().load()?;
    let configured = |key: &str| config.source(key).is_some_and(|source| *source != ValueSource::Default);
    Ok(if OWN.iter().any(|key| configured(key)) { layers } else { dev_file::add_to(layers) })
}
