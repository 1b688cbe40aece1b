//! A node's bus over the simulated Redis: one command connection and one pub/sub connection, each of which keeps its order
//! while everything else may take any time, and the rules by which `bus/redis` builds, proves and gives up a link.
//!
//! It answers the switch's questions as `relay/task` does over the real bus.

use std::collections::{BTreeMap, BTreeSet};

use carillon::{
    bus::{BusError, BusEvent, Content, Delivery, Head, LinkChange},
    protocol::{Heard, Lineage, Revocation, Subject, Topic},
    relay::{FeedPlace, Stamp},
};

use crate::{
    orders::{Said, Task},
    plan::Late,
    redis::Reply,
    world::{Happening, World},
};

/// How long a command may take before the link is given up, ms; reads of logs may take longer.
const PATIENCE: u64 = 3_000;
const READ_PATIENCE: u64 = 10_000;
/// Time between probes, ms.
const PROBES: u64 = 5_000;
const FIRST_WAIT: u64 = 100;
const LONGEST_WAIT: u64 = 2_000;

/// The directions that keep their order; logs are read over a connection of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    CommandsUp,
    CommandsDown,
    PushesUp,
    PushesDown,
    ReadsUp,
    ReadsDown,
}

/// What the node waits for.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Open(Stamp, Vec<Subject>),
    OpenHeads(Stamp, Vec<(Subject, Result<(), BusError>)>),
    Close(Stamp, Vec<Subject>),
    Read(Stamp, Topic, carillon::protocol::EntryId),
    Marks(Stamp),
    Mark(Stamp, String, u64),
    Look(Stamp, Vec<FeedPlace>, bool),
    LookMarks(Stamp, Vec<(FeedPlace, Result<Head, BusError>)>, bool),
    LookRenew(Stamp, Vec<(FeedPlace, Result<Head, BusError>)>, Vec<String>),
    Heads(Stamp, Vec<FeedPlace>),
    Attach,
    Probe(u64),
    Time(u64),
    Send(u64, u64),
    Compare(BTreeSet<Subject>),
    Orders(Task),
}

/// What Redis says to a piece of work.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Subscribed(Vec<Subject>),
    Replied(Result<Reply, String>),
    Time(u64),
    Done,
    Agrees(bool),
    Orders(Said),
}

/// What Redis pushes.
#[derive(Debug, Clone)]
pub(crate) enum Push {
    Message(Topic, Content),
    Probe(u64, u64),
    Order(Revocation),
}

/// A link: two connections and what is under way on them.
#[derive(Debug)]
pub(crate) struct Link {
    pub number: u64,
    pub up: bool,
    pub attached: bool,
    pub lineage: Lineage,
    /// What Redis has subscribed on this link.
    pub subscribed: BTreeSet<Subject>,
    /// Since when it has followed them, for who wants to know.
    pub since: BTreeMap<Subject, u64>,
    held: Vec<BusEvent>,
    pub last: [u64; 6],
    pub asked: BTreeMap<u64, (u64, Work)>,
    pub next: u64,
    pub round: u64,
    /// When the round was begun.
    begun: std::time::Instant,
    pub accepted: bool,
    back: bool,
    /// Live events may have been lost, and no mark was renewed since.
    pub unmarked: bool,
    /// Orders of operators are pushed over it.
    pub listens: bool,
    /// Up to which change they were read over it.
    pub revocations_read: u64,
}

/// What a node's bus knows.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    pub link: Option<Link>,
    pub wanted: BTreeSet<Subject>,
    known: Option<Lineage>,
    pub parked: Vec<(u64, Work)>,
    links: u64,
    wait: u64,
    /// Faults at present.
    pub unreachable: u64,
    pub deaf: u64,
    /// By how much, until when, and on which connection.
    pub slow: (u64, u64, Late),
    pub lose: u32,
}

impl Bus {
    /// Since when Redis has a topic's subscription by key on this link.
    pub(crate) fn followed_since(&self, topic: &Topic) -> Option<u64> {
        self.link.as_ref()?.since.get(&Subject::Topic(topic.clone())).copied()
    }

    /// Whether a message of that time and topic was sent over this link.
    pub(crate) fn followed_at(&self, topic: &str, at: u64) -> bool {
        let covers = |subject: &Subject| match subject {
            Subject::Topic(one) => one.as_str() == topic,
            Subject::Every(area) => topic.strip_prefix(area.as_str()).is_some_and(|key| key.starts_with(':')),
        };
        self.link
            .as_ref()
            .is_some_and(|link| link.since.iter().any(|(subject, since)| *since <= at && covers(subject)))
    }

