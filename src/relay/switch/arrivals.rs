//! What arrives from the bus, in order: deliveries, proofs, doubts, and the link itself.

use std::time::Instant;

use super::Switch;
use crate::{
    bus::{self, BusEvent, Content, Delivery},
    hub::RoomId,
    mutant,
    protocol::{EntryId, Event, NodeMessage, Reason, Subject, Topic},
    relay::{
        area_progress::AreaVerdict, deliveries::AreaEvent, feed::Arrival, joins::Joins,
        probe_echo::ProbeEcho, status,
    },
};

/// Bytes of deliveries in one turn, well below any outbox's bound.
const BATCH_BYTES: usize = 65_536;

impl Switch {
    pub(super) fn take_events(&mut self, batch: &mut Vec<BusEvent>) {
        let mut waiting = 0;
        let lone = batch.len() == 1;
        if !lone {
            self.touch(batch);
        }
        for event in batch.drain(..) {
            match event {
                BusEvent::Delivery(delivery) => {
                    if let Content::Recorded(_, event) | Content::Live(event) = &delivery.content {
                        self.flush_beyond(&mut waiting, Some(event));
                    }
                    self.take_delivery(delivery, lone);
                }
                other => {
                    self.hub.flush();
                    match other {
                        BusEvent::Proof { at, asked } => self.prove(at, asked),
                        BusEvent::Link(bus::LinkChange::Down { reason, .. }) => self.lose_link(&reason),
                        BusEvent::Link(bus::LinkChange::Up) => self.regain_link(),
                        BusEvent::Doubt(subject) => self.doubt(subject.as_ref()),
                        BusEvent::Refused(subject) => self.refuse(&subject),
                        BusEvent::Revoked { orders, heard } => {
                            for member in self.last_look.revoke(&orders, heard, &self.hub) {
                                self.dismiss(member);
                            }
                        }
                        BusEvent::Adopted { areas, log_ttl } => {
                            self.head_check.keep_alive(log_ttl);
                            self.end_areas(&areas);
                        }
                        BusEvent::Fatal(reason) => self.turn.fatal = Some(reason),
                        BusEvent::Delivery(_) => {}
                    }
                    self.deliveries.begin(self.turn.now, self.link.at());
                }
            }
        }
    }

    /// Before another event is delivered in this turn: writes those that wait, where they are many. No outbox shall run over
    /// with what its session could have had. `waiting`: how many bytes they have, counted from one call to the next.
    pub(super) fn flush_beyond(&mut self, waiting: &mut usize, next: Option<&Event>) {
        if *waiting > BATCH_BYTES {
            self.hub.flush();
            *waiting = 0;
        }
        *waiting += next.map_or(0, |event| event.json().len());
    }

    /// Looks once at what the deliveries of a batch will need, and changes nothing. With thousands of topics all of it is in memory
    /// that no cache has: one after the other, each event would wait for that several times, and so they wait together.
    fn touch(&mut self, batch: &[BusEvent]) {
        self.turn.touched.clear();
        self.turn.touched.extend(batch.iter().filter_map(|event| match event {
            BusEvent::Delivery(delivery) => self.hub.find_topic(&delivery.topic),
            _ => None,
        }));
        let feeds = self.turn.touched.iter().map(|room| self.feeds.touch(*room)).fold(0, u64::wrapping_add);
        let followers = self.turn.touched.iter().map(|room| self.hub.touch(*room)).fold(0, u64::wrapping_add);
        std::hint::black_box(feeds ^ followers);
    }

    fn take_delivery(&mut self, delivery: Delivery, lone: bool) {
        let topic = delivery.topic;
        match delivery.content {
            Content::Live(event) => {
                let now = self.turn.now.instant;
                if let Some(event) = self.marks.take(&topic, event, now, &mut self.turn.questions) {
                    self.pass_live(&topic, &event, lone);
                }
            }
            Content::Recorded(id, event) => self.take_recorded(&topic, id, Some(event), lone),
            Content::Invalid(id) => self.take_recorded(&topic, id, None, lone),
            Content::Erased(id) => self.take_erased(&topic, id),
        }
    }

