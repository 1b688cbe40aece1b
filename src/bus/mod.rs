//! The bus: everything that reaches a node from the outside world of publishers, and the only door to Redis.
//!
//! It turns what arrives into [`BusEvent`]s in the order of arrival, and answers questions about logs. It keeps the
//! set of subjects that are wanted, and sees to it that Redis agrees. It knows nothing of sessions; what to do about
//! a gap is decided by `relay`.

mod agreed;
mod arrivals;
mod check;
mod error;
pub mod keys;
pub mod memory;
pub(crate) mod message;
pub mod redis;
mod source;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

pub use self::error::BusError;
pub(crate) use self::error::{ASTRAY, remedy};
pub use self::{
    agreed::Adopted,
    check::RecordedOnly,
    source::{LostSource, MAY_WAIT_MS, Source, Sources},
};
use crate::{
    metrics::Metrics,
    protocol::{
        EntryId, Event, EventError, Heard, Kind, Lineage, Revocation, Revocations, Subject, Topic, Whom,
    },
    shutdown::Tasks,
};

/// What arrives from publishers, in the order of arrival.
#[derive(Debug, Clone)]
pub enum BusEvent {
    /// An event, or what pretended to be one.
    Delivery(Delivery),
    /// A probe came back: everything that Redis accepted up to `at` has been handed over before this.
    Proof {
        /// Redis' clock when the probe was published, ms.
        at: u64,
        /// When this node asked for the probe: a moment before it was published, by this machine's monotonic clock.
        asked: Instant,
    },
    /// The link to Redis is lost, or is back. After `Down` nothing is delivered until `Up`, and what is delivered after
    /// `Up` may follow a gap: every head must be compared.
    Link(LinkChange),
    /// Messages of one subject may be missing although the link is up (its subscription was lost, or our own queue
    /// overflowed: then `None`, for all subjects).
    Doubt(Option<Subject>),
    /// Redis refuses to go on with a subscription that it had confirmed. The subject is wanted no longer: nothing of it
    /// arrives until it is subscribed to again, and what was published meanwhile may be missing.
    Refused(Subject),
    /// What an operator has revoked; may come again.
    Revoked {
        /// The orders.
        orders: Vec<Revocation>,
        /// When this node heard of them.
        heard: Heard,
    },
    /// The library has settings of a higher generation, which count from now on.
    Adopted {
        /// The areas.
        areas: Vec<String>,
        /// How long logs live untouched.
        log_ttl: Duration,
    },
    /// Redis cannot be used as configured (found out after the start): the node must stop.
    Fatal(String),
}

/// Something that was published to a topic.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Where to.
    pub topic: Topic,
    /// Whether it came by the whole-area subscription (`area:*`) and not by the topic's own. The bus has dropped the
    /// second copy where both subscriptions are held.
    pub every: bool,
    /// What.
    pub content: Content,
}

/// The content of a delivery.
#[derive(Debug, Clone)]
pub enum Content {
    /// A recorded event.
    Recorded(EntryId, Event),
    /// A live event.
    Live(Event),
    /// A recorded message that is not an event; it was counted and logged.
    Invalid(EntryId),
    /// An operator has erased the log, which begins anew here (`seq` 0).
    Erased(EntryId),
}

/// Whether events arrive from Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// Every wanted subject is subscribed to (confirmed by Redis) and a probe has come back.
    Up,
    /// Events may be missed from now on. May come twice before `Up`: the change of a lineage is found when a lost link is built again.
    Down {
        /// For operators, one line, without secrets.
        reason: String,
        /// Whether the history of Redis is not the one it was (restart, failover): positions of the old one are void.
        lineage_changed: bool,
    },
}

/// The end of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The history that `top` belongs to.
    pub lineage: Lineage,
    /// Id of the last entry ever added; `seq` 0 where there was none.
    pub top: EntryId,
}

/// A piece of a log.
#[derive(Debug, Clone)]
pub struct History {
    /// The log's end when it was read.
    pub head: Head,
    /// Entries after the asked position, oldest first, up to `head.top`.
    /// Where the log was trimmed the first one is not the successor of what was asked for.
    pub entries: Vec<(EntryId, Result<Event, EventError>)>,
}

