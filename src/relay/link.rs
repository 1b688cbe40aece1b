//! The link to Redis, as sessions are told of it, and how the relay gets back into step after it was lost.
//!
//! Up again means: every wanted subject is subscribed to and a probe has come back. Only then are heads compared, gaps
//! read, marks looked at, and only after that is `live:true` said.

use std::collections::BTreeSet;

use super::{
    Command,
    feed::State,
    question::{Place, Question},
    switch::Switch,
};
use crate::{
    bus::{BusError, Head, Link, Marks},
    hub::{MemberId, RoomId},
    protocol::{EntryId, NodeMessage, Reason, Subject, Topic, time},
};

/// The state of the link.
#[derive(Debug)]
pub(super) struct Connection {
    up: bool,
    /// Rooms that must get back into step before `live:true`; `None` when all are.
    settling: Option<BTreeSet<RoomId>>,
    /// Whether the heads of the whole link are being compared.
    asking: bool,
    since: u64,
    /// The last probe that came back over this link, ms of Redis' clock.
    proof: Option<u64>,
    /// Something was lost while heads were being compared: they are compared once more.
    again: bool,
    /// Heads that could not be read: asked for again with the next tick.
    later: Vec<Topic>,
}

impl Connection {
    pub(super) fn new(since: u64) -> Self {
        Self { up: false, settling: None, asking: false, since, proof: None, again: false, later: Vec::new() }
    }

    /// Whether the link is up.
    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// `live:true` need not wait for a room that Redis refuses.
    pub(super) fn excuse(&mut self, room: RoomId) {
        if let Some(rooms) = &mut self.settling {
            rooms.remove(&room);
        }
    }

    /// Whether the link is up and its heads have been compared.
    pub(super) fn is_settled(&self) -> bool {
        self.up && !self.asking
    }
}

impl Switch {
    pub(super) fn take_link(&mut self, link: Link) {
        match link {
            Link::Down { reason, .. } => self.lose_link(&reason),
            Link::Up => self.regain_link(),
        }
    }

    fn lose_link(&mut self, reason: &str) {
        self.generation = self.questions.latest();
        let was_live = self.is_live();
        self.connection.up = false;
        self.connection.settling = None;
        self.connection.asking = false;
        self.connection.proof = None;
        self.connection.again = false;
        self.connection.later.clear();
        self.opening = false;
        self.reads.clear();
        for join in self.joins.values_mut() {
            // What was read for it is lost with the link.
            join.reads = 0;
        }
        self.held.clear();
        self.forget_checks();
        self.forget_live();
        let lost_marks = std::mem::take(&mut self.mark_reads.0);
        self.mark_reads.1.extend(lost_marks);
        let mut rooms = Vec::new();
        for (room, feed) in &mut self.feeds {
            if feed.state != State::Opening {
                feed.state = State::Doubt;
            }
            rooms.push(*room);
        }
        for room in rooms {
            if matches!(self.hub.subject(room), Some(Subject::Every(_))) {
                self.owe_all(room, Reason::Gap);
            }
        }
        self.live = false;
        if was_live {
            self.connection.since = self.now.wall_ms;
            tracing::warn!(reason, "Redis is out of sight: sessions stay connected and are told");
            self.tell_status(false);
        }
        self.answer_all_without_redis();
    }

    fn regain_link(&mut self) {
        self.generation = self.questions.latest();
        self.connection.up = true;
        self.connection.asking = true;
        self.connection.settling = Some(self.feeds.keys().copied().collect());
        // What was not followed before is opened as always, after the rest: the bus does not know of it yet.
        let (opening, known): (Vec<_>, Vec<_>) =
            self.feeds.iter().partition(|(_, feed)| feed.state == State::Opening);
        self.to_open.extend(opening.into_iter().map(|(room, _)| *room));
        let known: Vec<RoomId> = known.into_iter().map(|(room, _)| *room).collect();
        self.compare(&known);
    }

    /// Reads the heads of rooms and all marks, and renews the marks that there are.
    fn compare(&mut self, rooms: &[RoomId]) {
        let topics = rooms.iter().filter_map(|room| self.topic_of(*room)).collect();
        self.look(topics);
    }

    fn look(&mut self, topics: Vec<Topic>) {
        let place = |topic: Topic| {
            let room = self.hub.find(&Subject::Topic(topic.clone()))?;
            let top = self.feeds.get(&room)?.head().map(|head| head.top);
            Some(Place { topic, top })
        };
        let places = topics.into_iter().filter_map(place).collect();
        self.ask(Question::Look(places));
    }

