//! What a world waits for and measures: that sessions know of trouble, and that they are in step again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    client::Session,
    process::until,
    record::{Fact, Id, Ms, Reason, Told, TopicId},
    world::World,
};

/// Trouble of the whole link is known within this time, and over for everybody within this time after its end.
pub(crate) const PROMISE: Duration = Duration::from_secs(10);

impl World {
    /// A fault begins.
    pub(crate) fn begin(&mut self, what: impl Into<String>) {
        self.onset = self.clock.now();
        self.note(what);
    }

    /// Waits until every session of these nodes has been told that its node has lost sight of Redis (or has lost its
    /// node), and fails where that takes longer than promised.
    pub(crate) async fn known_by(&mut self, nodes: &[usize]) -> Result<()> {
        let onset = self.onset;
        let names: Vec<String> = nodes.iter().map(|node| self.nodes[*node].name.clone()).collect();
        let affected = |session: &Arc<Session>| names.contains(&session.state().node);
        let affected: Vec<_> = self.sessions.iter().filter(|session| affected(session)).cloned().collect();
        // Who hung up by itself meanwhile may have been away while there was something to say.
        let unaware = || {
            let aware = |session: &Session| learned(session, onset).is_some() || hung_up(session, onset);
            affected.iter().find(|session| !aware(session))
        };
        let known = until("every session knows that its node has lost sight of Redis", PROMISE, || async {
            unaware().is_none()
        });
        known.await.with_context(|| {
            let tail = unaware().map(|session| session.tail(12)).unwrap_or_default();
            format!("{}\nnot aware: {tail}", self.logs())
        })?;
        let slowest = affected.iter().filter_map(|session| learned(session, onset)).max().unwrap_or(onset);
        let took = slowest.saturating_sub(onset);
        self.times.known = self.times.known.max(Some(took));
        self.note(format!("all {} sessions concerned know, the last after {took} ms", affected.len()));
        Ok(())
    }

    /// Every node must say that it is not ready, and why, while the trouble lasts: at once where it has told a session, and
    /// else (it may have none) within the time that is promised from the onset.
    pub(crate) async fn not_ready(&self) -> Result<()> {
        for node in &self.nodes {
            let has_told = |session: &Arc<Session>| {
                let state = session.state();
                state.connected && !state.live && state.node == node.name
            };
            if !self.sessions.iter().any(has_told) {
                let left = PROMISE.saturating_sub(Duration::from_millis(self.clock.now() - self.onset));
                until(&format!("{} finds out by itself", node.name), left, || async {
                    node.readiness().await.is_some_and(|(status, _)| status == 503)
                })
                .await?;
            }
            let (status, why) = node.readiness().await.context("/readyz was not answered")?;
            ensure!(
                status == 503 && !why.trim().is_empty(),
                "{} says {status} {why:?} on /readyz",
                node.name
            );
        }
        Ok(())
    }

    /// The nodes that have such sessions at the moment.
    pub(crate) fn nodes_of(&self, which: impl Fn(&Told) -> bool) -> Vec<usize> {
        let has = |node: &usize| {
            self.sessions.iter().any(|session| {
                let state = session.state();
                state.connected && state.node == self.nodes[*node].name && which(&state.told)
            })
        };
        (0..self.nodes.len()).filter(has).collect()
    }

    /// As [`World::known_by`], for all nodes.
    pub(crate) async fn known(&mut self) -> Result<()> {
        self.known_by(&(0..self.nodes.len()).collect::<Vec<_>>()).await
    }

    /// The trouble is over: waits until every session is in step with what the logs hold now, and fails where that takes
    /// longer than promised.
    pub(crate) async fn recovered(&mut self) -> Result<()> {
        self.recovered_within(PROMISE, None).await
    }

    /// As [`World::recovered`], and every session must have been told to refetch for this reason since the onset.
    pub(crate) async fn recovered_by(&mut self, reason: Reason) -> Result<()> {
        self.recovered_within(PROMISE, Some(reason)).await
    }

