//! Positions: where a session stands in a topic.
//!
//! An entry's id `<epoch>-<seq>` is a Redis stream id; the lineage before it names the Redis history that the number
//! belongs to, because a failover can lose a tail and give its numbers out again.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

/// Id of a log's entry. Within an epoch `seq` goes up by exactly one, from 1; `seq` 0 is the opened, empty log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// When the log was opened, in ms of Redis' clock.
    pub epoch: u64,
    /// Number of the entry within the epoch.
    pub seq: u64,
}

impl EntryId {
    /// The id that must come next on the wire.
    #[must_use]
    pub fn next(self) -> Self {
        Self { epoch: self.epoch, seq: self.seq + 1 }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// A text that is not an id or a position. Clients get `resync` (`no-position`) for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position")]
pub struct Unreadable;

impl FromStr for EntryId {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (epoch, seq) = text.split_once('-').ok_or(Unreadable)?;
        Ok(Self { epoch: digits(epoch)?, seq: digits(seq)? })
    }
}

/// Like `u64::from_str`, but without the `+` sign that it accepts.
fn digits(text: &str) -> Result<u64, Unreadable> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Unreadable);
    }
    text.parse().map_err(|_| Unreadable)
}

/// The history of a Redis master (the start of `master_replid`, INFO replication). Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Lineage(Arc<str>);

impl Lineage {
    /// Bytes of the replication id that are kept: 64 bits tell histories apart, and every event carries them.
    const KEPT: usize = 16;

    /// The lineage of a master by its replication id (40 hexadecimal digits).
    pub fn new(replication_id: &str) -> Self {
        let end = replication_id.char_indices().nth(Self::KEPT).map_or(replication_id.len(), |(at, _)| at);
        Self(replication_id[..end].into())
    }

    /// The lineage as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a session stands in a topic: `<lineage>.<epoch>-<seq>`. Opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The Redis history that `id` belongs to.
    pub lineage: Lineage,
    /// The last entry that the session has.
    pub id: EntryId,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.lineage, self.id)
    }
}

impl FromStr for Position {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (lineage, id) = text.split_once('.').ok_or(Unreadable)?;
        let named = (1..=Lineage::KEPT).contains(&lineage.len())
            && lineage.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !named {
            return Err(Unreadable);
        }
        Ok(Self { lineage: Lineage::new(lineage), id: id.parse()? })
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_the_wire_and_nothing_else_does() {
        let text = "8f3c1a2b9d4e5f60.1732000000000-17";
        assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        for bad in [
            "",
            "17",
            "a.1",
            "a.1-",
            "a.-1",
            "a.1-2-3",
            ".1-2",
            "A.1-2",
            "a.+1-2",
            "a.1-99999999999999999999",
        ] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?} passed");
        }
    }
}
