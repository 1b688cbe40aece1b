//! The function library: its text with the settings baked in, and how a node gets it into Redis.
//!
//! A newer library is never replaced by an older one, and never one with other settings: two nodes that disagree about
//! areas or the length of logs would each be wrong for the other's sessions. Must not know links.

use fred::{prelude::Server, types::Value};
use tracing::{info, warn};

use super::{
    connection::Connection,
    fault::{Fault, Obstacle},
    reply,
};
use crate::{
    bus::{Settings, keys::Keys},
    protocol::Naming,
};

const SOURCE: &str = include_str!("../publish.lua");
const CHECK: &str = include_str!("../check.lua");
const NODES: &str = include_str!("../nodes.lua");
const SOURCES: &str = include_str!("../sources.lua");

/// The text of the library, as `FUNCTION LOAD` takes it.
pub fn library(settings: &Settings) -> String {
    let mut text = SOURCE.replace("@CHECK@", CHECK.trim_end());
    text = text.replace("@NODES@", NODES).replace("@SOURCES@", SOURCES);
    text = text.replace("@PREFIX@", &settings.prefix);
    for (name, value) in baked(settings) {
        text = text.replace(&format!("@{}@", name.to_uppercase()), &value);
    }
    text
}

/// The version of the library's text.
pub(super) fn version() -> u64 {
    let line = SOURCE.lines().find_map(|line| line.strip_prefix("local VERSION = "));
    line.and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// The settings in the library, by the names that it reports them under.
fn baked(settings: &Settings) -> Vec<(&'static str, String)> {
    let list = |names: &mut dyn Iterator<Item = &str>| names.collect::<Vec<_>>().join(",");
    let sharded = settings.redis.as_ref().is_some_and(super::Target::is_sharded);
    vec![
        ("areas", list(&mut settings.areas.names())),
        ("private", list(&mut settings.areas.private())),
        ("fold_subject", (settings.areas.naming() == Naming::Folded).to_string()),
        ("log_length", settings.log_length.max(1).to_string()),
        ("log_ttl_ms", settings.log_ttl.as_millis().max(1).to_string()),
        ("event_bytes", settings.event_bytes.to_string()),
        ("sharded", sharded.to_string()),
    ]
}

/// What the operator calls a baked setting.
fn key(name: &str) -> &str {
    match name {
        "areas" => "areas.names",
        "private" => "areas.private",
        "fold_subject" => "auth.fold_subject",
        "log_length" => "log.length",
        "log_ttl_ms" => "log.ttl_seconds (here in ms)",
        "event_bytes" => "limits.event_bytes",
        _ => "redis.url (cluster or not)",
    }
}

/// What a master has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// This library with these settings, or a newer one.
    Same,
    /// An older one with these settings.
    Older,
    /// One with other settings; which, in words.
    Different(String),
    /// None.
    Missing,
}

/// Looks at what a master has.
pub(super) async fn inspect(
    connection: &Connection,
    master: Option<&Server>,
    settings: &Settings,
) -> Result<Loaded, Fault> {
    let name = Keys::new(&settings.prefix).function("settings");
    match connection.command_to(master, "FCALL", vec![name.into(), 0.into()]).await.map_err(Fault::from) {
        Ok(loaded) => Ok(compare(&reply::pairs(loaded), settings)),
        Err(Fault::NoFunction) => Ok(Loaded::Missing),
        Err(fault) => Err(fault),
    }
}

/// Sees to it that a master has the library. `strict`: other settings are an obstacle (at the start of a node), and not
/// only a line in the log.
pub(super) async fn load(
    connection: &Connection,
    master: Option<&Server>,
    settings: &Settings,
    place: &str,
    strict: bool,
) -> Result<(), Obstacle> {
    // Twice, because another node may load it between our look and our try.
    for _ in 0..2 {
        let found = inspect(connection, master, settings).await;
        let mut args: Vec<Value> = vec!["LOAD".into()];
        match found.map_err(|fault| Obstacle::answered(fault, place))? {
            Loaded::Same => return Ok(()),
            Loaded::Different(what) if strict => {
                return Err(Obstacle::Lasting(different(&what, settings, place)));
            }
            Loaded::Different(what) => {
                warn!("{}", different(&what, settings, place));
                return Ok(());
            }
            Loaded::Older => args.push("REPLACE".into()),
            Loaded::Missing => {}
        }
        args.push(library(settings).into());
        match connection.command_to(master, "FUNCTION", args).await.map_err(Fault::from) {
            Ok(_) => {
                info!(
                    library = settings.prefix,
                    version = version(),
                    "loaded the function library into Redis"
                );
                return Ok(());
            }
            Err(Fault::Refused(text)) if text.contains("already exists") => {}
            Err(fault) => return Err(Obstacle::answered(fault, place)),
        }
    }
    Err(Obstacle::Lasting(format!(
        "Redis at {place} has a function library {0:?} that is not Carillon's: choose another redis.prefix, or remove it \
         with FUNCTION DELETE {0}",
        settings.prefix
    )))
}

fn compare(loaded: &[(String, String)], settings: &Settings) -> Loaded {
    let value = |name: &str| loaded.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let differences = baked(settings).into_iter().filter_map(|(name, ours)| {
        let theirs = value(name).filter(|theirs| *theirs != ours)?;
        Some(format!("{} is {theirs:?} there and {ours:?} here", key(name)))
    });
    let differences = differences.collect::<Vec<_>>();
    if !differences.is_empty() {
        return Loaded::Different(differences.join(", "));
    }
    let loaded = value("version").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if loaded < version() { Loaded::Older } else { Loaded::Same }
}

/// A sentence about other settings.
pub(super) fn different(what: &str, settings: &Settings, place: &str) -> String {
    format!(
        "the function library {:?} in Redis at {place} has other settings than this node: {what}. Give all nodes the same \
         settings; to replace the library by this node's: carillon redis-function --config FILE \
         | redis-cli -x FUNCTION LOAD REPLACE, with this node's FILE",
        settings.prefix
    )
}
