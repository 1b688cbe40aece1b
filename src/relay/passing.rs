//! What arrives from the bus, and whom it is passed to.

use super::{
    feed::{State, Step},
    switch::Switch,
};
use crate::{
    bus::{Content, Delivery, Head},
    hub::{Delivered, Frame, RoomId},
    protocol::{EntryId, Event, Reason, Subject, Topic},
    telemetry::traces::Stage,
};

/// Recorded messages that are held for a feed that is being read; what is more is read from the log again.
const HELD: usize = 512;

impl Switch {
    pub(super) fn take_delivery(&mut self, delivery: Delivery, lone: bool) {
        let topic = delivery.topic;
        match delivery.content {
            Content::Live(event) => self.take_live(&topic, event, lone),
            Content::Recorded(id, event) => self.take_recorded(&topic, id, Some(event), lone),
            Content::Invalid(id) => self.take_recorded(&topic, id, None, lone),
        }
    }

    /// A recorded message from the wire; `None` for what is not an event.
    fn take_recorded(&mut self, topic: &Topic, id: EntryId, event: Option<Event>, lone: bool) {
        let subject = Subject::Topic(topic.clone());
        let room = self.hub.find(&subject);
        let feed = room.and_then(|room| self.feeds.get_mut(&room));
        let (Some(room), Some(feed)) = (room, feed) else {
            self.pass_every(topic, None, id, event, lone);
            return;
        };
        if feed.first_on_wire(id) {
            self.pass_every(topic, Some(room), id, event.clone(), lone);
        }
        self.advance(room, topic, id, event, lone);
    }

    /// A recorded message whose turn it may be.
    pub(super) fn advance(
        &mut self,
        room: RoomId,
        topic: &Topic,
        id: EntryId,
        event: Option<Event>,
        lone: bool,
    ) {
        let at = self.at();
        let Some(feed) = self.feeds.get_mut(&room) else { return };
        if feed.state != State::Live {
            let held = self.held.entry(room).or_default();
            if held.len() < HELD {
                held.push((id, event.map_or(Content::Invalid(id), |event| Content::Recorded(id, event))));
            }
            return;
        }
        match feed.judge(id) {
            Step::Duplicate => {}
            Step::Next => {
                let valid = event.is_some();
                let frame = feed.append(topic, id, event, at, self.now.instant);
                if let Some(frame) = frame {
                    self.deliver(room, &frame, lone);
                } else if !valid {
                    self.owe_all(room, Reason::Invalid);
                }
            }
            Step::Gap => {
                tracing::warn!(topic = %topic, arrived = %id, "gap in the stream of a topic: reading its log");
                self.metrics.gaps.inc();
                self.doubt_every(topic);
                self.held
                    .entry(room)
                    .or_default()
                    .push((id, event.map_or(Content::Invalid(id), |event| Content::Recorded(id, event))));
                self.fill(room);
            }
            Step::Replaced => {
                let Some(lineage) = feed.head().map(|head| head.lineage.clone()) else { return };
                tracing::warn!(topic = %topic, arrived = %id, "the log of a topic was replaced: its followers refetch");
                feed.start(Head { lineage, top: id });
                self.doubt_every(topic);
                self.owe_all(room, Reason::LogReplaced);
                self.wake_joins(room);
            }
            Step::Earlier => {
                tracing::warn!(topic = %topic, arrived = %id, "an event of an earlier log: comparing with what Redis has");
                self.doubt(Some(&Subject::Topic(topic.clone())));
            }
        }
    }

    /// Hands an event to those who follow its topic by key.
    pub(super) fn deliver(&mut self, room: RoomId, frame: &Frame, lone: bool) {
        let delivered = self.hub.deliver(room, frame, lone);
        self.settle_delivery(frame, delivered);
    }

    /// Hands a recorded event to those who follow the whole area.
    fn pass_every(
        &mut self,
        topic: &Topic,
        room: Option<RoomId>,
        id: EntryId,
        event: Option<Event>,
        lone: bool,
    ) {
        let Some(every) = self.hub.every(topic) else { return };
        let Some(event) = event else {
            self.owe_all(every, Reason::Invalid);
            return;
        };
        // Whoever follows `area:*` follows `area` too, so its feed knows the lineage.
        let wide =
            self.hub.find(&Subject::Topic(topic.wide())).and_then(|room| self.feeds.get(&room)?.head());
        let position = wide.map(|head| (head.lineage.clone(), id));
        let frame = Frame::new(topic.clone(), position, self.at(), event);
        let delivered = self.hub.deliver_every(every, room, &frame, lone);
        self.settle_delivery(&frame, delivered);
    }

    /// Hands a live event to all who follow its topic.
    pub(super) fn pass_live(&mut self, topic: &Topic, event: Event, lone: bool) {
        let room = self.hub.find(&Subject::Topic(topic.clone()));
        let frame = Frame::new(topic.clone(), None, self.at(), event);
        if let Some(room) = room {
            self.deliver(room, &frame, lone);
        }
        if let Some(every) = self.hub.every(topic) {
            let delivered = self.hub.deliver_every(every, room, &frame, lone);
            self.settle_delivery(&frame, delivered);
        }
    }

    fn settle_delivery(&mut self, frame: &Frame, delivered: Delivered) {
        self.metrics.deliveries.inc_by(delivered.count);
        if delivered.count > 0 {
            let stage = Stage::Deliver { since: self.now.instant };
            let span = self.settings.traces.begin(stage, frame.topic(), frame.event());
            self.spans.extend(span.map(|span| span.reached(delivered.count)));
        }
        for (member, topics) in delivered.overflows {
            self.overflow(member, &topics);
        }
    }

    /// Who follows the whole area of a topic may have missed something that cannot be read again.
    pub(super) fn doubt_every(&mut self, topic: &Topic) {
        if let Some(every) = self.hub.find(&Subject::Every(topic.wide())) {
            self.owe_all(every, Reason::Gap);
        }
    }
}
