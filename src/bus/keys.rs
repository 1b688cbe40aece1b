//! Names in Redis: which channel, log or companion key belongs to what.
//!
//! Everything starts with the prefix. The channel of a topic and its log have one name, `<prefix>:<topic>`; companions
//! carry braces, which no topic may contain, so that they never look like one, and so that a cluster puts them where
//! they belong: what must be one for all nodes lies in the slot of `{<prefix>}`.

use crate::protocol::{Subject, Topic};

/// The names under one prefix. The functions' own companions (`ids`) are named in `publish.lua`.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Names under `prefix` (`[a-z][a-z0-9_]{0,31}`).
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The channel of a topic, which is also the key of its log.
    pub fn channel(&self, topic: &Topic) -> String {
        format!("{}:{topic}", self.prefix)
    }

    /// The topic's text in the name of a channel; `None` where the channel is not under this prefix.
    pub fn topic<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&self.prefix)?.strip_prefix(':')
    }

    /// What to subscribe to for a subject: a channel, or the pattern of all keys of an area. Neither prefix nor area
    /// can hold characters that mean something in a pattern.
    pub fn subject(&self, subject: &Subject) -> String {
        format!("{}:{subject}", self.prefix)
    }

    /// A pattern of all names.
    pub fn all(&self) -> String {
        format!("{}:*", self.prefix)
    }

    /// Where a node's probes come back. `tag` decides the slot.
    pub fn probe(&self, tag: &str) -> String {
        format!("{}:probe:{{{tag}}}", self.prefix)
    }

    /// The channel that every node listens to for an operator's orders.
    pub fn control(&self) -> String {
        self.companion("control")
    }

    /// Hash: what the nodes say about themselves.
    pub fn nodes(&self) -> String {
        self.companion("nodes")
    }

    /// Hash: until when each area has had live events.
    pub fn marks(&self) -> String {
        self.companion("live")
    }

    /// Hash: the sources that publishers vouch for. Publishers write this name, so it has no braces.
    pub fn sources(&self) -> String {
        format!("{}:sources", self.prefix)
    }

    /// Hash: what operators have revoked, and when.
    pub fn revocations(&self) -> String {
        self.companion("revoked")
    }

    /// A function of the library.
    pub fn function(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix)
    }

    fn companion(&self, name: &str) -> String {
        format!("{0}:{name}:{{{0}}}", self.prefix)
    }
}
