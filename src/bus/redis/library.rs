//! The function library: its text with the settings baked in, and how a node gets it into Redis.
//!
//! Two nodes that disagree about areas or the length of logs would each be wrong for the other's sessions. So the settings of
//! the higher generation count for all, in whatever order nodes come: a library of a lower one is replaced, that of a higher
//! one is adopted, and with equal generations other settings are refused. After that, the newer text counts.

use std::{cmp::Ordering, time::Duration};

use fred::{prelude::Server, types::Value};
use tracing::{info, warn};

use super::{
    connection::Connection,
    fault::{ConnectError, Fault},
    foreign, reply,
};
use crate::{
    bus::{Settings, agreed::AdoptedSettings, keys::Keys},
    mutant,
    protocol::Naming,
};

const SOURCE: &str = include_str!("../publish.lua");
const CHECK: &str = include_str!("../check.lua");
const FORGET: &str = include_str!("../forget.lua");
const LOGS: &str = include_str!("../logs.lua");
const NODES: &str = include_str!("../nodes.lua");
const SOURCES: &str = include_str!("../sources.lua");

/// The text of the library, as `FUNCTION LOAD` takes it.
pub fn library(settings: &Settings) -> String {
    let mut text = SOURCE.replace("@CHECK@", CHECK.trim_end());
    text = text
        .replace("@LOGS@", LOGS)
        .replace("@FORGET@", FORGET)
        .replace("@NODES@", NODES)
        .replace("@SOURCES@", SOURCES);
    text = text.replace("@PREFIX@", &settings.prefix);
    for (name, value) in baked(settings) {
        text = text.replace(&format!("@{}@", name.to_uppercase()), &value);
    }
    // As if no slot ever moved.
    if mutant::is("torn") {
        text = text.replace("return type(there) == 'table'", "return false");
    }
    text
}

