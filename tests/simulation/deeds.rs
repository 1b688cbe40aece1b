//! What the steps of a schedule do to the world.

use bytes::Bytes;
use carillon::{
    bus::Content,
    protocol::{Event, Kind, Subject, Topic},
};
use serde_json::json;

use crate::{
    client::Line,
    node::areas,
    plan::{By, Deed},
    redis::{Call, Reply},
    world::{Happening, World},
};

/// How long a node drains, ms.
const DRAIN: u64 = 4_000;

/// A topic by its name.
pub(crate) fn topic(name: &str) -> Topic {
    Topic::parse(name, &areas()).expect("a topic")
}

impl World {
    /// A step of the schedule.
    pub(crate) fn step(&mut self, index: usize) {
        let deed = self.plan.steps[index].deed.clone();
        self.note(|_| format!("** {deed:?}"));
        self.report.deed(&deed);
        match deed {
            Deed::Publish { topic } => self.publish(&topic),
            Deed::Burst { topic, count } => (0..count).for_each(|_| self.publish(&topic)),
            Deed::Live { topic } => self.publish_live(&topic),
            Deed::Poison { topic } => self.poison(&topic),
            Deed::Cut { client, percent, away, node } => {
                if !matches!(self.clients[client].line, Line::None) {
                    self.hang_up(client, percent, away, Some(node));
                    self.clients[client].cut_until = self.now + away;
                }
            }
            Deed::Follow { client, subject } => self.change(client, &subject, true),
            Deed::Unfollow { client, subject } => {
                if self.clients[client].subjects.len() > 1 {
                    self.audit.views[client].left = self.now;
                    self.change(client, &subject, false);
                }
            }
            Deed::Stall { client, lasts } => {
                self.clients[client].stalled = self.now + lasts;
                self.trouble(lasts);
            }
            Deed::Ping { client } => self.say(client, &json!({ "type": "ping" })),
            deed => self.fault(deed),
        }
    }

    fn fault(&mut self, deed: Deed) {
        match deed {
            Deed::Break { node, lasts } => {
                self.nodes[node].bus.unreachable = self.now + lasts;
                self.trouble(lasts);
                self.lose_link(node, false);
            }
            Deed::Deafen { node, lasts } => {
                self.nodes[node].bus.deaf = self.now + lasts;
                self.lateness(node, lasts);
            }
            Deed::Probe { node } => self.probe_now(node),
            Deed::Slow { node, by, lasts, what } => {
                self.nodes[node].bus.slow = (by, self.now + lasts, what);
                self.lateness(node, lasts + by);
            }
            Deed::Lose { node, count } => {
                // Something is wrong once one is lost.
                self.nodes[node].bus.lose += count;
            }
            Deed::Forget { node, subject } => {
                let subject = Subject::parse(&subject, &areas()).expect("a subject");
                if let Some(link) = &mut self.nodes[node].bus.link {
                    link.subscribed.remove(&subject);
                }
                self.hidden_loss();
            }
            Deed::Refuse { why, lasts } => {
                let until = self.now + lasts;
                self.redis.refuse(why, self.now, until);
                self.audit.refused_until = self.audit.refused_until.max(until);
                self.at(until, Happening::Mend);
                self.trouble(lasts);
            }
            Deed::Deny { topic: name, lasts } => {
                let until = self.now + lasts;
                self.redis.denied.insert(topic(&name));
                let denied = self.audit.denied.entry(name).or_default();
                *denied = until.max(*denied);
                self.audit.refused_until = self.audit.refused_until.max(until);
                self.at(until, Happening::Mend);
                // The others are served as ever, once that is known.
                self.trouble(0);
            }
            Deed::Freeze { node, lasts } => {
                self.nodes[node].frozen = self.now + lasts;
                self.lateness(node, lasts);
            }
            Deed::Kill { node, lasts } => self.stop(node, lasts),
            Deed::Drain { node, lasts } => {
                self.trouble(DRAIN + lasts);
                self.drain(node);
                let life = self.nodes[node].life;
                self.at(self.now + DRAIN, Happening::Drained { node, life, lasts });
            }
            deed => self.harm(deed),
        }
    }

    /// A node is gone, and starts again later.
    pub(crate) fn stop(&mut self, node: usize, lasts: u64) {
        self.trouble(lasts);
        if self.nodes[node].running.is_some() {
            self.kill(node);
            self.at(self.now + lasts.max(1), Happening::Restart { node });
        }
    }

