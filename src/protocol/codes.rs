//! Every code and reason that goes over the wire, each in one table: close codes, reasons for a `resync`, refusals of topics,
//! errors, and problems over HTTP. A test compares them with docs/contract.md, both ways.

use serde::{Serialize, Serializer};

/// Close codes (RFC 6455, 7.4): 1002, 1009 and 1012 to 1013 are registered, 4400 to 4499 are ours and mirror HTTP's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// Broken framing (RFC 6455, 7.4.1). Do not reconnect.
    Protocol = 1002,
    /// A message larger than `limits.message_bytes` (RFC 6455, 7.4.1). Reconnect after `reconnect_after_ms`, with less in one
    /// message.
    TooBig = 1009,
    /// The node is draining. Reconnect after `reconnect_after_ms`.
    Drain = 1012,
    /// Over a limit. Reconnect after `reconnect_after_ms`.
    TryLater = 1013,
    /// Malformed message, binary frame, a second `connect`, a message before `connect`. Do not reconnect.
    BadMessage = 4400,
    /// Token missing, invalid or expired. Reconnect with a new one.
    Unauthenticated = 4401,
    /// Forbidden or revoked. Do not reconnect.
    Forbidden = 4403,
    /// No `connect` in time, or nothing heard for two heartbeats. Reconnect.
    TimedOut = 4408,
    /// A `resync` that was owed could not be written within 10 s. Reconnect.
    TooSlow = 4409,
}

impl CloseCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Protocol,
        Self::TooBig,
        Self::Drain,
        Self::TryLater,
        Self::BadMessage,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::TimedOut,
        Self::TooSlow,
    ];
}

/// Why topics must be refetched. If several reasons hold, the first in this order is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Redis restarted or failed over.
    RedisChanged,
    /// The log is missing, of another epoch, or ends before the position.
    LogReplaced,
    /// No position was given, or it cannot be read.
    NoPosition,
    /// The log no longer holds what is missing.
    Trimmed,
    /// Something is missing and cannot be read.
    Gap,
    /// Something in the log is not an event.
    Invalid,
    /// Live events may have been missed.
    Live,
    /// The session was too slow.
    Slow,
}

impl Reason {
    /// The name on the wire and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::RedisChanged => "redis-changed",
            Self::LogReplaced => "log-replaced",
            Self::NoPosition => "no-position",
            Self::Trimmed => "trimmed",
            Self::Gap => "gap",
            Self::Invalid => "invalid",
            Self::Live => "live",
            Self::Slow => "slow",
        }
    }

    /// Every reason, for metrics that start at zero.
    pub const ALL: [Self; 8] = [
        Self::RedisChanged,
        Self::LogReplaced,
        Self::NoPosition,
        Self::Trimmed,
        Self::Gap,
        Self::Invalid,
        Self::Live,
        Self::Slow,
    ];
}

/// Why a topic is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedCode {
    /// The token does not allow it.
    Forbidden,
    /// Not a topic, or its area is not configured.
    BadTopic,
    /// Over `limits.topics_per_session`, over what fits into a cursor, or over the editor's own limits.
    TooMany,
}

impl RefusedCode {
    /// The name on the wire and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::BadTopic => "bad-topic",
            Self::TooMany => "too-many",
        }
    }

    /// All of them.
    pub const ALL: [Self; 3] = [Self::Forbidden, Self::BadTopic, Self::TooMany];
}

/// What was wrong with a message that did no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// A message of a type that this node does not know.
    UnknownType,
    /// A fresh token that is not accepted; the old one goes on until it ends.
    BadToken,
}

impl ErrorCode {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownType => "unknown-type",
            Self::BadToken => "bad-token",
        }
    }

    /// All of them.
    pub const ALL: [Self; 2] = [Self::UnknownType, Self::BadToken];
}

/// Where clients meet a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// At the public listener (contract, 4.5).
    Public,
    /// At the internal listener (contract, 3.3).
    Internal,
    /// At both.
    Both,
    /// Nowhere, unless the node has a fault.
    Fault,
    /// In the demo's own API only (`demo/API.md`).
    Demo,
}

