//! What operators order, on its way: a node keeps it in Redis and then tells every node, and each compares what it knows with
//! what Redis keeps. What is compared is decided by the node's own code.

use std::collections::BTreeMap;

use carillon::{
    bus::BusEvent,
    protocol::{Heard, Kind, Revocation, Revocations, Whom, revocation::Comparison, time::now_ms},
};

use crate::{
    bus::{Push, Told, Work},
    plan::By,
    world::{Happening, World},
};

/// How long an operator waits before they try again, ms.
const AGAIN: u64 = 1_000;

/// What Redis keeps of orders.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    orders: BTreeMap<String, Revocation>,
    /// Another after every change; 0: there is none.
    change: u64,
    changes: u64,
    /// What was there before each of the last changes.
    before: Vec<(BTreeMap<String, Revocation>, u64)>,
}

impl Kept {
    fn keep(&mut self, orders: &[Revocation]) {
        self.before.push((self.orders.clone(), self.change));
        self.changes += 1;
        self.change = self.changes;
        self.orders.extend(orders.iter().map(|order| (order.name(), order.clone())));
    }

    /// Whether it is kept, or a later one of the same.
    pub(crate) fn has(&self, order: &Revocation) -> bool {
        self.orders.get(&order.name()).is_some_and(|kept| kept.at >= order.at)
    }

    /// Redis was emptied.
    pub(crate) fn flush(&mut self) {
        self.orders.clear();
        self.change = 0;
    }

    /// Another master takes over, which has not heard of the last changes.
    pub(crate) fn lose(&mut self, lost: u64) {
        for _ in 0..lost {
            if let Some((orders, change)) = self.before.pop() {
                (self.orders, self.change) = (orders, change);
            }
        }
    }
}

/// A piece of work that is about orders.
#[derive(Debug, Clone)]
pub(crate) enum Task {
    /// Keep an order, by its number.
    Keep(usize),
    /// Tell every node of it.
    Tell(usize),
    /// Look whether anything has changed; `true`: read it in any case.
    Change(bool),
    /// Read all.
    Read,
    /// Write back what Redis has lost; then the change that was read is known, and what is new is learned.
    WriteBack { lost: Vec<Revocation>, change: u64, unknown: Vec<Revocation> },
}

/// What Redis says to it.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Done,
    Refused,
    Change(u64),
    Orders(u64, Vec<Revocation>),
}

/// An order of an operator.
#[derive(Debug)]
pub(crate) struct Order {
    /// What it says.
    pub says: Revocation,
    /// When it was given, virtual ms.
    pub begun: u64,
    /// When the operator was told that it holds.
    pub accepted: Option<u64>,
    /// From when on nothing that is published may reach whom it shuts out.
    pub due: u64,
    /// Since when Redis does not have it, though it held.
    pub missing: Option<u64>,
    /// A node was not told of it, or Redis has lost it: nodes learn of it when they compare.
    pub unheard: bool,
}

impl World {
    /// An operator orders something about whoever is at a client.
    pub(crate) fn order(&mut self, kind: Kind, client: usize, by: By, node: usize) {
        let Some(person) = self.people.all.get(client) else { return };
        let whom = match by {
            By::User => Whom::User(person.user.clone()),
            By::Session => Whom::Session(person.session.clone().unwrap_or_else(|| person.visit.sid.clone())),
            By::Token => Whom::Token(person.visit.jti.clone()),
        };
        self.operate(node, kind, whom);
    }

    /// An operator asks a node, or another one where that cannot help.
    pub(crate) fn operate(&mut self, node: usize, kind: Kind, whom: Whom) {
        let attached = self.nodes[node].bus.link.as_ref().is_some_and(|link| link.attached);
        let Some(known) = self.revocations(node).filter(|_| attached) else {
            return self.operate_later(node, kind, whom);
        };
        let at = known.next(kind, &whom, now_ms());
        let order = Revocation { kind, whom, at };
        self.note(|_| format!("   node {node} is ordered: {}", order.name()));
        self.people.orders.push(Order {
            says: order,
            begun: self.now,
            accepted: None,
            due: u64::MAX,
            missing: None,
            unheard: false,
        });
        let number = self.people.orders.len() - 1;
        self.begin(node, Work::Orders(Task::Keep(number)));
    }

