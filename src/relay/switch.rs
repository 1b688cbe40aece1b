//! The switch: everything that changes who receives what passes through here, in one order.
//!
//! It owns the hub and the parts, takes inputs (what arrives, what sessions ask, what the bus has answered) and hands each
//! to the parts that it concerns. It owns no rule: what a log shows is decided by `feed`, when a session is in step by
//! `joins`, what it is owed by `resyncs`. It never waits and reads no clock.

mod answers;
mod arrivals;
mod sessions;

use std::collections::BTreeSet;

use super::{
    Settings,
    deliveries::Deliveries,
    feed::Arrival,
    feeds::Feeds,
    head_check::HeadCheck,
    interest::Interest,
    joins::{JoinContext, Joins},
    link::Link,
    marks::{KnownMarks, LiveMarks},
    question::{Now, Questions, SwitchInput, TurnOutput},
    resyncs::PendingResyncs,
    revocations::RevocationCheck,
    sources::{KnownSources, LateSources},
    status, verdicts,
};
use crate::{
    hub::{Hub, RoomId},
    metrics::{Metrics, ReasonLabel},
    mutant,
    protocol::{Reason, Subject, Topic},
    seldom::Seldom,
};

/// Deliveries that are taken in one turn: they leave in one write per session.
pub const BATCH: usize = 64;
/// What several parts use, and what belongs to the present turn.
#[derive(Debug)]
struct Turn {
    now: Now,
    metrics: Metrics,
    questions: Questions,
    fatal: Option<String>,
    complaints: Complaints,
    /// The rooms of the events that came together, see [`Switch::touch`].
    touched: Vec<RoomId>,
}

/// Log lines that would otherwise come for each of thousands of topics, when Redis is full or was emptied or a right is missing.
#[derive(Debug, Default)]
struct Complaints {
    /// A topic cannot be followed: for want of a right, ...
    forbidden: Seldom,
    /// ... or for another reason.
    refused: Seldom,
    /// The log of a topic cannot be read.
    unread: Seldom,
    /// The head of a topic cannot be read.
    unseen: Seldom,
    /// Events of a topic are missing.
    gaps: Seldom,
    /// The log of a topic is another one, ...
    replaced: Seldom,
    /// ... or may be.
    earlier: Seldom,
    /// A message is not in its topic's log.
    by_hand: Seldom,
    /// Events of a topic did not arrive.
    undelivered: Seldom,
}

/// The owner of the hub and of all parts: inputs in, questions and deliveries out.
#[derive(Debug)]
pub struct Switch {
    hub: Hub,
    feeds: Feeds,
    link: Link,
    interest: Interest,
    joins: Joins,
    marks: LiveMarks,
    resyncs: PendingResyncs,
    head_check: HeadCheck,
    last_look: RevocationCheck,
    sources: LateSources,
    deliveries: Deliveries,
    turn: Turn,
}

impl Switch {
    /// A switch that has seen nothing yet: the link is down, and nobody follows anything.
    pub fn new(settings: Settings, hub: Hub, metrics: Metrics, now: Now) -> Self {
        Self {
            hub,
            feeds: Feeds::new(settings.log_length),
            link: Link::new(now),
            interest: Interest::new(settings.linger),
            joins: Joins::default(),
            marks: LiveMarks::default(),
            resyncs: PendingResyncs::new(settings.refetches_per_second),
            head_check: HeadCheck::new(settings.log_ttl, now.instant),
            last_look: RevocationCheck::new(settings.revocations),
            sources: LateSources::new(settings.forget_sources, metrics.clone(), now.instant),
            deliveries: Deliveries::new(settings.traces, metrics.clone(), now),
            turn: Turn {
                now,
                metrics,
                questions: Questions::default(),
                fatal: None,
                complaints: Complaints::default(),
                touched: Vec::new(),
            },
        }
    }

    /// Takes an input. [`Switch::end_turn`] must follow.
    pub fn take(&mut self, input: SwitchInput<'_>, now: Now) {
        self.turn.now = now;
        self.link.begin(now);
        self.deliveries.begin(now, self.link.at());
        match input {
            SwitchInput::Events(batch) => self.take_events(batch),
            SwitchInput::Command(command) => self.obey(command),
            SwitchInput::Answer(stamp, answer) => self.take_answer(stamp, answer),
            SwitchInput::Tick { chance } => self.tick(chance),
        }
        self.hub.flush();
    }