/// Until when each area has had live events: ms of Redis' clock, ahead of the last live event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Redis' clock when the marks were read, ms.
    pub now: u64,
    /// Mark by area; areas without live events are absent.
    pub marks: BTreeMap<String, u64>,
}

/// How well Redis is at this moment, for `/readyz`, `/status` and metrics.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Whether the link is up (proven by a probe that came back).
    pub live: bool,
    /// Why the node is not ready: link down, Redis refuses writes, … `None` when all is well.
    pub trouble: Option<String>,
    /// Round trip of the last probe.
    pub round_trip: Option<Duration>,
    /// The server's version.
    pub version: Option<String>,
    /// Since when `live` is as it is, ms since 1970 by this machine's clock.
    pub since: u64,
}

/// Why the bus cannot start as configured. Each text says what happened, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// Settings of the bus, plain values; `app` makes them from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The prefix of everything in Redis, and the name of the function library.
    pub prefix: String,
    /// This node's name, unique among the nodes on this Redis.
    pub node: String,
    /// The configured areas.
    pub areas: crate::protocol::Areas,
    /// Events that a log keeps at least.
    pub log_length: usize,
    /// How long a log lives after the last event or follower.
    pub log_ttl: Duration,
    /// The largest event, bytes.
    pub event_bytes: usize,
    /// Time between probes.
    pub probe_interval: Duration,
    /// What is revoked, as far as this node knows: written back where Redis has lost it.
    pub revocations: Revocations,
    /// The settings of a higher generation replace those of a lower one (`settings.generation`).
    pub generation: u64,
    /// What was adopted from a library with a higher generation.
    pub adopted: Adopted,
    /// How Redis is reached; `None` for the memory bus.
    pub redis: Option<redis::Target>,
}

impl Settings {
    /// Signs what nodes tell each other, and checks it.
    fn seal(&self) -> &redis::Seal {
        static NONE: redis::Seal = redis::Seal::none();
        self.redis.as_ref().map_or(&NONE, |target| &target.seal)
    }
}

/// The door to publishers. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Bus {
    /// One node, nothing survives it.
    Memory(memory::MemoryBus),
    /// Any number of nodes on one Redis.
    Redis(redis::RedisBus),
}

macro_rules! either {
    ($self:ident . $method:ident ( $($arg:expr),* )) => {
        match $self {
            Bus::Memory(bus) => bus.$method($($arg),*).await,
            Bus::Redis(bus) => bus.$method($($arg),*).await,
        }
    };
}

/// How many deliveries may wait between the bus and the relay. The reader of the link never waits for room: an
/// overflow is a [`BusEvent::Doubt`], because Redis cuts off a subscriber that reads too slowly.
pub const QUEUE: usize = 16_384;