    fn operate_later(&mut self, node: usize, kind: Kind, whom: Whom) {
        let node = (node + 1) % self.nodes.len();
        self.at(self.now + AGAIN, Happening::Operate { node, kind, whom });
    }

    /// What a node knows.
    pub(crate) fn revocations(&self, node: usize) -> Option<Revocations> {
        Some(self.nodes[node].running.as_ref()?.context.auth.revocations().clone())
    }

    /// The link is lost before an answer came.
    pub(crate) fn order_unanswered(&mut self, node: usize, task: &Task) {
        if let Task::Keep(number) | Task::Tell(number) = task {
            let order = self.people.orders[*number].says.clone();
            self.operate_later(node, order.kind, order.whom);
        }
    }

    /// It has reached Redis.
    pub(crate) fn order_at_redis(&mut self, task: &Task) -> Told {
        let refused = self.redis.refusal.is_some();
        let kept = &mut self.people.kept;
        Told::Orders(match task {
            Task::Keep(_) | Task::WriteBack { .. } if refused => Said::Refused,
            Task::Keep(number) => {
                kept.keep(std::slice::from_ref(&self.people.orders[*number].says));
                Said::Done
            }
            Task::WriteBack { lost, .. } => {
                kept.keep(lost);
                Said::Done
            }
            Task::Change(_) => Said::Change(kept.change),
            Task::Read => Said::Orders(kept.change, kept.orders.values().cloned().collect()),
            Task::Tell(number) => {
                self.tell(*number);
                Said::Done
            }
        })
    }

    /// Every node that listens is told, unless the message is lost.
    fn tell(&mut self, number: usize) {
        let order = self.people.orders[number].says.clone();
        for node in 0..self.nodes.len() {
            let bus = &mut self.nodes[node].bus;
            let Some(link) = bus.link.as_ref().filter(|link| link.listens) else { continue };
            let (link, up) = (link.number, link.up);
            if bus.lose > 0 && up {
                bus.lose -= 1;
                self.people.orders[number].unheard = true;
                self.report.count("bite", "lost order");
                self.note(|_| format!("   node {node} is not told: {}", order.name()));
                continue;
            }
            self.push(node, link, Push::Order(order.clone()));
        }
    }

    /// A node hears what Redis says to it.
    pub(crate) fn order_told(&mut self, node: usize, task: Task, said: Said) {
        let Some(known) = self.revocations(node) else { return };
        let Some(link) = &mut self.nodes[node].bus.link else { return };
        match (task, said) {
            (Task::Keep(number), Said::Done) => self.begin(node, Work::Orders(Task::Tell(number))),
            (Task::Keep(number), _) => {
                let order = self.people.orders[number].says.clone();
                self.operate_later(node, order.kind, order.whom);
            }
            (Task::Tell(number), _) => self.audit_ordered(number),
            (Task::Change(all), Said::Change(change))
                if all || known.must_compare(change, link.revocations_read) =>
            {
                self.begin(node, Work::Orders(Task::Read));
            }
            (Task::Read, Said::Orders(change, kept)) => {
                let Comparison { unknown, lost } = known.compare(&kept);
                if lost.is_empty() {
                    link.revocations_read = change;
                    return self.learn(node, unknown);
                }
                self.report.count("bite", "orders written back");
                self.begin(node, Work::Orders(Task::WriteBack { lost, change, unknown }));
            }
            (Task::WriteBack { change, unknown, .. }, said) => {
                link.revocations_read = if matches!(said, Said::Done) { change } else { 0 };
                self.learn(node, unknown);
            }
            _ => {}
        }
    }

    /// What was not known becomes known; a link that has compared can be used.
    fn learn(&mut self, node: usize, unknown: Vec<Revocation>) {
        if !unknown.is_empty() {
            self.report.count("bite", "orders learned later");
            self.event(node, BusEvent::Revoked { orders: unknown, heard: Heard::Later });
        }
        self.serve_commands(node);
    }
}