    /// Ends the turn: sends what is owed, and says what is left to do.
    pub fn end_turn(&mut self, now: Now) -> TurnOutput {
        self.turn.now = now;
        self.deliveries.end();
        if self.link.is_about_to_live(&self.feeds) {
            self.go_live();
        }
        if self.link.is_settled() {
            let closed = self.close_rooms();
            self.interest.ask(closed, &self.hub, &mut self.turn.questions);
        }
        self.link.look(&self.hub, &self.feeds, &mut self.turn.questions, now.instant);
        self.joins.ask(&self.link, &mut self.turn.questions);
        self.turn.metrics.history_reads.inc_by(self.feeds.ask(&mut self.turn.questions));
        self.resyncs.pay_all(&mut self.hub, &mut self.feeds, &self.link, &self.turn.metrics);
        TurnOutput { questions: self.turn.questions.take(), fatal: self.turn.fatal.take() }
    }

    /// The last proof that everything was handed over, ms of Redis' clock; 0 before the first.
    pub fn at(&self) -> u64 {
        self.link.at()
    }

    /// Whether Redis is in sight and all topics are in step.
    pub fn is_live(&self) -> bool {
        self.link.is_live()
    }

    /// The marks as this node last read them. The value goes on changing with them.
    pub fn known_marks(&self) -> KnownMarks {
        self.marks.known().clone()
    }

    /// The sources as this node last read them. The value goes on changing with them.
    pub fn known_sources(&self) -> KnownSources {
        self.sources.shared().clone()
    }

    /// What follows from a verdict on a log: the only place where it does. Who waits for it is woken by the caller, once all that was held
    /// has arrived: nobody begins in front of what they have by the whole area.
    fn follow(&mut self, room: RoomId, topic: &Topic, arrival: Arrival, lone: bool) {
        verdicts::count(arrival.name());
        match arrival {
            Arrival::Deliver(frame) => {
                self.deliveries.deliver(room, &frame, lone, &mut self.hub);
            }
            Arrival::Nothing => {}
            Arrival::Invalid => self.resyncs.owe_all(&mut self.hub, room, Reason::Invalid),
            Arrival::Read(after) => {
                if let Some(others) = self.turn.complaints.gaps.due(self.turn.now.instant) {
                    tracing::warn!(topic = %topic, %after, others, "events of a topic are missing: reading its log");
                }
                self.turn.metrics.gaps.inc();
                self.doubt_every(topic);
                self.feeds.want(room, topic, None);
            }
            Arrival::Replaced(Reason::Invalid) => {
                self.say_not_in_log(topic);
                self.doubt_every(topic);
                self.resyncs.owe_all(&mut self.hub, room, Reason::Invalid);
            }
            Arrival::Replaced(reason) => {
                if let Some(others) = self.turn.complaints.replaced.due(self.turn.now.instant) {
                    let reason = reason.name();
                    tracing::warn!(topic = %topic, reason, others, "the log of a topic is another one: its followers refetch");
                }
                self.marks.replaced(&mut self.turn.questions);
                self.doubt_every(topic);
                self.resyncs.owe_all(&mut self.hub, room, reason);
            }
            Arrival::Earlier => {
                if let Some(others) = self.turn.complaints.earlier.due(self.turn.now.instant) {
                    tracing::warn!(topic = %topic, others, "the log of a topic may be another one: comparing with what Redis has");
                }
                if !mutant::is("earlier") {
                    self.link.doubt(room, &mut self.feeds);
                }
            }
        }
    }

    /// Logs that somebody published a message by hand, with a number that its topic's log does not have.
    fn say_not_in_log(&mut self, topic: &Topic) {
        if let Some(others) = self.turn.complaints.by_hand.due(self.turn.now.instant) {
            tracing::warn!(topic = %topic, others, "a message of a topic is not in its log: somebody published it by hand, and its followers refetch");
        }
        self.turn.metrics.invalid.get_or_create(&ReasonLabel { reason: "not-in-log" }).inc();
    }

    /// Owes followers of the whole area a `resync`: they may have missed something that cannot be read again.
    fn doubt_every(&mut self, topic: &Topic) {
        if let Some(every) = self.hub.find(&Subject::Every(topic.wide()))
            && !mutant::is("wide-doubt")
        {
            self.resyncs.owe_all(&mut self.hub, every, Reason::Gap);
        }
    }

    /// A topic's head will not be compared soon: followers of the whole area are told of what was kept from them until it is.
    fn tell_withheld(&mut self, room: RoomId) {
        if self.feeds.take_withheld(room)
            && let Some(topic) = self.topic_of(room)
        {
            self.doubt_every(&topic);
        }
    }

