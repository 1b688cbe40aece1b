//! What a message on a topic's channel holds: `<epoch>-<seq> <json>` is a recorded event, `<epoch>-0 ` says that the log was
//! erased and begins anew, and anything else is a live event.
//!
//! Anybody who may write to Redis chooses these bytes.

use bytes::Bytes;

use crate::protocol::{EntryId, Event, EventError};

/// Reads a message: the id of a recorded event, and the event. There may be an id although what follows it is not an event.
/// `limit`: bytes of an event (`limits.event_bytes`).
pub(crate) fn read(payload: Bytes, limit: usize) -> (Option<EntryId>, Result<Event, EventError>) {
    match recorded(&payload) {
        Some((id, start)) => (Some(id), Event::parse(payload.slice(start..), limit)),
        None => (None, Event::parse(payload, limit)),
    }
}

/// Where the log begins anew, if that is what the message says.
pub(crate) fn erased(payload: &[u8]) -> Option<EntryId> {
    // Nearly every message ends with a brace, and is not looked at any further.
    payload.last().filter(|last| **last == b' ')?;
    recorded(payload).filter(|(id, start)| id.seq == 0 && *start == payload.len()).map(|(id, _)| id)
}

/// The id before a recorded event, and where the event starts.
fn recorded(payload: &[u8]) -> Option<(EntryId, usize)> {
    payload.first().filter(|first| first.is_ascii_digit())?;
    // Two numbers of at most 20 digits.
    let space = payload.iter().take(42).position(|byte| *byte == b' ')?;
    let id = std::str::from_utf8(&payload[..space]).ok()?.parse().ok()?;
    Some((id, space + 1))
}
