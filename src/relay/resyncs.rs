//! The `resync`s that sessions are owed, and the old `at` until they have them.
//!
//! A `resync` is sent once per session and reason, when the new starting points of its topics are known. Until then no
//! event of these topics is delivered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{feeds::Feeds, link::Link};
use crate::{
    hub::{Dropped, Hub, MemberId, Outbox, RoomId, Standing},
    metrics::{Metrics, ReasonLabel},
    mutant,
    protocol::{NodeMessage, Reason, Subject, message::Positions},
};

/// The shortest spread, ms.
const SHORTEST: u64 = 5_000;

/// How long `sessions` that are told at once shall take for their refetches together, ms: each waits for a random part of it.
fn spread_ms(sessions: usize, refetches_per_second: u64) -> u64 {
    SHORTEST.max(sessions as u64 * 1000 / refetches_per_second.max(1))
}

/// What sessions are owed.
#[derive(Debug)]
pub(super) struct PendingResyncs {
    pending: BTreeSet<MemberId>,
    /// Sessions that were told to refetch in this second and the last.
    resyncs_sent: (usize, usize),
    refetches_per_second: u64,
}

impl PendingResyncs {
    /// Nothing is owed. `refetches_per_second`: what the CMS can take.
    pub(super) fn new(refetches_per_second: u64) -> Self {
        Self { pending: BTreeSet::new(), resyncs_sent: (0, 0), refetches_per_second }
    }

    /// A second has passed.
    pub(super) fn tick(&mut self) {
        self.resyncs_sent = (0, self.resyncs_sent.0);
    }

    /// A member may be owed something: it is looked at when the turn ends.
    pub(super) fn look_at(&mut self, member: MemberId) {
        self.pending.insert(member);
    }

    /// A member has left.
    pub(super) fn forget(&mut self, member: MemberId) {
        self.pending.remove(&member);
    }

    /// Owes a `resync` to all who follow a room.
    pub(super) fn owe_all(&mut self, hub: &mut Hub, room: RoomId, reason: Reason) {
        self.pending.extend(hub.owe_all(room, reason));
    }

    /// Owes a `resync` to all who follow something in an area.
    pub(super) fn owe_area(&mut self, hub: &mut Hub, area: &str, reason: Reason) {
        for room in hub.rooms_of(area) {
            self.owe_all(hub, room, reason);
        }
    }

    /// Sends what is owed, at the end of a turn.
    pub(super) fn pay_all(&mut self, hub: &mut Hub, feeds: &mut Feeds, link: &Link, metrics: &Metrics) {
        if !link.is_settled() {
            return;
        }
        // Who waits for a topic that is behind is looked at when that has caught up, and not in each turn: it may be everybody.
        for room in feeds.take_caught_up() {
            self.pending.extend(hub.followers(room));
        }
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let is_due = |(room, standing)| matches!(standing, Standing::Owed(_)) && feeds.is_live(room);
        let due = pending.iter().filter(|member| hub.standings(**member).into_iter().any(is_due)).count();
        let spread = self.spread_for(due);
        for member in pending {
            self.pay(member, spread, hub, feeds, link, metrics);
        }
    }

    /// The spread for `sessions` more. Those that were told in this second and the last count as well.
    fn spread_for(&mut self, sessions: usize) -> u64 {
        self.resyncs_sent.0 += sessions;
        spread_ms(self.resyncs_sent.0 + self.resyncs_sent.1, self.refetches_per_second)
    }

    /// Sends what one member is owed, at once: it goes behind the answer to its request.
    pub(super) fn pay_one(
        &mut self,
        member: MemberId,
        hub: &mut Hub,
        feeds: &Feeds,
        link: &Link,
        metrics: &Metrics,
    ) {
        let spread = self.spread_for(1);
        self.pay(member, spread, hub, feeds, link, metrics);
    }

    /// Sends what a member is owed in rooms that are in step; the rest stays owed.
    fn pay(
        &mut self,
        id: MemberId,
        spread_ms: u64,
        hub: &mut Hub,
        feeds: &Feeds,
        link: &Link,
        metrics: &Metrics,
    ) {
        self.pending.remove(&id);
        let Some(member) = hub.member(id).filter(|member| member.welcomed) else { return };
        let outbox = Arc::clone(&member.outbox);
        // A slow session is told when it has written what it had: until then it would only be slower.
        let slow = outbox.has_dropped();
        let mut due: BTreeMap<Reason, Vec<RoomId>> = BTreeMap::new();
        let mut left = false;
        for (room, standing) in hub.standings(id) {
            match standing {
                Standing::Owed(reason) if !slow && feeds.is_live(room) => {
                    due.entry(reason).or_default().push(room);
                }
                Standing::InStep if feeds.is_live(room) => {}
                _ => left = true,
            }
        }
        let at = if left { hub.at_of(id, link.at()) } else { link.at() };
        let last = due.len();
        for (nth, (reason, rooms)) in (1..).zip(due) {
            // Only the last of them claims a later `at`: a session that is cut off between two must come back with the old one.
            let at = if nth == last { at } else { hub.at_of(id, at) };
            metrics.resyncs.get_or_create(&ReasonLabel { reason: reason.name() }).inc();
            tell(id, &outbox, reason, &rooms, (spread_ms, at), hub, feeds);
        }
        hub.freeze(id, left.then_some(at));
    }
}

/// A session was too slow: events were dropped, and it is owed a `resync`. Until it has that, its messages repeat the `at` from before
/// the dropped events. `at`: the last proof, ms of Redis' clock.
pub(super) fn overflow(hub: &mut Hub, at: u64, member: MemberId, dropped: &Dropped) {
    let at = if mutant::is("overflow-at") { at } else { at.min(dropped.at) };
    hub.hold_back(member, at);
    if dropped.live
        && let Some(member) = hub.member_mut(member)
    {
        // It is told when it has its `resync`.
        member.live = false;
    }
    for topic in &dropped.topics {
        let by_key = hub.find_topic(topic);
        let by_key = by_key.filter(|room| hub.follow(member, *room).is_some());
        let room = by_key.or_else(|| hub.find(&Subject::Every(topic.wide())));
        if let Some(room) = room {
            hub.owe(member, room, Reason::Slow);
        }
    }
}

fn tell(
    id: MemberId,
    outbox: &Outbox,
    reason: Reason,
    rooms: &[RoomId],
    (spread_ms, at): (u64, u64),
    hub: &mut Hub,
    feeds: &Feeds,
) {
    let mut topics = Vec::with_capacity(rooms.len());
    let mut positions = Vec::with_capacity(rooms.len());
    for room in rooms {
        let Some(subject) = hub.subject(*room).cloned() else { continue };
        let position = feeds.position(*room);
        let head = position.as_ref().map_or(0, |position| position.id.seq);
        hub.put_in_step(id, *room, head, head);
        if let (Subject::Topic(topic), Some(position)) = (&subject, position) {
            positions.push((topic.clone(), position));
        }
        topics.push(subject);
    }
    outbox.message(NodeMessage::Resync { topics, reason, spread_ms, at, positions: Positions(positions) });
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
