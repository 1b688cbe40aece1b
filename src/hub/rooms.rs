//! Rooms: the sessions that follow one subject, and the members that stand in several rooms.
//!
//! A follower is kept twice, in its room (for delivery) and in its member (for leaving), each with the other's index,
//! so that delivering is a walk over one vector and leaving does not search.

use std::sync::Arc;

use rayon::ThreadPool;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::Outbox;
use crate::protocol::{Proof, Reason, Subject, Topic};

/// Index of a member.
pub type MemberId = u32;
/// Index of a room.
pub type RoomId = u32;

/// How a follower stands in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Events are delivered.
    InStep,
    /// Not yet joined: nothing is delivered.
    Waiting,
    /// A `resync` is owed: nothing is delivered before it.
    Owed(Reason),
}

#[derive(Debug)]
pub(super) struct Follower {
    pub(super) outbox: Arc<Outbox>,
    pub(super) member: MemberId,
    pub(super) standing: Standing,
    /// The member is owed something, here or elsewhere: its events repeat the old `at`.
    pub(super) frozen: bool,
    /// Recorded events up to this number are not delivered: the member has them, or starts behind them.
    pub(super) after: u64,
}

#[derive(Debug)]
pub(super) struct Room {
    pub(super) subject: Subject,
    pub(super) followers: Vec<Follower>,
}

/// A member's place in a room.
#[derive(Debug, Clone, Copy)]
pub struct Follow {
    /// The room.
    pub room: RoomId,
    /// Asked for by name, and not only implied by a key of its area.
    pub explicit: bool,
    /// The number behind which its events come by this room; earlier ones may still come by `area:*`.
    pub from: u64,
    /// The number of the join by which it entered.
    pub(super) ticket: u32,
    pub(super) index: u32,
}

/// How a member comes into a room.
#[derive(Debug, Clone, Copy)]
pub struct Entrance {
    /// Asked for by name, and not only implied by a key of its area.
    pub explicit: bool,
    /// It brings no position: its stream begins at the end of the log at the time when it gets in step. Until then its events
    /// go on coming by `area:*`, if it follows that.
    pub fresh: bool,
    /// The number of the join: only that join may put it in step.
    pub ticket: u32,
}

/// A session as the hub sees it.
#[derive(Debug)]
pub struct Member {
    /// Where its messages go.
    pub outbox: Arc<Outbox>,
    /// The session's name, and the proof (token or answer of the CMS) that it was let in with; from [`Hub::name`].
    pub proof: Option<(Box<str>, Arc<Proof>)>,
    /// The rooms it stands in, in their order.
    pub(super) follows: Vec<Follow>,
    /// The `at` that is repeated while anything is owed.
    pub at: Option<u64>,
    /// Whether it was welcomed.
    pub welcomed: bool,
    /// Whether it was last told that the node sees Redis.
    pub live: bool,
}

/// Who follows what.
#[derive(Debug, Default)]
pub struct Hub {
    pub(super) members: Slab<Member>,
    pub(super) rooms: Slab<Room>,
    /// The rooms of topics. Each event is looked up here.
    topics: FxHashMap<Topic, RoomId>,
    /// The rooms of whole areas, by the area-wide topic. Mostly none: then no event is looked up in one.
    whole_areas: FxHashMap<Topic, RoomId>,
    /// Outboxes with events that wait for [`Hub::flush`]. Not their members: those would be looked up, and with thousands of
    /// sessions that is memory which no cache has.
    pub(super) dirty: Vec<Arc<Outbox>>,
    /// The threads that write to large rooms; `None`: whoever delivers.
    pub(super) writers: Option<ThreadPool>,
}

impl Hub {
    /// A hub that writes to large rooms by these threads.
    pub fn new(writers: Option<ThreadPool>) -> Self {
        Self { writers, ..Self::default() }
    }

    /// Takes a session in.
    pub fn admit(&mut self, outbox: &Arc<Outbox>) -> MemberId {
        let member = Member {
            outbox: Arc::clone(outbox),
            proof: None,
            follows: Vec::new(),
            at: None,
            welcomed: false,
            live: false,
        };
        let id = self.members.insert(member) as MemberId;
        outbox.set_slot(Some(id));
        id
    }

    /// Sets the session's name and the proof of who its editor is.
    pub fn name(&mut self, id: MemberId, session: &str, proof: Arc<Proof>) {
        if let Some(member) = self.members.get_mut(id as usize) {
            member.proof = Some((session.into(), proof));
        }
    }

    /// The member of an outbox, if it was admitted and has not left.
    pub fn member_of(&self, outbox: &Arc<Outbox>) -> Option<MemberId> {
        let id = outbox.slot()?;
        self.members.get(id as usize).filter(|member| Arc::ptr_eq(&member.outbox, outbox)).map(|_| id)
    }

