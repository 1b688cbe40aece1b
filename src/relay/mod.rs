//! The relay: the only place where bus and hub meet.
//!
//! For each followed subject it keeps a [`feed::Feed`]: last position, a short tail of encoded frames, and whether it is
//! in step. One task, the `switch::Switch`, owns all feeds and the hub, so that joining, leaving and delivering
//! happen in one order and need no locks. Sessions talk to it through [`Relay`], and get every answer through their
//! outbox, in order with the events.

mod area_progress;
mod behind;
mod deliveries;
pub mod feed;
mod feeds;
mod head_check;
mod interest;
mod join;
mod join_request;
mod joins;
mod link;
mod log;
mod marks;
mod probe_echo;
mod question;
mod recent;
mod resyncs;
mod revocations;
mod sources;
mod status;
mod switch;
mod tail;
mod task;
mod verdicts;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;

pub use self::{
    join::Attempt,
    log::{LogEntry, Resumed},
    marks::{KnownMarks, to_renew},
    question::{Answer, FeedPlace, Now, Question, Stamp, SwitchInput, TurnOutput},
    sources::{KnownSources, SourceState},
    switch::{BATCH, Switch},
};
use crate::{
    bus::{Bus, BusEvent},
    hub::{self, Hub, Outbox},
    metrics::Metrics,
    protocol::{Proof, Refused, Resume, Revocations, Subject, message::Welcome},
    shutdown::Tasks,
    telemetry::traces::Traces,
};

/// Commands that may wait. Senders wait for room, which slows down who asks and nobody else.
const QUEUE: usize = 1024;

/// Settings of the relay, plain values; `app` makes them from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Events that a log keeps at least (`log.length`).
    pub log_length: usize,
    /// How long a log lives untouched (`log.ttl_seconds`).
    pub log_ttl: Duration,
    /// Refetches per second that the CMS can take (`resync.refetches_per_second`).
    pub refetches_per_second: u64,
    /// How long a subject stays subscribed after its last follower left.
    pub linger: Duration,
    /// How long after its vouching has ended a source is forgotten (`sources.forget_seconds`).
    pub forget_sources: Duration,
    /// What is revoked: the node's one list, which all its rooms share.
    pub revocations: Revocations,
    /// Where spans of what is delivered go.
    pub traces: Traces,
}

/// What a session asks to follow.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// What it may follow; area-wide topics are added by the relay.
    pub subjects: Vec<Subject>,
    /// What was refused already; repeated in the answer.
    pub refused: Vec<Refused>,
    /// Where it left off.
    pub resume: Option<Resume>,
}

/// What sessions ask of the relay; see the methods of [`Relay`].
#[derive(Debug)]
pub enum Command {
    /// [`Relay::connect`].
    Connect {
        /// The session.
        outbox: Arc<Outbox>,
        /// What it is answered, to be filled in.
        welcome: Box<Welcome>,
        /// What it was let in with.
        proof: Arc<Proof>,
        /// What it asks for.
        request: Request,
    },
    /// [`Relay::renew`].
    Renew {
        /// The session.
        outbox: Arc<Outbox>,
        /// What it goes on with.
        proof: Arc<Proof>,
    },
    /// [`Relay::subscribe`].
    Subscribe {
        /// The session.
        outbox: Arc<Outbox>,
        /// What it asks for.
        request: Request,
    },
    /// [`Relay::unsubscribe`].
    Unsubscribe {
        /// The session.
        outbox: Arc<Outbox>,
        /// What it does not follow any more.
        subjects: Vec<Subject>,
    },
    /// [`Relay::ping`].
    Ping(Arc<Outbox>),
    /// [`Relay::drained`].
    Drained(Arc<Outbox>),
    /// [`Relay::leave`].
    Leave(Arc<Outbox>),
}

/// What the switch shows to everybody.
#[derive(Debug, Default)]
struct Shared {
    at: AtomicU64,
    live: AtomicBool,
}

/// The relay as sessions see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Relay {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    marks: KnownMarks,
    sources: KnownSources,
}

