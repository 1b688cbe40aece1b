//! Scenes of live events: nothing but a mark remembers them, and whoever was away is told by it, or by a node that has heard
//! everything since.

use super::{ALONE, Stage, X};
use crate::{
    plan::{Deed, Late, Way},
    redis::Refusal,
};

/// The answer to the write of a mark comes late, and a live event meanwhile.
pub(super) fn late_mark(stage: &mut Stage<'_>) {
    let way = stage.way();
    stage.cast(&[(way, 0, &[ALONE]), (Way::Socket, 1, &[ALONE])]);
    (stage.plan.nodes, stage.plan.linger, stage.plan.pace) = (3, 0, 1);
    let by = stage.between(1_200, 1_400);
    stage.on(0, Deed::Slow { node: 1, by, lasts: 6_000, what: Late::Commands });
    stage.live(10, ALONE);
    stage.on(by + 2_050, Deed::Probe { node: 0 });
    stage.on(by + 2_080, Deed::Ping { client: X });
    stage.on(by + 2_100, Deed::Slow { node: 0, by: 1_500, lasts: 3_000, what: Late::Pushes });
    let away = stage.between(80, 300);
    stage.cut(by + 2_110, X, 100, away, 2);
    stage.live(by + 2_120, ALONE);
    // It comes back with a proof that is later than all marks.
    stage.on(7_300, Deed::Probe { node: 2 });
    stage.on(7_600, Deed::Ping { client: X });
    stage.cut(8_000, X, 100, 50, 0);
}

/// Redis lets nobody write a mark for a while, and a live event comes.
pub(super) fn withheld(stage: &mut Stage<'_>) {
    let way = stage.way();
    stage.cast(&[(way, 0, &[ALONE])]);
    stage.plan.pace = stage.one_of(&[1, 5]);
    let why = stage.one_of(&[Refusal::NoReplicas, Refusal::MisConf]);
    stage.on(0, Deed::Refuse { why, lasts: 25_000 });
    let when = stage.between(100, 6_000);
    stage.live(when, ALONE);
}

/// Redis' clock is set ahead while a mark still holds by the clock of a node.
pub(super) fn clock_ahead(stage: &mut Stage<'_>) {
    let way = stage.way();
    stage.cast(&[(way, 0, &[ALONE]), (Way::Socket, 1, &[ALONE])]);
    stage.plan.pace = 1;
    let by = stage.one_of(&[4_000, 20_000]);
    stage.live(0, ALONE);
    let when = stage.between(100, 300);
    stage.on(when, Deed::Clock { by });
    stage.on(when + 20, Deed::Probe { node: 0 });
    stage.on(when + 60, Deed::Ping { client: X });
    stage.on(when + 80, Deed::Slow { node: 0, by: 1_000, lasts: 2_000, what: Late::Pushes });
    let away = stage.between(60, 200);
    stage.cut(when + 90, X, 100, away, 1);
    stage.live(when + 100, ALONE);
    // It comes back with a proof that is later than all marks.
    stage.on(5_000, Deed::Probe { node: 1 });
    stage.on(5_300, Deed::Ping { client: X });
    stage.cut(6_000, X, 100, 50, 0);
}

/// The marks are gone with the Redis that had them, and the clock of the next master is far behind: what nodes knew of them
/// would be true for more than a minute.
pub(super) fn marks_of_a_redis_that_is_gone(stage: &mut Stage<'_>) {
    stage.cast(&[(Way::Poll, 0, &[ALONE]), (Way::Socket, 0, &[ALONE]), (Way::Socket, 1, &[ALONE])]);
    (stage.plan.nodes, stage.plan.pace) = (2, stage.one_of(&[1, 5]));
    stage.live(0, ALONE);
    stage.on(1_000, Deed::Flush);
    for n in 0..5 {
        stage.on(1_100 + n * 20, Deed::Clock { by: -20_000 });
    }
    stage.on(1_300, Deed::FailOver { lost: 0 });
    // By now nothing of that is a reason to tell anybody.
    for n in 0..8 {
        stage.publish(78_000 + n * 2_500, ALONE);
    }
}

/// One topic of a session is refused when it comes back, and has a live event until it can be followed.
pub(super) fn denied_topic_and_live_event(stage: &mut Stage<'_>) {
    let way = stage.way();
    stage.cast(&[(way, 0, &["comments:3", ALONE]), (Way::Socket, 1, &["comments:3"])]);
    stage.plan.linger = 0;
    stage.publish(0, "comments:3");
    stage.cut(300, X, 100, 3_000, 0);
    stage.on(500, Deed::Deny { topic: "comments:3".into(), lasts: 11_000 });
    let when = stage.between(9_000, 11_000);
    stage.live(when, "comments:3");
}

