//! The switch: the one task that owns all feeds and the hub.
//!
//! Everything that changes who receives what passes through here in one order: deliveries, sessions' requests, and the
//! answers of the bus, which is asked by tasks of their own so that nothing here ever waits. Must not know transports.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};

use super::{
    Command, Settings, Shared, feed::Feed, heads::Check, join::Join, link::Connection, live::LiveArea,
};
use crate::{
    bus::{Bus, BusError, BusEvent, Content, Head, History, Marks},
    hub::{self, Closing, Hub, MemberId, RoomId, Standing},
    metrics::Metrics,
    protocol::{CloseCode, EntryId, Topic},
    shutdown::Tasks,
    telemetry::traces::Span,
};

/// Deliveries that are taken in one turn: they leave in one write per session.
const BATCH: usize = 64;
/// Bytes of deliveries in one turn, well below any outbox's bound.
const BATCH_BYTES: usize = 65_536;

/// What the bus has answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// Subjects were subscribed to, and the heads of topics read.
    Opened(Vec<(RoomId, Result<Option<Head>, BusError>)>),
    /// Subjects were unsubscribed from.
    Closed,
    /// A log was read from after a number.
    Read(RoomId, u64, Result<History, BusError>),
    /// Marks were read for sessions that came back.
    Marks(Result<Marks, BusError>),
    /// An area's mark was written.
    Marked(String, Result<Marks, BusError>),
    /// After an interruption: heads of these rooms, whose feeds were there when asked, and all marks (renewed).
    Settled(Vec<(RoomId, Option<EntryId>)>, Result<(Vec<Head>, Marks), BusError>),
    /// The heads of these rooms, which had these ids when they were asked for.
    Checked(Vec<(RoomId, EntryId)>, Result<Vec<Head>, BusError>),
}

pub(super) struct Switch {
    pub(super) settings: Settings,
    pub(super) bus: Bus,
    pub(super) metrics: Metrics,
    pub(super) shared: Arc<Shared>,
    pub(super) tasks: Tasks,
    pub(super) hub: Hub,
    pub(super) feeds: FxHashMap<RoomId, Feed>,
    pub(super) held: FxHashMap<RoomId, Vec<(EntryId, Content)>>,
    /// Reads of logs that are under way, and whether more was found missing since: then one does not do.
    pub(super) reads: FxHashMap<RoomId, bool>,
    pub(super) connection: Connection,
    /// Counts interruptions of the link: an answer to a question of before is not used.
    pub(super) generation: u64,
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
    pub(super) turn: Instant,
    /// What was delivered in this turn and is traced: the spans end with it, when everything is written.
    pub(super) spans: Vec<Span>,
    answers: mpsc::Sender<(u64, Answer)>,
    answered: Option<mpsc::Receiver<(u64, Answer)>>,
}

impl Switch {
    pub(super) fn new(
        settings: Settings,
        bus: Bus,
        metrics: Metrics,
        shared: Arc<Shared>,
        tasks: Tasks,
    ) -> Self {
        let (answers, answered) = mpsc::channel(1024);
        Self {
            settings,
            bus,
            metrics,
            shared,
            tasks,
            hub: Hub::new(hub::writers()),
            feeds: FxHashMap::default(),
            held: FxHashMap::default(),
            reads: FxHashMap::default(),
            connection: Connection::new(),
            generation: 0,
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
            check: Check::new(),
            turn: Instant::now(),
            spans: Vec::new(),
            answers,
            answered: Some(answered),
        }
    }

    pub(super) async fn run(
        mut self,
        mut events: mpsc::Receiver<BusEvent>,
        mut inbox: mpsc::Receiver<Command>,
        fatal: oneshot::Sender<String>,
    ) {
        let Some(mut answered) = self.answered.take() else { return };
        let mut batch = Vec::with_capacity(BATCH);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                count = events.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    if let Some(reason) = self.take_events(&mut batch) {
                        let _ = fatal.send(reason);
                        return;
                    }
                }
                Some(command) = inbox.recv() => self.obey(command),
                Some((generation, answer)) = answered.recv() => self.take_answer(generation, answer),
                _ = tick.tick() => self.tick(),
            }
            self.finish_turn();
        }
    }

    /// Asks the bus in a task of its own; the answer comes back into the loop.
    pub(super) fn ask(&self, question: impl Future<Output = Answer> + Send + 'static) {
        let answers = self.answers.clone();
        let generation = self.generation;
        self.tasks.spawn_until_end(async move {
            let answer = question.await;
            let _ = answers.send((generation, answer)).await;
        });
    }

    fn take_events(&mut self, batch: &mut Vec<BusEvent>) -> Option<String> {
        self.turn = Instant::now();
        let mut bytes = 0;
        let lone = batch.len() == 1;
        let mut fatal = None;
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
                        BusEvent::Disconnect { user } => self.disconnect(&user),
                        BusEvent::Fatal(reason) => fatal = Some(reason),
                        BusEvent::Delivery(_) => {}
                    }
                }
            }
        }
        self.hub.flush();
        self.metrics.delivery_latency.observe(self.turn.elapsed().as_secs_f64());
        fatal
    }

    fn take_answer(&mut self, generation: u64, answer: Answer) {
        let stale = generation != self.generation;
        self.turn = Instant::now();
        match answer {
            Answer::Opened(results) => self.take_opened(results, stale),
            Answer::Closed => self.opening = false,
            Answer::Read(room, asked, result) => self.take_read(room, asked, result, stale),
            Answer::Marks(result) if !stale => self.take_marks(result),
            Answer::Marked(area, result) if !stale => self.take_marked(&area, result),
            Answer::Settled(rooms, result) if !stale => self.take_settled(&rooms, result),
            Answer::Checked(rooms, result) if !stale => self.take_checked(&rooms, result),
            Answer::Marks(_) | Answer::Marked(..) | Answer::Settled(..) | Answer::Checked(..) => {}
        }
    }

    fn disconnect(&mut self, user: &str) {
        if let Some(auth) = &self.settings.auth {
            auth.revoke(user);
        }
        let key = Topic::own_key(user);
        let mut closed = 0;
        for (_, member) in self.hub.members().filter(|(_, member)| Topic::own_key(&member.user) == key) {
            let reason = "an operator has closed this editor's sessions".into();
            member.outbox.close(Closing { code: CloseCode::Forbidden, reason, reconnect_after_ms: None });
            closed += 1;
        }
        tracing::info!(user, sessions = closed, "editor disconnected by an operator");
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.told = (0, self.told.0);
        for feed in self.feeds.values_mut() {
            feed.trim(now);
        }
        self.close_idle(now);
        self.retry_live();
        self.retry_opening();
        self.tick_link(now);
        self.give_up_waiting(now);
        self.metrics.topics.set(self.feeds.len() as i64);
    }

    fn finish_turn(&mut self) {
        self.spans.clear();
        self.open_and_close();
        self.pay_owed();
    }

    /// The last proof, ms of Redis' clock.
    pub(super) fn at(&self) -> u64 {
        self.shared.at.load(std::sync::atomic::Ordering::Acquire)
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
