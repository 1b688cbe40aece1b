//! A session on its way into step: what it asked for, and what it is answered.
//!
//! Must not know the other joins, or when it is tried again.

use std::{sync::Arc, time::Instant};

use super::{feeds::Feeds, log::Resumed, marks::LiveMarks, question::Stamp, sources::LateSources};
use crate::{
    bus::Marks,
    hub::{Frame, Hub, Outbox, Replay, RoomId},
    metrics::Metrics,
    protocol::{
        NodeMessage, Passed, Position, Reason, Refused, Resume, Subject, Topic,
        message::{Positions, Welcome},
    },
};

/// How often a log is read for one session; one more would show nothing new.
const READS: u8 = 3;
/// How often it is read to learn of which epoch it is: once, and once more where another one began meanwhile.
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

    fn reason(&self) -> Reason {
        if *self == Self::NoPosition { Reason::NoPosition } else { Reason::Gap }
    }

    /// It was answered without a position.
    pub(super) fn unanswered(&mut self) {
        if matches!(self, Self::Fresh | Self::NoPosition) {
            *self = Self::Gap;
        }
    }
}

/// A room that a session wants to be in step in.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) room: RoomId,
    pub(super) asked: Asked,
    /// How often its log was read for the sake of this.
    pub(super) reads: u8,
}

/// Whether a wish can be granted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// At once.
    Yes,
    /// Not before the feed is live.
    No,
    /// Not before the log was read from after this number.
    Read(u64),
}

impl Wish {
    /// Whether it can be granted now.
    pub(super) fn is_ready(&self, feeds: &mut Feeds) -> Ready {
        if !feeds.is_live(self.room) {
            return Ready::No;
        }
        let Asked::From(position) = &self.asked else { return Ready::Yes };
        let end = |feeds: &Feeds| feeds.top(self.room).map_or(0, |top| top.seq);
        let (from, reads) = match feeds.resume(self.room, position) {
            Some(Resumed::Read(seq)) => (seq, READS),
            Some(Resumed::Ahead) => (end(feeds), READS),
            Some(Resumed::OtherEpoch) => (end(feeds), LOOKS),
            _ => return Ready::Yes,
        };
        if self.reads >= reads && !feeds.is_reading(self.room) { Ready::Yes } else { Ready::Read(from) }
    }
}

/// The answer that a join is owed.
#[derive(Debug)]
pub(super) enum Reply {
    Welcome(Box<Welcome>),
    Subscribed(Vec<Refused>),
    /// It was answered without all positions.
    Given,
}

/// What came of trying a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It is in step, as far as Redis lets it be.
    Done,
    /// It waits for this room.
    Waits(RoomId),
    /// It waits for a log to be read.
    Read(RoomId),
    /// It waits for the marks.
    Marks,
    /// It waits for the link.
    Link,
    /// The session is gone.
    Gone,
}

impl Attempt {
    /// A name for counting.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Done => "join done",
            Self::Waits(_) => "join waits",
            Self::Read(_) => "join reads",
            Self::Marks => "join lacks marks",
            Self::Link => "join lacks link",
            Self::Gone => "join gone",
        }
    }
}

/// Where a session stands in a room that it joins, and what it lacks.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) position: Option<(Topic, Position)>,
    pub(super) replay: Option<Replay>,
    /// Live events that it lacks.
    pub(super) live: Vec<Frame>,
}

/// A session on its way into step.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) outbox: Arc<Outbox>,
    pub(super) reply: Reply,
    pub(super) wishes: Vec<Wish>,
    /// Followed already: only their positions are repeated.
    pub(super) known: Vec<RoomId>,
    /// The `at` of a session that comes back; `None` for one that starts.
    pub(super) resume_at: Option<u64>,
    /// The live events that it has had since, where it names them.
    pub(super) passed: Option<Passed>,
    /// Marks that were read after all its topics were followed, and the question.
    pub(super) marks: Option<(Stamp, Arc<Marks>)>,
    /// When the answer goes out in any case.
    pub(super) until: Instant,
    /// Wishes before this one could be granted when they were last looked at.
    pub(super) checked: usize,
    /// What its logs lack was asked for in one go.
    pub(super) prefetched: bool,
}

impl Join {
    /// Whether it was answered already.
    pub(super) fn is_given(&self) -> bool {
        matches!(self.reply, Reply::Given)
    }