/// Live events, and polls that hop between nodes that all follow their topic.
pub(super) fn calm_polls(stage: &mut Stage<'_>) {
    stage.cast(&[
        (Way::Socket, 0, &[ALONE]),
        (Way::Socket, 1, &[ALONE]),
        (Way::Poll, 0, &[ALONE]),
        (Way::Poll, 1, &[ALONE]),
    ]);
    (stage.plan.nodes, stage.plan.linger, stage.plan.pace) = (2, 30_000, 1);
    for n in 0..3 {
        let when = n * 3_000 + stage.between(0, 2_000);
        stage.live(when, ALONE);
    }
}

/// A live event is lost on the way to the node that a session comes back to, which then hears of nothing else before a proof
/// that is later than the event's mark.
pub(super) fn lost_live_event(stage: &mut Stage<'_>) {
    let way = stage.one_of(&[Way::Poll, Way::Sse]);
    stage.cast(&[(way, 1, &[ALONE]), (Way::Socket, 0, &[ALONE]), (Way::Socket, 1, &[ALONE])]);
    (stage.plan.nodes, stage.plan.linger, stage.plan.pace) = (2, 30_000, stage.one_of(&[1, 5]));
    stage.cut(0, X, 100, 800, 0);
    stage.on(100, Deed::Lose { node: 0, count: 1 });
    stage.live(150, ALONE);
    stage.on(3_500, Deed::Probe { node: 0 });
    stage.publish(3_600, ALONE);
}

/// A live event is lost on the way to a node, which finds a loss only when its sessions were told of a later proof; one of
/// them goes on at a node that has heard everything.
pub(super) fn found_loss(stage: &mut Stage<'_>) {
    stage.cast(&[(Way::Sse, 0, &[ALONE]), (Way::Socket, 0, &[ALONE]), (Way::Socket, 1, &[ALONE])]);
    (stage.plan.nodes, stage.plan.linger, stage.plan.pace) = (2, 30_000, 1);
    stage.cut(0, X, 100, 10, 0);
    stage.on(1_000, Deed::Lose { node: 0, count: 1 });
    stage.live(1_020, ALONE);
    stage.on(1_300, Deed::Probe { node: 1 });
    // All hear this one, so that the mark that follows says nothing new.
    stage.live(3_000, ALONE);
    stage.on(3_500, Deed::Probe { node: 0 });
    stage.publish(3_600, ALONE);
    stage.on(3_700, Deed::Lose { node: 0, count: 1 });
    stage.publish(3_720, ALONE);
    stage.publish(3_760, ALONE);
    let away = stage.between(50, 900);
    stage.cut(3_900, X, 100, away, 1);
    // Whoever goes on from here is told of a proof that is later than all marks.
    stage.on(8_000, Deed::Probe { node: 1 });
    stage.publish(8_100, ALONE);
}

/// Redis has no memory left, so that a probe's time is read before the probe is sent. Live events come in between, and one of them
/// is published behind the proof with which a session changes nodes.
pub(super) fn probe_sent_late(stage: &mut Stage<'_>) {
    let way = stage.one_of(&[Way::Poll, Way::Sse]);
    stage.cast(&[(way, 1, &[ALONE]), (Way::Socket, 0, &[ALONE]), (Way::Socket, 1, &[ALONE])]);
    (stage.plan.nodes, stage.plan.linger, stage.plan.pace) = (2, 30_000, stage.one_of(&[1, 5]));
    stage.on(0, Deed::Refuse { why: Refusal::Oom, lasts: 4_000 });
    // Its mark lets the next ones through at once.
    stage.live(50, ALONE);
    stage.on(100, Deed::Slow { node: 0, by: 300, lasts: 2_000, what: Late::Commands });
    // It is refused after 300 ms, its time is read after 900 ms, and it is sent after 1,500 ms.
    stage.on(110, Deed::Probe { node: 0 });
    let proven = 110 + stage.between(930, 1_200);
    stage.on(proven, Deed::Probe { node: 1 });
    stage.live(proven + 40, ALONE);
    let away = stage.between(10, 100);
    stage.cut(proven + 60, X, 100, away, 0);
    stage.live(proven + 80, ALONE);
}

/// Redis is emptied, and nodes count on a mark that is gone.
pub(super) fn emptied_redis(stage: &mut Stage<'_>) {
    let way = stage.way();
    stage.cast(&[(way, 0, &[ALONE]), (Way::Socket, 1, &[ALONE])]);
    (stage.plan.nodes, stage.plan.linger, stage.plan.pace) = (3, 0, 1);
    stage.live(0, ALONE);
    stage.publish(50, ALONE);
    stage.on(100, Deed::Flush);
    stage.publish(150, ALONE);
    let away = stage.between(300, 900);
    stage.cut(250, X, 100, away, 2);
    stage.live(400, ALONE);
    // It comes back with a proof that is later than all marks.
    stage.on(5_000, Deed::Probe { node: 2 });
    stage.on(5_300, Deed::Ping { client: X });
    stage.cut(6_000, X, 100, 50, 0);
}