    /// As [`World::recovered_by`], with another bound.
    pub(crate) async fn recovered_within(&mut self, bound: Duration, reason: Option<Reason>) -> Result<()> {
        let over = self.clock.now();
        self.note("the trouble is over");
        let onset = self.onset;
        if let Some(reason) = reason {
            until(&format!("every session is told to refetch ({})", reason.name()), bound, || async {
                self.sessions.iter().all(|session| told(session, reason, onset))
            })
            .await
            .with_context(|| self.logs())?;
        }
        self.settled(bound, over).await
    }

    /// As [`World::recovered`], and some sessions must have been told to refetch for this reason since the onset: until
    /// then the nodes have not noticed.
    pub(crate) async fn recovered_by_some(&mut self, reason: Reason) -> Result<()> {
        let over = self.clock.now();
        self.note("the trouble is over");
        until(&format!("sessions are told to refetch ({})", reason.name()), PROMISE, || async {
            self.resyncs(reason) > 0
        })
        .await
        .with_context(|| self.logs())?;
        self.settled(PROMISE, over).await
    }

    /// Waits until a node has told every session that follows a topic that live events of it may be missing.
    pub(crate) async fn live_doubted(&self, node: usize, topic: TopicId, since: Ms) -> Result<()> {
        let name = &self.nodes[node].name;
        let follows = |session: &&Arc<Session>| {
            let state = session.state();
            state.connected && state.node == *name && state.told.follows.contains(&topic)
        };
        let followers: Vec<_> = self.sessions.iter().filter(follows).collect();
        ensure!(!followers.is_empty(), "nobody at {name} follows the topic");
        let doubted = |fact: &Fact| {
            fact.topic() == Some(topic) && matches!(fact, Fact::Resync { reason: Reason::Live, .. })
        };
        // Who hangs up is told as soon as it is back: that proves nothing of the node.
        until("every follower is told that live events may be missing", PROMISE, || async {
            followers.iter().all(|session| any(session, since, doubted) || hung_up(session, since))
        })
        .await
        .with_context(|| self.logs())
    }

    /// Waits until every session was told something that rests on a probe of after this moment: what Redis says of itself
    /// now is known to its node by then.
    pub(crate) async fn proven(&self) -> Result<()> {
        let mut now = 0;
        for time in self.must(&["TIME"]).await? {
            let part = |n: usize| time.list().get(n).and_then(|part| part.text()?.parse::<u64>().ok());
            let (seconds, micros) = part(0).zip(part(1)).context("TIME was not answered")?;
            now = now.max(seconds * 1000 + micros / 1000);
        }
        until("every session is told of a later probe", PROMISE, || async {
            self.sessions.iter().all(|session| session.state().at.is_some_and(|at| at > now))
        })
        .await
        .with_context(|| self.logs())
    }

    async fn settled(&mut self, bound: Duration, over: Ms) -> Result<()> {
        let passed = Duration::from_millis(self.clock.now() - over);
        let in_step = self.in_step_within(bound.saturating_sub(passed)).await;
        in_step.with_context(|| self.logs())?;
        let took = self.clock.now() - over;
        self.times.recovered = self.times.recovered.max(Some(took));
        self.note(format!("all sessions are in step again after {took} ms"));
        Ok(())
    }

