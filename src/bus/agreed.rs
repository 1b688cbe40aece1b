//! The settings that all nodes on one Redis share. They come from the configuration until the library in Redis has others with a
//! higher `settings.generation`: this node then adopts those, and never loads its own again.
//!
//! Adopted areas are in [`crate::protocol::Areas`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;

use super::Settings;

/// The settings of a library with a higher generation than this node's configuration.
#[derive(Debug)]
pub(super) struct AdoptedSettings {
    /// Its generation.
    pub(super) generation: u64,
    /// How long its logs live after the last event or follower.
    pub(super) log_ttl: Duration,
    /// Its largest event, bytes.
    pub(super) event_bytes: usize,
    /// All settings that are baked into it, by name. Where the library is missing it is loaded with these.
    pub(super) baked: BTreeMap<String, String>,
}

/// The adopted settings, if there are any. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Adopted(Arc<ArcSwapOption<AdoptedSettings>>);

impl Adopted {
    /// Adopts these settings.
    pub(super) fn set(&self, agreed: AdoptedSettings) {
        self.0.store(Some(Arc::new(agreed)));
    }

    /// An adopted setting as it is baked into the library; `None`: the configuration's applies.
    pub(super) fn baked(&self, name: &str) -> Option<String> {
        self.0.load().as_ref()?.baked.get(name).cloned()
    }

    fn get<T>(&self, of: impl Fn(&AdoptedSettings) -> T) -> Option<T> {
        self.0.load().as_deref().map(of)
    }
}

impl Settings {
    /// The generation in use.
    pub fn generation(&self) -> u64 {
        self.adopted.get(|agreed| agreed.generation).unwrap_or(self.generation)
    }

    /// The largest event, bytes.
    pub fn event_bytes(&self) -> usize {
        self.adopted.get(|agreed| agreed.event_bytes).unwrap_or(self.event_bytes)
    }

    /// How long logs live after the last event or follower.
    pub fn log_ttl(&self) -> Duration {
        self.adopted.get(|agreed| agreed.log_ttl).unwrap_or(self.log_ttl)
    }
}
