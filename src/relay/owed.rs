//! What sessions are owed: `resync`s, and the old `at` until they have them.
//!
//! A `resync` is sent once per session and reason, when the new starting points of its topics are known. Until then no
//! event of these topics is delivered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::switch::Switch;
use crate::{
    hub::{MemberId, Outbox, RoomId, Standing},
    protocol::{NodeMessage, Reason, Subject, Topic, message::Positions},
    relay::feed::{Feed, State},
};

/// The shortest spread, ms.
const SHORTEST: u64 = 5_000;

/// Over how long `sessions` that are told at once shall spread their refetches, ms.
pub(super) fn spread_ms(sessions: usize, refetches_per_second: u64) -> u64 {
    SHORTEST.max(sessions as u64 * 1000 / refetches_per_second.max(1))
}

impl Switch {
    /// Owes a `resync` to all who follow a room.
    pub(super) fn owe_all(&mut self, room: RoomId, reason: Reason) {
        self.owed.extend(self.hub.owe_all(room, reason));
    }

    /// A session was too slow: the events of these topics were dropped.
    pub(super) fn overflow(&mut self, member: MemberId, topics: &BTreeSet<Topic>) {
        self.metrics.overflows.inc();
        let at = self.at();
        self.hub.freeze(member, Some(at));
        for topic in topics {
            let by_key = self.hub.find(&Subject::Topic(topic.clone()));
            let by_key = by_key.filter(|room| self.hub.follow(member, *room).is_some());
            let room = by_key.or_else(|| self.hub.find(&Subject::Every(topic.wide())));
            if let Some(room) = room {
                self.hub.owe(member, room, Reason::Slow);
            }
        }
    }

    /// A slow session has written everything else.
    pub(super) fn drained(&mut self, outbox: &Arc<Outbox>) {
        if let Some(member) = self.hub.member_of(outbox) {
            outbox.settle();
            self.owed.insert(member);
        }
    }

    /// Sends what is owed, at the end of a turn.
    pub(super) fn pay_owed(&mut self) {
        if self.owed.is_empty() || !self.connection.is_settled() {
            return;
        }
        let owed = std::mem::take(&mut self.owed);
        let spread = self.spread_for(owed.len());
        for member in owed {
            self.pay(member, spread);
        }
    }

    /// The spread for so many more sessions, with those that were told just before.
    pub(super) fn spread_for(&mut self, sessions: usize) -> u64 {
        self.told.0 += sessions;
        spread_ms(self.told.0 + self.told.1, self.settings.refetches_per_second)
    }

    /// Sends what a member is owed in rooms that are in step; the rest stays owed.
    pub(super) fn pay(&mut self, id: MemberId, spread_ms: u64) {
        self.owed.remove(&id);
        let Some(member) = self.hub.member(id).filter(|member| member.welcomed) else { return };
        let outbox = Arc::clone(&member.outbox);
        // A slow session is told when it has written what it had: until then it would only be slower.
        let slow = outbox.owed_since().is_some();
        let mut due: BTreeMap<Reason, Vec<RoomId>> = BTreeMap::new();
        let mut left = false;
        for follow in &member.follows {
            match self.hub.standing(id, follow.room) {
                Some(Standing::Owed(reason)) if !slow && self.is_in_step(follow.room) => {
                    due.entry(reason).or_default().push(follow.room);
                }
                Some(Standing::InStep) if self.is_in_step(follow.room) => {}
                Some(Standing::Owed(_) | Standing::InStep) if !slow => {
                    self.owed.insert(id);
                    left = true;
                }
                None => {}
                Some(_) => left = true,
            }
        }
        let at = if left { self.member_at(id) } else { self.at() };
        for (reason, rooms) in due {
            self.tell(id, &outbox, reason, &rooms, spread_ms, at);
        }
        if left {
            self.hub.freeze(id, Some(at));
        } else {
            self.hub.freeze(id, None);
        }
    }

    fn tell(
        &mut self,
        id: MemberId,
        outbox: &Outbox,
        reason: Reason,
        rooms: &[RoomId],
        spread_ms: u64,
        at: u64,
    ) {
        let mut topics = Vec::with_capacity(rooms.len());
        let mut positions = Vec::with_capacity(rooms.len());
        for room in rooms {
            let Some(subject) = self.hub.subject(*room).cloned() else { continue };
            let position = self.feeds.get(room).and_then(Feed::position);
            let head = position.as_ref().map_or(0, |position| position.id.seq);
            self.hub.put_in_step(id, *room, head, head);
            if let (Subject::Topic(topic), Some(position)) = (&subject, position) {
                positions.push((topic.clone(), position));
            }
            topics.push(subject);
        }
        self.metrics.resyncs.get_or_create(&crate::metrics::ReasonLabel { reason: reason.name() }).inc();
        outbox.message(NodeMessage::Resync {
            topics,
            reason,
            spread_ms,
            at,
            positions: Positions(positions),
        });
    }

    fn is_in_step(&self, room: RoomId) -> bool {
        self.feeds.get(&room).is_none_or(|feed| feed.state == State::Live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_grows_with_the_sessions_that_are_told() {
        assert_eq!(spread_ms(1, 200), 5_000);
        assert_eq!(spread_ms(1_000, 200), 5_000);
        assert_eq!(spread_ms(10_000, 200), 50_000);
        assert_eq!(spread_ms(10, 0), 10_000);
    }
}