/// The table: each code with its name on the wire, the statuses that it comes with, and where.
macro_rules! problem_codes {
    ($($(#[$doc:meta])* $code:ident = $name:literal [$($status:literal),+] $listener:ident,)+) => {
        /// Stable names of problems, for programs. A code never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemCode {
            $($(#[$doc])* $code,)+
        }

        impl ProblemCode {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$code,)+];

            /// The name on the wire and in metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)+
                }
            }

            /// The HTTP statuses that it comes with.
            pub fn statuses(self) -> &'static [u16] {
                match self {
                    $(Self::$code => &[$($status),+],)+
                }
            }

            /// Where clients meet it.
            pub fn listener(self) -> Listener {
                match self {
                    $(Self::$code => Listener::$listener,)+
                }
            }
        }
    };
}

problem_codes! {
    /// A plain GET on the WebSocket's path; the body lists which headers of the handshake arrived. 426.
    UpgradeMissing = "upgrade-missing" [426] Public,
    /// A malformed key or version of the handshake. 400.
    BadHandshake = "bad-handshake" [400] Public,
    /// A request that cannot be read. 400, or 413 for a body.
    BadRequest = "bad-request" [400, 413] Both,
    /// A token that is missing or bad. 401.
    Unauthenticated = "unauthenticated" [401] Both,
    /// An `Origin` that is not allowed. 403.
    Origin = "origin" [403] Public,
    /// WebSocket is switched off. 404.
    WebsocketDisabled = "websocket-disabled" [404] Public,
    /// Server-sent events are switched off. 404.
    SseDisabled = "sse-disabled" [404] Public,
    /// Long-poll is switched off. 404.
    PollDisabled = "poll-disabled" [404] Public,
    /// There is nothing at this path. 404.
    NotFound = "not-found" [404] Public,
    /// The path is right and the method is not. 405.
    MethodNotAllowed = "method-not-allowed" [405] Public,
    /// The body took too long. 408.
    BodyTime = "body-time" [408] Public,
    /// The body of a stream's or poll's request is too large. 413.
    TooLarge = "too-large" [413] Public,
    /// A body that does not say that it is JSON. 415.
    NotJson = "not-json" [415] Public,
    /// The node is about to stop. 503.
    Draining = "draining" [503] Public,
    /// Sessions or connections of the node, the address or the editor. 503.
    TooManySessions = "too-many-sessions" [503] Public,
    /// New sessions per second. 503.
    AcceptRate = "accept-rate" [503] Public,
    /// The CMS or the key set cannot be reached. 503.
    AuthAway = "auth-away" [503] Both,
    /// The token does not allow it. 403.
    Forbidden = "forbidden" [403] Internal,
    /// Not a topic, or its area is not configured. 400.
    BadTopic = "bad-topic" [400] Internal,
    /// Not an event (400), or one that is too large (413).
    BadEvent = "bad-event" [400, 413] Internal,
    /// Redis cannot be reached. 503.
    RedisAway = "redis-away" [503] Internal,
    /// Redis is there and refuses. 503.
    RedisRefuses = "redis-refuses" [503] Internal,
    /// An earlier element failed, which this one must not overtake. 503.
    NotTried = "not-tried" [503] Internal,
    /// A fault of the node itself. 500.
    Internal = "internal" [500] Fault,
    /// The demo knows no such editor. 404.
    NoSuchEditor = "no-such-editor" [404] Demo,
    /// The demo knows no such project. 404.
    NoSuchProject = "no-such-project" [404] Demo,
    /// The demo knows no such item. 404.
    NoSuchItem = "no-such-item" [404] Demo,
    /// The demo knows no such content. 404.
    NoSuchContent = "no-such-content" [404] Demo,
    /// The demo knows no such notification. 404.
    NoSuchNotification = "no-such-notification" [404] Demo,
    /// The demo makes no tokens here. 404.
    NoTokens = "no-tokens" [404] Demo,
    /// The demo's path is right and the method is not. 405.
    NotAllowed = "not-allowed" [405] Demo,
}

impl Serialize for ProblemCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