    /// How much later something arrives that is sent now this way.
    pub(crate) fn late(&self, way: Way, now: u64) -> u64 {
        let (by, until, what) = self.slow;
        let hit = match what {
            Late::All => true,
            Late::Pushes => matches!(way, Way::PushesUp | Way::PushesDown),
            Late::Commands => matches!(way, Way::CommandsUp | Way::CommandsDown),
            Late::Reads => matches!(way, Way::ReadsUp | Way::ReadsDown),
        };
        if hit && until > now { by } else { 0 }
    }

    /// The bus of the node's next life: what is on its way to the links of this one reaches none of its own.
    pub(crate) fn anew(&self) -> Self {
        Self { links: self.links, ..Self::default() }
    }
}

impl World {
    /// Publishes a message to every node that is subscribed.
    pub(crate) fn publish_message(&mut self, topic: &Topic, content: &Content) {
        for node in 0..self.nodes.len() {
            let Some(link) = &self.nodes[node].bus.link else { continue };
            let number = link.number;
            let by_key = link.subscribed.contains(&Subject::Topic(topic.clone()));
            let by_area = !topic.is_wide() && link.subscribed.contains(&Subject::Every(topic.wide()));
            if !by_key && !by_area {
                let forgotten =
                    link.up && self.nodes[node].bus.wanted.contains(&Subject::Topic(topic.clone()));
                if forgotten {
                    self.lost_message(node, topic, content);
                }
                continue;
            }
            if self.nodes[node].bus.lose > 0 && link.up {
                self.nodes[node].bus.lose -= 1;
                self.lost_message(node, topic, content);
                continue;
            }
            self.push(node, number, Push::Message(topic.clone(), content.clone()));
        }
    }

    pub(crate) fn push(&mut self, node: usize, number: u64, push: Push) {
        if self.link(node, number).is_some() {
            let at = self.arrival(node, Way::PushesDown);
            self.at(at, Happening::Pushed { node, link: number, push });
        }
    }

    /// Something was pushed, and the reader of the link has it.
    pub(crate) fn pushed(&mut self, node: usize, number: u64, push: Push) {
        let Some(link) = self.link(node, number) else { return };
        let event = match push {
            Push::Message(topic, content) => {
                let every = !link.subscribed.contains(&Subject::Topic(topic.clone()));
                BusEvent::Delivery(Delivery { topic, every, content })
            }
            Push::Probe(round, at) if round == link.round => {
                link.back = true;
                let asked = link.begun;
                if !link.up {
                    link.up = true;
                    let held = std::mem::take(&mut link.held);
                    self.event(node, BusEvent::Link(LinkChange::Up));
                    for event in held {
                        self.event(node, event);
                    }
                    self.nodes[node].bus.wait = FIRST_WAIT;
                    self.came_up(node);
                }
                self.event(node, BusEvent::Proof { at, asked });
                return self.proven(node, number);
            }
            Push::Probe(..) => return,
            Push::Order(order) => BusEvent::Revoked { orders: vec![order], heard: Heard::AtOnce },
        };
        if link.up {
            self.event(node, event);
        } else {
            link.held.push(event);
        }
    }

    /// A round of probes is over when it was accepted and has come back: then subscriptions are compared.
    pub(crate) fn proven(&mut self, node: usize, number: u64) {
        let wanted = self.nodes[node].bus.wanted.clone();
        let Some(link) = self.link(node, number) else { return };
        if !(link.accepted && link.back) {
            return;
        }
        let first = link.round == 1;
        let next = self.now + PROBES;
        self.at(next, Happening::Probe { node, link: number });
        if !first {
            if self.has_people() {
                self.begin(node, Work::Orders(Task::Change(false)));
            }
            // Only what Redis has confirmed is compared.
            let pending: BTreeSet<Subject> = self.pending(node);
            let expected = wanted.into_iter().filter(|subject| !pending.contains(subject)).collect();
            if pending.is_empty() {
                self.begin(node, Work::Compare(expected));
            }
        }
    }

    /// What is being subscribed to or unsubscribed from.
    fn pending(&self, node: usize) -> BTreeSet<Subject> {
        let Some(link) = &self.nodes[node].bus.link else { return BTreeSet::new() };
        let works = link.asked.values().filter_map(|(_, work)| match work {
            Work::Open(_, subjects) | Work::Close(_, subjects) => Some(subjects.clone()),
            _ => None,
        });
        works.flatten().collect()
    }

