//! Joining: how sessions that connect, subscribe or come back get in step.
//!
//! A join waits until every topic it names is live, its log, where something is missing, has been read, and the marks
//! have been read after that. Then, in one go: the answer with positions, the `resync`s, the missed events, and from
//! there on the live stream. While Redis is away the answer goes out at once, and the rest when Redis is back; a topic
//! that Redis refuses does not hold up the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::{
    Request,
    feeds::Feeds,
    interest::Interest,
    join::{Attempt, Join, Reply, StartingPoint},
    join_request::{Asked, JoinRequest},
    link::Link,
    marks::LiveMarks,
    question::{Question, Questions, Stamp, is_refusal},
    resyncs::PendingResyncs,
    sources::LateSources,
    status, verdicts,
};
use crate::{
    bus::{BusError, Marks},
    hub::{Entrance, Hub, MemberId, Outbox, Replay, RoomId, Standing},
    metrics::Metrics,
    mutant,
    protocol::{Position, Subject, Topic, message::Positions},
};

/// How long a session waits for its answer before it gets one without all positions.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long after Redis has refused marks every node has written those for which it withheld events: each tries every second. Before
/// that, a session that comes from another node could not be told what was withheld there.
const CAUGHT_UP: Duration = Duration::from_secs(3);

/// The parts that a join touches.
#[derive(Debug)]
pub(super) struct JoinContext<'a> {
    pub(super) hub: &'a mut Hub,
    pub(super) feeds: &'a mut Feeds,
    pub(super) link: &'a Link,
    pub(super) marks: &'a LiveMarks,
    pub(super) sources: &'a LateSources,
    pub(super) resyncs: &'a mut PendingResyncs,
    pub(super) metrics: &'a Metrics,
}

/// All joins.
#[derive(Debug, Default)]
pub(super) struct Joins {
    by_id: BTreeMap<u64, Join>,
    last: u64,
    /// The joins that wait for a room.
    waiting: FxHashMap<RoomId, BTreeSet<u64>>,
    /// Joins that wait for the read of marks that is under way.
    reading: Option<(Stamp, BTreeSet<u64>)>,
    /// Joins that wait for the next read.
    next_read: BTreeSet<u64>,
    /// The last read was refused, or did not count: the next one waits for the next tick.
    paused: bool,
    /// When Redis last refused to show the marks.
    refused: Option<Instant>,
}

impl Joins {
    /// Takes in what a member asks to follow; the join is to be tried.
    pub(super) fn add(
        &mut self,
        member: MemberId,
        outbox: Arc<Outbox>,
        reply: Reply,
        request: &Request,
        now: Instant,
        (hub, feeds, interest): (&mut Hub, &mut Feeds, &mut Interest),
    ) -> u64 {
        self.last += 1;
        let ticket = self.last as u32;
        let resume = request.resume.as_ref();
        let (mut requests, mut known) = (Vec::new(), Vec::new());
        let explicit = request.subjects.iter().map(|subject| (subject.clone(), true));
        let implied = request.subjects.iter().map(|subject| (Subject::Topic(subject.wide()), false));
        for (subject, explicit) in explicit.chain(implied) {
            let room = hub.room(&subject);
            interest.enter(room);
            if feeds.open(room, &subject) {
                interest.open([room]);
            }
            if hub.enter(member, room, Entrance { explicit, fresh: resume.is_none(), ticket }) {
                requests.push(JoinRequest::new(room, Asked::by(&subject, resume)));
            } else if !hub.is_waiting(member, room, ticket) {
                known.push(room);
            }
        }
        let join = Join::new((outbox, reply), requests, known, resume, now + PATIENCE);
        self.by_id.insert(self.last, join);
        self.last
    }

    /// Tries a join: it is finished, or left waiting for the first thing that is not ready.
    pub(super) fn attempt(&mut self, id: u64, around: &mut JoinContext<'_>) -> Attempt {
        let attempt = self.try_to_finish(id, around);
        verdicts::count(attempt.name());
        attempt
    }

    fn try_to_finish(&mut self, id: u64, around: &mut JoinContext<'_>) -> Attempt {
        let Some(join) = self.by_id.get_mut(&id) else { return Attempt::Gone };
        let Some(member) = join.member(around.hub) else {
            self.by_id.remove(&id);
            return Attempt::Gone;
        };
        if !around.link.is_settled() {
            return Attempt::Link;
        }
        if let Some(attempt) = join.held_up(id as u32, member, around.hub, around.feeds) {
            if let Attempt::Waits(room) | Attempt::Read(room) = attempt {
                wait(&mut self.waiting, room, id);
            }
            return attempt;
        }
        if join.lacks_marks(around.feeds) {
            self.next_read.insert(id);
            return Attempt::Marks;
        }
        self.finish(id, member, around);
        Attempt::Done
    }