    /// Asks again for what could not be read.
    fn look_again(&mut self) {
        if self.connection.up && !self.connection.later.is_empty() {
            let topics = std::mem::take(&mut self.connection.later);
            self.look(topics);
        }
    }

    fn topic_of(&self, room: RoomId) -> Option<Topic> {
        match self.hub.subject(room)? {
            Subject::Topic(topic) => Some(topic.clone()),
            Subject::Every(_) => None,
        }
    }

    pub(super) fn take_looked(
        &mut self,
        heads: Vec<(Place, Result<Head, BusError>)>,
        marks: Result<Marks, BusError>,
    ) {
        let failed = heads.iter().find_map(|(_, head)| head.as_ref().err());
        if let Some(error) = failed.or(marks.as_ref().err()) {
            tracing::warn!(%error, "the heads of the followed topics cannot be read; trying again");
            self.connection.later.extend(heads.into_iter().map(|(place, _)| place.topic));
            return;
        }
        let Ok(marks) = marks else { return };
        let whole = std::mem::take(&mut self.connection.asking);
        self.learn_marks(&marks);
        for (place, head) in heads {
            let (Some(room), Ok(head)) = (self.hub.find(&Subject::Topic(place.topic)), head) else {
                continue;
            };
            self.compare_room(room, place.top, Some(head));
            self.owe_live(room, &marks.marks);
        }
        for room in self.doubtful_areas() {
            self.compare_room(room, None, None);
            self.owe_live(room, &marks.marks);
        }
        if whole {
            self.retry_joins();
        }
        self.end_settling();
        if std::mem::take(&mut self.connection.again) {
            self.doubt(None);
        }
    }

    /// Rooms of whole areas whose subscription may have lost something.
    fn doubtful_areas(&self) -> Vec<RoomId> {
        let doubtful = self.feeds.iter().filter(|(_, feed)| feed.state == State::Doubt);
        doubtful
            .map(|(room, _)| *room)
            .filter(|room| matches!(self.hub.subject(*room), Some(Subject::Every(_))))
            .collect()
    }

    fn compare_room(&mut self, room: RoomId, asked: Option<EntryId>, head: Option<Head>) {
        let Some(feed) = self.feeds.get_mut(&room) else { return };
        let Some(head) = head else {
            // `area:*` was subscribed to again with the link; who was in step is owed a `resync` already.
            feed.state = State::Live;
            self.owe_all(room, Reason::Gap);
            return;
        };
        match feed.compare_since(&head, asked) {
            Ok(true) => {
                feed.state = State::Live;
                self.release(room);
            }
            Ok(false) => {
                self.metrics.gaps.inc();
                if let Some(again) = self.reads.get_mut(&room) {
                    *again = true;
                }
                self.fill(room);
            }
            Err(reason) => {
                feed.start(head);
                self.owe_all(room, reason);
                self.release(room);
            }
        }
        self.wake_joins(room);
    }

    /// Says `live:true` when every room is in step.
    pub(super) fn end_settling(&mut self) {
        let Some(rooms) = &mut self.connection.settling else { return };
        if self.connection.asking {
            return;
        }
        let feeds = &self.feeds;
        rooms.retain(|room| feeds.get(room).is_some_and(|feed| feed.state != State::Live));
        if !rooms.is_empty() {
            return;
        }
        self.connection.settling = None;
        self.connection.since = self.now.wall_ms;
        self.live = true;
        if let Some(at) = self.connection.proof {
            self.prove(at);
        }
        self.pay_owed();
        tracing::info!(topics = self.feeds.len(), "Redis is in sight and all topics are in step");
        self.tell_status(true);
        self.retry_joins();
    }

    /// Tells everyone; who is about to get what it missed while Redis was away is told behind that.
    fn tell_status(&mut self, live: bool) {
        let mut later = BTreeSet::new();
        if live {
            later.extend(
                self.joins
                    .values()
                    .filter(|join| self.is_under_way(join))
                    .filter_map(|join| self.hub.member_of(join.outbox())),
            );
        }
        let members: Vec<MemberId> =
            self.hub.members().map(|(id, _)| id).filter(|id| !later.contains(id)).collect();
        for member in members {
            self.tell_live(member, live);
        }
    }

    /// Tells a member whether the node sees Redis, unless it knows.
    pub(super) fn tell_live(&mut self, id: MemberId, live: bool) {
        let since = time::rfc3339(self.connection.since);
        if let Some(member) = self.hub.member_mut(id).filter(|member| member.welcomed && member.live != live)
        {
            member.live = live;
            member.outbox.message(NodeMessage::Status { live, since });
        }
    }