impl Bus {
    /// Starts the bus. With Redis out of reach it starts all the same, with the link down, and keeps trying; what can
    /// only be mended by an operator (wrong password, missing rights, ...) is an error. Boxed: compiled here alone.
    pub fn start(
        settings: Settings,
        metrics: Metrics,
        tasks: &Tasks,
    ) -> BoxFuture<'_, Result<(Self, mpsc::Receiver<BusEvent>), StartError>> {
        Box::pin(async move {
            if settings.redis.is_some() {
                let (bus, events) = redis::RedisBus::start(settings, metrics, tasks).await?;
                return Ok((Self::Redis(bus), events));
            }
            let (bus, events) = memory::MemoryBus::start(settings, metrics, tasks);
            Ok((Self::Memory(bus), events))
        })
    }

    /// Adds subjects to the wanted set; comes back when Redis has confirmed each (or with the link down: then `Up`
    /// will only come after they are confirmed). One result for each subject, in order. Idempotent.
    pub async fn subscribe(&self, subjects: Vec<Subject>) -> Vec<Result<(), BusError>> {
        either!(self.subscribe(subjects))
    }

    /// Takes subjects out of the wanted set. Late deliveries are possible.
    pub async fn unsubscribe(&self, subjects: Vec<Subject>) {
        either!(self.unsubscribe(subjects));
    }

    /// The ends of logs, one answer for each topic, in order; batches of any size. Opens missing logs and refreshes their
    /// time to live. While Redis is full no log is opened: [`BusError::Refused`] for a topic without one, and for no other.
    pub async fn heads(&self, topics: Vec<Topic>) -> Vec<Result<Head, BusError>> {
        either!(self.heads(topics))
    }

    /// The entries of a log after `after`; all of them if `after` is of another epoch. The log is read in pages, over a connection
    /// for reads only, but the result is what one read would have shown at one moment. Not tried again over a new link.
    pub async fn history(&self, topic: Topic, after: EntryId) -> Result<History, BusError> {
        either!(self.history(topic, after))
    }

    /// Publishes a recorded event: one atomic step in Redis. A duplicate gets the first id.
    /// Tried again after a lost connection only where the event has an `id`.
    pub async fn publish(&self, topic: Topic, event: Event) -> Result<EntryId, BusError> {
        let ids = self.publish_all(topic, vec![event]).await?;
        ids.first().copied().ok_or_else(|| BusError::Refused("Redis gave no position".into()))
    }

    /// Publishes recorded events of one topic in one atomic step, in order: all of them or none.
    /// Tried again after a lost connection only where each has an `id`.
    pub async fn publish_all(&self, topic: Topic, events: Vec<Event>) -> Result<Vec<EntryId>, BusError> {
        either!(self.publish(topic, events))
    }

    /// Publishes a live event.
    pub async fn publish_live(&self, topic: Topic, event: Event) -> Result<(), BusError> {
        either!(self.publish_live(topic, event))
    }

    /// The marks of all areas, read now (not from a cache).
    pub async fn marks(&self) -> Result<Marks, BusError> {
        either!(self.marks())
    }

    /// Sets the marks of these areas to Redis' clock plus `ahead` where that is later; the result has all marks.
    pub async fn mark(&self, areas: Vec<String>, ahead: Duration) -> Result<Marks, BusError> {
        either!(self.mark(areas, ahead))
    }

    /// Revokes, as of now: kept for nodes that are away or start later, and told to every node (this one too, as
    /// [`BusEvent::Revoked`]). Returns the time of the order, ms of this node's clock. After an error some nodes may not know.
    pub async fn revoke(&self, kind: Kind, whom: Whom) -> Result<u64, BusError> {
        either!(self.revoke(kind, whom))
    }

    /// Leaves this node's state (a JSON object) for the others, for three probe intervals.
    pub async fn announce(&self, state: Bytes) -> Result<(), BusError> {
        either!(self.announce(state))
    }

    /// Takes this node's state back: it is about to stop.
    pub async fn leave(&self) -> Result<(), BusError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(bus) => bus.leave().await,
        }
    }

    /// The states of all nodes that announced themselves lately, by node name.
    pub async fn nodes(&self) -> Result<BTreeMap<String, Bytes>, BusError> {
        either!(self.nodes())
    }

    /// All sources, read now; `lost` are put back first where Redis has lost them. A node without Redis has none.
    pub async fn sources(&self, lost: Vec<LostSource>) -> Result<Sources, BusError> {
        match self {
            Self::Memory(_) => Ok(Sources::default()),
            Self::Redis(bus) => bus.sources(lost).await,
        }
    }

    /// Adopts the library's settings now if they have a higher generation. Returns whether they had.
    pub async fn renew_settings(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(bus) => bus.renew_settings().await,
        }
    }

    /// The largest event, bytes.
    pub fn event_bytes(&self) -> usize {
        match self {
            Self::Memory(bus) => bus.event_bytes(),
            Self::Redis(bus) => bus.event_bytes(),
        }
    }

    /// How well Redis is at this moment.
    pub fn health(&self) -> Health {
        match self {
            Self::Memory(bus) => bus.health(),
            Self::Redis(bus) => bus.health(),
        }
    }

    /// What is behind it: `memory` (one node, nothing survives it) or `redis`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Redis(_) => "redis",
        }
    }

    /// Whether `area:*` cannot be followed here (sharded pub/sub has no patterns).
    pub fn is_sharded(&self) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(bus) => bus.is_sharded(),
        }
    }
}
