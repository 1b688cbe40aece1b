//! Delivery: an event handed to everyone in a room who wants it, without waiting for anybody.
//!
//! A large room is handed out in shares, by all cores: outboxes are independent of each other, and the call comes back
//! when all have been served, so that order stays as it is. Measured on two cores: docs/performance.md.
//!
//! Whoever follows a topic by key and its area by `area:*` gets each event one way only.

use std::{sync::Arc, thread::available_parallelism};

use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use super::{Dropped, Frame, Hub, MemberId, Outbox, RoomId, Standing, Taken, rooms::Follower};
use crate::mutant;

/// Sessions of one share. To write to fewer than two shares costs less than to wake another thread for it.
const SHARE: usize = if cfg!(test) { 10 } else { 250 };

/// What came of a delivery.
#[derive(Debug, Default)]
pub struct Delivered {
    /// To how many sessions the event was handed.
    pub count: u64,
    /// Members whose outbox overflowed, and what was dropped.
    pub overflows: Vec<(MemberId, Dropped)>,
    /// Outboxes whose queue was empty before: [`Hub::flush`] writes to them.
    begun: Vec<Arc<Outbox>>,
}

impl Delivered {
    fn and(mut self, mut other: Self) -> Self {
        self.count += other.count;
        self.overflows.append(&mut other.overflows);
        self.begun.append(&mut other.begun);
        self
    }
}

/// A thread for each core, to write to large rooms; `None` where there is one core, or the system gives no threads.
pub fn writers() -> Option<ThreadPool> {
    let cores = available_parallelism().map_or(1, usize::from);
    let pool = || ThreadPoolBuilder::new().num_threads(cores).thread_name(|n| format!("write-{n}")).build();
    (cores > 1).then(pool).transpose().unwrap_or_else(|error| {
        tracing::warn!(%error, "no threads for large rooms: one core will write to all of their sessions");
        None
    })
}

impl Hub {
    /// Hands an event to everyone in a room who is in step and has not passed it. A `lone` event is written at once;
    /// others wait for [`Hub::flush`].
    pub fn deliver(&mut self, room: RoomId, frame: &Frame, lone: bool) -> Delivered {
        self.deliver_where(room, frame, lone, |_, _| true)
    }

    /// Hands an event to those who follow the whole area, but for those who get it by following its topic. `by_key`: the
    /// topic's own room, and the event's number in the log by which its followers are counted. Without a number (a live event, or
    /// a log that may be another one) whoever follows the topic gets it there.
    pub fn deliver_every(
        &mut self,
        every: RoomId,
        by_key: Option<(RoomId, Option<u64>)>,
        frame: &Frame,
        lone: bool,
    ) -> Delivered {
        self.deliver_where(every, frame, lone, |hub, id| {
            let Some((topic, seq)) = by_key else { return true };
            // Whoever is owed a `resync` for the topic gets that first.
            hub.follow(id, topic).is_none_or(|follow| {
                seq.unwrap_or(u64::MAX) <= follow.from
                    && !matches!(hub.standing_of(follow), Some(Standing::Owed(_)))
            })
        })
    }

    fn deliver_where(
        &mut self,
        room: RoomId,
        frame: &Frame,
        lone: bool,
        wanted: impl Fn(&Self, MemberId) -> bool + Sync,
    ) -> Delivered {
        // What waits already goes on in the same list, so that an event with one follower needs none of its own.
        let waiting = Delivered { begun: std::mem::take(&mut self.dirty), ..Delivered::default() };
        let hub = &*self;
        let followers = hub.rooms.get(room as usize).map_or(&[][..], |room| &room.followers);
        let seq = frame.seq().unwrap_or(u64::MAX);
        let hand_to = |mut delivered: Delivered, followers: &[Follower]| {
            for follower in followers {
                if follower.standing != Standing::InStep
                    || (seq <= follower.after && !mutant::is("filter"))
                    || !wanted(hub, follower.member)
                {
                    continue;
                }
                let frozen = follower.frozen.then(|| hub.member(follower.member)?.at).flatten();
                let own = frozen.filter(|at| *at < frame.at()).map(|at| frame.with_at(at));
                let frame = own.as_ref().unwrap_or(frame);
                let taken = if lone { follower.outbox.send(frame) } else { follower.outbox.push(frame) };
                match taken {
                    Taken::Yes => delivered.count += 1,
                    Taken::First => {
                        delivered.count += 1;
                        if !lone {
                            delivered.begun.push(Arc::clone(&follower.outbox));
                        }
                    }
                    Taken::Overflow(dropped) => delivered.overflows.push((follower.member, dropped)),
                    Taken::Ended => {}
                }
            }
            delivered
        };
        let first = followers.first().map(|follower| &*follower.outbox);
        let mut delivered = match hub.helpers(followers.len(), first) {
            Some(writers) if lone => writers.install(|| {
                let shares = followers.par_chunks(SHARE).map(|share| hand_to(Delivered::default(), share));
                waiting.and(shares.reduce(Delivered::default, Delivered::and))
            }),
            _ => hand_to(waiting, followers),
        };
        self.dirty = std::mem::take(&mut delivered.begun);
        delivered
    }

