//! Where a session begins whose transport has no `connect`.

use super::cursor::{Cursor, CursorPlace};
use crate::protocol::{Resume, message::Connect};

/// Where a session begins whose transport has no `connect` (SSE, long-poll).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the present end.
    Fresh,
    /// Where a session over another transport left off: like a fresh one it is welcomed.
    Resume(Cursor),
    /// Where its own cursor says.
    GoOn(Cursor),
}

impl Start {
    /// Whether an earlier session goes on; a cursor that says nothing, or cannot be read, begins a new one.
    pub fn goes_on(&self) -> bool {
        matches!(self, Self::GoOn(cursor) if *cursor != Cursor::default())
    }

    /// The cursor to begin with, and what the relay resumes from.
    fn split(self, topics: &[String]) -> (Cursor, Option<Resume>) {
        let mut cursor = match self {
            Self::Fresh => return (Cursor::default(), None),
            Self::GoOn(cursor) => cursor,
            // Over another transport: a session of its own.
            Self::Resume(mut cursor) => {
                (cursor.session, cursor.refused) = (None, 0);
                cursor
            }
        };
        cursor.keep(topics);
        let resume = cursor.resume();
        (cursor, Some(resume))
    }
}

/// What a client of SSE or long-poll asks for: what `connect` says over a WebSocket.
#[derive(Debug, Clone)]
pub struct StreamRequest {
    /// Topics to follow, as they were written.
    pub topics: Vec<String>,
    /// Where the client left off.
    pub start: Start,
    /// Where the client brings its cursor back.
    pub cursor_in: CursorPlace,
}

impl StreamRequest {
    /// The cursor to begin with, and the `connect` that says the same.
    pub(super) fn begin(self) -> (Cursor, Connect) {
        let (cursor, resume) = self.start.split(&self.topics);
        (cursor, Connect { topics: self.topics, resume, ..Connect::default() })
    }
}
