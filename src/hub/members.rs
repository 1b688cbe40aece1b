//! Members: how each session stands in the rooms that it follows.

use super::{Follow, Hub, Member, MemberId, RoomId, Standing, rooms::Follower};
use crate::protocol::{Reason, Subject, Topic};

impl Member {
    /// Its place in a room.
    pub fn follow(&self, room: RoomId) -> Option<&Follow> {
        let at = self.follows.binary_search_by_key(&room, |follow| follow.room).ok()?;
        self.follows.get(at)
    }

    pub(super) fn follow_mut(&mut self, room: RoomId) -> Option<&mut Follow> {
        let at = self.follows.binary_search_by_key(&room, |follow| follow.room).ok()?;
        self.follows.get_mut(at)
    }
}

impl Hub {
    /// A member's place in a room.
    pub fn follow(&self, id: MemberId, room: RoomId) -> Option<&Follow> {
        self.member(id)?.follow(room)
    }

    /// The session unsubscribed from it by name; a key of its area may still imply it.
    pub fn make_implied(&mut self, id: MemberId, room: RoomId) {
        if let Some(member) = self.members.get_mut(id as usize)
            && let Some(follow) = member.follow_mut(room)
        {
            follow.explicit = false;
        }
    }

    /// How a member stands in a room.
    pub fn standing(&self, id: MemberId, room: RoomId) -> Option<Standing> {
        self.standing_of(self.follow(id, room)?)
    }

    /// How a member stands where `follow` says.
    pub(super) fn standing_of(&self, follow: &Follow) -> Option<Standing> {
        Some(self.rooms.get(follow.room as usize)?.followers.get(follow.index as usize)?.standing)
    }

    /// Puts a member in step from `after` on. `from`: where its stream began, which is earlier with a replay.
    pub fn put_in_step(&mut self, id: MemberId, room: RoomId, from: u64, after: u64) {
        if let Some(follow) = self.members.get_mut(id as usize).and_then(|member| member.follow_mut(room)) {
            follow.from = from;
        }
        if let Some(follower) = self.follower_mut(id, room) {
            follower.standing = Standing::InStep;
            follower.after = after;
        }
    }

    /// Owes a member a `resync`; an earlier reason of the table stays.
    pub fn owe(&mut self, id: MemberId, room: RoomId, reason: Reason) {
        if let Some(follower) = self.follower_mut(id, room) {
            follower.standing = match follower.standing {
                Standing::Owed(old) => Standing::Owed(old.min(reason)),
                _ => Standing::Owed(reason),
            };
        }
    }

    /// How a member stands in each of its rooms, in their order.
    pub fn standings(&self, id: MemberId) -> Vec<(RoomId, Standing)> {
        let follows = self.member(id).map(|member| member.follows.as_slice()).unwrap_or_default();
        let standing = |follow: &Follow| Some((follow.room, self.standing_of(follow)?));
        follows.iter().filter_map(standing).collect()
    }

    /// Whether a member waits in a room for this join to put it in step.
    pub fn is_waiting(&self, id: MemberId, room: RoomId, ticket: u32) -> bool {
        self.follow(id, room).is_some_and(|follow| follow.ticket == ticket)
            && self.standing(id, room) == Some(Standing::Waiting)
    }

    /// The `at` that a member's messages carry: `at`, or the earlier one that it was held back to. `at`: what others are told, ms
    /// of Redis' clock; 0: nothing yet.
    pub fn at_of(&self, id: MemberId, at: u64) -> u64 {
        let held = self.member(id).and_then(|member| member.at);
        held.map_or(at, |held| if at == 0 { held } else { held.min(at) })
    }

    /// A member must not be told of a later proof than this until it has what it is owed.
    pub fn hold_back(&mut self, id: MemberId, at: u64) {
        let least = self.member(id).and_then(|member| member.at).map_or(at, |held| held.min(at));
        self.freeze(id, None);
        self.freeze(id, Some(least));
    }

    /// From now on (or no longer, with `None`) the member's events repeat this `at`.
    pub fn freeze(&mut self, id: MemberId, at: Option<u64>) {
        let Some(member) = self.members.get_mut(id as usize) else { return };
        if member.at.is_some() == at.is_some() {
            return;
        }
        member.at = at;
        for follow in &member.follows {
            if let Some(follower) = self
                .rooms
                .get_mut(follow.room as usize)
                .and_then(|room| room.followers.get_mut(follow.index as usize))
            {
                follower.frozen = at.is_some();
            }
        }
    }

    fn follower_mut(&mut self, id: MemberId, room: RoomId) -> Option<&mut Follower> {
        let index = self.follow(id, room)?.index;
        self.rooms.get_mut(room as usize)?.followers.get_mut(index as usize)
    }

    /// Takes a member out of subjects. Returns those that it no longer follows, and the rooms that are empty now. An area whose
    /// keys it follows is still followed: they imply it.
    pub fn unsubscribe(&mut self, id: MemberId, subjects: &[Subject]) -> (Vec<Subject>, Vec<RoomId>) {
        let mut gone = Vec::new();
        let mut left = Vec::new();
        for subject in subjects {
            let Some(room) = self.find(subject).filter(|room| self.follow(id, *room).is_some()) else {
                continue;
            };
            if *subject == Subject::Topic(subject.wide()) {
                self.make_implied(id, room);
            } else {
                self.leave(id, room);
                gone.push(subject.clone());
                left.push(room);
            }
        }
        let mut areas: Vec<Topic> = subjects.iter().map(Subject::wide).collect();
        areas.sort_unstable();
        areas.dedup();
        for wide in areas {
            if let Some(room) = self.implied_no_longer(id, &wide) {
                self.leave(id, room);
                gone.push(Subject::Topic(wide));
                left.push(room);
            }
        }
        left.retain(|room| self.is_empty(*room));
        (gone, left)
    }

    /// The area's room, where no key implies it any more and it was not asked for by name.
    fn implied_no_longer(&self, id: MemberId, wide: &Topic) -> Option<RoomId> {
        let room = self.find_topic(wide)?;
        if self.follow(id, room)?.explicit {
            return None;
        }
        let implied = self.member(id)?.follows.iter().any(|follow| {
            follow.room != room && self.subject(follow.room).is_some_and(|subject| subject.wide() == *wide)
        });
        (!implied).then_some(room)
    }
}
