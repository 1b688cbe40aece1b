//! What is missing: whether a client has every event that it should have by now, or was told.

use crate::{
    audit::{ASKED_AGAIN, PROMISED, Record},
    deeds::topic,
    world::World,
};

impl World {
    /// Whether a client has the last event of a topic that it should have by now.
    pub(crate) fn look_at_topic(&mut self, client: usize, name: &str) {
        let due = self.now.saturating_sub(PROMISED + self.slack());
        let view = &self.audit.views[client];
        if view.changing.contains(name) || self.now < self.clients[client].since + PROMISED {
            return;
        }
        if !view.started.contains(name) {
            let text = format!("client {client} follows {name} and was not told where it starts");
            return self.violate("no start", text);
        }
        let Some(top) = self.redis.log(&topic(name)).map(|log| log.top) else { return };
        let last = self.audit.records.get(name).and_then(|records| {
            records.iter().rev().find(|record| record.at <= due && record.id.epoch == top.epoch)
        });
        let Some(last) = last else { return };
        let Some(position) = self.clients[client].positions.get(name) else { return };
        let behind = position.lineage != self.redis.lineage
            || position.id.epoch != last.id.epoch
            || position.id.seq < last.id.seq;
        if behind {
            let text = format!(
                "client {client} is at {position} in {name}, where {}.{} has been since {} ms: it is stale and does not know",
                self.redis.lineage, last.id, last.at
            );
            self.violate("silently stale", text);
        }
    }

    /// Whether who follows a whole area has every event since it was last told.
    pub(crate) fn look_at_area(&mut self, client: usize, subject: &str) {
        let due = self.now.saturating_sub(PROMISED + self.slack());
        let view = &self.audit.views[client];
        let Some(told) = view.told.get(subject).copied().filter(|_| !view.changing.contains(subject)) else {
            return;
        };
        let area = subject.trim_end_matches('*');
        let calm = |name: &String| {
            let denied = self.audit.denied.get(name);
            denied.is_none_or(|until| self.now > until + PROMISED + ASKED_AGAIN + self.slack())
        };
        let records = self.audit.records.iter();
        let missing =
            records.filter(|(name, _)| name.starts_with(area) && calm(name)).find_map(|(name, records)| {
                let missing = |record: &&Record| {
                    // Who follows the topic by key as well is told by that, also when they have left it since.
                    let by_key = view.told.get(name).is_some_and(|at| *at >= record.at);
                    !by_key
                        && record.at > told
                        && record.at <= due
                        && record
                            .number
                            .is_some_and(|n| !view.numbers.contains(&n) && !view.lost.contains(&n))
                };
                records.iter().find(missing).map(|record| (name.clone(), record.id))
            });
        if let Some((name, id)) = missing {
            let text = format!("client {client} follows {subject} and neither got {name} {id} nor was told");
            self.violate("silently stale", text);
        }
    }
}
