//! When a `resync` may be said: each reason needs something that happened since the client was last told about the topic.
//! Whoever refetches without need costs the CMS as much as whoever must. Must not know what nodes think.

use crate::world::World;

/// How long after a live event who comes back may be told of it: its mark lies two seconds ahead, and what a client last
/// heard of Redis' clock may be two rounds of probes old, ms.
const MARKED: u64 = 14_000;

impl World {
    /// Whether a `resync` of this reason has a cause.
    pub(crate) fn within_budget(&mut self, client: usize, topic: &str, reason: &str) {
        let audit = &self.audit;
        let slack = self.plan.pace * 60 + 1_500;
        let whole_area = topic.ends_with(":*");
        let told = audit.views[client].told.get(topic).copied().unwrap_or(0);
        let since = |at: Option<u64>| at.is_some_and(|at| at + slack >= told);
        let area = topic.split(':').next().unwrap_or_default();
        let position = self.clients[client].positions.get(topic);
        let troubled = audit.trouble + slack >= told && audit.trouble > 0;
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
                !position.is_some_and(is_there)
                    || since(audit.failed_over)
                    || since(audit.replaced.get(topic).copied())
            }
            "no-position" => position.is_none() || whole_area,
            "trimmed" => {
                let log = self.redis.log(&crate::deeds::topic(topic.trim_end_matches(":*")));
                let kept = log.and_then(|log| log.entries.front()).map(|(seq, _)| *seq);
                let behind = position.is_none_or(|at| kept.is_none_or(|kept| at.id.seq + 1 < kept));
                behind || since(audit.trimmed.get(topic).copied())
            }
            "gap" => whole_area || troubled || audit.came_up + slack >= told,
            "invalid" => audit.contents.iter().any(|((_, of, _), number)| {
                number.is_none() && (of == topic || whole_area && of.starts_with(area))
            }),
            "live" => {
                let last = audit.live.values().filter(|live| live.topic.split(':').next() == Some(area));
                let last = last.map(|live| live.at).max();
                let doubtful = Some(audit.doubtful + MARKED).filter(|_| last.is_some());
                // Marks are renewed where Redis' clock was set ahead, and lie ahead of a new master's that is behind.
                let moved = Some(audit.jumped.max(Some(audit.ahead)).unwrap_or(0) + MARKED);
                let moved = moved.filter(|_| audit.jumped.is_some() && last.is_some());
                // What was withheld while Redis refused is told when it does not any more.
                let withheld = Some(audit.refused_until + MARKED).filter(|_| last.is_some());
                since(last.map(|at| at + MARKED)) || since(doubtful) || since(moved) || since(withheld)
            }
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
}
