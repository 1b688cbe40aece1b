//! The messages between client and node (docs/contract.md 4.1), the same on every transport.
//!
//! Frames, SSE lines and polls wrap what is said here.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use std::collections::BTreeMap;

use super::{
    CloseCode, ErrorCode, Late, Passed, Position, Reason, RefusedCode, Subject, Topic,
    object::{self, Object},
};

/// What a client brings back after an absence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Resume {
    /// Redis' clock (ms) when the client was last told everything; without it the client counts as before every mark.
    #[serde(default)]
    pub at: Option<u64>,
    /// The latest position of each topic, as text: an unreadable one is a `resync`, not an error.
    #[serde(default, deserialize_with = "object::texts")]
    pub positions: BTreeMap<String, String>,
    /// The client was told that Redis is out of sight: a topic without a position is owed `gap`. Only a cursor knows.
    #[serde(skip)]
    pub away: bool,
    /// Which live events the client has had lately; `None`: nobody kept count. Only a cursor knows.
    #[serde(skip)]
    pub passed: Option<Passed>,
}

/// The first message of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Connect {
    /// The token, unless it came with the handshake.
    #[serde(default)]
    pub token: Option<String>,
    /// Topics to follow from the start.
    #[serde(default, deserialize_with = "object::or_default")]
    pub topics: Vec<String>,
    /// The tab's client id.
    #[serde(default)]
    pub client: Option<String>,
    /// Where the client left off.
    #[serde(default, deserialize_with = "object::optional")]
    pub resume: Option<Resume>,
}

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// The first message.
    Connect(Connect),
    /// Follow more topics.
    Subscribe {
        /// What to follow.
        topics: Vec<String>,
        /// Where the client left off in them.
        resume: Option<Resume>,
    },
    /// Follow fewer topics.
    Unsubscribe {
        /// What to leave.
        topics: Vec<String>,
    },
    /// A fresh token.
    Token {
        /// The token.
        token: String,
    },
    /// Asks for a `pong`.
    Ping,
    /// A `type` that this version does not know.
    Unknown(String),
}

#[derive(Deserialize)]
struct Topics {
    topics: Vec<String>,
    #[serde(default, deserialize_with = "object::optional")]
    resume: Option<Resume>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct Type {
    #[serde(rename = "type")]
    kind: String,
}

impl ClientMessage {
    /// Reads a message. The error is for the client's developer; it never repeats the message, which may hold a token.
    pub fn parse(text: &str) -> Result<Self, String> {
        let kind = read::<Type>(text, "a message is a JSON object with a string \"type\"")?.kind;
        Ok(match kind.as_str() {
            "connect" => Self::Connect(read(text, "connect has a field of the wrong type")?),
            "subscribe" => {
                let Topics { topics, resume } = read(text, "subscribe needs \"topics\", a list of strings")?;
                Self::Subscribe { topics, resume }
            }
            "unsubscribe" => {
                let Topics { topics, .. } = read(text, "unsubscribe needs \"topics\", a list of strings")?;
                Self::Unsubscribe { topics }
            }
            "token" => Self::Token { token: read::<Token>(text, "token needs \"token\", a string")?.token },
            "ping" => Self::Ping,
            _ => Self::Unknown(kind),
        })
    }
}

fn read<'de, T: Deserialize<'de>>(text: &'de str, what: &str) -> Result<T, String> {
    serde_json::from_str::<Object<T>>(text).map(|object| object.0).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => format!("{what} (column {})", e.column()),
        _ => format!("not JSON at line {} column {}", e.line(), e.column()),
    })
}

/// A topic that is not followed, as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// As the client wrote it.
    pub topic: String,
    /// Why.
    pub code: RefusedCode,
}

/// Positions by topic, written as a JSON object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(pub Vec<(Topic, Position)>);

impl Serialize for Positions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (topic, position) in &self.0 {
            map.serialize_entry(topic, position)?;
        }
        map.end()
    }
}

/// A message of the node, all but `event`, which is encoded once for everyone (`hub::Frame`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum NodeMessage {
    /// The answer to `connect`.
    Welcome(Box<Welcome>),
    /// The answer to `subscribe`.
    Subscribed {
        /// Last proof, ms of Redis' clock.
        at: u64,
        /// Where the stream of each topic starts.
        positions: Positions,
        /// What is not followed.
        refused: Vec<Refused>,
    },
    /// The answer to `unsubscribe`; also unasked.
    Unsubscribed {
        /// What is no longer followed.
        topics: Vec<Subject>,
    },
    /// These topics may have changed in ways that the session was not told.
    Resync {
        /// What to refetch.
        topics: Vec<Subject>,
        /// Why.
        reason: Reason,
        /// Wait a random part of this before refetching, ms.
        spread_ms: u64,
        /// Last proof, ms of Redis' clock.
        at: u64,
        /// The new starting points.
        positions: Positions,
    },
    /// The node has lost sight of Redis, or has it again; or other sources are late.
    Status {
        /// Whether events arrive.
        live: bool,
        /// Since when, RFC 3339.
        since: String,
        /// Sources whose changes may be late; absent where publishers vouch for none.
        #[serde(skip_serializing_if = "Option::is_none")]
        late: Option<Late>,
    },
    /// Send a fresh token.
    TokenExpiring {
        /// Seconds left.
        expires_in: u64,
    },
    /// The fresh token holds.
    TokenAccepted {
        /// Seconds left.
        expires_in: u64,
    },
    /// The answer to `ping`.
    Pong {
        /// Last proof, ms of Redis' clock.
        at: u64,
    },
    /// Something in a message was wrong and did no harm.
    Error {
        /// For programs.
        code: ErrorCode,
        /// For people.
        detail: String,
    },
    /// The node is about to close.
    Closing {
        /// The close code that follows.
        code: u16,
        /// In a word or a short sentence.
        reason: String,
        /// When to come back; absent where coming back is pointless.
        #[serde(skip_serializing_if = "Option::is_none")]
        reconnect_after_ms: Option<u64>,
    },
}

/// The answer to `connect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Welcome {
    /// The session's name, for logs.
    pub session: String,
    /// The node's name.
    pub node: String,
    /// Who the node takes the client for.
    pub user: String,
    /// Seconds between heartbeats.
    pub heartbeat: u64,
    /// Seconds until the token ends; absent where there is no token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// Last proof, ms of Redis' clock.
    pub at: u64,
    /// Where the stream of each topic starts; topics that are owed a `resync` are absent.
    pub positions: Positions,
    /// What is not followed.
    pub refused: Vec<Refused>,
    /// Whether the node sees Redis, and Redis gives it all that this session follows.
    pub live: bool,
    /// Sources whose changes may be late; absent where publishers vouch for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<Late>,
}

impl NodeMessage {
    /// The message that goes before a close.
    pub fn closing(code: CloseCode, reason: impl Into<String>, reconnect_after_ms: Option<u64>) -> Self {
        Self::Closing { code: code.number(), reason: reason.into(), reconnect_after_ms }
    }

    /// The message's `type`, which is also its SSE event name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Subscribed { .. } => "subscribed",
            Self::Unsubscribed { .. } => "unsubscribed",
            Self::Resync { .. } => "resync",
            Self::Status { .. } => "status",
            Self::TokenExpiring { .. } => "token-expiring",
            Self::TokenAccepted { .. } => "token-accepted",
            Self::Pong { .. } => "pong",
            Self::Error { .. } => "error",
            Self::Closing { .. } => "closing",
        }
    }

    /// The message as JSON on one line.
    pub fn json(&self) -> String {
        // Plain data with string keys: serialization has nothing to fail on.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