    /// The feed is live: what was held arrives. The joins that wait for the room are woken by the caller.
    fn release(&mut self, room: RoomId, topic: &Topic) {
        let (at, now) = (self.link.at(), self.turn.now.instant);
        let (held, unheld) = self.feeds.release(room);
        let (mut earlier, mut waiting) = (false, 0);
        for (id, event) in held {
            self.flush_beyond(&mut waiting, event.as_ref());
            match self.feeds.arrive(room, topic, (id, event), at, now) {
                // One look at the log answers for all of them.
                Arrival::Earlier => {
                    self.feeds.withhold(room);
                    earlier = true;
                }
                arrival => self.follow(room, topic, arrival, false),
            }
        }
        let missing = unheld.filter(|id| self.feeds.get(room).is_some_and(|feed| !feed.has(*id)));
        let lacks = missing.is_some() && self.feeds.is_live(room);
        if lacks {
            self.feeds.withhold(room);
        } else if let Some(unheld) = missing {
            self.feeds.keep_unheld(room, unheld);
        }
        if earlier || lacks {
            self.follow(room, topic, Arrival::Earlier, false);
        }
        if self.feeds.take_hidden(room) {
            self.doubt_every(topic);
        }
    }

    fn with_joins<R>(&mut self, act: impl FnOnce(&mut Joins, &mut JoinContext<'_>) -> R) -> R {
        let mut around = JoinContext {
            hub: &mut self.hub,
            feeds: &mut self.feeds,
            link: &self.link,
            marks: &self.marks,
            sources: &self.sources,
            resyncs: &mut self.resyncs,
            metrics: &self.turn.metrics,
        };
        act(&mut self.joins, &mut around)
    }

    fn attempt(&mut self, ids: impl IntoIterator<Item = u64>) {
        self.with_joins(|joins, around| {
            for id in ids {
                joins.attempt(id, around);
            }
        });
    }

    /// Goes on with the joins that wait for a room.
    fn wake(&mut self, room: RoomId) {
        self.wake_all([room]);
    }

    /// Goes on with the joins that wait for any of these rooms: each once, however many of them it waits for.
    fn wake_all(&mut self, rooms: impl IntoIterator<Item = RoomId>) {
        let ids: BTreeSet<_> = rooms.into_iter().flat_map(|room| self.joins.waiting_for(room)).collect();
        self.attempt(ids);
    }

    fn topic_of(&self, room: RoomId) -> Option<Topic> {
        match self.hub.subject(room)? {
            Subject::Topic(topic) => Some(topic.clone()),
            Subject::Every(_) => None,
        }
    }

    fn go_live(&mut self) {
        self.link.go_live(self.turn.now);
        self.advance();
        self.resyncs.pay_all(&mut self.hub, &mut self.feeds, &self.link, &self.turn.metrics);
        tracing::info!(topics = self.feeds.len(), "Redis is in sight and all topics are in step");
        status::tell_complete(&mut self.hub, &self.feeds, &self.marks, &self.link, &self.sources);
        let ids = self.joins.all();
        self.attempt(ids);
    }

    /// Takes down the rooms that have been empty for long enough; their subjects.
    fn close_rooms(&mut self) -> Vec<Subject> {
        let (mut closed, mut waiting) = (Vec::new(), Vec::new());
        for room in self.interest.closing() {
            if !self.hub.is_empty(room) {
                continue;
            }
            if let Some(subject) = self.hub.subject(room).cloned() {
                self.tell_withheld(room);
                self.feeds.close(room, &subject);
                closed.push(subject);
            }
            self.link.forget(room);
            waiting.extend(self.joins.waiting_for(room));
            self.hub.close(room);
        }
        // Who waited for one of them wants other topics by now.
        self.attempt(waiting);
        closed
    }

    fn tick(&mut self, chance: f64) {
        let now = self.turn.now.instant;
        self.resyncs.tick();
        self.feeds.trim(now);
        self.interest.close_idle(now);
        self.joins.tick(&self.hub);
        if self.link.is_settled() {
            self.marks.retry(now, &mut self.turn.questions);
            self.sources.tick(&mut self.turn.questions, now);
            if !self.interest.is_asking() {
                self.interest.open(self.feeds.opening());
            }
            self.head_check.tick(&self.hub, &self.feeds, &mut self.turn.questions, chance, now);
        }
        let unread = self.feeds.unread();
        self.wake_all(unread);
        self.with_joins(|joins, around| joins.give_up(now, around));
        if self.link.is_live() {
            status::tell_complete(&mut self.hub, &self.feeds, &self.marks, &self.link, &self.sources);
        }
        self.turn.metrics.topics.set(self.feeds.len() as i64);
    }
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
