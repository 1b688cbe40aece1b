//! A schedule: who takes part, and what happens when. All that a seed decides before the first moment is in it, so that a
//! shorter schedule is the same one with steps left out.

use serde::{Deserialize, Serialize};

use crate::redis::Refusal;

/// How a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// A WebSocket on a plain socket: the outbox writes by itself.
    Socket,
    /// A WebSocket on a stream (as with TLS): the session's task writes.
    Stream,
    /// Server-sent events.
    Sse,
    /// Long-poll, each poll at any node.
    Poll,
}

/// Which of a node's connections to Redis are slow.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Late {
    /// All of them.
    #[default]
    All,
    /// The one that pub/sub messages come by.
    Pushes,
    /// The one for commands.
    Commands,
    /// The one for logs.
    Reads,
}

/// What clients prove who they are with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProofBy {
    /// A token that they bring.
    Token,
    /// A cookie that the CMS is asked about.
    Cms,
}

/// How an operator names whom an order concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum By {
    /// The editor.
    User,
    /// One session.
    Session,
    /// One token.
    Token,
}

/// A client that takes part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    /// How it is connected.
    pub way: Way,
    /// Where first.
    pub node: usize,
    /// What it follows.
    pub subjects: Vec<String>,
}

/// What is done. Times are ms of virtual time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Deed {
    /// A publisher calls the function.
    Publish { topic: String },
    /// A publisher calls the function many times at once.
    Burst { topic: String, count: u32 },
    /// A publisher says `PUBLISH`.
    Live { topic: String },
    /// Somebody writes into a log by hand what is no event.
    Poison { topic: String },
    /// A client's connection breaks after it has read this share of what was on its way; it comes back elsewhere.
    Cut { client: usize, percent: u8, away: u64, node: usize },
    /// A client follows one more subject.
    Follow { client: usize, subject: String },
    /// A client follows one subject less.
    Unfollow { client: usize, subject: String },
    /// A client does not read for a while.
    Stall { client: usize, lasts: u64 },
    /// A client asks for a `pong`.
    Ping { client: usize },
    /// A node's connections to Redis break, and none can be made for a while.
    Break { node: usize, lasts: u64 },
    /// Nothing passes between a node and Redis for a while, and neither side notices.
    Deafen { node: usize, lasts: u64 },
    /// What passes between a node and Redis is late: all of it, or what goes over one connection.
    Slow {
        node: usize,
        by: u64,
        lasts: u64,
        #[serde(default)]
        what: Late,
    },
    /// A node's next probe begins now.
    Probe { node: usize },
    /// Pub/sub messages to a node are lost on a link that works.
    Lose { node: usize, count: u32 },
    /// Redis forgets a subscription of a node.
    Forget { node: usize, subject: String },
    /// Redis refuses.
    Refuse { why: Refusal, lasts: u64 },
    /// Redis refuses a key to nodes.
    Deny { topic: String, lasts: u64 },
    /// Another master takes over, without the last entries of each log.
    FailOver { lost: u64 },
    /// `FLUSHALL`.
    Flush,
    /// `XTRIM`.
    Trim { topic: String, keep: usize },
    /// `DEL`.
    Delete { topic: String },
    /// Redis' clock jumps.
    Clock { by: i64 },
    /// A node stands still.
    Freeze { node: usize, lasts: u64 },
    /// A node is killed, and starts again later.
    Kill { node: usize, lasts: u64 },
    /// A node drains, ends, and starts again later.
    Drain { node: usize, lasts: u64 },
    /// An operator shuts out whoever is at a client; for so long they show their old papers again and again.
    Disconnect { client: usize, by: By, node: usize, stubborn: u64 },
    /// An operator has a client's editor renew their rights.
    Refresh { client: usize, node: usize },
    /// A client's next connection takes so long from the handshake to the session.
    Dawdle { client: usize, lasts: u64 },
    /// A client brings new papers, or its old ones once more.
    Renew { client: usize, old: bool },
    /// The CMS answers late for a while.
    CmsLate { by: u64, lasts: u64 },
    /// The CMS does not answer for a while.
    CmsGone { lasts: u64 },
}

impl Deed {
    /// A name for counting.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Publish { .. } => "publish",
            Self::Burst { .. } => "burst",
            Self::Live { .. } => "live",
            Self::Poison { .. } => "poison",
            Self::Cut { .. } => "cut",
            Self::Follow { .. } => "follow",
            Self::Unfollow { .. } => "unfollow",
            Self::Stall { .. } => "stall",
            Self::Ping { .. } => "ping",
            Self::Break { .. } => "break",
            Self::Deafen { .. } => "deafen",
            Self::Slow { .. } => "slow",
            Self::Probe { .. } => "probe",
            Self::Lose { .. } => "lose",
            Self::Forget { .. } => "forget",
            Self::Refuse { why: Refusal::NoReplicas, .. } => "refuse-noreplicas",
            Self::Refuse { why: Refusal::Oom, .. } => "refuse-oom",
            Self::Refuse { why: Refusal::MisConf, .. } => "refuse-misconf",
            Self::Deny { .. } => "deny",
            Self::FailOver { .. } => "fail-over",
            Self::Flush => "flush",
            Self::Trim { .. } => "trim",
            Self::Delete { .. } => "delete",
            Self::Clock { .. } => "clock",
            Self::Freeze { .. } => "freeze",
            Self::Kill { .. } => "kill",
            Self::Drain { .. } => "drain",
            Self::Disconnect { .. } => "disconnect",
            Self::Refresh { .. } => "refresh",
            Self::Dawdle { .. } => "dawdle",
            Self::Renew { .. } => "renew",
            Self::CmsLate { .. } => "cms-late",
            Self::CmsGone { .. } => "cms-gone",
        }
    }
}

/// Something that happens at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// When, ms.
    pub at: u64,
    /// What.
    #[serde(rename = "do")]
    pub deed: Deed,
}

/// A schedule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// What all delays come from.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// The clients.
    pub parts: Vec<Part>,
    /// `log.length`.
    pub log_length: usize,
    /// `log.ttl_seconds`, in ms.
    pub log_ttl: u64,
    /// How long a topic stays subscribed after its last follower left, ms.
    pub linger: u64,
    /// `limits.outbox_bytes`.
    pub outbox_bytes: usize,
    /// Bytes that a socket takes before its client reads.
    pub room: usize,
    /// The longest that anything takes where nothing is wrong, ms.
    pub pace: u64,
    /// How clients prove who they are, where the schedule is about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofBy>,
    /// What happens, in order.
    pub steps: Vec<Step>,
}