    /// Joins that wait for a room, to be tried: it has changed.
    pub(super) fn waiting_for(&mut self, room: RoomId) -> BTreeSet<u64> {
        self.waiting.remove(&room).unwrap_or_default()
    }

    /// The joins of one session that wait for one of these rooms, to be tried.
    pub(super) fn waiting_of(&self, outbox: &Arc<Outbox>, rooms: &[RoomId]) -> BTreeSet<u64> {
        let ids = rooms.iter().filter_map(|room| self.waiting.get(room)).flatten().copied();
        ids.filter(|id| self.by_id.get(id).is_some_and(|join| join.is_of(outbox))).collect()
    }

    /// A log could not be read: that read does not count.
    pub(super) fn read_failed(&mut self, room: RoomId) {
        for id in self.waiting.get(&room).into_iter().flatten() {
            if let Some(join) = self.by_id.get_mut(id).filter(|_| !mutant::is("read-failed")) {
                join.read_failed(room);
            }
        }
    }

    /// All joins, to be tried: the link has changed.
    pub(super) fn all(&mut self) -> Vec<u64> {
        self.waiting.clear();
        self.by_id.keys().copied().collect()
    }

    /// Puts a member in step in all rooms of a join that are ready, and answers it; the others go on waiting.
    fn finish(&mut self, id: u64, member: MemberId, around: &mut JoinContext<'_>) {
        let Some(mut join) = self.by_id.remove(&id) else { return };
        let (ready, later, lacks_marks) = join.take_requests(id as u32, member, around.hub, around.feeds);
        let (mut positions, mut replays, mut live_events) = (Vec::new(), Vec::new(), Vec::new());
        let mut owes = false;
        for request in ready {
            match join.verdict(&request, around.hub, around.feeds, around.marks) {
                Ok(StartingPoint { position, replay, live }) => {
                    let head = around.feeds.top(request.room()).map_or(0, |top| top.seq);
                    let from = position.as_ref().map_or(head, |(_, position)| position.id.seq);
                    around.hub.put_in_step(member, request.room(), from, head);
                    positions.extend(position);
                    replays.extend(replay);
                    live_events.push(live);
                }
                Err(reason) => {
                    around.hub.owe(member, request.room(), reason);
                    owes = true;
                }
            }
        }
        positions.extend(join.known().iter().filter_map(|room| known_position(member, *room, around)));
        let standings = around.hub.standings(member);
        let pending = lacks_something(&standings, around.feeds);
        live_events.retain(|events| !events.is_empty());
        let caught_up = replays.is_empty() && live_events.is_empty() && !pending;
        let back = proof_of_return(&join, member, around);
        let at = if caught_up { around.link.at() } else { back };
        let lacks_live = status::lacks_live(member, around.hub, around.marks);
        let live = around.link.is_live() && later.is_empty() && !lacks_live;
        if join.answer(at, Positions(positions), live, around.sources) {
            welcomed(member, live, around.hub);
        }
        // Live events come first, with the `at` that the session brought: what follows them may claim a later one.
        let live_events = live_events.into_iter().map(|events| {
            let count = events.len();
            Replay::new(events.into(), 0, count).held_back(Some(back))
        });
        join.replay(live_events, around.metrics);
        if pending {
            around.hub.hold_back(member, at);
        } else if !owes {
            around.hub.freeze(member, None);
        }
        if owes {
            around.resyncs.pay_one(member, around.hub, around.feeds, around.link, around.metrics);
        }
        // While a member waits for anything, its replay claims no later `at` either.
        let held = around.hub.member(member).and_then(|member| member.at);
        join.replay(replays.into_iter().map(|replay| replay.held_back(held)), around.metrics);
        if around.link.is_live() {
            let complete = status::is_complete(member, around.hub, around.feeds, around.marks);
            if complete || lacks_live || !later.is_empty() {
                status::tell(member, complete, around.hub, around.link, around.sources);
            }
        }
        if !later.is_empty() && !mutant::is("late-answer") {
            self.go_on(id, join, later, lacks_marks);
        }
    }

    /// Lets a join wait for the rooms that were not ready.
    fn go_on(&mut self, id: u64, mut join: Join, later: Vec<JoinRequest>, lacks_marks: bool) {
        join.wait_for(later);
        for room in join.rooms() {
            wait(&mut self.waiting, room, id);
        }
        if lacks_marks {
            self.next_read.insert(id);
        }
        self.by_id.insert(id, join);
    }

