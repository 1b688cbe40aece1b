//! What went wrong between us and Redis, sorted by what to do about it.
//!
//! Must not know which command it was.

use fred::prelude::Error;

use super::connection::{describe, is_trouble};
use crate::bus::BusError;

/// Why a command did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// No answer, or one that says "later".
    Away(String),
    /// Answered by a replica: there is another master now.
    Replica(String),
    /// The library is gone (an empty restart, `FUNCTION FLUSH`).
    NoFunction,
    /// Redis accepts no writes for now (`OOM`, `NOREPLICAS`, `MISCONF`).
    NoWrites(String),
    /// Missing rights, a key of another type, and the like.
    Refused(String),
    /// The function's own verdict on an event or a topic.
    Event(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = describe(&error);
        if is_trouble(&error) {
            return Self::Away(text);
        }
        let (code, rest) = text.split_once(' ').unwrap_or((&text, ""));
        match code {
            "EVENT" | "TOPIC" => Self::Event(rest.to_owned()),
            "OOM" | "NOREPLICAS" | "MISCONF" => Self::NoWrites(text),
            "READONLY" => Self::Replica(text),
            "LOADING" | "MASTERDOWN" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" => Self::Away(text),
            "ERR" if rest.starts_with("Function not found") => Self::NoFunction,
            _ => Self::Refused(text),
        }
    }
}

impl Fault {
    /// In words, for logs and reasons.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::NoFunction => "the function library is not loaded",
            Self::Away(text)
            | Self::Replica(text)
            | Self::NoWrites(text)
            | Self::Refused(text)
            | Self::Event(text) => text,
        }
    }
}

impl From<Fault> for BusError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Away(text) | Fault::Replica(text) => Self::Away(text),
            Fault::NoFunction => Self::Refused(fault.text().into()),
            Fault::NoWrites(text) | Fault::Refused(text) => Self::Refused(text),
            Fault::Event(text) => Self::Event(text),
        }
    }
}

/// Why a link cannot be built.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// It may work later.
    Passing(String),
    /// An operator must mend it. A sentence that says what to do.
    Lasting(String),
}

impl Obstacle {
    /// Sorts an error that came while connecting to `place`.
    pub(super) fn connecting(error: &Error, place: &str) -> Self {
        let text = describe(error);
        let code = text.split(' ').next().unwrap_or_default();
        match code {
            "WRONGPASS" => Self::Lasting(format!(
                "Redis at {place} does not accept the user name or password: correct redis.username and redis.password"
            )),
            "NOAUTH" => Self::Lasting(format!(
                "Redis at {place} wants a password: set redis.password (and redis.username for an ACL user)"
            )),
            // HELLO came with Redis 6.
            "ERR" if text.contains("unknown command") => Self::Lasting(too_old(place, "older than 6")),
            "ERR" if text.contains("cluster support disabled") => {
                Self::Lasting(format!("Redis at {place} is not a cluster: write redis://… in redis.url"))
            }
            "NOPERM" => Self::missing_right(&text, place),
            _ => Self::Passing(text),
        }
    }

    /// Sorts what a command was answered during the first exchange.
    pub(super) fn answered(fault: Fault, place: &str) -> Self {
        match fault {
            Fault::Refused(text) if text.starts_with("NOPERM") => Self::missing_right(&text, place),
            fault => Self::Passing(fault.text().into()),
        }
    }

    fn missing_right(text: &str, place: &str) -> Self {
        let said = text.strip_prefix("NOPERM").unwrap_or(text).trim();
        let command = said.split('\'').nth(1).map_or(String::new(), |command| format!(" +{command}"));
        Self::Lasting(format!(
            "Redis at {place} refuses this node a right that it needs ({said}): allow it with ACL SETUSER <user>{command}; \
             all that a node needs is printed by: carillon redis-function --acl"
        ))
    }
}

/// A sentence about a server that is too old.
pub(super) fn too_old(place: &str, version: &str) -> String {
    format!("Redis at {place} is {version}: Carillon needs Redis 7.0 or later, or Valkey, for its functions")
}
