//! When a `resync` may be said: each reason needs something that happened since the client was last told about the topic.
//! Whoever refetches without need costs the CMS as much as whoever must.

use std::collections::BTreeSet;

use crate::{
    audit::{ASKED_AGAIN, PROMISED, topics_of},
    live::Live,
    plan::Way,
    world::World,
};

/// How long after a live event who comes back may be told of it: its mark lies two seconds ahead, and what a client last
/// heard of Redis' clock may be two rounds of probes old, ms.
const MARKED: u64 = 14_000;

/// How far ahead a mark is written at most, ms.
const FURTHEST: u64 = 30_000;
/// How late a message may come, ms.
const LATE: u64 = 5_000;
/// Since when nothing must have been wrong for a poll to be told the live events themselves, ms.
const CALM: u64 = 2 * MARKED;
/// How long a poll may have been away for that, ms.
const SOON: u64 = 15_000;
/// How long after one probe the next one is sent, ms.
const PROBED: u64 = 5_000;
/// How long a cursor names them, ms.
const KEPT: u64 = 60_000;
/// How many live events a cursor names for sure.
const NAMED: usize = 20;

impl World {
    /// Whether a poll's own cursor and its node know exactly which live events it lacks: nothing was wrong lately, and the
    /// node has followed the topic since before the poll was last told everything.
    fn is_told_by_cursor(&self, client: usize, topic: &str) -> bool {
        let (me, audit) = (&self.clients[client], &self.audit);
        // What its node knew when it came decides: a poll that has only this to tell waits a while before it tells it.
        let came = me.since;
        let calm = |at: u64| at == 0 || at + CALM < came;
        let bus = &self.nodes[me.node].bus;
        let since = bus.followed_since(&crate::deeds::topic(topic.trim_end_matches(":*")));
        let up = self.nodes[me.node].up_since;
        let long = since.max(up).is_some_and(calm) && since.is_some() && up.is_some();
        // A node compares the `at` of what the poll had with the first probe behind what it follows itself.
        let named = me.lives.iter().filter(|(heard, _)| heard + KEPT > came).map(|(_, at)| *at).min();
        let early = self.redis.clock + since.max(up).unwrap_or(0) + PROBED + self.slack();
        let long = long && named.is_none_or(|at| early < at + self.now);
        let lately = |within: u64| audit.live.values().filter(move |live| live.at + within > came);
        // What another node may have heard and this one not yet is none of what the node knows.
        let at_once = lately(self.slack()).any(|live| live.at < came + self.slack());
        let heard = !at_once && lately(KEPT).count() <= NAMED;
        // The mark of what it does not follow may be one of what was lost on the way to it.
        let followed = |live: &Live| {
            let topic = crate::deeds::topic(&live.topic);
            bus.followed_since(&topic).is_some_and(|since| since < live.at)
        };
        // Its mark lies a little ahead, perhaps of what the poll was told last.
        let brought = audit.views[client].brought;
        let marked = |live: &&Live| live.at + MARKED > came || live.clock + MARKED > brought;
        let heard = heard && audit.live.values().filter(marked).all(followed);
        let back_soon = brought + SOON > self.redis.clock;
        let quick = me.way == Way::Poll && self.plan.pace <= 5 && back_soon;
        // Marks are renewed for a topic that can be followed again.
        let denied = audit.denied.values().all(|until| calm(*until));
        quick
            && long
            && heard
            && calm(audit.trouble)
            && calm(audit.doubtful)
            && audit.jumped.is_none()
            && denied
    }

    /// By when a node knows of something that happened then: later, where things took their time there.
    fn known_by(&self, node: usize, at: u64) -> u64 {
        let slack = self.slack();
        let here = self.audit.late.iter().filter(|(of, ..)| *of == node);
        here.fold(at + slack, |by, (_, from, until)| if *from <= by { by.max(until + slack) } else { by })
    }