    /// Messages of a subject (or of all) may be missing although the link is up.
    pub(super) fn doubt(&mut self, subject: Option<&Subject>) {
        if !self.connection.is_settled() {
            self.connection.again = self.connection.up;
            return;
        }
        let rooms: Vec<RoomId> = match subject {
            Some(subject) => self.hub.find(subject).into_iter().collect(),
            None => self.feeds.keys().copied().collect(),
        };
        for room in &rooms {
            if let Some(feed) = self.feeds.get_mut(room).filter(|feed| feed.state == State::Live) {
                feed.state = State::Doubt;
            }
        }
        let rooms =
            rooms.into_iter().filter(|room| self.feeds.get(room).is_some_and(|f| f.state != State::Opening));
        let rooms: Vec<RoomId> = rooms.collect();
        self.compare(&rooms);
    }

    /// A probe has come back: everything before it was handed over.
    pub(super) fn prove(&mut self, at: u64) {
        self.connection.proof = Some(at);
        if !self.is_live() || self.withholds_live() {
            return;
        }
        let behind: Vec<RoomId> =
            self.feeds.iter().filter(|(_, feed)| feed.state != State::Live).map(|(room, _)| *room).collect();
        let old = self.at();
        for room in behind {
            // Who follows what is not in step is not told everything: the others are.
            for member in self.hub.followers(room) {
                if self.hub.member(member).is_some_and(|member| member.welcomed) {
                    self.hub.freeze(member, Some(old));
                    self.owed.insert(member);
                }
            }
        }
        self.at = at;
        self.check_suspects();
    }

    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Connect { outbox, welcome, proof, request } => {
                self.connect(outbox, welcome, proof, &request);
            }
            Command::Renew { outbox, proof } => self.renew(&outbox, proof),
            Command::Subscribe { outbox, request } => self.subscribe(outbox, &request),
            Command::Unsubscribe { outbox, subjects } => self.unsubscribe(&outbox, &subjects),
            Command::Ping(outbox) => {
                let at =
                    self.hub.member_of(&outbox).map_or_else(|| self.at(), |member| self.member_at(member));
                outbox.message(NodeMessage::Pong { at });
            }
            Command::Drained(outbox) => self.drained(&outbox),
            Command::Leave(outbox) => {
                if let Some(member) = self.hub.member_of(&outbox) {
                    self.owed.remove(&member);
                    let empty = self.hub.dismiss(member);
                    self.left_empty(empty);
                }
            }
        }
    }

    fn unsubscribe(&mut self, outbox: &std::sync::Arc<crate::hub::Outbox>, subjects: &[Subject]) {
        let Some(member) = self.hub.member_of(outbox) else { return };
        let mut gone = Vec::new();
        for subject in subjects {
            let Some(room) = self.hub.find(subject).filter(|room| self.hub.follow(member, *room).is_some())
            else {
                continue;
            };
            if *subject == Subject::Topic(subject.wide()) {
                self.hub.make_implied(member, room);
            } else {
                self.hub.leave(member, room);
                gone.push(subject.clone());
                self.left_empty_one(room);
            }
        }
        let areas: BTreeSet<Topic> = subjects.iter().map(Subject::wide).collect();
        for wide in areas {
            if let Some(room) = self.implied_no_longer(member, &wide) {
                self.hub.leave(member, room);
                gone.push(Subject::Topic(wide));
                self.left_empty_one(room);
            }
        }
        outbox.message(NodeMessage::Unsubscribed { topics: gone });
    }

    /// The area-wide room that a member stands in for no reason any more.
    fn implied_no_longer(&self, id: MemberId, wide: &Topic) -> Option<RoomId> {
        let room = self.hub.find(&Subject::Topic(wide.clone()))?;
        if self.hub.follow(id, room)?.explicit {
            return None;
        }
        let member = self.hub.member(id)?;
        let implied = member.follows.iter().any(|follow| {
            follow.room != room
                && self.hub.subject(follow.room).is_some_and(|subject| subject.wide() == *wide)
        });
        (!implied).then_some(room)
    }

    fn left_empty_one(&mut self, room: RoomId) {
        if self.hub.is_empty(room) {
            self.left_empty(vec![room]);
        }
    }

    pub(super) fn tick_link(&mut self, chance: f64) {
        self.look_again();
        self.retry_reads();
        self.check_heads(chance);
    }
}
