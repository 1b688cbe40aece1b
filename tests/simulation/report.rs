//! What a run has met: how often each fault bit, each reason was given, each verdict fell. A simulator that never meets
//! something says nothing about it.

use std::collections::BTreeMap;

use crate::plan::Deed;

/// What every long run must have met, by kind: a run that never does says nothing about it.
const EXPECTED: [(&str, &str); 4] = [
    ("bite", "link lost, lost message, lost order, order holds, refused"),
    (
        "deed",
        "break, burst, clock, cms-gone, cms-late, cut, dawdle, deafen, delete, deny, disconnect, drain, fail-over, flush, \
         follow, forget, freeze, kill, live, lose, ping, poison, probe, publish, refresh, refuse-misconf, refuse-noreplicas, \
         refuse-oom, renew, slow, stall, trim, unfollow",
    ),
    ("resync", "gap, invalid, live, log-replaced, no-position, redis-changed, slow, trimmed"),
    (
        "verdict",
        "deliver, earlier, invalid, join done, join gone, join lacks link, join lacks marks, join reads, join waits, nothing, \
         read, replaced",
    ),
];
/// How often in so many seeds.
const OFTEN: u64 = 1_000;
const LONG: u64 = 20_000;

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

    /// Verdicts that have fallen, by name.
    pub(crate) fn verdicts(&mut self, fallen: BTreeMap<&'static str, u64>) {
        for (name, count) in fallen {
            *self.counts.entry(("verdict", name.to_owned())).or_default() += count;
        }
    }

    /// What a long run has met too seldom.
    pub(crate) fn seldom(&self) -> Vec<String> {
        let mut seldom = Vec::new();
        for (kind, names) in EXPECTED {
            for name in names.split(", ") {
                let count = self.counts.get(&(kind, name.to_owned())).copied().unwrap_or(0);
                if self.seeds >= LONG && count < OFTEN {
                    seldom.push(format!("{kind} {name}: only {count} times"));
                }
            }
        }
        seldom
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