    /// Whether a `resync` of this reason has a cause.
    pub(crate) fn within_budget(&mut self, client: usize, topic: &str, reason: &str) {
        let audit = &self.audit;
        let whole_area = topic.ends_with(":*");
        let node = self.clients[client].node;
        let told = audit.views[client].told.get(topic).copied().unwrap_or(0);
        let since = |at: Option<u64>| at.is_some_and(|at| self.known_by(node, at) >= told);
        let position = self.clients[client].positions.get(topic);
        let troubled = audit.trouble > 0 && since(Some(audit.trouble));
        let cause = match reason {
            "redis-changed" => {
                since(audit.failed_over)
                    || position.is_some_and(|position| position.lineage != self.redis.lineage)
            }
            "log-replaced" => {
                let log = self.redis.log(&crate::deeds::topic(topic.trim_end_matches(":*")));
                let is_there = |position: &carillon::protocol::Position| {
                    log.is_some_and(|log| {
                        log.top.epoch == position.id.epoch && log.top.seq >= position.id.seq
                    })
                };
                let (replaced, refused) = (audit.replaced.get(topic), since(Some(audit.refused_until)));
                // Whoever is in the present log already is told again only where it was replaced twice, and of each time alone;
                // or by a node that still has the log before it, and could not read it when they came.
                !position.is_some_and(is_there)
                    || since(audit.failed_over)
                    || since(replaced.and_then(|(_, before)| *before))
                    || replaced.is_some() && refused
            }
            "no-position" => position.is_none() || whole_area,
            "trimmed" => {
                let log = self.redis.log(&crate::deeds::topic(topic.trim_end_matches(":*")));
                let kept = log.and_then(|log| log.entries.front()).map(|(seq, _)| *seq);
                let behind = position.is_none_or(|at| kept.is_none_or(|kept| at.id.seq + 1 < kept));
                // Another log is there by now, where it was said of the one before.
                behind
                    || since(audit.trimmed.get(topic).copied())
                    || since(audit.replaced.get(topic).map(|(at, _)| *at))
            }
            // Who names a position is served from the log, or told what became of it.
            // Nobody can name one whom a node answered without it, because Redis refused the topic, or another one in the same request.
            "gap" => {
                let lately = [Some(audit.came_up), self.denied_until(client, topic)];
                whole_area || position.is_none() && (troubled || lately.into_iter().any(since))
            }
            "invalid" => self.is_invalid(topic),
            "live" if self.is_told_by_cursor(client, topic) => false,
            "live" => self.has_live_cause(topic, &since) || self.is_told_by_at(client, topic, told),
            "slow" => self.plan.outbox_bytes < 100_000,
            _ => false,
        };
        if !cause {
            let text = format!(
                "client {client} was told to refetch {topic} for {reason}, last told at {told} ms, without a cause"
            );
            self.violate("needless resync", text);
        }
    }

    /// Until when a topic was refused, or another that the client asks for.
    fn denied_until(&self, client: usize, topic: &str) -> Option<u64> {
        let subjects = &self.clients[client].subjects;
        let asked: BTreeSet<String> = subjects.iter().flat_map(|subject| topics_of(subject)).collect();
        let denied = self.audit.denied.iter().filter(|(name, _)| *name == topic || asked.contains(*name));
        denied.map(|(_, until)| *until).max()
    }

    /// Whether a topic's log has, or had, something that is no event.
    fn is_invalid(&self, topic: &str) -> bool {
        let area = topic.split(':').next().unwrap_or_default();
        self.audit.contents.iter().any(|((_, of, _), number)| {
            number.is_none() && (of == topic || topic.ends_with(":*") && of.starts_with(area))
        })
    }

    /// Whether a client that came after it was told brought an `at` from before a live event: there is one `at` for all of its topics,
    /// and it is that of the one that was told longest ago.
    fn is_told_by_at(&self, client: usize, topic: &str, told: u64) -> bool {
        let (audit, area) = (&self.audit, topic.split(':').next());
        let brought = audit.views[client].brought;
        // The marks of a master before are forgotten with it.
        let of_now = audit.live.values().filter(|live| Some(live.at) > audit.failed_over);
        let mut of_area = of_now.filter(|live| live.topic.split(':').next() == area);
        let since = self.clients[client].since;
        since >= told && since < told + PROMISED && of_area.any(|live| live.clock + MARKED > brought)
    }

    /// Whether live events may have been missed. `since`: whether that was so since the client was told.
    fn has_live_cause(&self, topic: &str, since: &dyn Fn(Option<u64>) -> bool) -> bool {
        let (audit, area) = (&self.audit, topic.split(':').next());
        let last = audit.live.values().filter(|live| live.topic.split(':').next() == area);
        let last = last.map(|live| live.at).max();
        let doubtful = Some(audit.doubtful + MARKED).filter(|_| last.is_some());
        // Marks are renewed where Redis' clock was set ahead, and lie ahead of a new master's that is behind.
        let moved = Some(audit.jumped.max(Some(audit.ahead)).unwrap_or(0) + MARKED);
        let moved = moved.filter(|_| audit.jumped.is_some() && last.is_some());
        // What was withheld while Redis refused is told when it does not any more.
        let withheld = Some(audit.refused_until + MARKED).filter(|_| last.is_some());
        // A topic that could not be followed for a while is in doubt when it can be again, and all marks are renewed for it.
        let denied =
            audit.denied.values().max().map(|until| until + ASKED_AGAIN + MARKED).filter(|_| last.is_some());
        // Where the answer to the write of a mark was long on its way, the next mark lies further ahead.
        let late = audit.late.iter().map(|(.., until)| *until).max();
        let ahead = late.map(|at| at + FURTHEST + MARKED).filter(|_| last.is_some());
        // What still comes of a log that was replaced casts doubt on its topic.
        let late = audit.replaced.get(topic).map(|(at, _)| at + LATE).filter(|_| last.is_some());
        since(last.map(|at| at + MARKED))
            || [doubtful, moved, withheld, denied, late, ahead].into_iter().any(since)
    }
}