    /// A recorded message from the wire; `None` for what is not an event.
    fn take_recorded(&mut self, topic: &Topic, id: EntryId, event: Option<Event>, lone: bool) {
        let room = self.hub.find_topic(topic);
        let every = self.hub.every(topic);
        let Some(room) = room else {
            if let Some(every) = every.filter(|_| self.feeds.first_without_feed(topic, id)) {
                self.pass_every(every, topic, None, (id, event), lone);
            }
            return;
        };
        let verdict = self.feeds.by_wire(room, id);
        let wide = every.filter(|_| verdict == AreaVerdict::Pass).map(|every| (every, event.clone()));
        let (at, now) = (self.link.at(), self.turn.now.instant);
        let arrival = self.feeds.arrive(room, topic, (id, event), at, now);
        if matches!(arrival, Arrival::Read(_)) {
            self.marks.lose(true, &mut self.turn.questions);
        }
        // A message that shows a gap or another log leads to a `resync`; the event itself would come before that.
        let told = matches!(arrival, Arrival::Read(_) | Arrival::Replaced(_) | Arrival::Earlier);
        if let Some((every, event)) = wide.filter(|_| !told || mutant::is("area-first")) {
            self.pass_every(every, topic, Some(room), (id, event), lone);
        }
        if verdict == AreaVerdict::Gap {
            self.doubt_every(topic);
        }
        let replaced = matches!(arrival, Arrival::Replaced(_));
        self.follow(room, topic, arrival, lone);
        if replaced {
            self.wake(room);
        }
    }

    /// The log was erased: it is another one from now on, for those who follow the whole area too.
    fn take_erased(&mut self, topic: &Topic, id: EntryId) {
        if let Some(every) = self.hub.every(topic) {
            self.resyncs.owe_all(&mut self.hub, every, Reason::LogReplaced);
        }
        let Some(room) = self.hub.find_topic(topic) else { return };
        let (at, now) = (self.link.at(), self.turn.now.instant);
        let arrival = self.feeds.arrive(room, topic, (id, None), at, now);
        self.follow(room, topic, arrival, false);
        self.wake(room);
    }

    /// Hands a recorded message to those who follow the whole area.
    pub(super) fn pass_every(
        &mut self,
        every: RoomId,
        topic: &Topic,
        room: Option<RoomId>,
        (id, event): (EntryId, Option<Event>),
        lone: bool,
    ) {
        let Some(event) = event else {
            return self.resyncs.owe_all(&mut self.hub, every, Reason::Invalid);
        };
        // All topics of a node with area-wide followers are on one master (no cluster), so any head names its lineage.
        let position = self.feeds.lineage().map(|lineage| (lineage.clone(), id));
        // Until its head was compared over this link, the log may be another one than its followers' numbers are of.
        let same = |room| {
            self.feeds.is_proven(room) && self.feeds.top(room).is_some_and(|top| top.epoch == id.epoch)
        };
        let by_key = room.map(|room| (room, same(room).then_some(id.seq)));
        let wide = AreaEvent { every, topic, by_key, position };
        self.deliveries.deliver_wide(wide, &event, lone, &mut self.hub);
    }

    pub(super) fn pass_live(&mut self, topic: &Topic, event: &Event, lone: bool) {
        let room = self.hub.find_topic(topic);
        let frame = self.deliveries.deliver_live(room, topic, event, lone, &mut self.hub);
        if room.is_some() {
            self.marks.delivered(&frame);
        }
    }

