//! What all nodes on one Redis agree on: their configuration, until the library there says something else under a higher
//! `settings.generation`. Then that counts here too, and this node never puts its own back.
//!
//! The areas among it are in [`crate::protocol::Areas`], which changes with them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;

use super::Settings;

/// What a library says that has a higher generation than this node's configuration.
#[derive(Debug)]
pub(super) struct Agreed {
    /// Its generation.
    pub(super) generation: u64,
    /// How long its logs live after the last event or follower.
    pub(super) log_ttl: Duration,
    /// Its largest event, bytes.
    pub(super) event_bytes: usize,
    /// All that is baked into it, by name: a library that is missing somewhere is loaded with the same.
    pub(super) baked: BTreeMap<String, String>,
}

/// What was adopted, if anything. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Adopted(Arc<ArcSwapOption<Agreed>>);

impl Adopted {
    /// From now on this counts.
    pub(super) fn set(&self, agreed: Agreed) {
        self.0.store(Some(Arc::new(agreed)));
    }

    /// A setting as it is baked into the library; `None` where the configuration counts.
    pub(super) fn baked(&self, name: &str) -> Option<String> {
        self.0.load().as_ref()?.baked.get(name).cloned()
    }

    fn get<T>(&self, of: impl Fn(&Agreed) -> T) -> Option<T> {
        self.0.load().as_deref().map(of)
    }
}

impl Settings {
    /// The generation that counts.
    pub fn generation(&self) -> u64 {
        self.adopted.get(|agreed| agreed.generation).unwrap_or(self.generation)
    }

    /// The largest event that counts, bytes.
    pub fn event_bytes(&self) -> usize {
        self.adopted.get(|agreed| agreed.event_bytes).unwrap_or(self.event_bytes)
    }

    /// How long logs live after the last event or follower.
    pub fn log_ttl(&self) -> Duration {
        self.adopted.get(|agreed| agreed.log_ttl).unwrap_or(self.log_ttl)
    }
}
