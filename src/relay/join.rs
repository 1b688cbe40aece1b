//! Joining: how a session that connects, subscribes or comes back gets in step.
//!
//! A join waits until every topic it names is live and its log, where something is missing, has been read. Then, in one
//! go: the answer with positions, the `resync`s, the missed events, and from there on the live stream. While Redis is away
//! the answer goes out at once, and the rest when Redis is back.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Request,
    feed::{Feed, Resumed, State},
    switch::Switch,
};
use crate::{
    bus::Marks,
    hub::{MemberId, Outbox, Replay, RoomId},
    protocol::{
        NodeMessage, Position, Reason, Refused, Resume, Subject, Topic,
        message::{Positions, Welcome},
    },
};

/// How long a session waits for its answer before it gets one without positions.
const PATIENCE: Duration = Duration::from_secs(5);
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

/// The answer that a join is owed.
#[derive(Debug)]
pub(super) enum Reply {
    Welcome(Box<Welcome>),
    Subscribed(Vec<Refused>),
    /// It was answered while Redis was away.
    Given,
}

/// A session on its way into step.
#[derive(Debug)]
pub(super) struct Join {
    outbox: Arc<Outbox>,
    reply: Reply,
    asked: Vec<(RoomId, Asked)>,
    /// Followed already: only their positions are repeated.
    known: Vec<RoomId>,
    /// The `at` of a session that comes back; `None` for one that starts.
    resume_at: Option<u64>,
    /// Marks that were read after the session came back.
    pub(super) marks: Option<Arc<Marks>>,
    /// When the answer goes out in any case.
    until: Instant,
    /// How often a log was read for its sake.
    pub(super) reads: u8,
}

impl Switch {
    pub(super) fn subscribe(&mut self, outbox: Arc<Outbox>, request: &Request) {
        let Some(member) = self.hub.member_of(&outbox) else { return outbox.answered() };
        let reply = Reply::Subscribed(request.refused.clone());
        self.join(member, outbox, reply, request);
    }

    pub(super) fn join(&mut self, member: MemberId, outbox: Arc<Outbox>, reply: Reply, request: &Request) {
        let mut join = Join {
            outbox,
            reply,
            asked: Vec::new(),
            known: Vec::new(),
            resume_at: request.resume.as_ref().map(|resume| resume.at.unwrap_or(0)),
            marks: None,
            until: self.now.instant + PATIENCE,
            reads: 0,
        };
        for subject in &request.subjects {
            self.enter(member, &mut join, subject, true, request.resume.as_ref());
        }
        for subject in &request.subjects {
            self.enter(member, &mut join, &Subject::Topic(subject.wide()), false, request.resume.as_ref());
        }
        if !self.connection.is_up() {
            self.answer_without_redis(member, &mut join);
        }
        let wants_marks = join.resume_at.is_some();
        self.next_join += 1;
        let id = self.next_join;
        self.joins.insert(id, join);
        if wants_marks {
            self.mark_reads.1.push(id);
            self.read_marks();
        } else {
            self.try_finish(id);
        }
    }

    fn enter(
        &mut self,
        id: MemberId,
        join: &mut Join,
        subject: &Subject,
        explicit: bool,
        resume: Option<&Resume>,
    ) {
        let room = self.hub.room(subject);
        self.idle.remove(&room);
        self.to_close.remove(&room);
        let longest = self.settings.log_length;
        self.feeds.entry(room).or_insert_with(|| {
            self.to_open.insert(room);
            Feed::opening(longest)
        });
        if !self.hub.enter(id, room, explicit, resume.is_none()) {
            if !join.known.contains(&room) && join.asked.iter().all(|(asked, _)| *asked != room) {
                join.known.push(room);
            }
            return;
        }
        let asked = match (resume, subject) {
            (None, _) => Asked::Fresh,
            (Some(_), Subject::Every(_)) => Asked::NoPosition,
            (Some(resume), Subject::Topic(topic)) => {
                match resume.positions.get(topic.as_str()).map(|p| p.parse()) {
                    Some(Ok(position)) => Asked::From(position),
                    None if resume.away => Asked::Gap,
                    _ => Asked::NoPosition,
                }
            }
        };
        join.asked.push((room, asked));
    }

    /// Welcomed while Redis is away: without positions. What is owed comes when Redis is back.
    fn answer_without_redis(&mut self, member: MemberId, join: &mut Join) {
        let at = join.resume_at.unwrap_or_else(|| self.at());
        self.reply(member, join, at, Positions::default(), false);
        for (_, asked) in &mut join.asked {
            if matches!(asked, Asked::Fresh | Asked::NoPosition) {
                *asked = Asked::Gap;
            }
        }
        self.hub.freeze(member, Some(at));
    }

