//! Live events: what was published without being recorded, who may not know of it, and who should. Must not know how nodes
//! remember that there was one.

use std::collections::BTreeSet;

use carillon::protocol::Topic;

use crate::{audit::PROMISED, plan::Way, world::World};

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
    /// The nodes that it was lost on the way to.
    pub lost_at: BTreeSet<usize>,
}

/// How close together live events of an area lie where one mark may stand for both, ms.
const ONE_MARK: u64 = 3_000;

/// Since when something must be as it is for what was before not to matter, ms.
const STEADY: u64 = 10_000;

impl Live {
    /// Its area.
    pub(crate) fn area(&self) -> &str {
        self.topic.split(':').next().unwrap_or_default()
    }
}

impl World {
    /// Whether somebody has followed a topic by key at a node for a while, and nothing was wrong meanwhile.
    pub(crate) fn is_followed_by_key(&self, node: usize, topic: &Topic) -> bool {
        let steady = self.now.checked_sub(STEADY).is_some_and(|since| {
            self.audit.trouble + STEADY < self.now
                && self.nodes[node].up_since.is_some_and(|up| up < since)
                && self.nodes[node].bus.followed_since(topic).is_some_and(|at| at < since)
        });
        let follows = |client: &usize| {
            let me = &self.clients[*client];
            let there =
                me.node == node && me.way != Way::Poll && me.welcomed && me.subjects.contains(topic.as_str());
            there && self.audit.views[*client].started.contains(topic.as_str())
        };
        steady && (0..self.clients.len()).any(|client| follows(&client))
    }

    /// A live event was published.
    pub(crate) fn audit_live(&mut self, topic: &Topic, number: u64) {
        self.redis.pass(self.redis_clock());
        let (at, clock) = (self.now, self.redis.clock);
        let (excused, lost_at) = (BTreeSet::new(), BTreeSet::new());
        let live = Live { at, clock, topic: topic.to_string(), heard: false, excused, lost_at };
        self.audit.live.insert(number, live);
    }

    /// A client comes back. What is still on its way to those who follow it has no mark yet, and nothing shows it. Nor does
    /// anything show what was lost on the way to this node, where a mark may stand for what came before or after it.
    pub(crate) fn excuse_unmarked(&mut self, client: usize) {
        self.end_excuses(client);
        let (node, near) = (self.clients[client].node, ONE_MARK + self.slack());
        let all: Vec<(u64, String)> =
            self.audit.live.values().map(|live| (live.at, live.area().to_owned())).collect();
        for live in self.audit.live.values_mut() {
            let area = live.area().to_owned();
            let marked = self.redis.marks.get(&area).is_some_and(|mark| *mark >= live.clock);
            let one_mark =
                |(at, of): &(u64, String)| *of == area && *at != live.at && at.abs_diff(live.at) <= near;
            let hidden = live.lost_at.contains(&node) && all.iter().any(one_mark);
            if hidden || (!live.heard && !marked) {
                live.excused.insert(client);
            }
        }
    }

    /// A node that finds that it may have lost live events marks that: whoever was told everything before is told elsewhere.
    fn end_excuses(&mut self, client: usize) {
        let me = &self.clients[client];
        let at = if me.way == Way::Socket || me.way == Way::Stream {
            me.at
        } else {
            self.audit.views[client].brought
        };
        let marks = &self.redis.marks;
        let is_found = |area: &str| marks.get(&format!("{area}!")).is_some_and(|lost| *lost > at);
        for live in self.audit.live.values_mut().filter(|live| is_found(live.area())) {
            live.excused.remove(&client);
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