    /// A member.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(id as usize)
    }

    /// A member, to change its `at`.
    pub fn member_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        self.members.get_mut(id as usize)
    }

    /// All members.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.members.iter().map(|(id, member)| (id as MemberId, member))
    }

    /// Lets a session go; returns the rooms that it left empty.
    pub fn dismiss(&mut self, id: MemberId) -> Vec<RoomId> {
        let rooms: Vec<RoomId> =
            self.member(id).map(|m| m.follows.iter().map(|f| f.room).collect()).unwrap_or_default();
        for room in rooms.iter().rev() {
            self.leave(id, *room);
        }
        if let Some(member) = self.members.try_remove(id as usize) {
            member.outbox.set_slot(None);
        }
        if self.members.is_empty() {
            self.members = Slab::new();
        }
        rooms.into_iter().filter(|room| self.is_empty(*room)).collect()
    }

    /// The room of a subject, made where there is none.
    pub fn room(&mut self, subject: &Subject) -> RoomId {
        if let Some(room) = self.find(subject) {
            return room;
        }
        let room = self.rooms.insert(Room { subject: subject.clone(), followers: Vec::new() }) as RoomId;
        match subject {
            Subject::Topic(topic) => self.topics.insert(topic.clone(), room),
            Subject::Every(area) => self.whole_areas.insert(area.clone(), room),
        };
        room
    }

    /// The room of those who follow the whole area of a topic. The area-wide topic itself has its own room.
    pub fn every(&self, topic: &Topic) -> Option<RoomId> {
        if self.whole_areas.is_empty() || topic.is_wide() {
            return None;
        }
        self.whole_areas.get(&topic.wide()).copied()
    }

    /// The room of a subject, if there is one.
    pub fn find(&self, subject: &Subject) -> Option<RoomId> {
        match subject {
            Subject::Topic(topic) => self.find_topic(topic),
            Subject::Every(area) => self.whole_areas.get(area).copied(),
        }
    }

    /// The room of a topic, if there is one.
    pub fn find_topic(&self, topic: &Topic) -> Option<RoomId> {
        self.topics.get(topic).copied()
    }

    /// Reads what a delivery to the room's first followers needs. The result means nothing.
    pub fn touch(&self, room: RoomId) -> u64 {
        let followers = self.rooms.get(room as usize).map_or(&[][..], |room| &room.followers);
        followers.iter().take(2).map(|follower| follower.outbox.touch()).sum()
    }

    /// The subject of a room.
    pub fn subject(&self, room: RoomId) -> Option<&Subject> {
        self.rooms.get(room as usize).map(|room| &room.subject)
    }

    /// The rooms of an area, and its own.
    pub fn rooms_of(&self, area: &str) -> Vec<RoomId> {
        let of_area = self.rooms.iter().filter(|(_, room)| room.subject.area() == area);
        of_area.map(|(id, _)| id as RoomId).collect()
    }

    /// Takes an empty room down.
    pub fn close(&mut self, room: RoomId) {
        if self.is_empty(room)
            && let Some(room) = self.rooms.try_remove(room as usize)
        {
            match &room.subject {
                Subject::Topic(topic) => self.topics.remove(topic),
                Subject::Every(area) => self.whole_areas.remove(area),
            };
        }
    }

    /// Whether nobody stands in the room.
    pub fn is_empty(&self, room: RoomId) -> bool {
        self.rooms.get(room as usize).is_none_or(|room| room.followers.is_empty())
    }

    /// How many stand in the room.
    pub fn len(&self, room: RoomId) -> usize {
        self.rooms.get(room as usize).map_or(0, |room| room.followers.len())
    }

    /// The members that stand in a room.
    pub fn followers(&self, room: RoomId) -> Vec<MemberId> {
        self.rooms
            .get(room as usize)
            .map(|r| r.followers.iter().map(|f| f.member).collect())
            .unwrap_or_default()
    }

    /// Lets a member into a room, waiting. Returns false where it stands there already (then only `explicit` is added).
    pub fn enter(&mut self, id: MemberId, room: RoomId, entrance: Entrance) -> bool {
        let (Some(member), Some(place)) =
            (self.members.get_mut(id as usize), self.rooms.get_mut(room as usize))
        else {
            return false;
        };
        let Entrance { explicit, fresh, ticket } = entrance;
        let at = match member.follows.binary_search_by_key(&room, |follow| follow.room) {
            Ok(at) => {
                member.follows[at].explicit |= explicit;
                return false;
            }
            Err(at) => at,
        };
        let index = place.followers.len() as u32;
        let from = if fresh { u64::MAX } else { 0 };
        member.follows.insert(at, Follow { room, explicit, from, ticket, index });
        place.followers.push(Follower {
            outbox: Arc::clone(&member.outbox),
            member: id,
            standing: Standing::Waiting,
            frozen: member.at.is_some(),
            after: 0,
        });
        true
    }

    /// Takes a member out of a room.
    pub fn leave(&mut self, id: MemberId, room: RoomId) {
        let (Some(member), Some(place)) =
            (self.members.get_mut(id as usize), self.rooms.get_mut(room as usize))
        else {
            return;
        };
        let Ok(at) = member.follows.binary_search_by_key(&room, |follow| follow.room) else { return };
        let index = member.follows.remove(at).index;
        place.followers.swap_remove(index as usize);
        if let Some(moved) = place.followers.get(index as usize).map(|follower| follower.member)
            && let Some(follow) =
                self.members.get_mut(moved as usize).and_then(|member| member.follow_mut(room))
        {
            follow.index = index;
        }
        if place.followers.is_empty() {
            place.followers = Vec::new();
        }
    }

    /// Owes a `resync` to all in a room that were in step or are owed one already; returns them.
    pub fn owe_all(&mut self, room: RoomId, reason: Reason) -> Vec<MemberId> {
        let Some(place) = self.rooms.get_mut(room as usize) else { return Vec::new() };
        let mut owed = Vec::new();
        for follower in &mut place.followers {
            follower.standing = match follower.standing {
                Standing::Waiting => continue,
                Standing::InStep => Standing::Owed(reason),
                Standing::Owed(old) => Standing::Owed(old.min(reason)),
            };
            owed.push(follower.member);
        }
        owed
    }
}