    fn reply(&mut self, member: MemberId, join: &mut Join, at: u64, positions: Positions, live: bool) {
        match std::mem::replace(&mut join.reply, Reply::Given) {
            Reply::Welcome(mut welcome) => {
                welcome.at = at;
                welcome.positions = positions;
                welcome.live = live;
                join.outbox.message(NodeMessage::Welcome(welcome));
                if let Some(member) = self.hub.member_mut(member) {
                    member.welcomed = true;
                    member.live = live;
                }
            }
            Reply::Subscribed(refused) => {
                join.outbox.message(NodeMessage::Subscribed { at, positions, refused });
            }
            Reply::Given => return,
        }
        join.outbox.answered();
    }

    /// Goes on with the joins that wait for a room.
    pub(super) fn wake_joins(&mut self, room: RoomId) {
        for id in self.waiting.remove(&room).unwrap_or_default() {
            self.try_finish(id);
        }
    }

    /// Finishes a join, or leaves it waiting for the first room that is not ready.
    pub(super) fn try_finish(&mut self, id: u64) {
        let Some(join) = self.joins.get(&id) else { return };
        let Some(member) = self.hub.member_of(&join.outbox) else {
            self.joins.remove(&id);
            return;
        };
        if join.resume_at.is_some() && join.marks.is_none() {
            // The read of the marks goes on with it.
            return;
        }
        let unready = join.asked.iter().map(|(room, asked)| (*room, asked.clone()));
        let unready = unready.filter(|(room, _)| self.is_waiting(member, *room)).collect::<Vec<_>>();
        for (room, asked) in unready {
            if !self.is_ready(id, room, &asked) {
                self.waiting.entry(room).or_default().push(id);
                return;
            }
        }
        if let Some(join) = self.joins.remove(&id) {
            self.finish(member, join);
        }
    }

    /// Whether a room can be joined now; starts what is needed for it.
    fn is_ready(&mut self, id: u64, room: RoomId, asked: &Asked) -> bool {
        let (Some(feed), Some(join)) = (self.feeds.get_mut(&room), self.joins.get_mut(&id)) else {
            return true;
        };
        if feed.state != State::Live || !self.connection.is_settled() {
            return false;
        }
        let Asked::From(position) = asked else { return true };
        let seq = match feed.resume(position) {
            Resumed::Read(seq) => seq,
            Resumed::Ahead => feed.position().map_or(0, |position| position.id.seq),
            _ => return true,
        };
        // Whomever it is for, it may show what is missing.
        if self.reads.contains_key(&room) {
            return false;
        }
        // A third one would show nothing new.
        if join.reads >= 2 * join.asked.len().min(100) as u8 {
            return true;
        }
        join.reads += 1;
        self.read_log(room, seq);
        false
    }

    fn finish(&mut self, member: MemberId, mut join: Join) {
        let mut positions = Vec::new();
        let mut replays = Vec::new();
        let mut owed: BTreeMap<Reason, Vec<RoomId>> = BTreeMap::new();
        for (room, asked) in std::mem::take(&mut join.asked) {
            if !self.is_waiting(member, room) {
                continue;
            }
            match self.verdict(&join, room, &asked) {
                Ok((position, replay)) => {
                    let head = self.feeds.get(&room).and_then(Feed::position).map_or(0, |p| p.id.seq);
                    let from = position.as_ref().map_or(head, |(_, position)| position.id.seq);
                    self.hub.put_in_step(member, room, from, head);
                    positions.extend(position);
                    replays.extend(replay);
                }
                Err(reason) => {
                    self.hub.owe(member, room, reason);
                    owed.entry(reason).or_default().push(room);
                }
            }
        }
        positions.extend(join.known.iter().filter_map(|room| self.known_position(member, *room)));
        let pending = self
            .hub
            .member(member)
            .is_some_and(|m| m.follows.iter().any(|f| !self.is_told_everything(member, f.room)));
        let caught_up = owed.is_empty() && replays.is_empty() && !pending;
        let at = if caught_up { self.at() } else { join.resume_at.unwrap_or_else(|| self.member_at(member)) };
        self.reply(member, &mut join, at, Positions(positions), self.is_live());
        if pending {
            self.hub.freeze(member, Some(at));
        } else if self.hub.member(member).is_some_and(|m| m.at.is_some()) && owed.is_empty() {
            self.hub.freeze(member, None);
        }
        if !owed.is_empty() {
            self.owed.insert(member);
            let spread = self.spread_for(1);
            self.pay(member, spread);
        }
        for replay in replays {
            self.metrics.backfilled.inc_by(replay.len() as u64);
            join.outbox.replay(replay);
        }
        // Welcomed while Redis was away, and now it has what it was owed.
        if self.is_live() {
            self.tell_live(member, true);
        }
    }