    /// Answers joins that have waited too long, with what is ready.
    pub(super) fn give_up(&mut self, now: Instant, around: &mut JoinContext<'_>) {
        if !around.link.is_settled() {
            return self.answer_without_redis(around, |join| join.is_overdue(now));
        }
        let due = self.by_id.iter().filter(|(_, join)| join.is_overdue(now));
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(join) = self.by_id.get(&id) else { continue };
            match join.member(around.hub) {
                Some(member) => self.finish(id, member, around),
                None => drop(self.by_id.remove(&id)),
            }
        }
    }

    /// While Redis is away nobody waits for an answer.
    pub(super) fn answer_all_without_redis(&mut self, around: &mut JoinContext<'_>) {
        self.answer_without_redis(around, |_| true);
    }

    fn answer_without_redis(&mut self, around: &mut JoinContext<'_>, due: impl Fn(&Join) -> bool) {
        for join in self.by_id.values_mut().filter(|join| !join.is_given() && due(join)) {
            let Some(member) = join.member(around.hub) else { continue };
            let at = join.unproven(around.hub.at_of(member, around.link.at()));
            if join.answer(at, Positions::default(), false, around.sources) {
                welcomed(member, false, around.hub);
            }
            join.unanswered();
            around.hub.hold_back(member, at);
        }
    }

    /// The link is lost, and with it every answer that is due.
    pub(super) fn interrupt(&mut self) {
        for join in self.by_id.values_mut() {
            join.interrupt();
        }
        if let Some((_, ids)) = self.reading.take() {
            self.next_read.extend(ids);
        }
        self.waiting.clear();
        self.paused = false;
    }

    /// A second has passed: what was refused is asked for again, and who has left is forgotten.
    pub(super) fn tick(&mut self, hub: &Hub) {
        self.paused = false;
        self.by_id.retain(|_, join| join.member(hub).is_some());
    }

    /// Reads the marks for those who need them: one read at a time, for all who came before it started.
    pub(super) fn ask(&mut self, link: &Link, questions: &mut Questions) {
        if self.reading.is_none() && !self.next_read.is_empty() && link.is_settled() && !self.paused {
            let ids = std::mem::take(&mut self.next_read);
            self.reading = Some((questions.ask(Question::Marks), ids));
        }
    }

    /// Takes the marks; returns the joins that have waited for them, to be tried.
    pub(super) fn take_marks(
        &mut self,
        stamp: Stamp,
        marks: Result<Marks, BusError>,
        known: &LiveMarks,
        now: Instant,
    ) -> BTreeSet<u64> {
        let Some((_, ids)) = self.reading.take_if(|(reading, _)| *reading == stamp) else {
            return BTreeSet::new();
        };
        match marks {
            Ok(marks) => {
                known.learn(&marks);
                if self.refused.is_some_and(|refused| now < refused + CAUGHT_UP) {
                    self.next_read.extend(ids);
                    self.paused = true;
                    return BTreeSet::new();
                }
                let marks = Arc::new(marks);
                for id in &ids {
                    if let Some(join) = self.by_id.get_mut(id) {
                        join.learn(stamp, &marks);
                    }
                }
                ids
            }
            Err(error) => {
                tracing::warn!(%error, "the marks of live events cannot be read; trying again");
                if is_refusal(&error) {
                    self.refused = Some(now);
                }
                if !mutant::is("marks-retry") {
                    self.next_read.extend(ids);
                }
                self.paused = true;
                BTreeSet::new()
            }
        }
    }
}

fn wait(waiting: &mut FxHashMap<RoomId, BTreeSet<u64>>, room: RoomId, id: u64) {
    waiting.entry(room).or_default().insert(id);
}

fn welcomed(member: MemberId, live: bool, hub: &mut Hub) {
    if let Some(member) = hub.member_mut(member) {
        member.welcomed = true;
        member.live = live;
    }
}

/// Whether something has yet to be said of a room that a member stands in so.
fn lacks_something(standings: &[(RoomId, Standing)], feeds: &Feeds) -> bool {
    standings.iter().any(|(room, standing)| *standing != Standing::InStep || !feeds.is_live(*room))
}

/// The `at` that a session which comes back is answered with: where its own is later than what it is told here, the earlier one.
fn proof_of_return(join: &Join, member: MemberId, around: &JoinContext<'_>) -> u64 {
    let told = around.hub.at_of(member, around.link.at());
    let frozen = around.hub.member(member).and_then(|member| member.at);
    join.resume_at().map_or(told, |at| frozen.map_or(at, |frozen| frozen.min(at)))
}

fn known_position(member: MemberId, room: RoomId, around: &JoinContext<'_>) -> Option<(Topic, Position)> {
    let Some(Subject::Topic(topic)) = around.hub.subject(room) else { return None };
    if around.hub.standing(member, room) != Some(Standing::InStep) {
        return None;
    }
    Some((topic.clone(), around.feeds.position(room)?))
}
