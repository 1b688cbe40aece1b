//! A session on its way into step: what it asked for, and what it is answered.

use std::{sync::Arc, time::Instant};

use super::{
    feeds::Feeds,
    join_request::{Asked, JoinRequest, Ready},
    log::Resumed,
    marks::LiveMarks,
    question::Stamp,
    recent::Absence,
    sources::LateSources,
};
use crate::{
    bus::Marks,
    hub::{Frame, Hub, MemberId, Outbox, Replay, RoomId},
    metrics::Metrics,
    mutant,
    protocol::{
        NodeMessage, Passed, Position, Reason, Refused, Resume, Subject, Topic,
        message::{Positions, Welcome},
    },
};

/// The answer that a join is owed.
#[derive(Debug)]
pub(super) enum Reply {
    Welcome(Box<Welcome>),
    Subscribed(Vec<Refused>),
    /// It was answered already, without all positions.
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
pub(super) struct StartingPoint {
    pub(super) position: Option<(Topic, Position)>,
    pub(super) replay: Option<Replay>,
    /// Live events that it lacks.
    pub(super) live: Vec<Frame>,
}

/// A session on its way into step.
#[derive(Debug)]
pub(super) struct Join {
    outbox: Arc<Outbox>,
    reply: Reply,
    requests: Vec<JoinRequest>,
    /// Followed already: only their positions are repeated.
    known: Vec<RoomId>,
    /// The `at` of a session that comes back; `None` for one that starts.
    resume_at: Option<u64>,
    /// The live events that it says it had after that.
    passed: Option<Passed>,
    /// Marks that were read after all its topics were followed, and the question that asked for them.
    marks: Option<(Stamp, Arc<Marks>)>,
    /// When the answer goes out in any case.
    until: Instant,
    /// Index of the first request that was not ready when it was last looked at; those before it were.
    checked: usize,
    /// All reads of logs that it needs were asked for at once.
    prefetched: bool,
}

impl Join {
    /// A session that asks for these. `known`: what it follows already; `until`: when it is answered in any case.
    pub(super) fn new(
        (outbox, reply): (Arc<Outbox>, Reply),
        requests: Vec<JoinRequest>,
        mut known: Vec<RoomId>,
        resume: Option<&Resume>,
        until: Instant,
    ) -> Self {
        known.sort_unstable();
        known.dedup();
        Self {
            outbox,
            reply,
            requests,
            known,
            resume_at: resume.map(|resume| resume.at.unwrap_or(0)),
            passed: resume.and_then(|resume| resume.passed.clone()),
            marks: None,
            until,
            checked: 0,
            prefetched: false,
        }
    }

    /// The session, while it is there.
    pub(super) fn member(&self, hub: &Hub) -> Option<MemberId> {
        hub.member_of(&self.outbox)
    }

    /// Whether it is a join of this session.
    pub(super) fn is_of(&self, outbox: &Arc<Outbox>) -> bool {
        Arc::ptr_eq(&self.outbox, outbox)
    }

    /// Whether it has waited for its answer for too long.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        !self.is_given() && self.until <= now
    }

    /// The `at` that it brought; `None` for one that starts.
    pub(super) fn resume_at(&self) -> Option<u64> {
        self.resume_at
    }

    /// What it follows already.
    pub(super) fn known(&self) -> &[RoomId] {
        &self.known
    }

    /// The rooms that it wants to be in step in.
    pub(super) fn rooms(&self) -> impl Iterator<Item = RoomId> {
        self.requests.iter().map(JoinRequest::room)
    }

    /// Marks were read, in question `read`; they count for topics that were followed before it.
    pub(super) fn learn(&mut self, read: Stamp, marks: &Arc<Marks>) {
        self.marks = Some((read, Arc::clone(marks)));
    }

    /// The link is lost, and with it every answer that is due.
    pub(super) fn interrupt(&mut self) {
        self.marks = None;
        self.prefetched = false;
        self.requests.iter_mut().for_each(JoinRequest::interrupt);
    }

    /// A log could not be read: that read does not count.
    pub(super) fn read_failed(&mut self, room: RoomId) {
        self.requests.iter_mut().filter(|request| request.room() == room).for_each(JoinRequest::read_failed);
    }

    /// What it must wait for, if anything. Starts with the request that held it up last, and looks at all others before it says
    /// `None`: what was ready then may not be ready now.
    pub(super) fn held_up(
        &mut self,
        ticket: u32,
        member: MemberId,
        hub: &Hub,
        feeds: &mut Feeds,
    ) -> Option<Attempt> {
        let before = self.checked;
        for at in (before..self.requests.len()).chain(0..before.min(self.requests.len())) {
            let room = self.requests[at].room();
            if !hub.is_waiting(member, room, ticket) {
                continue;
            }
            let ready = self.requests[at].is_ready(feeds);
            if ready == Ready::Yes {
                continue;
            }
            // Other topics need not wait for one that Redis refuses; nor need the answer, once given, for one that failed.
            let refused = feeds.is_refused(room) || self.is_given() && feeds.has_failed(room);
            let passed_over = refused && !mutant::is("held-up");
            if passed_over || ready != Ready::No {
                self.fetch(at, ticket, member, hub, feeds);
            }
            if !passed_over {
                self.checked = at;
                return Some(if ready == Ready::No { Attempt::Waits(room) } else { Attempt::Read(room) });
            }
        }
        self.checked = self.requests.len();
        None
    }