    /// Where a session stands in a room that it joins, and what it lacks; or why it must refetch.
    #[expect(clippy::type_complexity, reason = "used in one place, and named by its parts there")]
    fn verdict(
        &mut self,
        join: &Join,
        room: RoomId,
        asked: &Asked,
    ) -> Result<(Option<(Topic, Position)>, Option<Replay>), Reason> {
        let subject = self.hub.subject(room).cloned().ok_or(Reason::Gap)?;
        let marked = join.missed_live(subject.area(), self.known_mark(subject.area()));
        let Subject::Topic(topic) = subject else {
            return if *asked == Asked::Fresh { Ok((None, None)) } else { Err(asked.reason()) };
        };
        let feed = self.feeds.get_mut(&room).ok_or(Reason::Gap)?;
        let (position, replay) = match asked {
            Asked::Fresh => (feed.position().ok_or(Reason::Gap)?, None),
            Asked::From(position) => match feed.resume(position) {
                Resumed::InStep => (position.clone(), None),
                Resumed::Replay(replay) => (position.clone(), Some(replay)),
                Resumed::Ahead => return Err(Reason::LogReplaced),
                Resumed::Read(_) => return Err(Reason::Gap),
                Resumed::Resync(reason) => return Err(reason),
            },
            Asked::NoPosition | Asked::Gap => return Err(asked.reason()),
        };
        if marked {
            return Err(Reason::Live);
        }
        if replay.is_some() {
            self.metrics.tail_replays.inc();
        }
        Ok((Some((topic, position)), replay))
    }

    fn known_position(&self, member: MemberId, room: RoomId) -> Option<(Topic, Position)> {
        let Some(Subject::Topic(topic)) = self.hub.subject(room) else { return None };
        if self.hub.standing(member, room) != Some(crate::hub::Standing::InStep) {
            return None;
        }
        Some((topic.clone(), self.feeds.get(&room)?.position()?))
    }

    /// The `at` that a member's messages carry.
    pub(super) fn member_at(&self, member: MemberId) -> u64 {
        self.hub.member(member).and_then(|member| member.at).unwrap_or_else(|| self.at())
    }

    /// Whether a join waits only for what is being read, and not for a topic that cannot be followed.
    pub(super) fn is_under_way(&self, join: &Join) -> bool {
        let opening = |room: &RoomId| self.feeds.get(room).is_some_and(|feed| feed.state == State::Opening);
        !join.asked.iter().any(|(room, _)| opening(room))
    }

    /// Answers joins that have waited too long, without positions.
    pub(super) fn give_up_waiting(&mut self, now: Instant) {
        self.answer_without_positions(|join| join.until <= now);
    }

    /// While Redis is away nobody waits for an answer.
    pub(super) fn answer_all_without_redis(&mut self) {
        self.waiting.clear();
        self.answer_without_positions(|_| true);
    }

    fn answer_without_positions(&mut self, due: impl Fn(&Join) -> bool) {
        let unanswered = |join: &Join| !matches!(join.reply, Reply::Given) && due(join);
        let ids: Vec<u64> =
            self.joins.iter().filter(|(_, join)| unanswered(join)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(mut join) = self.joins.remove(&id) else { continue };
            if let Some(member) = self.hub.member_of(&join.outbox) {
                self.answer_without_redis(member, &mut join);
                self.joins.insert(id, join);
            }
        }
    }

    /// Tries all joins again.
    pub(super) fn retry_joins(&mut self) {
        self.waiting.clear();
        let ids: Vec<u64> = self.joins.keys().copied().collect();
        for id in ids {
            self.try_finish(id);
        }
        self.read_marks();
    }
}

impl Join {
    pub(super) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Whether live events of an area may have been published since the session was last told everything. An `at` that
    /// Redis' clock has not reached yet proves nothing: the clock of a new master may be behind.
    /// `known`: the mark as this node knows it, which may have been written after the marks were read.
    fn missed_live(&self, area: &str, known: Option<u64>) -> bool {
        let (Some(at), Some(marks)) = (self.resume_at, &self.marks) else { return false };
        marks.marks.get(area).copied().max(known).is_some_and(|mark| at < mark || at > marks.now)
    }
}

impl Asked {
    fn reason(&self) -> Reason {
        if *self == Self::NoPosition { Reason::NoPosition } else { Reason::Gap }
    }
}
