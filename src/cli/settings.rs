//! What several commands need from the configuration: the option that names the file, and the values of higher rungs
//! that are made from it.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    bus::{self, redis::Target},
    config::{Config, ConfigError, Layers},
    protocol::Areas,
};

/// The option that names the configuration file.
#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// Configuration file (TOML); the environment (CARILLON__SECTION__KEY) wins over it
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

/// The areas as the protocol knows them.
pub(super) fn areas(config: &Config) -> Result<Areas, ConfigError> {
    let own = &config.areas;
    Areas::new(own.names.iter(), own.private.iter(), own.recorded_only.iter())
        .map_err(|error| config.complaint("areas.names", format_args!("cannot be used: {error}")))
}

/// The settings of the bus.
pub(super) fn bus(config: &Config, areas: Areas) -> bus::Settings {
    let redis = &config.redis;
    let (tls_cert, tls_key) = redis.tls_client.clone().unzip();
    let target = |url: &crate::config::Secret| Target {
        url: url.expose().into(),
        username: redis.username.clone(),
        password: redis.password.as_ref().map(|password| password.expose().into()),
        tls_ca: redis.tls_ca.clone(),
        tls_cert,
        tls_key,
    };
    bus::Settings {
        prefix: redis.prefix.clone(),
        node: config.node.name.clone(),
        areas,
        log_length: config.log.length,
        log_ttl: config.log.ttl,
        event_bytes: config.limits.event_bytes,
        probe_interval: config.probe.interval,
        redis: redis.url.as_ref().map(target),
    }
}