    /// Asks for the read of the log that a request needs. The first time it asks for those of all requests, so that they do not
    /// wait for each other.
    fn fetch(&mut self, at: usize, ticket: u32, member: MemberId, hub: &Hub, feeds: &mut Feeds) {
        let end = if std::mem::replace(&mut self.prefetched, true) { at + 1 } else { self.requests.len() };
        for request in &mut self.requests[at..end] {
            let Ready::Read(from) = request.is_ready(feeds) else { continue };
            if feeds.is_reading(request.room()) || !hub.is_waiting(member, request.room(), ticket) {
                continue;
            }
            if let Some(Subject::Topic(topic)) = hub.subject(request.room()) {
                request.read();
                feeds.want(request.room(), topic, Some(from));
            }
        }
    }

    /// Takes out its requests: those that can be granted now, those that must wait, and whether all of them wait for marks.
    pub(super) fn take_requests(
        &mut self,
        ticket: u32,
        member: MemberId,
        hub: &Hub,
        feeds: &mut Feeds,
    ) -> (Vec<JoinRequest>, Vec<JoinRequest>, bool) {
        let mut requests = std::mem::take(&mut self.requests);
        requests.retain(|request| hub.is_waiting(member, request.room(), ticket));
        let lacks_marks = self.marks_lacked_by(&requests, feeds);
        let granted = |request: &JoinRequest| !lacks_marks && request.is_ready(feeds) == Ready::Yes;
        let (ready, later) = requests.into_iter().partition(granted);
        (ready, later, lacks_marks)
    }

    /// These requests go on waiting.
    pub(super) fn wait_for(&mut self, requests: Vec<JoinRequest>) {
        self.requests = requests;
        self.unanswered();
        self.checked = 0;
    }

    /// It is answered without any position.
    pub(super) fn unanswered(&mut self) {
        self.requests.iter_mut().for_each(JoinRequest::unanswered);
    }

    /// The `at` that it is answered with while Redis is away. Who starts has been told nothing yet, and the clock of the next master
    /// may be behind. `now`: what the session is told by now.
    pub(super) fn unproven(&self, now: u64) -> u64 {
        self.resume_at.unwrap_or(if matches!(self.reply, Reply::Welcome(_)) { 0 } else { now })
    }

    /// Whether it was answered already.
    pub(super) fn is_given(&self) -> bool {
        matches!(self.reply, Reply::Given)
    }

    /// Whether marks must be read before it can be granted: it has none, or they were read before one of its topics was followed, and
    /// a live event may have come in between.
    pub(super) fn lacks_marks(&self, feeds: &Feeds) -> bool {
        self.marks_lacked_by(&self.requests, feeds)
    }

    fn marks_lacked_by(&self, requests: &[JoinRequest], feeds: &Feeds) -> bool {
        if self.resume_at.is_none() {
            return false;
        }
        let Some((read, _)) = &self.marks else { return true };
        requests
            .iter()
            .filter_map(|request| feeds.get(request.room()).filter(|feed| feed.is_live())?.confirmed())
            .any(|confirmed| *read <= confirmed)
            && !mutant::is("marks-first")
    }

    /// Whether live events of an area may have been published since the session's `at`. An `at` that Redis' clock has not reached
    /// yet proves nothing: the clock of a new master may be behind. `known`: the mark as this node knows it, which may be newer
    /// than the marks that were read.
    fn missed_live(&self, area: &str, known: Option<u64>) -> bool {
        let (Some(at), Some((_, marks))) = (self.resume_at, &self.marks) else { return false };
        marks.marks.get(area).copied().max(known).is_some_and(|mark| at < mark || at > marks.now)
    }

    /// Where the session stands in a room, and what it lacks; or why it must refetch.
    pub(super) fn verdict(
        &self,
        request: &JoinRequest,
        hub: &Hub,
        feeds: &mut Feeds,
        marks: &LiveMarks,
    ) -> Result<StartingPoint, Reason> {
        let subject = hub.subject(request.room()).cloned().ok_or(Reason::Gap)?;
        let marked = self.missed_live(subject.area(), marks.known().get(subject.area()));
        let Subject::Topic(topic) = subject else {
            let fresh = *request.asked() == Asked::Fresh;
            return if fresh {
                Ok(StartingPoint { position: None, replay: None, live: Vec::new() })
            } else {
                Err(request.asked().reason())
            };
        };
        let (position, replay) = match request.asked() {
            Asked::Fresh => (feeds.position(request.room()).ok_or(Reason::Gap)?, None),
            Asked::From(position) => match feeds.resume(request.room(), position).ok_or(Reason::Gap)? {
                Resumed::InStep => (position.clone(), None),
                Resumed::Replay(replay) => (position.clone(), Some(replay)),
                Resumed::Ahead | Resumed::OtherEpoch => return Err(Reason::LogReplaced),
                // It was read as often as it may be.
                Resumed::Read(_) => return Err(Reason::Gap),
                Resumed::Resync(reason) => return Err(reason),
            },
            Asked::NoPosition | Asked::Gap => return Err(request.asked().reason()),
        };
        let live =
            if marked { self.live_events(&topic, request.room(), feeds, marks) } else { Some(Vec::new()) };
        Ok(StartingPoint { position: Some((topic, position)), replay, live: live.ok_or(Reason::Live)? })
    }

    /// The live events of a topic that it lacks; `None` if this node cannot say.
    fn live_events(
        &self,
        topic: &Topic,
        room: RoomId,
        feeds: &Feeds,
        marks: &LiveMarks,
    ) -> Option<Vec<Frame>> {
        let (at, passed, (_, read)) = (self.resume_at?, self.passed.as_ref()?, self.marks.as_ref()?);
        let confirmed = feeds.get(room)?.confirmed()?;
        marks.missed(&Absence { topic, at, passed, confirmed, marked: 0 }, read)
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