    /// What happens to Redis itself.
    fn harm(&mut self, deed: Deed) {
        self.trouble(0);
        match deed {
            Deed::FailOver { lost } => {
                self.redis.fail_over(lost);
                self.people.kept.lose(lost);
                self.orders_lost();
                self.marks_lie_ahead();
                self.audit_failed_over();
                for node in 0..self.nodes.len() {
                    self.lose_link(node, false);
                }
            }
            Deed::Flush => {
                self.redis.flush();
                self.people.kept.flush();
                self.orders_lost();
                // Whoever finds that the marks are gone writes them again.
                self.hidden_loss();
                self.audit_replaced(None);
            }
            Deed::Delete { topic: name } => {
                self.redis.logs.remove(&topic(&name));
                self.hidden_trouble();
                self.audit_replaced(Some(&name));
            }
            Deed::Trim { topic: name, keep } => {
                self.redis.trim(&topic(&name), keep);
                self.audit_trimmed(&name);
            }
            Deed::Clock { by } => {
                self.skew += by;
                self.audit.jumped = Some(self.now);
                self.marks_lie_ahead();
                self.hidden_trouble();
            }
            deed => self.rule(&deed),
        }
    }

    /// Redis' clock may be behind the marks by now.
    fn marks_lie_ahead(&mut self) {
        let marked = self.redis.marks.values().max().copied().unwrap_or(0);
        let ahead = self.now + marked.saturating_sub(self.redis_clock());
        self.audit.ahead = self.audit.ahead.max(ahead);
    }

    /// What operators order, and what becomes of who people are.
    fn rule(&mut self, deed: &Deed) {
        if !self.has_people() {
            return;
        }
        match *deed {
            Deed::Disconnect { client, by, node, stubborn } => {
                self.people.all[client].stubborn = self.now + stubborn;
                self.order(Kind::Disconnect, client, by, node);
            }
            Deed::Refresh { client, node } => self.order(Kind::Refresh, client, By::User, node),
            Deed::Dawdle { client, lasts } => self.people.all[client].dawdles = lasts,
            Deed::Renew { client, old } => self.bring(client, old),
            Deed::CmsLate { by, lasts } => self.people.cms.be_slow(by, self.now + lasts),
            Deed::CmsGone { lasts } => self.people.cms.be_away(self.now + lasts),
            _ => {}
        }
    }

    /// Everything that was refused is allowed again, where its time is over.
    pub(crate) fn mend(&mut self) {
        if self.now >= self.redis.refused_until {
            self.redis.refusal = None;
        }
        let (now, until) = (self.now, &self.audit.denied);
        self.redis.denied.retain(|topic| until.get(topic.as_str()).is_some_and(|until| *until > now));
    }

    fn new_event(&mut self) -> (u64, Event) {
        let number = self.audit.next_number();
        self.people.published.push(self.now);
        let json = format!(r#"{{"type":"comment.created","data":{{"n":{number}}}}}"#);
        (number, Event::parse(Bytes::from(json), 65_536).expect("an event"))
    }

    pub(crate) fn publish(&mut self, name: &str) {
        let topic = topic(name);
        let (number, event) = self.new_event();
        if let Ok(Reply::Published(id, _)) = self.redis_call(&Call::Publish(topic.clone(), event.clone())) {
            self.audit_published(&topic, id, Some(number));
            self.publish_message(&topic, &Content::Recorded(id, event));
        }
    }

    fn publish_live(&mut self, name: &str) {
        let topic = topic(name);
        let (number, event) = self.new_event();
        self.steps += 1;
        self.audit_live(&topic, number);
        self.publish_message(&topic, &Content::Live(event));
    }

    fn poison(&mut self, name: &str) {
        let topic = topic(name);
        self.redis.pass(self.redis_clock());
        self.steps += 1;
        let id = self.redis.append(&topic, None);
        self.audit_expired();
        self.audit_published(&topic, id, None);
        self.publish_message(&topic, &Content::Invalid(id));
    }

    /// A client whose node is gone notices, and comes back to another one.
    pub(crate) fn lose_client(&mut self, client: usize, node: usize) {
        let nodes = self.nodes.len();
        let me = &self.clients[client];
        if me.node == node && !matches!(me.line, Line::None) {
            let away = 1 + self.pick(300);
            self.hang_up(client, 50, away, Some((node + 1) % nodes));
        }
    }
}
