//! What an audit works with: positions, what sessions were told, and what publishers know was accepted.
//!
//! Plain values without IO, so that the audit can be tested with made-up evidence. Nothing here comes from the program
//! under test: the words of the wire are read again from the public contract.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

/// Milliseconds since the world began.
pub(crate) type Ms = u64;

/// Index of a topic.
pub(crate) type TopicId = u16;

/// The id of an entry: epoch and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

impl Id {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (epoch, seq) = text.split_once('-')?;
        Some(Self { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// A place in a topic's log, as nodes write it: `<lineage>.<epoch>-<seq>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lineage: Arc<str>,
    pub(crate) id: Id,
}

impl Position {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (lineage, id) = text.rsplit_once('.')?;
        Some(Self { lineage: shared(lineage), id: Id::parse(id)? })
    }
}

/// One copy of each lineage: millions of positions name the same few.
fn shared(lineage: &str) -> Arc<str> {
    static LINEAGES: RwLock<BTreeSet<Arc<str>>> = RwLock::new(BTreeSet::new());
    if let Some(known) = LINEAGES.read().unwrap_or_else(PoisonError::into_inner).get(lineage) {
        return Arc::clone(known);
    }
    let lineage: Arc<str> = lineage.into();
    LINEAGES.write().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&lineage));
    lineage
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.lineage, self.id)
    }
}

/// Why a session was told to refetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    RedisChanged,
    LogReplaced,
    NoPosition,
    Trimmed,
    Gap,
    Invalid,
    Live,
    Slow,
    /// Not in the contract.
    Unknown,
}

impl Reason {
    pub(crate) fn parse(name: &str) -> Self {
        match name {
            "redis-changed" => Self::RedisChanged,
            "log-replaced" => Self::LogReplaced,
            "no-position" => Self::NoPosition,
            "trimmed" => Self::Trimmed,
            "gap" => Self::Gap,
            "invalid" => Self::Invalid,
            "live" => Self::Live,
            "slow" => Self::Slow,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RedisChanged => "redis-changed",
            Self::LogReplaced => "log-replaced",
            Self::NoPosition => "no-position",
            Self::Trimmed => "trimmed",
            Self::Gap => "gap",
            Self::Invalid => "invalid",
            Self::Live => "live",
            Self::Slow => "slow",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing that a session was told, or that happened to it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fact {
    /// A node welcomed it.
    Welcome { node: String, live: bool },
    /// Where a topic's stream starts, according to `welcome` or `subscribed`. `asked`: the position brought back;
    /// `live`: whether the node has Redis in sight.
    Start { topic: TopicId, resuming: bool, live: bool, asked: Option<Position>, given: Option<Position> },
    /// An event; without a position a live one. `number` is the publisher's.
    Event { topic: TopicId, position: Option<Position>, number: u64 },
    /// Refetch.
    Resync { topic: TopicId, reason: Reason, position: Option<Position> },
    /// The node has lost sight of Redis, or has it again.
    Status { live: bool },
    /// The connection ended; the code where one came.
    Closed { code: Option<u16> },
    /// The session itself dropped the connection.
    Dropped,
}

impl Fact {
    pub(crate) fn topic(&self) -> Option<TopicId> {
        match self {
            Self::Start { topic, .. } | Self::Event { topic, .. } | Self::Resync { topic, .. } => {
                Some(*topic)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |position: &Option<Position>| position.as_ref().map_or("-".into(), ToString::to_string);
        match self {
            Self::Welcome { node, live } => write!(f, "welcome by {node}, live:{live}"),
            Self::Start { resuming, asked, given, .. } => {
                write!(f, "starts at {} (resuming: {resuming}, asked for {})", show(given), show(asked))
            }
            Self::Event { position, number, .. } => write!(f, "event n{number} at {}", show(position)),
            Self::Resync { reason, position, .. } => {
                write!(f, "resync {} to {}", reason.name(), show(position))
            }
            Self::Status { live } => write!(f, "status live:{live}"),
            Self::Closed { code } => write!(f, "closed {code:?}"),
            Self::Dropped => f.write_str("dropped its connection"),
        }
    }
}

/// What one session was told, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) name: String,
    /// Topics it follows, the implied area-wide ones included.
    pub(crate) follows: Vec<TopicId>,
    pub(crate) facts: Vec<(Ms, Fact)>,
}

/// A publish that Redis has acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ack {
    pub(crate) topic: TopicId,
    pub(crate) number: u64,
    pub(crate) id: Id,
    /// When the attempt that was acknowledged was sent.
    pub(crate) sent: Ms,
}

/// A live event that at least one node received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shout {
    pub(crate) topic: TopicId,
    pub(crate) number: u64,
    pub(crate) sent: Ms,
}

/// What publishers know.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) acks: Vec<Ack>,
    pub(crate) shouts: Vec<Shout>,
    /// Every number that was ever tried, with its topic.
    pub(crate) tried: HashMap<u64, TopicId>,
    /// Attempts that Redis refused (out of memory, replicas missing, function gone, ...).
    pub(crate) refused: u64,
    /// Attempts that ended without an answer.
    pub(crate) unanswered: u64,
    /// Repetitions of a publish whose answer was another id than the first one's.
    pub(crate) split: Vec<String>,
}

/// The clock of a world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Ms {
        self.0.elapsed().as_millis() as Ms
    }
}