    /// Writes what deliveries have left waiting.
    pub fn flush(&mut self) {
        let write_to = |outboxes: &[Arc<Outbox>]| outboxes.iter().for_each(|outbox| outbox.flush());
        match self.helpers(self.dirty.len(), self.dirty.first().map(|outbox| &**outbox)) {
            Some(writers) => writers.install(|| self.dirty.par_chunks(SHARE).for_each(write_to)),
            None => write_to(&self.dirty),
        }
        self.dirty.clear();
    }

    /// The threads that share the work, if it is worth sharing: `count` outboxes that write to sockets. An outbox that only queues
    /// and wakes a task (TLS, SSE, long-poll) is done before another thread is awake. `first` stands for all: one listener's
    /// sockets are of one kind.
    fn helpers(&self, count: usize, first: Option<&Outbox>) -> Option<&ThreadPool> {
        let worth = count >= 2 * SHARE && first.is_some_and(|outbox| outbox.socket().is_some());
        self.writers.as_ref().filter(|_| worth)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::hub::Entrance;
    use crate::protocol::{Areas, EntryId, Event, Lineage, Subject, Topic};

    /// The numbers of the events that wait; 0 for a live one.
    fn waiting(outbox: &Outbox) -> Vec<u64> {
        let number =
            |item| if let crate::hub::Item::Event(frame) = item { frame.seq().unwrap_or(0) } else { 99 };
        outbox.pull(100).into_iter().map(number).collect()
    }

    fn areas() -> Areas {
        Areas::new(["comments"], [], []).unwrap()
    }

    fn topic() -> Topic {
        Topic::parse("comments:1", &areas()).unwrap()
    }

    /// A recorded event; a live one with number 0.
    fn frame(seq: u64) -> Frame {
        let event = Event::parse(Bytes::from_static(br#"{"type":"a.b"}"#), 99).unwrap();
        let position = (seq > 0).then(|| (Lineage::new("0f"), EntryId { epoch: 5, seq }));
        Frame::new(topic(), position, 7, &event)
    }

    /// A hub with two threads, and a room of sessions on real sockets, each of which has had the events up to `after(n)`.
    async fn large_room(after: impl Fn(usize) -> u64) -> (Hub, RoomId, Vec<(Arc<Outbox>, TcpStream)>) {
        let mut hub = Hub::new(ThreadPoolBuilder::new().num_threads(2).build().ok());
        let room = hub.room(&Subject::Topic(topic()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sessions = Vec::new();
        for n in 0..7 * SHARE + 3 {
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let outbox = Outbox::direct(listener.accept().await.unwrap().0, 1_000);
            let member = hub.admit(&outbox);
            hub.enter(member, room, Entrance { explicit: true, fresh: true, ticket: 0 });
            hub.put_in_step(member, room, 0, after(n));
            sessions.push((outbox, client));
        }
        (hub, room, sessions)
    }

    #[tokio::test]
    async fn a_large_room_is_served_in_shares_and_each_session_once() {
        let ninth = |n: usize| u64::from(n.is_multiple_of(9));
        let (mut hub, room, mut sessions) = large_room(ninth).await;
        let total = sessions.len() as u64;
        let had = (0..sessions.len()).map(ninth).sum::<u64>();
        assert_eq!(hub.deliver(room, &frame(1), true).count, total - had);
        for seq in [2, 3] {
            assert_eq!(hub.deliver(room, &frame(seq), false).count, total);
        }
        let wait = sessions.iter().all(|(outbox, _)| !outbox.is_empty());
        assert!(wait, "together means to wait for the flush");
        hub.flush();
        assert!(sessions.iter().all(|(outbox, _)| outbox.is_empty()), "the flush leaves nobody out");
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

    #[tokio::test]
    async fn what_overflows_in_any_share_is_named() {
        let (mut hub, room, sessions) = large_room(|_| 0).await;
        // More than any socket takes: whoever does not read has events waiting, up to the bound.
        let large = Bytes::from(vec![0; 32 << 20]);
        let mut slow = Vec::new();
        for (outbox, _) in sessions.iter().step_by(10) {
            outbox.raw(large.clone());
            assert!(outbox.is_blocked());
            slow.push(outbox.slot().unwrap());
        }
        let mut named = Vec::new();
        for seq in 1..=1_000 / frame(1).bytes().len() as u64 + 1 {
            let delivered = hub.deliver(room, &frame(seq), true);
            assert_eq!(delivered.count as usize + delivered.overflows.len(), sessions.len());
            named.extend(delivered.overflows.into_iter().map(|(member, _)| member));
        }
        assert_eq!(named, slow, "each once, in the order of the room");
    }

    /// A session, and the rooms of `comments:*` and `comments:1`.
    fn follower_of_both() -> (Hub, Arc<Outbox>, MemberId, [RoomId; 2]) {
        let areas = areas();
        let mut hub = Hub::default();
        let outbox = Outbox::pulled(10_000);
        let member = hub.admit(&outbox);
        let rooms = ["comments:*", "comments:1"].map(|text| hub.room(&Subject::parse(text, &areas).unwrap()));
        (hub, outbox, member, rooms)
    }

    #[test]
    fn an_event_comes_by_wildcard_until_its_key_is_in_step_and_by_key_from_then_on() {
        let (mut hub, outbox, member, [every, key]) = follower_of_both();
        let publish = |hub: &mut Hub, seq| {
            hub.deliver_every(every, Some((key, (seq > 0).then_some(seq))), &frame(seq), false);
            hub.deliver(key, &frame(seq), false);
        };
        hub.enter(member, every, Entrance { explicit: true, fresh: true, ticket: 0 });
        hub.put_in_step(member, every, 0, 0);
        publish(&mut hub, 1);
        hub.enter(member, key, Entrance { explicit: true, fresh: true, ticket: 0 });
        publish(&mut hub, 2);
        publish(&mut hub, 0);
        hub.put_in_step(member, key, 2, 2);
        publish(&mut hub, 3);
        publish(&mut hub, 0);
        assert_eq!(waiting(&outbox), [1, 2, 0, 3, 0], "each once, and none lost");
        hub.leave(member, key);
        publish(&mut hub, 4);
        hub.enter(member, key, Entrance { explicit: true, fresh: false, ticket: 0 });
        publish(&mut hub, 5);
        assert_eq!(waiting(&outbox), [4], "who resumes the key gets its events by the replay");
    }

    #[test]
    fn an_event_comes_by_wildcard_only_to_who_is_counted_in_the_same_log_and_not_owed_the_topic() {
        let (mut hub, outbox, member, [every, key]) = follower_of_both();
        for (room, from) in [(every, 0), (key, 5)] {
            hub.enter(member, room, Entrance { explicit: true, fresh: true, ticket: 0 });
            hub.put_in_step(member, room, from, from);
        }
        hub.deliver_every(every, Some((key, Some(4))), &frame(4), false);
        assert_eq!(waiting(&outbox), [4], "late: it began behind it by key");
        hub.deliver_every(every, Some((key, None)), &frame(5), false);
        assert_eq!(waiting(&outbox), [] as [u64; 0], "its number says nothing");
        hub.owe(member, key, crate::protocol::Reason::RedisChanged);
        hub.deliver_every(every, Some((key, Some(5))), &frame(5), false);
        assert_eq!(waiting(&outbox), [] as [u64; 0], "before its resync");
        hub.put_in_step(member, key, 3, 3);
        hub.deliver_every(every, Some((key, Some(4))), &frame(4), false);
        hub.deliver(key, &frame(4), false);
        assert_eq!(waiting(&outbox), [4], "by key");
    }
}
