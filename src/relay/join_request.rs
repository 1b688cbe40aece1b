//! What a session brings for one room that it wants to be in step in, and whether that can be granted.

use super::{feeds::Feeds, log::Resumed};
use crate::{
    hub::RoomId,
    protocol::{Position, Reason, Resume, Subject},
};

/// How often a log is read forwards for a session that is ahead of the feed; one more would show nothing new.
const FORWARDS: u8 = 3;
/// How often it is read for one session in all: once the feed has passed who was ahead, they may lack what is before its tail.
const READS: u8 = 2 * FORWARDS;
/// How often a log is read to learn its epoch: once, and once more if another epoch began meanwhile.
const LOOKS: u8 = 2;

/// What a session brings for one room.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    /// Nothing: it starts at the end of the log.
    Fresh,
    /// A position.
    From(Position),
    /// It comes back, but without a position that can be read.
    NoPosition,
    /// It started while Redis was away.
    Gap,
}

impl Asked {
    /// What a session brings for a subject.
    pub(super) fn by(subject: &Subject, resume: Option<&Resume>) -> Self {
        let Some(resume) = resume else { return Self::Fresh };
        let Subject::Topic(topic) = subject else { return Self::NoPosition };
        match resume.positions.get(topic.as_str()).map(|position| position.parse()) {
            Some(Ok(position)) => Self::From(position),
            None if resume.away => Self::Gap,
            _ => Self::NoPosition,
        }
    }

    pub(super) fn reason(&self) -> Reason {
        if *self == Self::NoPosition { Reason::NoPosition } else { Reason::Gap }
    }

    /// It was answered without a position.
    fn unanswered(&mut self) {
        if matches!(self, Self::Fresh | Self::NoPosition) {
            *self = Self::Gap;
        }
    }
}

/// A room that a session wants to be in step in.
#[derive(Debug)]
pub(super) struct JoinRequest {
    room: RoomId,
    asked: Asked,
    /// How often its log was read for this request.
    reads: u8,
}

/// Whether a request can be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// At once.
    Yes,
    /// Not before the feed is live.
    No,
    /// Not before the log was read from after this number.
    Read(u64),
}

impl JoinRequest {
    /// `asked`: what the session brings for the room.
    pub(super) fn new(room: RoomId, asked: Asked) -> Self {
        Self { room, asked, reads: 0 }
    }

    /// The room.
    pub(super) fn room(&self) -> RoomId {
        self.room
    }

    /// What the session brings.
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Its log is being read for this request.
    pub(super) fn read(&mut self) {
        self.reads += 1;
    }

    /// The last read does not count.
    pub(super) fn read_failed(&mut self) {
        self.reads = self.reads.saturating_sub(1);
    }

    /// No read counts: they were made over a link that is lost.
    pub(super) fn interrupt(&mut self) {
        self.reads = 0;
    }

    /// It was answered without a position.
    pub(super) fn unanswered(&mut self) {
        self.asked.unanswered();
    }

    /// Whether it can be granted now.
    pub(super) fn is_ready(&self, feeds: &mut Feeds) -> Ready {
        if !feeds.is_live(self.room) {
            return Ready::No;
        }
        let Asked::From(position) = &self.asked else { return Ready::Yes };
        let end = |feeds: &Feeds| feeds.top(self.room).map_or(0, |top| top.seq);
        let (from, reads) = match feeds.resume(self.room, position) {
            Some(Resumed::Read(seq)) => (seq, READS),
            Some(Resumed::Ahead) => (end(feeds), FORWARDS),
            Some(Resumed::OtherEpoch) => (end(feeds), LOOKS),
            _ => return Ready::Yes,
        };
        if self.reads >= reads && !feeds.is_reading(self.room) { Ready::Yes } else { Ready::Read(from) }
    }
}
