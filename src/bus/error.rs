//! Why the bus did not do what was asked, and whom that concerns.

/// Why the bus did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BusError {
    /// Redis cannot be reached, or did not answer in time. Trying again later may work.
    #[error("Redis cannot be reached: {0}")]
    Away(String),
    /// Redis answers but refuses (`OOM`, `NOREPLICAS`, `NOPERM`, …). The text is Redis' own; what to do is added.
    #[error("Redis refuses: {0}{what}", what = remedy(.0))]
    Refused(String),
    /// The event or topic was refused by the publish function.
    #[error("{0}")]
    Event(String),
}

impl BusError {
    /// Whether this node's user in Redis may not do it: that concerns only what was asked for, and only an operator can change it.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused(text) if text.contains("NOPERM"))
    }

    /// Whether it concerns only what was asked for: others need not wait for it.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_forbidden() || self.is_astray()
    }

    /// Whether it belongs to a slot of a cluster that can be asked for nowhere now.
    pub(crate) fn is_astray(&self) -> bool {
        matches!(self, Self::Refused(text) if text.starts_with(ASTRAY))
    }

    /// Whether it will be refused again when it is asked for again soon: Redis is full, or a right is missing.
    pub fn is_lasting(&self) -> bool {
        self.is_forbidden() || matches!(self, Self::Refused(text) if text.contains("OOM"))
    }
}

/// How what is said of a topic begins whose slot is being moved and can be asked for nowhere.
pub(crate) const ASTRAY: &str = "ASTRAY";

/// What to do about a refusal of Redis (a sentence, or nothing).
pub(crate) fn remedy(text: &str) -> &'static str {
    const KNOWN: [(&str, &str); 3] = [
        ("OOM", " Raise maxmemory, or free memory."),
        ("NOREPLICAS", " Start the replicas that min-replicas-to-write asks for, or lower it."),
        ("MISCONF", " Look at Redis' log: it cannot save to its disk."),
    ];
    KNOWN.iter().find(|(code, _)| text.contains(code)).map_or("", |known| known.1)
}
