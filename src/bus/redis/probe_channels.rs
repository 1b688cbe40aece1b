//! The channels on which a node publishes its probes: what comes back on them proves that events would.

use std::collections::HashSet;

use fred::prelude::Server;

use super::connection::Connection;
use crate::bus::{Settings, keys::Keys};

/// A probe channel in a slot of each master; the first on the master whose clock gives `at`.
pub(super) fn choose(commands: &Connection, masters: &[Option<Server>], settings: &Settings) -> Vec<String> {
    let keys = Keys::new(&settings.prefix);
    if masters.len() < 2 {
        return vec![keys.probe(&settings.node)];
    }
    let owner = |key: &str| commands.layout().owner(key);
    let first = owner(&keys.marks());
    let mut missing = masters.iter().flatten().cloned().collect::<HashSet<_>>();
    let mut channels = Vec::new();
    // Names fall on slots evenly: a handful of tries per master.
    for n in 0..100_000 {
        let channel = keys.probe(&format!("{}-{n}", settings.node));
        if let Some(server) = owner(&channel).filter(|server| missing.contains(server)) {
            missing.remove(&server);
            let at = if Some(&server) == first.as_ref() { 0 } else { channels.len() };
            channels.insert(at, channel);
        }
        if missing.is_empty() {
            break;
        }
    }
    channels
}
