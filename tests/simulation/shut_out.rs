//! Who must be out by when, who may be refused, and what each client was told in spite of it. Nothing that is published two
//! seconds after an operator was told that their order holds reaches whom it shuts out; where a node was not told, or Redis
//! has lost it, the next comparison may pass first. Whoever shows what no order concerns comes in.

use std::iter;

use carillon::protocol::{Kind, Whom, revocation::LEEWAY};
use serde_json::Value;

use crate::{
    client::Line,
    orders::Order,
    people::{Papers, Verdict},
    plan::{ProofBy, Way},
    world::World,
};

/// Within which an order holds everywhere, ms.
const HOLDS: u64 = 2_000;
/// How long until a node has compared what it knows with Redis, where it has a link: the time between probes and how long
/// one may take, ms.
const COMPARED: u64 = 8_000;
/// How long whoever has to renew has for it, ms, and how late they may be told.
const RENEWED: u64 = 30_000 + 4_000;
/// How late an order may be heard, s: the clock of who hears it counts.
const UNDER_WAY: u64 = 25;
/// How long after an order an answer of the CMS may be in doubt, ms.
const DOUBT: u64 = 1_000 * (LEEWAY + UNDER_WAY);
/// For how long somebody who shows new papers may be refused at most, ms.
const PATIENCE: u64 = 15_000;

impl World {
    /// An operator was told that their order holds.
    pub(crate) fn audit_ordered(&mut self, number: usize) {
        let (now, slack) = (self.now, self.slack());
        let order = &mut self.people.orders[number];
        order.accepted = Some(now);
        order.due = now + slack + if order.unheard { COMPARED } else { HOLDS };
        let name = order.says.name();
        self.note(|_| format!("   it holds: {name}"));
        self.report.count("bite", "order holds");
    }

    /// Whether an order shuts a client out for sure, by what its connection was let in with.
    fn must_be_out(&self, client: usize, order: &Order) -> bool {
        let person = &self.people.all[client];
        let by_papers =
            |covers: &dyn Fn(&Papers) -> bool| covers(&person.visit) && person.bringing.iter().all(covers);
        let revoked = &order.says;
        match (&revoked.whom, self.people.proof) {
            (Whom::User(user), _) if *user != person.user => false,
            (Whom::User(_), Some(ProofBy::Cms)) => {
                // What the CMS says counts as of when it was asked.
                revoked.kind == Kind::Disconnect
                    && self.people.cms.last_asked(client).is_some_and(|asked| asked < order.begun)
            }
            (Whom::User(_), _) if revoked.kind == Kind::Disconnect => {
                by_papers(&|papers| papers.issued <= revoked.at / 1000 + LEEWAY)
            }
            (Whom::User(_), _) => by_papers(&|papers| papers.issued <= revoked.at / 1000),
            (Whom::Session(name), proof) => {
                person.session.as_ref() == Some(name)
                    || proof == Some(ProofBy::Token) && by_papers(&|papers| papers.sid == *name)
            }
            (Whom::Token(name), proof) => {
                proof == Some(ProofBy::Token) && by_papers(&|papers| papers.jti == *name)
            }
        }
    }

    /// Whether a client may be refused with these papers, or what it is let in with may end.
    fn may_be_out(&self, client: usize, papers: &Papers) -> bool {
        let person = &self.people.all[client];
        let concerns = |order: &Order| match &order.says.whom {
            Whom::User(user) if *user != person.user => false,
            Whom::User(_) if self.people.proof == Some(ProofBy::Cms) => {
                papers.shown <= order.begun + DOUBT + self.slack()
            }
            Whom::User(_) => papers.issued <= order.says.at / 1000 + LEEWAY + UNDER_WAY,
            Whom::Session(name) => person.session.as_ref() == Some(name) || papers.sid == *name,
            Whom::Token(name) => papers.jti == *name,
        };
        self.people.orders.iter().any(concerns)
    }

    /// The order that a client is out by for sure, where it was to hold by then, among those that its node knows.
    fn out_by(&self, client: usize, then: u64, knows: impl Fn(&Order) -> bool) -> Option<&Order> {
        let mut orders = self.people.orders.iter().filter(|order| order.accepted.is_some() && knows(order));
        orders.find(|order| {
            let grace = if order.says.kind == Kind::Refresh { RENEWED } else { 0 };
            then > order.due + grace && self.must_be_out(client, order)
        })
    }

    /// Whether a client's node has learned of an order by then, for sure: at once or by comparing. Whoever has to renew has time for it
    /// from when their node has learned.
    fn has_learned(&self, client: usize, order: &Order, then: u64) -> bool {
        let refresh = order.says.kind == Kind::Refresh;
        let heard = !order.unheard && (!refresh || self.is_steady(self.clients[client].node, order.begun));
        heard || self.has_compared(client, then.saturating_sub(if refresh { RENEWED } else { 0 }))
    }

    /// Whether a node has had a link, and time to use it, since then.
    fn is_steady(&self, node: usize, since: u64) -> bool {
        let place = &self.nodes[node];
        let (_, slow, _) = place.bus.slow;
        place.up_since.is_some_and(|up| up < since)
            && place.frozen.max(place.bus.deaf).max(place.bus.unreachable).max(slow) < since
    }

