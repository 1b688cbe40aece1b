//! What a message claims that a session was told, and how that is taken back.
//!
//! A message that waits behind events claims by its `at` and its positions that they were told. When these events are dropped, the
//! claim must be reduced.

use std::collections::BTreeSet;

use super::{NodeMessage, Topic};

impl NodeMessage {
    /// Events of these topics before this message were dropped; `at`: the proof up to which everything was told all the
    /// same. A `resync` keeps its positions: whoever has it refetches what came before them.
    pub fn claim_no_more(&mut self, at: u64, dropped: &BTreeSet<Topic>) {
        let (claimed, positions) = match self {
            Self::Welcome(welcome) => (&mut welcome.at, Some(&mut welcome.positions)),
            Self::Subscribed { at, positions, .. } => (at, Some(positions)),
            Self::Resync { at, .. } | Self::Pong { at } => (at, None),
            _ => return,
        };
        *claimed = at.min(*claimed);
        if let Some(positions) = positions {
            positions.0.retain(|(topic, _)| !dropped.contains(topic));
        }
    }

    /// Whether it is a `status` with `live:true`, which is not true if an event before it was dropped.
    pub fn says_live(&self) -> bool {
        matches!(self, Self::Status { live: true, .. })
    }

    /// Makes `live:false` of it, or `None` where nothing is left to say. One that tells which sources are late may repeat what the
    /// client knows already; then it is not enough to leave it out.
    pub fn not_live(self) -> Option<Self> {
        match self {
            Self::Status { late: None, .. } => None,
            Self::Status { since, late, .. } => Some(Self::Status { live: false, since, late }),
            other => Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Areas, Reason, Subject, message::Positions};

    #[test]
    fn what_waits_behind_dropped_events_claims_no_more_than_what_came_before() {
        let areas = Areas::new(["comments"], [], []).unwrap();
        let topic = |text| Topic::parse(text, &areas).unwrap();
        let position = || "cafe.7-5".parse().unwrap();
        let positions =
            || Positions(vec![(topic("comments:1"), position()), (topic("comments:2"), position())]);
        let dropped = BTreeSet::from([topic("comments:1")]);
        let mut subscribed = NodeMessage::Subscribed { at: 9, positions: positions(), refused: Vec::new() };
        subscribed.claim_no_more(7, &dropped);
        let left = Positions(vec![(topic("comments:2"), position())]);
        assert_eq!(subscribed, NodeMessage::Subscribed { at: 7, positions: left, refused: Vec::new() });
        let resync = |at| NodeMessage::Resync {
            topics: vec![Subject::Topic(topic("comments:1"))],
            reason: Reason::Gap,
            spread_ms: 1,
            at,
            positions: positions(),
        };
        let mut told = resync(9);
        told.claim_no_more(7, &dropped);
        assert_eq!(told, resync(7), "who is told to refetch may start where it says");
        let mut pong = NodeMessage::Pong { at: 5 };
        pong.claim_no_more(7, &dropped);
        assert_eq!(pong, NodeMessage::Pong { at: 5 }, "never more than it said");
    }
}
