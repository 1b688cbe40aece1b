//! What goes into the switch and what comes out of it, as plain values.
//!
//! The switch never waits and reads no clock: [`super::task`] hands it inputs, asks the bus its [`Question`]s, and brings
//! the [`Answer`]s back as inputs. Whoever drives it otherwise (a simulation) does the same.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Command;
use crate::{
    bus::{BusError, BusEvent, Head, History, LostSource, Marks, Sources},
    protocol::{EntryId, Subject, Topic},
};

/// What the clocks show when an input is taken.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The monotonic clock.
    pub instant: Instant,
    /// The wall clock, ms since 1970: only for what people read.
    pub wall_ms: u64,
}

impl Now {
    /// What this machine's clocks show.
    pub fn read() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), wall_ms: wall.as_millis() as u64 }
    }
}

/// Whether Redis has answered, and does not do what it was asked. Where it has not answered, the link ends, and that is told.
pub(super) fn is_refusal(error: &BusError) -> bool {
    matches!(error, BusError::Refused(_))
}

/// What the switch takes.
#[derive(Debug)]
pub enum SwitchInput<'a> {
    /// What has arrived from the bus, in order; the switch empties it. An event that is alone is written at once.
    Events(&'a mut Vec<BusEvent>),
    /// What a session asks.
    Command(Command),
    /// What the bus has answered to the question of this stamp.
    Answer(Stamp, Answer),
    /// About once a second. `chance`: a random number from 0 to 1.
    Tick {
        /// Spreads what all nodes would do at the same time.
        chance: f64,
    },
}

/// Which question an answer belongs to. Later questions have larger stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

/// A topic, and where its feed is when a question about it is asked. The answer repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedPlace {
    /// The topic.
    pub topic: Topic,
    /// The last entry that the feed has; `None` before it has any.
    pub top: Option<EntryId>,
}

/// What the switch asks of the bus. Each is answered exactly once, in any order, unless the node ends.
#[derive(Debug, Clone)]
pub enum Question {
    /// Subscribe to these; then the heads of the topics among them whose subscription is confirmed.
    Open(Vec<Subject>),
    /// Unsubscribe from these.
    Close(Vec<Subject>),
    /// The entries of a log after this one.
    Read {
        /// The log.
        topic: Topic,
        /// The entry before the first that is wanted.
        after: EntryId,
    },
    /// The marks of all areas.
    Marks,
    /// Set an area's mark.
    Mark {
        /// The area.
        area: String,
        /// How far ahead of Redis' clock.
        ahead: Duration,
    },
    /// The heads of these topics; after them all marks.
    Look {
        /// The topics.
        places: Vec<FeedPlace>,
        /// Whether the marks are renewed: live events of these topics may have been lost.
        renew: bool,
    },
    /// The heads of these topics.
    Heads(Vec<FeedPlace>),
    /// All sources; these are put back first where Redis has lost them.
    Sources(Vec<LostSource>),
}

/// What the bus has answered. Each names what it is about.
#[derive(Debug)]
pub enum Answer {
    /// The heads of what was subscribed to; `None` for whole areas.
    Opened(Vec<(Subject, Result<Option<Head>, BusError>)>),
    /// Subjects were unsubscribed from.
    Closed,
    /// A log was read.
    Read {
        /// The log.
        topic: Topic,
        /// After which entry.
        after: EntryId,
        /// What it holds.
        history: Result<History, BusError>,
    },
    /// Marks were read.
    Marks(Result<Marks, BusError>),
    /// An area's mark was set.
    Marked {
        /// The area.
        area: String,
        /// All marks.
        marks: Result<Marks, BusError>,
    },
    /// Heads and all marks.
    Looked {
        /// A head for each topic that was asked for.
        heads: Vec<(FeedPlace, Result<Head, BusError>)>,
        /// All marks, read after the heads.
        marks: Result<Marks, BusError>,
    },
    /// A head for each topic that was asked for.
    Heads(Vec<(FeedPlace, Result<Head, BusError>)>),
    /// Sources were read.
    Sources(Result<Sources, BusError>),
}

/// What a turn of the switch leaves to do.
#[derive(Debug, Default)]
pub struct TurnOutput {
    /// To be asked of the bus, in this order, without waiting for one before the next.
    pub questions: Vec<(Stamp, Question)>,
    /// Why the node must stop.
    pub fatal: Option<String>,
}

/// The questions of a turn, and the stamps of all.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: u64,
    due: Vec<(Stamp, Question)>,
}

impl Questions {
    /// Asks a question at the end of the turn.
    pub(super) fn ask(&mut self, question: Question) -> Stamp {
        self.last += 1;
        self.due.push((Stamp(self.last), question));
        Stamp(self.last)
    }

    /// The stamp of the latest question: whatever is asked from now on has a larger one.
    pub(super) fn latest(&self) -> Stamp {
        Stamp(self.last)
    }

    /// The questions of the turn that ends.
    pub(super) fn take(&mut self) -> Vec<(Stamp, Question)> {
        std::mem::take(&mut self.due)
    }
}
