//! What an operator can decide, as plain checked values: one struct for each section.
//!
//! `default.toml` is the documentation. [`Layers`] merges it with the file and the environment, `ValueReader` checks,
//! and what comes out can be trusted by everybody above. Areas and topics are
//! plain texts here.

mod advice;
mod auth;
mod layers;
mod listeners;
mod reader;
mod secret;
mod sections;
mod show;
mod surroundings;
#[cfg(test)]
mod tests;
mod values;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

#[cfg(test)]
pub(crate) use self::advice::PER_CURSOR;
use self::reader::ValueReader;
pub use self::reader::secret_file;
pub use self::{
    auth::{Algorithm, Auth, AuthMode, Callback, Jwt, KeySource},
    layers::Layers,
    listeners::{Http, Internal, KeepAlive},
    secret::{Secret, shown_url},
    sections::{
        Areas, Demo, Drain, Heartbeat, Limits, Log, LogFormat, LogLevel, Node, Probe, Redis, Resync,
        Settings, Sources, Telemetry, Transports,
    },
    surroundings::{is_coloured, user_state_dir},
    values::ValueSource,
};

/// The documentation of every key, and the defaults.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Why a configuration cannot be used: a line for each problem, with the key, where it was written, and what is
/// allowed. Never quotes a secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: Node,
    /// The public listener.
    pub http: Http,
    /// The listener for operators and publishers.
    pub internal: Internal,
    /// How Redis is reached.
    pub redis: Redis,
    /// Who may connect.
    pub auth: Auth,
    /// The areas of the editing UI.
    pub areas: Areas,
    /// Which settings count where nodes differ.
    pub settings: Settings,
    /// Which transports are switched on.
    pub transports: Transports,
    /// Liveness of sessions.
    pub heartbeat: Heartbeat,
    /// Logs of topics.
    pub log: Log,
    /// Pace of refetches.
    pub resync: Resync,
    /// Bounds against accidents and abuse.
    pub limits: Limits,
    /// The end of a node.
    pub drain: Drain,
    /// The proof that events arrive.
    pub probe: Probe,
    /// Publishers that vouch for themselves.
    pub sources: Sources,
    /// Logs of the program.
    pub telemetry: Telemetry,
    /// The demo.
    pub demo: Demo,
    written: BTreeMap<String, ValueSource>,
    literals: BTreeMap<String, String>,
    layers: Layers,
}

impl Config {
    /// The configuration of this process: defaults ← `file` ← environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Layers::new().file(file).environment().load()
    }

    fn read(reader: &mut ValueReader) -> Self {
        Self {
            node: Node::read(reader),
            http: Http::read(reader),
            internal: Internal::read(reader),
            redis: Redis::read(reader),
            auth: Auth::read(reader),
            areas: Areas::read(reader),
            settings: Settings::read(reader),
            transports: Transports::read(reader),
            heartbeat: Heartbeat::read(reader),
            log: Log::read(reader),
            resync: Resync::read(reader),
            limits: Limits::read(reader),
            drain: Drain::read(reader),
            probe: Probe::read(reader),
            sources: Sources::read(reader),
            telemetry: Telemetry::read(reader),
            demo: Demo::read(reader),
            written: reader.sources(),
            literals: reader.literals(),
            layers: Layers::default(),
        }
    }

    /// The same from the same places, as they are now.
    pub fn read_again(&self) -> Result<Self, ConfigError> {
        self.layers.clone().load()
    }

    /// The files that hold secrets and keys, by the key that names them.
    pub fn secret_files(&self) -> BTreeMap<String, PathBuf> {
        let named = self.literals.iter().filter(|(key, _)| key.ends_with("_file") || *key == "auth.jwks");
        let file = |(key, literal): (&String, &String)| {
            let path: String = serde_json::from_str(literal).ok()?;
            (!path.is_empty() && !path.contains("://")).then(|| (key.clone(), path.into()))
        };
        named.filter_map(file).collect()
    }

    /// Where the value of a key was written.
    pub fn source(&self, key: &str) -> Option<&ValueSource> {
        self.written.get(key)
    }

    /// A complaint about a key that only a higher rung could find; `what` continues «areas.names (carillon.toml) …».
    pub fn complaint(&self, key: &str, what: impl std::fmt::Display) -> ConfigError {
        let source = self.written.get(key).map(ToString::to_string).unwrap_or_default();
        ConfigError(vec![format!("{key} ({source}) {what}")])
    }
}