    /// Waits until every session is connected, told `live`, and has what the logs hold now. Who was so and has dropped its
    /// connection since is not waited for again: while a link is slow there may be one on its way back at any moment.
    pub(crate) async fn in_step_within(&self, bound: Duration) -> Result<()> {
        let end = tokio::time::Instant::now() + bound;
        let begun = self.clock.now();
        let mut heads = HashMap::new();
        let mut were_in_step = vec![false; self.sessions.len()];
        loop {
            // What was published before the trouble was over; later events only make it harder.
            if heads.len() < self.topics.names.len() {
                heads = self.heads().await;
            }
            let mut late = None;
            for (session, was_in_step) in self.sessions.iter().zip(&mut were_in_step) {
                match self.behind(session, &heads) {
                    None => *was_in_step = true,
                    Some(_) if *was_in_step && hung_up(session, begun) => {}
                    Some(lack) => late = late.or(Some((session, lack))),
                }
            }
            let Some((session, late)) = late else { return Ok(()) };
            if tokio::time::Instant::now() >= end {
                // What it is told from now on tells one that is slow from one that is stale.
                let (now, before) = (self.clock.now(), session.tail(30));
                let all = self.sessions.iter().filter_map(|other| self.behind(other, &heads)).count();
                let later = until("it is in step", PROMISE * 3, || async {
                    self.behind(session, &self.heads().await).is_none()
                });
                let later = match later.await {
                    Ok(()) => format!("in step {} ms later", self.clock.now() - now),
                    Err(_) => format!("and still not {:?} later", PROMISE * 3),
                };
                bail!(
                    "not in step after {bound:?}, at {now} ms: {late} ({all} are behind)\n{before}\n{later}\n{}",
                    session.tail(10)
                );
            }
            if late.ends_with("another log") {
                heads.clear();
                were_in_step.fill(false);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a session lacks.
    fn behind(&self, session: &Session, heads: &HashMap<TopicId, Id>) -> Option<String> {
        let state = session.state();
        let name = &state.told.name;
        if !state.connected || !state.live {
            return Some(format!(
                "session {name} at {}: connected {}, live {}",
                state.node, state.connected, state.live
            ));
        }
        for topic in &state.told.follows {
            let (head, position) = (heads.get(topic), state.positions.get(topic));
            let topic = self.topics.name(*topic);
            match (head, position) {
                (Some(head), Some(position)) if position.id.epoch != head.epoch => {
                    return Some(format!(
                        "session {name} has {topic} at {position}, the end is {head}: another log"
                    ));
                }
                (Some(head), Some(position)) if position.id.seq >= head.seq => {}
                (head, position) => {
                    return Some(format!(
                        "session {name} at {} has {topic} at {position:?}, the end is {head:?}",
                        state.node
                    ));
                }
            }
        }
        None
    }

    /// How often the sessions were told this since the onset.
    pub(crate) fn resyncs(&self, reason: Reason) -> u64 {
        self.count(|fact| matches!(fact, Fact::Resync { reason: r, .. } if *r == reason))
    }

    /// How many connections the sessions have lost since the onset; what they dropped themselves does not count.
    pub(crate) fn losses(&self) -> u64 {
        self.count(|fact| matches!(fact, Fact::Closed { .. }))
    }

    /// How many connections the sessions have dropped themselves since the onset.
    pub(crate) fn drops(&self) -> u64 {
        self.count(|fact| matches!(fact, Fact::Dropped))
    }

    fn count(&self, what: impl Fn(&Fact) -> bool) -> u64 {
        let count = |session: &Arc<Session>| {
            let state = session.state();
            let since = state.told.facts.iter().rev().take_while(|(at, _)| *at >= self.onset);
            since.filter(|(_, fact)| what(fact)).count() as u64
        };
        self.sessions.iter().map(count).sum()
    }

    /// A figure of all nodes together.
    pub(crate) async fn figure(&self, name: &str, label: &str) -> f64 {
        crate::node::figures(&self.nodes, name, label).await.values().sum()
    }
}

/// When a session learned that its node is blind, or lost the node.
fn learned(session: &Session, onset: Ms) -> Option<Ms> {
    let state = session.state();
    let since = state.told.facts.iter().rev().take_while(|(at, _)| *at >= onset);
    let blind = |fact: &Fact| {
        matches!(fact, Fact::Status { live: false } | Fact::Welcome { live: false, .. } | Fact::Closed { .. })
    };
    since.filter(|(_, fact)| blind(fact)).last().map(|(at, _)| *at)
}

/// Whether a session has dropped its connection since.
fn hung_up(session: &Session, onset: Ms) -> bool {
    any(session, onset, |fact| *fact == Fact::Dropped)
}

fn told(session: &Session, reason: Reason, onset: Ms) -> bool {
    any(session, onset, |fact| matches!(fact, Fact::Resync { reason: r, .. } if *r == reason))
}

fn any(session: &Session, onset: Ms, what: impl Fn(&Fact) -> bool) -> bool {
    let state = session.state();
    let mut since = state.told.facts.iter().rev().take_while(|(at, _)| *at >= onset);
    since.any(|(_, fact)| what(fact))
}