    /// Other areas count from now on: what is followed in one that is gone ends.
    fn end_areas(&mut self, areas: &[String]) {
        let is_gone = |subject: &Subject| {
            let own = matches!(subject, Subject::Topic(topic) if topic.is_canary());
            !own && !areas.iter().any(|area| area == subject.area())
        };
        let mut waited = Vec::new();
        for id in self.hub.members().map(|(id, _)| id).collect::<Vec<_>>() {
            let followed = self.hub.standings(id).into_iter();
            let gone =
                followed.filter_map(|(room, _)| self.hub.subject(room).filter(|s| is_gone(s)).cloned());
            let gone: Vec<Subject> = gone.collect();
            if gone.is_empty() {
                continue;
            }
            let (topics, left) = self.hub.unsubscribe(id, &gone);
            waited.extend(topics.iter().filter_map(|topic| self.hub.find(topic)));
            self.resyncs.look_at(id);
            self.interest.left_empty(left, self.turn.now.instant);
            if let Some(member) = self.hub.member(id).filter(|member| member.welcomed) {
                member.outbox.message(NodeMessage::Unsubscribed { topics });
            }
        }
        self.wake_all(waited);
    }

    /// A probe has come back: everything before it was handed over.
    fn prove(&mut self, at: u64, asked: Instant) {
        self.marks.prove(ProbeEcho { at, asked }, self.turn.now.instant, &mut self.turn.questions);
        self.link.prove(at);
        if self.link.is_live() {
            self.turn.metrics.proof().renew();
        }
        self.advance();
        self.feeds.prove();
        for room in self.head_check.prove(&self.hub, &self.feeds) {
            if let Some(topic) = self.topic_of(room) {
                self.marks.lose(false, &mut self.turn.questions);
                if let Some(others) = self.turn.complaints.undelivered.due(self.turn.now.instant) {
                    tracing::warn!(topic = %topic, others, "events of a topic did not arrive on a live link");
                }
                self.link.doubt(room, &mut self.feeds);
            }
        }
    }

    /// `at` moves up to the last proof, but not for members that follow a topic that is behind.
    pub(super) fn advance(&mut self) {
        if !self.link.is_live() || self.marks.withhold() {
            return;
        }
        for member in self.feeds.behind().flat_map(|room| self.hub.followers(room)).collect::<Vec<_>>() {
            if self.hub.member(member).is_some_and(|member| member.welcomed) {
                self.hub.freeze(member, Some(self.link.at()));
            }
        }
        self.link.advance();
    }

    fn doubt(&mut self, subject: Option<&Subject>) {
        self.marks.lose(false, &mut self.turn.questions);
        let rooms: Vec<RoomId> = match subject {
            Some(subject) => self.hub.find(subject).into_iter().collect(),
            None => self.feeds.rooms().collect(),
        };
        for room in rooms {
            self.link.doubt(room, &mut self.feeds);
        }
    }

    /// Redis has withdrawn one subscription. Its followers are told, and go on with the rest.
    fn refuse(&mut self, subject: &Subject) {
        let Some(room) = self.hub.find(subject) else { return };
        self.tell_withheld(room);
        if !self.feeds.refuse(room, self.turn.questions.latest()) {
            return;
        }
        self.link.forget(room);
        for member in self.hub.followers(room) {
            self.resyncs.look_at(member);
            status::tell(member, false, &mut self.hub, &self.link, &self.sources);
        }
        self.wake(room);
    }

    fn lose_link(&mut self, reason: &str) {
        let now = self.turn.now;
        let was_live = self.link.lose(now);
        self.interest.interrupt();
        self.feeds.interrupt();
        self.joins.interrupt();
        self.head_check.interrupt(now.instant);
        self.marks.interrupt();
        self.sources.interrupt();
        for room in self.feeds.rooms().collect::<Vec<_>>() {
            if matches!(self.hub.subject(room), Some(Subject::Every(_))) {
                self.resyncs.owe_all(&mut self.hub, room, Reason::Gap);
            }
        }
        if was_live {
            tracing::warn!(reason, "Redis is out of sight: sessions stay connected and are told");
            status::tell_all_away(&mut self.hub, &self.link, &self.sources);
        }
        self.with_joins(Joins::answer_all_without_redis);
    }

    fn regain_link(&mut self) {
        self.link.regain(&self.feeds);
        // What was not followed before is opened as always, after the rest: the bus does not know of it yet.
        self.interest.open(self.feeds.opening());
    }
}