    /// Whether a client's node has compared what it knows with Redis by then, for sure.
    fn has_compared(&self, client: usize, by: u64) -> bool {
        self.is_steady(self.clients[client].node, by.saturating_sub(COMPARED + self.slack()))
    }

    /// An event has reached a client. A node that must compare to learn of an order needs a Redis that answers in time.
    pub(crate) fn audit_heard(&mut self, client: usize, published: u64) {
        let knows = |order: &Order| self.has_learned(client, order, published);
        if let Some(order) = self.out_by(client, published, knows) {
            let text = format!(
                "client {client} got an event of {published} ms; {:?} holds since {:?} ms, everywhere since {} ms",
                order.says.name(),
                order.accepted,
                order.due
            );
            self.violate("heard after the end", text);
        }
    }

    /// A client was welcomed.
    pub(crate) fn audit_let_in(&mut self, client: usize) {
        let said = self.people.all[client].said;
        let compared = self.has_compared(client, said);
        if let Some(order) = self.out_by(client, said, |_| compared) {
            let text = format!("client {client} was let in, which {:?} forbids", order.says.name());
            self.violate("let in", text);
        }
    }

    /// A client was refused, or closed for what it was let in with.
    pub(crate) fn audit_refused(&mut self, client: usize, verdict: &Verdict) {
        self.note(|_| format!("   client {client} is refused: {verdict:?}"));
        let Verdict::Out(why) = verdict else { return };
        self.report.count("bite", "refused");
        let person = &self.people.all[client];
        let ended = why.contains("expired") || why.contains("cannot be checked");
        let mut shown = iter::once(&person.visit).chain(person.before.iter().map(|(papers, _)| papers));
        if !ended && !shown.any(|papers| self.may_be_out(client, papers)) {
            self.violate("kept out", format!("client {client} was refused without a cause: {why}"));
        }
    }

    /// Papers that were brought are not taken.
    pub(crate) fn audit_bad_token(&mut self, client: usize, message: &Value) {
        let Some(papers) = self.people.all[client].bringing.pop_front() else { return };
        if !self.may_be_out(client, &papers) {
            self.violate("kept out", format!("client {client} brought a good token and got {message}"));
        }
    }

    /// Redis may have lost orders: also those that nobody was told yet hold. A node that starts before they are written back learns of
    /// them by comparing.
    pub(crate) fn orders_lost(&mut self) {
        let under_way = self.people.orders.iter_mut().filter(|order| order.accepted.is_none());
        under_way.for_each(|order| order.unheard = true);
        self.look_at_orders();
    }

    /// A look at all orders: those that Redis does not have at present, though it could, and those who must be gone.
    pub(crate) fn look_at_orders(&mut self) {
        let (now, slack) = (self.now, self.slack());
        let refused = self.audit.refused_until + COMPARED + slack > now && self.audit.refused_until > 0;
        let since = now.saturating_sub(2 * COMPARED + slack);
        let ready: Vec<bool> =
            (0..self.nodes.len()).map(|node| !refused && self.is_steady(node, since)).collect();
        for number in 0..self.people.orders.len() {
            let order = &mut self.people.orders[number];
            if order.accepted.is_none() || self.people.kept.has(&order.says) {
                order.missing = None;
                continue;
            }
            let order = &self.people.orders[number];
            let knows = |node: &usize| self.revocations(*node).is_some_and(|known| known.knows(&order.says));
            let knowing: Vec<usize> = (0..self.nodes.len()).filter(knows).collect();
            let could = knowing.iter().any(|node| ready[*node]);
            let order = &mut self.people.orders[number];
            let missed = *order.missing.get_or_insert(now);
            if knowing.is_empty() {
                // Nobody can know of it any more.
                order.accepted = None;
            } else if !could || now <= missed + COMPARED + slack {
                // First it is written back, and then read by those who have not heard of it.
                order.due = order.due.max(now + 2 * COMPARED + slack);
                order.unheard = true;
            }
        }
        for client in 0..self.people.all.len() {
            self.look_at_person(client);
        }
    }

    fn look_at_person(&mut self, client: usize) {
        let me = &self.clients[client];
        let (now, since) = (self.now, self.now.saturating_sub(COMPARED + self.slack()));
        let idle = matches!(me.line, Line::None) || me.stalled > since;
        if idle || !(me.welcomed || me.way == Way::Poll) || !self.is_steady(me.node, since) {
            return;
        }
        if self.people.all[client].said > since {
            return;
        }
        // Who has to renew has begun late where their node was told late.
        let knows =
            |order: &Order| order.says.kind == Kind::Disconnect || self.has_learned(client, order, since);
        if let Some(order) = self.out_by(client, since, knows) {
            let text = format!(
                "client {client} is still connected at {now} ms, which {:?} forbids",
                order.says.name()
            );
            self.violate("not closed", text);
        }
    }

    /// Everybody has had time to show good papers.
    pub(crate) fn look_at_the_end(&mut self) {
        for client in 0..self.people.all.len() {
            let (me, person) = (&self.clients[client], &self.people.all[client]);
            // A poll that is in may have nothing to say for long.
            if matches!(me.line, Line::Poll(_)) && !person.at_door {
                continue;
            }
            if let Some(since) = person.refused.filter(|since| since + PATIENCE < self.now) {
                let text = format!("client {client} has been refused since {since} ms, whatever it shows");
                return self.violate("kept out", text);
            }
        }
    }
}
