//! Handing events to the hub: who is too slow is owed a `resync`, and what is traced gets a span.
//!
//! Whoever calls has decided that the event's turn has come.

use super::{question::Now, resyncs};
use crate::{
    hub::{Delivered, Frame, Hub, RoomId},
    metrics::Metrics,
    protocol::{Event, Lineage, Topic},
    telemetry::traces::{Span, Stage, Traces},
};

/// An event of a topic for those who follow its whole area.
#[derive(Debug)]
pub(super) struct AreaEvent<'a> {
    /// The room of those who follow the whole area.
    pub(super) every: RoomId,
    /// The topic.
    pub(super) topic: &'a Topic,
    /// See [`Hub::deliver_every`].
    pub(super) by_key: Option<(RoomId, Option<u64>)>,
    /// Its place; `None` for a live event.
    pub(super) position: Option<(Lineage, crate::protocol::EntryId)>,
}

/// What was delivered in a turn.
#[derive(Debug)]
pub(super) struct Deliveries {
    traces: Traces,
    metrics: Metrics,
    /// The spans of this turn: they end with it, when everything is written.
    spans: Vec<Span>,
    now: Now,
    at: u64,
}

impl Deliveries {
    /// Nothing yet.
    pub(super) fn new(traces: Traces, metrics: Metrics, now: Now) -> Self {
        Self { traces, metrics, spans: Vec::new(), now, at: 0 }
    }

    /// A turn begins. `at`: the last proof, ms of Redis' clock.
    pub(super) fn begin(&mut self, now: Now, at: u64) {
        self.now = now;
        self.at = at;
    }

    /// The turn ends.
    pub(super) fn end(&mut self) {
        self.spans.clear();
    }

    /// Hands an event to those who follow its topic by key.
    pub(super) fn deliver(&mut self, room: RoomId, frame: &Frame, lone: bool, hub: &mut Hub) {
        let delivered = hub.deliver(room, frame, lone);
        self.settle(frame, delivered, hub);
    }

    /// Hands an event to those who follow the whole area, but for those who get it by key.
    pub(super) fn deliver_wide(&mut self, wide: AreaEvent<'_>, event: &Event, lone: bool, hub: &mut Hub) {
        let frame = Frame::new(wide.topic.clone(), wide.position, self.at, event);
        let delivered = hub.deliver_every(wide.every, wide.by_key, &frame, lone);
        self.settle(&frame, delivered, hub);
    }

    /// Hands a live event to all who follow its topic, or its whole area. Returns the frame.
    pub(super) fn deliver_live(
        &mut self,
        room: Option<RoomId>,
        topic: &Topic,
        event: &Event,
        lone: bool,
        hub: &mut Hub,
    ) -> Frame {
        let frame = Frame::new(topic.clone(), None, self.at, event);
        if let Some(room) = room {
            self.deliver(room, &frame, lone, hub);
        }
        if let Some(every) = hub.every(topic) {
            let delivered = hub.deliver_every(every, room.map(|room| (room, None)), &frame, lone);
            self.settle(&frame, delivered, hub);
        }
        frame
    }

    fn settle(&mut self, frame: &Frame, delivered: Delivered, hub: &mut Hub) {
        if !frame.topic().is_canary() {
            self.metrics.deliveries.inc_by(delivered.count);
        }
        if delivered.count > 0 {
            let stage = Stage::Deliver { since: self.now.instant };
            let span = self.traces.begin(stage, frame.topic(), frame.event());
            self.spans.extend(span.map(|span| span.reached(delivered.count)));
        }
        for (member, dropped) in delivered.overflows {
            self.metrics.overflows.inc();
            resyncs::overflow(hub, self.at, member, &dropped);
        }
    }
}
