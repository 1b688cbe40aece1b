//! Delivery: an event handed to everyone in a room who wants it, without waiting for anybody.
//!
//! A large room is handed out in shares, by all cores: outboxes are independent of each other, and the call comes back
//! when all have been served, so that order stays as it is. Measured on two cores: docs/performance.md.
//!
//! Whoever follows a topic by key and its area by `area:*` gets each event one way only. Must not know topics' logs.

use std::{collections::BTreeSet, thread::available_parallelism};

use rayon::{ThreadPoolBuilder, prelude::*};
use slab::Slab;

use super::{
    Frame, Hub, MemberId, Outbox, RoomId, Standing, Taken,
    rooms::{Follower, Member},
};
use crate::{mutant, protocol::Topic};

/// Sessions of one share. To write to fewer than two shares costs less than to wake another thread for it.
const SHARE: usize = if cfg!(test) { 10 } else { 250 };

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
    /// A hub that writes to large rooms on all cores, where there are several and the system gives the threads.
    pub fn on_all_cores() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let pool =
            || ThreadPoolBuilder::new().num_threads(cores).thread_name(|n| format!("write-{n}")).build();
        let writers = (cores > 1).then(pool).transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "no threads for large rooms: one core will write to all of their sessions");
            None
        });
        Self { writers, ..Self::default() }
    }

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
        let first = place.followers.first().map(|follower| &*follower.outbox);
        let mut delivered = match &self.writers {
            Some(writers) if lone && is_worth_sharing(place.followers.len(), first) => {
                writers.install(|| {
                    place.followers.par_chunks(SHARE).map(hand_to).reduce(Delivered::default, Delivered::and)
                })
            }
            _ => hand_to(&place.followers),
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
        let first = self.dirty.first().and_then(|id| members.get(*id as usize)).map(|member| &*member.outbox);
        match &self.writers {
            Some(writers) if is_worth_sharing(self.dirty.len(), first) => {
                writers.install(|| self.dirty.par_chunks(SHARE).for_each(write_to));
            }
            _ => write_to(&self.dirty),
        }
        self.dirty.clear();
    }
}

/// Whether so many outboxes, of which this is the first, are served sooner by several threads. What only queues and wakes
/// a task (TLS, SSE, long-poll) is done before another thread is awake, and one listener's sockets are of one kind.
fn is_worth_sharing(count: usize, first: Option<&Outbox>) -> bool {
    count >= 2 * SHARE && first.is_some_and(|outbox| outbox.socket().is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::{io::AsyncReadExt, net::TcpStream};

    use super::*;
    use crate::protocol::{Areas, EntryId, Event, Lineage, Subject};

    /// The numbers of the events that wait; 0 for a live one.
    fn waiting(outbox: &Outbox) -> Vec<u64> {
        let number =
            |item| if let crate::hub::Item::Event(frame) = item { frame.seq().unwrap_or(0) } else { 99 };
        outbox.pull(100).into_iter().map(number).collect()
    }

    /// Lone and together, with sessions that have had the first event, and some whose sockets are full.
    #[tokio::test]
    async fn a_large_room_is_served_in_shares_and_each_session_once() {
        let areas = Areas::new(["comments"], [], []).unwrap();
        let topic = Topic::parse("comments:1", &areas).unwrap();
        let frame = |seq| {
            let event = Event::parse(Bytes::from_static(br#"{"type":"a.b"}"#), 99).unwrap();
            Frame::new(topic.clone(), Some((Lineage::new("0f"), EntryId { epoch: 5, seq })), 7, event)
        };
        let ninth = |n: usize| u64::from(n.is_multiple_of(9));
        let mut hub = Hub::on_all_cores();
        hub.writers.get_or_insert_with(|| ThreadPoolBuilder::new().num_threads(2).build().unwrap());
        let room = hub.room(&Subject::Topic(topic.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sessions = Vec::new();
        for n in 0..7 * SHARE + 3 {
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (socket, _) = listener.accept().await.unwrap();
            let outbox = Outbox::direct(socket, 10_000);
            let member = hub.admit(&outbox, "anna");
            hub.enter(member, room, true, true);
            hub.put_in_step(member, room, 0, ninth(n));
            sessions.push((outbox, client));
        }
        let total = sessions.len() as u64;
        let had = (0..sessions.len()).map(ninth).sum::<u64>();
        assert_eq!(hub.deliver(room, &frame(1), true).count, total - had);
        for seq in [2, 3] {
            assert_eq!(hub.deliver(room, &frame(seq), false).count, total);
        }
        assert!(
            sessions.iter().all(|(outbox, _)| !outbox.is_empty()),
            "together means to wait for the flush"
        );
        hub.flush();
        assert_eq!(hub.deliver(room, &frame(4), true).count, total);
        for (n, (outbox, client)) in sessions.iter_mut().enumerate() {
            assert!(outbox.is_empty());
            let expected: Vec<u8> = (1 + ninth(n)..=4).flat_map(|seq| frame(seq).bytes().to_vec()).collect();
            let mut read = vec![0; expected.len()];
            client.read_exact(&mut read).await.unwrap();
            assert_eq!(read, expected, "session {n}");
            assert_eq!(client.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn what_overflows_in_any_share_is_named() {
        let areas = Areas::new(["comments"], [], []).unwrap();
        let topic = Topic::parse("comments:1", &areas).unwrap();
        let event = Event::parse(Bytes::from_static(br#"{"type":"a.b"}"#), 99).unwrap();
        let frame = Frame::new(topic.clone(), None, 7, event);
        let mut hub = Hub::on_all_cores();
        let room = hub.room(&Subject::Topic(topic));
        let small: Vec<_> = (0..5 * SHARE)
            .filter_map(|n| {
                let outbox = Outbox::pulled(if n % 10 == 0 { 10 } else { 10_000 });
                let member = hub.admit(&outbox, "anna");
                hub.enter(member, room, true, true);
                hub.put_in_step(member, room, 0, 0);
                (n % 10 == 0).then_some(member)
            })
            .collect();
        let delivered = hub.deliver(room, &frame, false);
        assert_eq!(delivered.count as usize, 5 * SHARE - small.len());
        assert_eq!(delivered.overflows.into_iter().map(|(member, _)| member).collect::<Vec<_>>(), small);
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