impl Relay {
    /// Starts the relay. `fatal` in the result ends with the reason when the bus cannot go on.
    pub fn start(
        settings: Settings,
        bus: Bus,
        events: mpsc::Receiver<BusEvent>,
        metrics: Metrics,
        tasks: &Tasks,
    ) -> (Self, tokio::sync::oneshot::Receiver<String>) {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (fatal, stopped) = tokio::sync::oneshot::channel();
        let shared = Arc::new(Shared::default());
        let switch = Switch::new(settings, Hub::new(hub::writers()), metrics.clone(), Now::read());
        let (marks, sources) = (switch.known_marks(), switch.known_sources());
        let task = task::SwitchTask::new(switch, bus, metrics, Arc::clone(&shared), tasks.clone());
        tasks.spawn_until_end(task.run(events, inbox, fatal));
        (Self { commands, shared, marks, sources }, stopped)
    }

    /// Welcomes a session: fills in `at`, `positions`, `refused` and `live` of `welcome` and writes it into the outbox
    /// when all topics are in step (at once while Redis is away), then the `resync`s and events that it missed. Whoever
    /// was revoked since `proof` was judged is closed instead (4401).
    pub async fn connect(
        &self,
        outbox: &Arc<Outbox>,
        welcome: Box<Welcome>,
        proof: Arc<Proof>,
        request: Request,
    ) {
        self.ask(Command::Connect { outbox: Arc::clone(outbox), welcome, proof, request }).await;
    }

    /// The session goes on with a newer proof; it is closed (4401) where that was revoked meanwhile.
    pub async fn renew(&self, outbox: &Arc<Outbox>, proof: Arc<Proof>) {
        self.ask(Command::Renew { outbox: Arc::clone(outbox), proof }).await;
    }

    /// Follows more; answered by `subscribed` in the outbox.
    pub async fn subscribe(&self, outbox: &Arc<Outbox>, request: Request) {
        self.ask(Command::Subscribe { outbox: Arc::clone(outbox), request }).await;
    }

    /// Follows less; answered by `unsubscribed` in the outbox.
    pub async fn unsubscribe(&self, outbox: &Arc<Outbox>, subjects: Vec<Subject>) {
        self.ask(Command::Unsubscribe { outbox: Arc::clone(outbox), subjects }).await;
    }

    /// Answered by `pong` in the outbox.
    pub async fn ping(&self, outbox: &Arc<Outbox>) {
        self.ask(Command::Ping(Arc::clone(outbox))).await;
    }

    /// The outbox said [`crate::hub::Notice::Drained`]: the owed `resync` can be written.
    pub async fn drained(&self, outbox: &Arc<Outbox>) {
        self.ask(Command::Drained(Arc::clone(outbox))).await;
    }

    /// The session has ended. Must be called for each session that connected.
    pub async fn leave(&self, outbox: &Arc<Outbox>) {
        outbox.end();
        self.ask(Command::Leave(Arc::clone(outbox))).await;
    }

    /// Redis' clock (ms) of the last proof that everything was handed over; 0 before the first.
    pub fn at(&self) -> u64 {
        self.shared.at.load(Ordering::Acquire)
    }

    /// Whether Redis is in sight and all topics are in step.
    pub fn is_live(&self) -> bool {
        self.shared.live.load(Ordering::Acquire)
    }

    /// Until when an area has had live events, ms of Redis' clock, as this node last read it.
    pub fn mark(&self, area: &str) -> Option<u64> {
        self.marks.get(area)
    }

    /// The sources that publishers vouch for, as this node last read them.
    pub fn sources(&self) -> Vec<SourceState> {
        self.sources.all()
    }

    async fn ask(&self, command: Command) {
        // The relay is gone only when the node ends, and then sessions end as well.
        let _ = self.commands.send(command).await;
    }
}

#[cfg(feature = "simulation")]
pub use self::verdicts::take as take_verdicts;

/// For a simulator, which drives the switch itself.
#[cfg(feature = "simulation")]
impl Relay {
    /// The relay of a switch that somebody else drives, and the commands of its sessions.
    pub fn of(switch: &Switch) -> (Self, mpsc::Receiver<Command>) {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let (marks, sources) = (switch.known_marks(), switch.known_sources());
        (Self { commands, shared: Arc::default(), marks, sources }, inbox)
    }

    /// Shows everybody what the switch knows after a turn.
    pub fn show(&self, switch: &Switch) {
        self.shared.at.store(switch.at(), Ordering::Release);
        self.shared.live.store(switch.is_live(), Ordering::Release);
    }
}
