//! The switch: the one task that owns all feeds and the hub.
//!
//! Everything that changes who receives what passes through here in one order: deliveries, sessions' requests, and the
//! answers of the bus, which is asked by tasks of their own so that nothing here ever waits. Must not know transports.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use rustc_hash::FxHashMap;

use super::{
    Settings,
    feed::Feed,
    heads::Check,
    join::Join,
    link::Connection,
    marks::{KnownMarks, LiveArea},
    question::{Answer, Input, Now, Out, Question, Questions, Stamp},
};
use crate::{
    bus::{BusEvent, Content},
    hub::{Hub, MemberId, RoomId, Standing},
    metrics::Metrics,
    protocol::EntryId,
    telemetry::traces::Span,
};

/// Deliveries that are taken in one turn: they leave in one write per session.
pub const BATCH: usize = 64;
/// Bytes of deliveries in one turn, well below any outbox's bound.
const BATCH_BYTES: usize = 65_536;

/// The owner of all feeds and of the hub: inputs in, questions and deliveries out.
#[derive(Debug)]
pub struct Switch {
    pub(super) settings: Settings,
    pub(super) metrics: Metrics,
    pub(super) questions: Questions,
    /// The last proof, ms of Redis' clock.
    pub(super) at: u64,
    pub(super) live: bool,
    pub(super) known_marks: KnownMarks,
    pub(super) hub: Hub,
    pub(super) feeds: FxHashMap<RoomId, Feed>,
    pub(super) held: FxHashMap<RoomId, Vec<(EntryId, Content)>>,
    /// Reads of logs that are under way, and whether more was found missing since: then one does not do.
    pub(super) reads: FxHashMap<RoomId, bool>,
    pub(super) connection: Connection,
    /// Counts interruptions of the link: an answer to a question of before is not used.
    pub(super) generation: Stamp,
    pub(super) joins: BTreeMap<u64, Join>,
    pub(super) next_join: u64,
    /// Joins that wait for a room.
    pub(super) waiting: FxHashMap<RoomId, Vec<u64>>,
    /// Joins that wait for marks: for the read under way, and for the next.
    pub(super) mark_reads: (Vec<u64>, Vec<u64>),
    pub(super) to_open: BTreeSet<RoomId>,
    pub(super) to_close: BTreeSet<RoomId>,
    pub(super) opening: bool,
    pub(super) idle: BTreeMap<RoomId, Instant>,
    pub(super) live_areas: BTreeMap<String, LiveArea>,
    pub(super) owed: BTreeSet<MemberId>,
    /// Sessions that were told to refetch in this second and the last.
    pub(super) told: (usize, usize),
    pub(super) check: Check,
    /// When this turn began.
    pub(super) now: Now,
    /// What was delivered in this turn and is traced: the spans end with it, when everything is written.
    pub(super) spans: Vec<Span>,
    fatal: Option<String>,
}

impl Switch {
    /// A switch that has seen nothing yet: the link is down, and nobody follows anything.
    pub fn new(settings: Settings, hub: Hub, metrics: Metrics, now: Now) -> Self {
        let questions = Questions::default();
        Self {
            settings,
            metrics,
            generation: questions.latest(),
            questions,
            at: 0,
            live: false,
            known_marks: KnownMarks::default(),
            hub,
            feeds: FxHashMap::default(),
            held: FxHashMap::default(),
            reads: FxHashMap::default(),
            connection: Connection::new(now.wall_ms),
            joins: BTreeMap::new(),
            next_join: 0,
            waiting: FxHashMap::default(),
            mark_reads: (Vec::new(), Vec::new()),
            to_open: BTreeSet::new(),
            to_close: BTreeSet::new(),
            opening: false,
            idle: BTreeMap::new(),
            live_areas: BTreeMap::new(),
            owed: BTreeSet::new(),
            told: (0, 0),
            check: Check::new(now.instant),
            now,
            spans: Vec::new(),
            fatal: None,
        }
    }

    /// Takes an input. [`Switch::end_turn`] must follow.
    pub fn take(&mut self, input: Input<'_>, now: Now) {
        self.now = now;
        match input {
            Input::Events(batch) => self.take_events(batch),
            Input::Command(command) => self.obey(command),
            Input::Answer(stamp, answer) => self.take_answer(stamp, answer),
            Input::Tick { chance } => self.tick(chance),
        }
    }

    /// Ends the turn: sends what is owed, and says what is left to do.
    pub fn end_turn(&mut self, now: Now) -> Out {
        self.now = now;
        self.spans.clear();
        self.open_and_close();
        self.pay_owed();
        Out { questions: self.questions.take(), fatal: self.fatal.take() }
    }

    /// The last proof that everything was handed over, ms of Redis' clock; 0 before the first.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Whether Redis is in sight and all topics are in step.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Until when areas have had live events, as far as this node knows; for those who look without asking.
    pub fn known_marks(&self) -> KnownMarks {
        self.known_marks.clone()
    }

    /// Asks the bus; the answer comes back as an input.
    pub(super) fn ask(&mut self, question: Question) {
        self.questions.ask(question);
    }

    fn take_events(&mut self, batch: &mut Vec<BusEvent>) {
        let mut bytes = 0;
        let lone = batch.len() == 1;
        for event in batch.drain(..) {
            match event {
                BusEvent::Delivery(delivery) => {
                    if let Content::Recorded(_, event) | Content::Live(event) = &delivery.content {
                        bytes += event.json().len();
                    }
                    self.take_delivery(delivery, lone);
                    if bytes > BATCH_BYTES {
                        self.hub.flush();
                        bytes = 0;
                    }
                }
                other => {
                    self.hub.flush();
                    match other {
                        BusEvent::Proof { at } => self.prove(at),
                        BusEvent::Link(link) => self.take_link(link),
                        BusEvent::Doubt(subject) => self.doubt(subject.as_ref()),
                        BusEvent::Revoked(revocations) => self.revoke(&revocations),
                        BusEvent::Fatal(reason) => self.fatal = Some(reason),
                        BusEvent::Delivery(_) => {}
                    }
                }
            }
        }
        self.hub.flush();
    }

    fn take_answer(&mut self, stamp: Stamp, answer: Answer) {
        let stale = stamp <= self.generation;
        match answer {
            Answer::Opened(results) => self.take_opened(results, stale),
            Answer::Closed => self.opening = false,
            _ if stale => {}
            Answer::Read { topic, after, history } => self.take_read(&topic, after, history),
            Answer::Marks(marks) => self.take_marks(marks),
            Answer::Marked { area, marks } => self.take_marked(&area, marks),
            Answer::Looked { heads, marks } => self.take_looked(heads, marks),
            Answer::Heads(heads) => self.take_checked(heads),
        }
    }

    fn tick(&mut self, chance: f64) {
        let now = self.now.instant;
        self.told = (0, self.told.0);
        for feed in self.feeds.values_mut() {
            feed.trim(now);
        }
        self.close_idle(now);
        self.retry_live();
        self.retry_opening();
        self.tick_link(chance);
        self.give_up_waiting(now);
        self.metrics.topics.set(self.feeds.len() as i64);
    }

    /// How a member stands in a room is not in step and not owed: it waits to join.
    pub(super) fn is_waiting(&self, member: MemberId, room: RoomId) -> bool {
        self.hub.standing(member, room) == Some(Standing::Waiting)
    }

    /// Whether a member is in step in a room, and neither waits nor is owed anything.
    pub(super) fn is_told_everything(&self, member: MemberId, room: RoomId) -> bool {
        self.hub.standing(member, room) == Some(Standing::InStep)
    }
}