    /// The next round of probes, unless one is under way.
    pub(crate) fn probe_now(&mut self, node: usize) {
        let idle = |link: &&Link| link.up && link.accepted && link.back;
        if let Some(link) = self.nodes[node].bus.link.as_ref().filter(idle) {
            let number = link.number;
            self.probe(node, number);
        }
    }

    /// The next round of probes.
    pub(crate) fn probe(&mut self, node: usize, number: u64) {
        let Some(link) = self.link(node, number) else { return };
        (link.round, link.accepted, link.back) = (link.round + 1, false, false);
        link.begun = Self::clock().instant;
        let round = link.round;
        self.begin(node, Work::Probe(round));
        let due = self.now + PATIENCE;
        self.at(due, Happening::ProbeDue { node, link: number, round });
    }

    /// A probe that has not come back shows that the link is dead.
    pub(crate) fn probe_due(&mut self, node: usize, number: u64, round: u64) {
        if self.link(node, number).is_some_and(|link| link.round == round && !(link.accepted && link.back)) {
            self.lose_link(node, false);
        }
    }

    /// Commands that take too long show the same.
    pub(crate) fn check_patience(&mut self, node: usize) {
        let now = self.now;
        let late = |(since, work): &(u64, Work)| {
            let patience = if matches!(work, Work::Read(..) | Work::Look(..) | Work::Heads(..)) {
                READ_PATIENCE
            } else {
                PATIENCE
            };
            *since + patience <= now
        };
        if self.nodes[node].bus.link.as_ref().is_some_and(|link| link.asked.values().any(late)) {
            self.lose_link(node, false);
        }
    }

    /// The link shows trouble: it is thrown away with all that is queued in it.
    pub(crate) fn lose_link(&mut self, node: usize, lineage_changed: bool) {
        let now = self.now;
        let bus = &mut self.nodes[node].bus;
        let Some(link) = bus.link.take() else { return };
        if lineage_changed {
            bus.known = None;
        }
        self.event(node, BusEvent::Link(LinkChange::Down { reason: "lost".into(), lineage_changed }));
        self.went_down(node);
        for (_, work) in link.asked.into_values() {
            if let Work::Orders(task) = &work {
                self.order_unanswered(node, task);
                continue;
            }
            if !matches!(
                work,
                Work::Attach | Work::Probe(_) | Work::Time(_) | Work::Send(..) | Work::Compare(_)
            ) {
                self.begin(node, work);
            }
        }
        let wait = FIRST_WAIT / 2 + self.pick(FIRST_WAIT / 2);
        self.at(now + wait, Happening::Build { node, life: self.nodes[node].life });
    }

    /// Tries to build a link.
    pub(crate) fn build(&mut self, node: usize) {
        let now = self.now;
        let lineage = self.redis.lineage.clone();
        let bus = &mut self.nodes[node].bus;
        if bus.link.is_some() {
            return;
        }
        if bus.unreachable > now || bus.deaf > now {
            return self.build_later(node);
        }
        let changed = bus.known.as_ref().is_some_and(|known| *known != lineage);
        bus.known = Some(lineage.clone());
        bus.links += 1;
        let number = bus.links;
        bus.link = Some(Link {
            number,
            up: false,
            attached: false,
            lineage,
            subscribed: BTreeSet::new(),
            since: BTreeMap::new(),
            held: Vec::new(),
            last: [now; 6],
            asked: BTreeMap::new(),
            next: 0,
            round: 0,
            begun: Self::clock().instant,
            accepted: false,
            back: false,
            unmarked: true,
            listens: false,
            revocations_read: 0,
        });
        if changed {
            let down = LinkChange::Down { reason: "another history".into(), lineage_changed: true };
            self.event(node, BusEvent::Link(down));
        }
        self.begin(node, Work::Attach);
    }

    pub(crate) fn build_later(&mut self, node: usize) {
        let bus = &mut self.nodes[node].bus;
        bus.wait = (bus.wait.max(FIRST_WAIT) * 2).min(LONGEST_WAIT);
        let wait = bus.wait / 2 + self.pick(self.nodes[node].bus.wait / 2);
        let life = self.nodes[node].life;
        self.at(self.now + wait, Happening::Build { node, life });
    }
}
