//! Live events: what was published without being recorded, who may not know of it, and who should.

use std::collections::{BTreeMap, BTreeSet};

use carillon::{
    bus::{BusEvent, Content, Delivery},
    protocol::{EntryId, Subject, Topic},
    session::Cursor,
};

use crate::{
    audit::PROMISED,
    client::{Client, Line},
    plan::Way,
    redis::Refusal,
    world::World,
};

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
    /// When it reached a node first, virtual ms.
    pub arrived: BTreeMap<usize, u64>,
}

/// A recorded event that was lost on the way to a node.
#[derive(Debug)]
pub(crate) struct Loss {
    node: usize,
    topic: Topic,
    number: u64,
    /// Its place, where it has one.
    place: Option<EntryId>,
    there: Vec<usize>,
    /// Something later of its topic has come to that node, which shows that it is missing.
    shown: bool,
}

/// How close together live events of an area lie where one mark may stand for both, ms.
const ONE_MARK: u64 = 3_000;

/// How long a node may take until it goes on with whoever came, ms.
const TAKEN_UP: u64 = 6_000;

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
            self.audit.unrest + STEADY < self.now
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

    /// A message was lost on a link that works: nobody there can know of a live one.
    pub(crate) fn lost_message(&mut self, node: usize, topic: &Topic, content: &Content) {
        self.note(|_| format!("   node {node} does not get {topic} {content:?}"));
        self.report.count("bite", "lost message");
        // Who comes to this node only later is told by the mark of those who heard it.
        let is_there = |me: &Client| me.node == node && !matches!(me.line, Line::None);
        let there = (0..self.clients.len()).filter(|client| is_there(&self.clients[*client]));
        let there: Vec<usize> = there.collect();
        if let Content::Live(_) = content
            && let Some(live) = self.audit.live.values_mut().next_back()
        {
            live.excused.extend(&there);
            live.lost_at.insert(node);
        }
        let place = if let Content::Recorded(id, _) = content { Some(*id) } else { None };
        // A whole area has no positions: only where the topic is followed by key as well, its next event shows that one is
        // missing, if it is still followed then.
        let loss =
            Loss { node, topic: topic.clone(), number: self.audit.numbers(), place, there, shown: false };
        if self.is_followed_by_key(node, topic) {
            self.audit.losses.push(loss);
        } else {
            self.excuse(loss);
        }
        self.hidden_loss();
    }

    fn excuse(&mut self, loss: Loss) {
        for client in loss.there {
            self.audit.views[client].lost.insert(loss.number);
        }
    }

    /// Topics are not followed by key any more: what was lost of them on the way to this node shows nowhere.
    pub(crate) fn audit_closed(&mut self, node: usize, subjects: &[Subject]) {
        let closed = |loss: &mut Loss| {
            loss.node == node && !loss.shown && subjects.contains(&Subject::Topic(loss.topic.clone()))
        };
        for loss in self.audit.losses.extract_if(.., closed).collect::<Vec<_>>() {
            self.excuse(loss);
        }
    }

    /// A live event was published.
    pub(crate) fn audit_live(&mut self, topic: &Topic, number: u64) {
        self.redis.pass(self.redis_clock());
        let (at, clock) = (self.now, self.redis.clock);
        let (excused, lost_at, arrived) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let live = Live { at, clock, topic: topic.to_string(), heard: false, excused, lost_at, arrived };
        self.audit.live.insert(number, live);
    }

    /// Something arrives at a node.
    pub(crate) fn audit_arrival(&mut self, node: usize, event: &BusEvent) {
        if let BusEvent::Delivery(Delivery { topic, content: Content::Recorded(id, _), .. }) = event {
            let of_topic =
                |loss: &&mut Loss| loss.node == node && loss.topic == *topic && loss.place < Some(*id);
            self.audit.losses.iter_mut().filter(of_topic).for_each(|loss| loss.shown = true);
        }
        let BusEvent::Delivery(Delivery { content: Content::Live(event), .. }) = event else { return };
        let read = serde_json::from_slice::<serde_json::Value>(event.json()).unwrap_or_default();
        let number = read["data"]["n"].as_u64().unwrap_or_default();
        if let Some(live) = self.audit.live.get_mut(&number) {
            live.arrived.entry(node).or_insert(self.now);
        }
    }

    /// Where Redis refuses marks, nodes withhold live events: then nobody who follows them may go on taking their node for live.
    pub(crate) fn look_at_withheld(&mut self) {
        if matches!(self.redis.refusal, Some(Refusal::NoReplicas | Refusal::MisConf)) {
            for client in 0..self.clients.len() {
                self.look_at_withheld_from(client);
            }
        }
    }

    fn look_at_withheld_from(&mut self, client: usize) {
        let (me, view) = (&self.clients[client], &self.audit.views[client]);
        let is_told = me.way != Way::Poll && me.welcomed && me.live && !matches!(me.line, Line::None);
        let node = &self.nodes[me.node];
        let steady = [me.since, me.cut_until, me.stalled, node.frozen, node.bus.deaf, node.bus.slow.1];
        let since = steady.into_iter().fold(self.redis.refused_since, u64::max);
        let due = self.now.saturating_sub(PROMISED + self.slack());
        if !is_told || since >= due {
            return;
        }
        let withheld = |live: &&Live| {
            let before = |at: &u64| {
                let (topic, area) = (&live.topic, format!("{}:*", live.area()));
                let of = |map: &BTreeMap<String, u64>| map.get(topic).or_else(|| map.get(&area)).copied();
                of(&view.follows).is_some_and(|follows| follows < *at) && of(&view.told).unwrap_or(0) < *at
            };
            live.arrived.get(&me.node).is_some_and(|at| *at > since && *at <= due && before(at))
        };
        let mut all = self.audit.live.iter().filter(|(_, live)| withheld(live));
        let missed = all
            .find(|(number, live)| !view.numbers.contains(number) && !live.excused.contains(&client))
            .map(|(number, live)| {
                format!("live event {number} of {}, published at {} ms", live.topic, live.at)
            });
        if let Some(missed) = missed {
            self.violate(
                "live event withheld",
                format!("client {client} is told live:true and not {missed}"),
            );
        }
    }

    /// A client comes back.
    pub(crate) fn excuse_unmarked(&mut self, client: usize) {
        self.end_excuses(client);
        self.excuse_what_is_on_its_way(client);
    }

    /// What is still on its way to those who follow it has no mark yet, and nothing shows it. Nor does anything show what was
    /// lost on the way to this node, where a mark may stand for what came before or after it.
    fn excuse_what_is_on_its_way(&mut self, client: usize) {
        let (node, near) = (self.clients[client].node, ONE_MARK + self.slack());
        let all: Vec<(u64, String, bool)> = self
            .audit
            .live
            .values()
            .map(|live| (live.at, live.area().to_owned(), live.lost_at.contains(&node)))
            .collect();
        for live in self.audit.live.values_mut() {
            let area = live.area().to_owned();
            let marked = self.redis.marks.get(&area).is_some_and(|mark| *mark >= live.clock);
            // The mark of a later one that this node has covers it, however much later that came.
            let one_mark = |(at, of, lost): &(u64, String, bool)| {
                *of == area && *at != live.at && (at.abs_diff(live.at) <= near || *at > live.at && !lost)
            };
            let hidden = live.lost_at.contains(&node) && all.iter().any(one_mark);
            if hidden || (!live.heard && !marked) {
                live.excused.insert(client);
            }
        }
    }

    /// A node takes up what somebody asks who comes, or reads the marks for them. That may be long after they came: they
    /// dawdled, the node stood still, or Redis was slow. What is still on its way by then has no mark either.
    pub(crate) fn excuse_who_comes(&mut self, node: usize) {
        let (now, frozen) = (self.now, self.nodes[node].frozen);
        let comes = |me: &Client| match me.way {
            _ if me.node != node || matches!(me.line, Line::None) => false,
            // A poll that was taken up may have nothing to say for long.
            Way::Poll => me.since.max(frozen) + TAKEN_UP > now,
            _ => !me.welcomed,
        };
        for client in 0..self.clients.len() {
            if comes(&self.clients[client]) {
                self.excuse_what_is_on_its_way(client);
            }
        }
    }

    /// A node's link is back, or it follows more over it. What was sent before and is still on its way to those who follow it
    /// has no mark yet: nothing shows it to those who stayed with this node, or came while it had no link.
    pub(crate) fn excuse_sent_before(&mut self, node: usize) {
        let there = (0..self.clients.len()).filter(|client| self.clients[*client].node == node);
        let there: Vec<usize> = there.collect();
        for live in self.audit.live.values_mut() {
            let marked = self.redis.marks.get(live.area()).is_some_and(|mark| *mark >= live.clock);
            if !live.heard && !marked && !self.nodes[node].bus.followed_at(&live.topic, live.at) {
                live.excused.extend(&there);
            }
        }
    }

    /// A node that finds that it may have lost live events marks that: whoever was told everything before is told elsewhere.
    fn end_excuses(&mut self, client: usize) {
        let me = &self.clients[client];
        let cursor = me.cursor.as_deref().filter(|_| !matches!(me.way, Way::Socket | Way::Stream));
        let at = cursor.and_then(Cursor::read).map_or(me.at, |cursor| cursor.at);
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
