//! Delivery: an event handed to everyone in a room who wants it, without waiting for anybody.
//!
//! A large room is handed out in shares, by all cores: outboxes are independent of each other, and the call comes back
//! when all have been served, so that order stays as it is. Measured on two cores: docs/performance.md.
//!
//! Whoever follows a topic by key and its area by `area:*` gets each event one way only. Must not know topics' logs.

use std::collections::BTreeSet;

use rayon::prelude::*;
use slab::Slab;

use super::{
    Frame, Hub, MemberId, RoomId, Standing, Taken,
    rooms::{Follower, Member},
};
use crate::{mutant, protocol::Topic};

/// Sessions of one share. To write to fewer than two shares costs less than to wake another thread for it.
const SHARE: usize = 250;

/// What came of a delivery.
#[derive(Debug, Default)]
pub struct Delivered {
    /// To how many sessions the event was handed.
    pub count: u64,
    /// Members whose outbox overflowed, and the topics whose events were dropped.
    pub overflows: Vec<(MemberId, BTreeSet<Topic>)>,
    /// Members for whom nothing waited before.
    begun: Vec<MemberId>,
}

impl Delivered {
    fn and(mut self, mut other: Self) -> Self {
        self.count += other.count;
        self.overflows.append(&mut other.overflows);
        self.begun.append(&mut other.begun);
        self
    }
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
        wanted: impl Fn(&Slab<Member>, MemberId) -> bool + Sync,
    ) -> Delivered {
        let Some(place) = self.rooms.get(room as usize) else { return Delivered::default() };
        let members = &self.members;
        let seq = frame.seq().unwrap_or(u64::MAX);
        let hand_to = |followers: &[Follower]| {
            let mut delivered = Delivered::default();
            for follower in followers {
                if follower.standing != Standing::InStep
                    || (seq <= follower.after && !mutant::is("filter"))
                    || !wanted(members, follower.member)
                {
                    continue;
                }
                let frozen = follower.frozen.then(|| members.get(follower.member as usize)?.at).flatten();
                let own = frozen.map(|at| frame.with_at(at));
                let frame = own.as_ref().unwrap_or(frame);
                let taken = if lone { follower.outbox.send(frame) } else { follower.outbox.push(frame) };
                match taken {
                    Taken::Yes => delivered.count += 1,
                    Taken::First => {
                        delivered.count += 1;
                        if !lone {
                            delivered.begun.push(follower.member);
                        }
                    }
                    Taken::Overflow(topics) => delivered.overflows.push((follower.member, topics)),
                    Taken::Ended => {}
                }
            }
            delivered
        };
        // What is only queued is done before a thread is awake.
        let mut delivered = if lone && place.followers.len() >= 2 * SHARE {
            place.followers.par_chunks(SHARE).map(hand_to).reduce(Delivered::default, Delivered::and)
        } else {
            hand_to(&place.followers)
        };
        self.dirty.append(&mut delivered.begun);
        delivered
    }

    /// Writes what deliveries have left waiting.
    pub fn flush(&mut self) {
        let members = &self.members;
        let write_to = |ids: &[MemberId]| {
            for member in ids.iter().filter_map(|id| members.get(*id as usize)) {
                member.outbox.flush();
            }
        };
        if self.dirty.len() >= 2 * SHARE {
            self.dirty.par_chunks(SHARE).for_each(write_to);
        } else {
            write_to(&self.dirty);
        }
        self.dirty.clear();
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
    fn a_large_room_is_served_in_shares_and_each_session_once() {
        let areas = Areas::new(["comments"], [], []).unwrap();
        let topic = Topic::parse("comments:1", &areas).unwrap();
        let frame = |seq| {
            let event = Event::parse(Bytes::from_static(br#"{"type":"a.b"}"#), 99).unwrap();
            Frame::new(topic.clone(), Some((Lineage::new("0f"), EntryId { epoch: 5, seq })), 7, event)
        };
        let mut hub = Hub::default();
        let room = hub.room(&Subject::Topic(topic.clone()));
        let outboxes: Vec<_> = (0..10 * SHARE + 7)
            .map(|n| {
                // Every tenth has no room, every ninth has had the first event.
                let outbox = Outbox::pulled(if n % 10 == 0 { 10 } else { 10_000 });
                let member = hub.admit(&outbox, "anna");
                hub.enter(member, room, true, true);
                hub.put_in_step(member, room, 0, u64::from(n % 9 == 0));
                outbox
            })
            .collect();
        let first = hub.deliver(room, &frame(1), true);
        let second = hub.deliver(room, &frame(2), false);
        hub.flush();
        let full = outboxes.len().div_ceil(10);
        let late = (0..outboxes.len()).filter(|n| n % 9 == 0 && n % 10 != 0).count();
        let late_full = outboxes.len().div_ceil(90);
        assert_eq!(first.count, (outboxes.len() - full - late) as u64);
        assert_eq!(first.overflows.len(), full - late_full);
        assert_eq!(second.count, (outboxes.len() - full) as u64);
        for (n, outbox) in outboxes.iter().enumerate().filter(|(n, _)| n % 10 != 0) {
            let expected: &[u64] = if n % 9 == 0 { &[2] } else { &[1, 2] };
            assert_eq!(waiting(outbox), expected, "session {n}");
        }
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
