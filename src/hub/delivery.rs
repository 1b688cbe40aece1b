//! Delivery: an event handed to everyone in a room who wants it, without waiting for anybody.
//!
//! Whoever follows a topic by key and its area by `area:*` gets each event one way only. Must not know topics' logs.

use std::collections::BTreeSet;

use slab::Slab;

use super::{Frame, Hub, MemberId, RoomId, Standing, Taken, rooms::Member};
use crate::{mutant, protocol::Topic};

/// What came of a delivery.
#[derive(Debug, Default)]
pub struct Delivered {
    /// To how many sessions the event was handed.
    pub count: u64,
    /// Members whose outbox overflowed, and the topics whose events were dropped.
    pub overflows: Vec<(MemberId, BTreeSet<Topic>)>,
}

impl Hub {
    /// Hands an event to everyone in a room who is in step and has not passed it. A `lone` event is written at once;
    /// others wait for [`Hub::flush`].
    pub fn deliver(&mut self, room: RoomId, frame: &Frame, lone: bool) -> Delivered {
        self.deliver_where(room, frame, lone, |_, _| true)
    }

    /// Hands an event of topic room `topic` to those who follow the whole area, but for those who get it by key.
    pub fn deliver_every(
        &mut self,
        every: RoomId,
        topic: Option<RoomId>,
        frame: &Frame,
        lone: bool,
    ) -> Delivered {
        // A live event has no number: it comes by key as soon as that is followed.
        let seq = frame.seq().unwrap_or(u64::MAX);
        self.deliver_where(every, frame, lone, |members, id| {
            let by_key =
                topic.and_then(|topic| members.get(id as usize)?.follows.iter().find(|f| f.room == topic));
            by_key.is_none_or(|follow| seq <= follow.from)
        })
    }

    fn deliver_where(
        &mut self,
        room: RoomId,
        frame: &Frame,
        lone: bool,
        wanted: impl Fn(&Slab<Member>, MemberId) -> bool,
    ) -> Delivered {
        let mut delivered = Delivered::default();
        let Some(place) = self.rooms.get(room as usize) else { return delivered };
        let seq = frame.seq().unwrap_or(u64::MAX);
        for follower in &place.followers {
            if follower.standing != Standing::InStep
                || (seq <= follower.after && !mutant::is("filter"))
                || !wanted(&self.members, follower.member)
            {
                continue;
            }
            let frozen = follower.frozen.then(|| self.members.get(follower.member as usize)?.at).flatten();
            let own = frozen.map(|at| frame.with_at(at));
            let frame = own.as_ref().unwrap_or(frame);
            let taken = if lone { follower.outbox.send(frame) } else { follower.outbox.push(frame) };
            match taken {
                Taken::Yes => delivered.count += 1,
                Taken::First => {
                    delivered.count += 1;
                    if !lone {
                        self.dirty.push(follower.member);
                    }
                }
                Taken::Overflow(topics) => delivered.overflows.push((follower.member, topics)),
                Taken::Ended => {}
            }
        }
        delivered
    }

    /// Writes what deliveries have left waiting.
    pub fn flush(&mut self) {
        for id in self.dirty.drain(..) {
            if let Some(member) = self.members.get(id as usize) {
                member.outbox.flush();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        hub::Outbox,
        protocol::{Areas, EntryId, Event, Lineage, Subject},
    };

    /// The numbers of the events that wait; 0 for a live one.
    fn waiting(outbox: &Outbox) -> Vec<u64> {
        let number =
            |item| if let crate::hub::Item::Event(frame) = item { frame.seq().unwrap_or(0) } else { 99 };
        outbox.pull(100).into_iter().map(number).collect()
    }

    #[test]
    fn an_event_comes_by_wildcard_until_its_key_is_in_step_and_by_key_from_then_on() {
        let areas = Areas::new(["comments"], [], []).unwrap();
        let subject = |text| Subject::parse(text, &areas).unwrap();
        let topic = Topic::parse("comments:1", &areas).unwrap();
        let frame = |seq: u64| {
            let event = Event::parse(Bytes::from_static(br#"{"type":"a.b"}"#), 99).unwrap();
            let position = (seq > 0).then(|| (Lineage::new("0f"), EntryId { epoch: 5, seq }));
            Frame::new(topic.clone(), position, 7, event)
        };
        let mut hub = Hub::default();
        let outbox = Outbox::pulled(10_000);
        let member = hub.admit(&Arc::clone(&outbox), "anna");
        let (every, key) = (hub.room(&subject("comments:*")), hub.room(&subject("comments:1")));
        let publish = |hub: &mut Hub, seq| {
            hub.deliver_every(every, Some(key), &frame(seq), false);
            hub.deliver(key, &frame(seq), false);
        };
        hub.enter(member, every, true, true);
        hub.put_in_step(member, every, 0, 0);
        publish(&mut hub, 1);
        hub.enter(member, key, true, true);
        publish(&mut hub, 2);
        publish(&mut hub, 0);
        hub.put_in_step(member, key, 2, 2);
        publish(&mut hub, 3);
        publish(&mut hub, 0);
        assert_eq!(waiting(&outbox), [1, 2, 0, 3, 0], "each once, and none lost");
        hub.leave(member, key);
        publish(&mut hub, 4);
        hub.enter(member, key, true, false);
        publish(&mut hub, 5);
        assert_eq!(waiting(&outbox), [4], "who resumes the key gets its events by the replay");
    }
}
