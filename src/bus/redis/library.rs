//! The function library: its text with the settings baked in, and how a node gets it into Redis.
//!
//! A newer library is never replaced by an older one, and never one with other settings: two nodes that disagree about
//! areas or the length of logs would each be wrong for the other's sessions. Must not know links.

use fred::{prelude::Server, types::Value};
use tracing::info;

use super::{
    connection::Connection,
    fault::{Fault, Obstacle},
    reply,
};
use crate::bus::{Settings, keys::Keys};

const SOURCE: &str = include_str!("../publish.lua");
const CHECK: &str = include_str!("../check.lua");

/// The text of the library, as `FUNCTION LOAD` takes it.
pub fn library(settings: &Settings) -> String {
    let mut text = SOURCE.replace("@CHECK@", CHECK.trim_end()).replace("@PREFIX@", &settings.prefix);
    for (name, value) in baked(settings) {
        text = text.replace(&format!("@{}@", name.to_uppercase()), &value);
    }
    text
}

/// The version of the library's text.
fn version() -> u64 {
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
        "log_length" => "log.length",
        "log_ttl_ms" => "log.ttl_seconds (here in ms)",
        "event_bytes" => "limits.event_bytes",
        _ => "redis.url (cluster or not)",
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
    let name = Keys::new(&settings.prefix).function("settings");
    // Twice, because another node may load it between our look and our try.
    for _ in 0..2 {
        let args = vec![name.clone().into(), 0.into()];
        let answer = connection.command_to(master, "FCALL", args).await.map_err(Fault::from);
        let replace = match answer {
            Ok(loaded) => match compare(&reply::pairs(loaded), settings) {
                Found::Same => return Ok(()),
                Found::Older => true,
                Found::Different(what) if strict => {
                    return Err(Obstacle::Lasting(different(&what, settings, place)));
                }
                Found::Different(what) => {
                    tracing::warn!("{}", different(&what, settings, place));
                    return Ok(());
                }
            },
            Err(Fault::NoFunction) => false,
            Err(fault) => return Err(Obstacle::answered(fault, place)),
        };
        let mut args: Vec<Value> = vec!["LOAD".into()];
        if replace {
            args.push("REPLACE".into());
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

enum Found {
    Same,
    Older,
    Different(String),
}

fn compare(loaded: &[(String, String)], settings: &Settings) -> Found {
    let value = |name: &str| loaded.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let differences = baked(settings).into_iter().filter_map(|(name, ours)| {
        let theirs = value(name).filter(|theirs| *theirs != ours)?;
        Some(format!("{} is {theirs:?} there and {ours:?} here", key(name)))
    });
    let differences = differences.collect::<Vec<_>>();
    if !differences.is_empty() {
        return Found::Different(differences.join(", "));
    }
    let loaded = value("version").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if loaded < version() { Found::Older } else { Found::Same }
}

fn different(what: &str, settings: &Settings, place: &str) -> String {
    format!(
        "the function library {:?} in Redis at {place} has other settings than this node: {what}. Give all nodes the same \
         settings; to replace the library by this node's: carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE",
        settings.prefix
    )
}
