//! Live events: what was published without being recorded, who may not know of it, and who should. Must not know how nodes
//! remember that there was one.

use std::collections::BTreeSet;

use carillon::protocol::Topic;

use crate::{audit::PROMISED, world::World};

/// A live event.
#[derive(Debug)]
pub(crate) struct Live {
    /// When, virtual ms.
    pub at: u64,
    /// When, by Redis' clock.
    pub clock: u64,
    /// Where.
    pub topic: String,
    /// Somebody has received it, so there is a mark.
    pub heard: bool,
    /// Who cannot know of it: it was lost on a link that worked, or was still on its way when they came back.
    pub excused: BTreeSet<usize>,
}

impl World {
    /// A live event was published.
    pub(crate) fn audit_live(&mut self, topic: &Topic, number: u64) {
        self.redis.pass(self.redis_clock());
        let (at, clock) = (self.now, self.redis.clock);
        let live = Live { at, clock, topic: topic.to_string(), heard: false, excused: BTreeSet::new() };
        self.audit.live.insert(number, live);
    }

    /// A client comes back. What is still on its way to those who follow it has no mark yet, and nothing shows it.
    pub(crate) fn excuse_unmarked(&mut self, client: usize) {
        for live in self.audit.live.values_mut().filter(|live| !live.heard) {
            let area = live.topic.split(':').next().unwrap_or_default();
            if self.redis.marks.get(area).is_none_or(|mark| *mark < live.clock) {
                live.excused.insert(client);
            }
        }
    }

    /// Whether a client has every live event that there is a mark for, or was told.
    pub(crate) fn look_at_live(&mut self, client: usize, name: &str) {
        let due = self.now.saturating_sub(PROMISED + self.slack() + 5_000);
        let view = &self.audit.views[client];
        let Some(since) = view.follows.get(name).copied() else { return };
        let told = view.told.get(name).copied().unwrap_or(0);
        let missed = self.audit.live.iter().find(|(number, live)| {
            live.topic == name
                && live.heard
                && live.at > since
                && live.at > told
                && live.at <= due
                && !live.excused.contains(&client)
                && !view.numbers.contains(number)
        });
        if let Some((number, live)) = missed {
            let text = format!(
                "client {client} missed live event {number} of {name} at {} ms and was not told",
                live.at
            );
            self.violate("live event missed", text);
        }
    }
}