/// The version of the library's text.
pub(super) fn version() -> u64 {
    let line = SOURCE.lines().find_map(|line| line.strip_prefix("local VERSION = "));
    line.and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// The settings of a library that this node loads, by the names that it reports them under: the adopted ones, where there
/// are some.
fn baked(settings: &Settings) -> Vec<(&'static str, String)> {
    let adopted = |(name, own)| (name, settings.adopted.baked(name).unwrap_or(own));
    configured(settings).into_iter().map(adopted).collect()
}

/// The settings of this node's own configuration.
fn configured(settings: &Settings) -> Vec<(&'static str, String)> {
    let list = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>().join(",");
    let sharded = settings.redis.as_ref().is_some_and(super::Target::is_sharded);
    vec![
        ("areas", list(&mut settings.areas.names())),
        ("private", list(&mut settings.areas.private())),
        ("fold_subject", (settings.areas.naming() == Naming::Folded).to_string()),
        ("log_length", settings.log_length.max(1).to_string()),
        ("log_ttl_ms", settings.log_ttl.as_millis().max(1).to_string()),
        ("event_bytes", settings.event_bytes.to_string()),
        ("sharded", sharded.to_string()),
        ("generation", settings.generation.to_string()),
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
        "generation" => "settings.generation",
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
    /// One of a lower generation.
    Behind,
    /// One of a higher generation: what is baked into it.
    Ahead(Vec<(String, String)>),
    /// One with other settings of the same generation; which, in words.
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
        Ok(loaded) => Ok(compare(reply::pairs(loaded), settings)),
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
) -> Result<(), ConnectError> {
    let mut said = String::new();
    // Another node may load it between our look and our try, and settings may have to be adopted first.
    for _ in 0..3 {
        let found = inspect(connection, master, settings).await;
        let mut args: Vec<Value> = vec!["LOAD".into()];
        match found.map_err(|fault| ConnectError::answered(fault, place))? {
            Loaded::Same => return Ok(()),
            Loaded::Ahead(theirs) => {
                adopt(settings, theirs, place).map_err(ConnectError::Permanent)?;
                continue;
            }
            Loaded::Different(what) if strict => {
                return Err(ConnectError::Permanent(different(&what, settings, place)));
            }
            Loaded::Different(what) => {
                warn!("{}", different(&what, settings, place));
                return Ok(());
            }
            Loaded::Older | Loaded::Behind => args.push("REPLACE".into()),
            Loaded::Missing => {}
        }
        args.push(library(settings).into());
        match connection.command_to(master, "FUNCTION", args).await.map_err(Fault::from) {
            Ok(_) => {
                info!(
                    library = settings.prefix,
                    version = version(),
                    generation = settings.generation(),
                    "loaded the function library into Redis"
                );
                return Ok(());
            }
            Err(Fault::Refused(text)) if text.contains("already exists") => said = text,
            Err(fault) => return Err(ConnectError::answered(fault, place)),
        }
    }
    Err(ConnectError::Permanent(foreign::functions(settings, place, &said)))
}

fn compare(loaded: Vec<(String, String)>, settings: &Settings) -> Loaded {
    let number = |name: &str| find(&loaded, name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    match number("generation").cmp(&settings.generation()) {
        Ordering::Less => return Loaded::Behind,
        Ordering::Greater => return Loaded::Ahead(loaded),
        Ordering::Equal => {}
    }
    let differences = differences(&baked(settings), &loaded);
    if !differences.is_empty() {
        return Loaded::Different(differences);
    }
    if number("version") < version() { Loaded::Older } else { Loaded::Same }
}

fn find<'a>(loaded: &'a [(String, String)], name: &str) -> Option<&'a str> {
    loaded.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

/// How a library differs from these settings, in words. A setting that it does not report counts as the same.
fn differences(ours: &[(&'static str, String)], loaded: &[(String, String)]) -> String {
    let differences = ours.iter().filter_map(|(name, ours)| {
        let theirs = find(loaded, name).filter(|theirs| theirs != ours)?;
        Some(format!("{} is {theirs:?} there and {ours:?} here", key(name)))
    });
    differences.collect::<Vec<_>>().join(", ")
}

/// Goes on with the settings of a library of a higher generation. An error, where they are beyond this release.
fn adopt(settings: &Settings, loaded: Vec<(String, String)>, place: &str) -> Result<(), String> {
    let what = differences(&configured(settings), &loaded);
    let number = |name: &str| find(&loaded, name).and_then(|text| text.parse::<u64>().ok());
    let names =
        |name: &str| find(&loaded, name).unwrap_or_default().split(',').filter(|name| !name.is_empty());
    let agreed = (number("generation"), number("log_ttl_ms"), number("event_bytes"));
    let (Some(generation), Some(log_ttl), Some(event_bytes)) = agreed else {
        return Err(format!(
            "the function library {:?} in Redis at {place} does not tell its settings",
            settings.prefix
        ));
    };
    // Sessions of a running node were let in by its own way of naming editors: another one needs a new start.
    let own =
        configured(settings).into_iter().filter(|(name, _)| *name == "fold_subject").collect::<Vec<_>>();
    let naming = differences(&own, &loaded);
    if !naming.is_empty() {
        return Err(format!(
            "the function library {:?} in Redis at {place} names editors otherwise than this node, which it cannot adopt: \
             {naming}. Give this node the same auth.fold_subject and start it again",
            settings.prefix
        ));
    }
    settings.areas.adopt(names("areas"), names("private")).map_err(|error| {
        format!(
            "the areas of the function library {:?} in Redis at {place} cannot be used: {error}",
            settings.prefix
        )
    })?;
    warn!(
        "the function library {:?} in Redis at {place} has settings of a higher generation, which count: {what}. Give this node \
         the same settings when it is restarted",
        settings.prefix
    );
    settings.adopted.set(AdoptedSettings {
        generation,
        log_ttl: Duration::from_millis(log_ttl),
        event_bytes: usize::try_from(event_bytes).unwrap_or(usize::MAX),
        baked: loaded.into_iter().collect(),
    });
    Ok(())
}

/// A sentence about other settings.
pub(super) fn different(what: &str, settings: &Settings, place: &str) -> String {
    format!(
        "the function library {:?} in Redis at {place} has other settings than this node: {what}. Give all nodes the same \
         settings; to change them while nodes run, raise settings.generation above {} here: then this node's count",
        settings.prefix,
        settings.generation()
    )
}

/// A sentence about a library of a higher generation.
pub(super) fn ahead(theirs: &[(String, String)], settings: &Settings) -> String {
    format!(
        "loaded with settings of a higher generation, which count for this node too: {}. Give it the same settings",
        differences(&configured(settings), theirs)
    )
}