    /// Whether marks must be read before it can be granted: the ones it has, if any, are from before one of its topics was
    /// followed, and a live event may have come between.
    pub(super) fn lacks_marks(&self, feeds: &Feeds) -> bool {
        if self.resume_at.is_none() {
            return false;
        }
        let Some((read, _)) = &self.marks else { return true };
        self.wishes
            .iter()
            .filter_map(|wish| feeds.get(wish.room).filter(|feed| feed.is_live())?.confirmed())
            .any(|confirmed| *read <= confirmed)
            && !crate::mutant::is("marks-first")
    }

    /// Whether live events of an area may have been published since the session was last told everything. An `at` that
    /// Redis' clock has not reached yet proves nothing: the clock of a new master may be behind.
    /// `known`: the mark as this node knows it, which may have been written after the marks were read.
    fn missed_live(&self, area: &str, known: Option<u64>) -> bool {
        let (Some(at), Some((_, marks))) = (self.resume_at, &self.marks) else { return false };
        marks.marks.get(area).copied().max(known).is_some_and(|mark| at < mark || at > marks.now)
    }

    /// Where the session stands in a room, and what it lacks; or why it must refetch.
    pub(super) fn verdict(
        &self,
        wish: &Wish,
        hub: &Hub,
        feeds: &mut Feeds,
        marks: &LiveMarks,
    ) -> Result<Place, Reason> {
        let subject = hub.subject(wish.room).cloned().ok_or(Reason::Gap)?;
        let marked = self.missed_live(subject.area(), marks.known().get(subject.area()));
        let Subject::Topic(topic) = subject else {
            let fresh = wish.asked == Asked::Fresh;
            return if fresh {
                Ok(Place { position: None, replay: None, live: Vec::new() })
            } else {
                Err(wish.asked.reason())
            };
        };
        let (position, replay) = match &wish.asked {
            Asked::Fresh => (feeds.position(wish.room).ok_or(Reason::Gap)?, None),
            Asked::From(position) => match feeds.resume(wish.room, position).ok_or(Reason::Gap)? {
                Resumed::InStep => (position.clone(), None),
                Resumed::Replay(replay) => (position.clone(), Some(replay)),
                Resumed::Ahead | Resumed::OtherEpoch => return Err(Reason::LogReplaced),
                Resumed::Read(_) => return Err(Reason::Gap),
                Resumed::Resync(reason) => return Err(reason),
            },
            Asked::NoPosition | Asked::Gap => return Err(wish.asked.reason()),
        };
        let live = if marked { self.live_events(&topic, wish.room, feeds, marks) } else { Some(Vec::new()) };
        Ok(Place { position: Some((topic, position)), replay, live: live.ok_or(Reason::Live)? })
    }

    /// The live events of a topic that it lacks, where this node knows.
    fn live_events(
        &self,
        topic: &Topic,
        room: RoomId,
        feeds: &Feeds,
        marks: &LiveMarks,
    ) -> Option<Vec<Frame>> {
        let (at, passed) = (self.resume_at?, self.passed.as_ref()?);
        // A proof that Redis' clock has not reached yet proves nothing here either.
        self.marks.as_ref().filter(|(_, marks)| at <= marks.now)?;
        marks.recent().missed(topic, at, feeds.get(room)?.confirmed()?, passed)
    }

    /// Writes the answer that is due, if one is. Returns whether it was the `welcome`.
    pub(super) fn answer(
        &mut self,
        at: u64,
        positions: Positions,
        live: bool,
        sources: &LateSources,
    ) -> bool {
        let welcomes = match std::mem::replace(&mut self.reply, Reply::Given) {
            Reply::Welcome(mut welcome) => {
                welcome.at = at;
                welcome.positions = positions;
                welcome.live = live;
                welcome.late = sources.told();
                self.outbox.message(NodeMessage::Welcome(welcome));
                true
            }
            Reply::Subscribed(refused) => {
                self.outbox.message(NodeMessage::Subscribed { at, positions, refused });
                false
            }
            Reply::Given => return false,
        };
        self.outbox.answered();
        welcomes
    }

    /// Writes what the session lacks.
    pub(super) fn replay(&self, replays: impl Iterator<Item = Replay>, metrics: &Metrics) {
        for replay in replays {
            metrics.backfilled.inc_by(replay.len() as u64);
            metrics.tail_replays.inc();
            self.outbox.replay(replay);
        }
    }
}
