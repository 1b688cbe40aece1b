//! What a run has met: how often each fault bit, each reason was given, each verdict fell. A simulator that never meets
//! something says nothing about it.

use std::collections::BTreeMap;

use crate::plan::Deed;

/// Counts by name.
#[derive(Debug, Default, Clone)]
pub(crate) struct Report {
    /// Seeds.
    pub seeds: u64,
    /// Steps: inputs to switches and sessions, and commands of the simulated Redis.
    pub steps: u64,
    /// By kind and name.
    pub counts: BTreeMap<(&'static str, String), u64>,
}

impl Report {
    /// A step was taken.
    pub(crate) fn deed(&mut self, deed: &Deed) {
        self.count("deed", deed.name());
    }

    /// Something happened once more.
    pub(crate) fn count(&mut self, kind: &'static str, name: &str) {
        if let Some(count) = self.counts.get_mut(&(kind, name.to_owned())) {
            *count += 1;
        } else {
            self.counts.insert((kind, name.to_owned()), 1);
        }
    }

    /// Another run's counts as well.
    pub(crate) fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        for (key, count) in &other.counts {
            *self.counts.entry(key.clone()).or_default() += count;
        }
    }

    /// For people.
    pub(crate) fn print(&self) {
        let mut kind = "";
        for ((of, name), count) in &self.counts {
            if *of != kind {
                kind = of;
                println!("{kind}:");
            }
            println!("  {name:<22} {count:>9}");
        }
        println!("{} steps over {} seeds", self.steps, self.seeds);
    }
}
