//! Scenes of recorded events: logs that are read, replaced, compared and refused while messages are on their way.

use super::{ALONE, Stage, X, Z};
use crate::plan::{Deed, Late, Way};

/// While heads are compared more comes than is held, and nothing after it.
pub(super) fn more_than_is_held(stage: &mut Stage<'_>) {
    let way = stage.way();
    stage.cast(&[(way, 0, &[ALONE]), (Way::Socket, 1, &[ALONE])]);
    (stage.plan.log_length, stage.plan.pace) = (1_000, 1);
    (stage.plan.outbox_bytes, stage.plan.room) = (262_144, 4_000);
    stage.on(0, Deed::Break { node: 0, lasts: 50 });
    stage.on(60, Deed::Slow { node: 0, by: 900, lasts: 2_500, what: Late::Commands });
    let (when, count) = (stage.between(2_000, 2_700), stage.between(560, 700) as u32);
    stage.on(when, Deed::Burst { topic: ALONE.into(), count });
}

/// A log is replaced, a node learns it by a read, and only then come the last messages of the log before. Now and then a master
/// whose clock is behind has taken over before: the log before has the later epoch then.
pub(super) fn late_messages_of_a_replaced_log(stage: &mut Stage<'_>) {
    const TOPIC: &str = "comments:1";
    stage.cast(&[(Way::Socket, 0, &["comments:*"]), (Way::Stream, 0, &[TOPIC]), (Way::Socket, 1, &[TOPIC])]);
    stage.plan.pace = stage.one_of(&[1, 5]);
    let begun = stage.at;
    for n in 0..stage.between(4, 9) {
        stage.publish(n * 10, TOPIC);
    }
    if stage.one_of(&[false, false, true]) {
        stage.on(200, Deed::Clock { by: -20_000 });
        stage.on(250, Deed::FailOver { lost: 0 });
        stage.at += 2_500;
    }
    stage.on(600, Deed::Slow { node: 0, by: 1_200, lasts: 1_500, what: Late::Pushes });
    for n in 0..3 {
        stage.publish(620 + n * 10, TOPIC);
    }
    stage.on(700, Deed::Delete { topic: TOPIC.into() });
    stage.publish(720, TOPIC);
    stage.cut(800, Z, 100, 10, 0);
    for n in 0..stage.between(1, 3) {
        stage.publish(4_000 + n * 200, TOPIC);
    }
    stage.cut(6_000, Z, 100, 10, 1);
    stage.at = begun;
}

/// A read brings events before the wire does, and their topic is left in between.
pub(super) fn read_before_the_wire(stage: &mut Stage<'_>) {
    const TOPIC: &str = "comments:1";
    stage.cast(&[
        (Way::Socket, 0, &["comments:*", TOPIC]),
        (Way::Stream, 0, &[TOPIC, ALONE]),
        (Way::Socket, 1, &[TOPIC, ALONE]),
    ]);
    (stage.plan.linger, stage.plan.pace) = (0, stage.one_of(&[1, 5]));
    // Who leaves the topic: all who follow it by key, or only the one who follows the whole area too.
    let leave = stage.one_of(&[Z, X]);
    for client in X..=leave {
        stage.on(0, Deed::Follow { client, subject: TOPIC.into() });
    }
    stage.publish(500, TOPIC);
    let (by, lasts) = if leave == Z { (2_200, 300) } else { (1_000, 1_500) };
    stage.on(800, Deed::Slow { node: 0, by, lasts, what: Late::Pushes });
    for n in 0..stage.between(1, 3) {
        stage.publish(820 + n * 10, TOPIC);
    }
    stage.cut(900, Z, 100, 1, 0);
    let when = stage.between(1_100, 1_600);
    for client in X..=leave {
        stage.on(when, Deed::Unfollow { client, subject: TOPIC.into() });
    }
    stage.cut(4_000, Z, 100, 10, 1);
}

/// A message is lost where a topic is followed by key, and somebody else follows its whole area; and another one while the log is read.
pub(super) fn gap_in_an_area(stage: &mut Stage<'_>) {
    const TOPIC: &str = "comments:2";
    let way = stage.way();
    stage.cast(&[(way, 0, &["comments:*"]), (Way::Socket, 0, &[TOPIC])]);
    stage.publish(0, TOPIC);
    stage.on(400, Deed::Lose { node: 0, count: 1 });
    stage.publish(450, TOPIC);
    let again = stage.one_of(&[true, false]);
    if again {
        stage.on(900, Deed::Slow { node: 0, by: 700, lasts: 300, what: Late::Reads });
        stage.on(1_150, Deed::Lose { node: 0, count: 1 });
        stage.publish(1_200, TOPIC);
    }
    for n in 0..3 {
        stage.publish(1_000 + n * 300, TOPIC);
    }
}

/// A topic is opened while what was published before is still on its way by the wire, and a read brings what comes after.
pub(super) fn read_ahead_of_the_wire(stage: &mut Stage<'_>) {
    const TOPIC: &str = "comments:1";
    stage.cast(&[(Way::Socket, 0, &["comments:*"]), (Way::Socket, 1, &[TOPIC]), (Way::Stream, 1, &[TOPIC])]);
    (stage.plan.nodes, stage.plan.linger, stage.plan.pace) = (2, 0, stage.one_of(&[1, 5]));
    stage.publish(0, TOPIC);
    stage.on(500, Deed::Slow { node: 0, by: 500, lasts: 170, what: Late::Commands });
    stage.cut(590, Z, 100, 10, 0);
    stage.on(680, Deed::Slow { node: 0, by: 1_500, lasts: 1_500, what: Late::Pushes });
    // The head is read in the midst of these.
    for n in 0..20 {
        stage.publish(1_095 + n * 4, TOPIC);
    }
    stage.cut(6_000, Z, 100, 10, 1);
}

/// One topic of a session is refused, and it comes back while its node has no link.
pub(super) fn denied_topic_and_lost_link(stage: &mut Stage<'_>) {
    let way = stage.way();
    stage.cast(&[(way, 0, &[ALONE, "comments:3"]), (Way::Socket, 1, &[ALONE])]);
    stage.plan.linger = 0;
    stage.publish(0, ALONE);
    let away = stage.between(2_500, 4_000);
    stage.cut(200, X, 100, away, 0);
    stage.on(300, Deed::Deny { topic: "comments:3".into(), lasts: 45_000 });
    stage.on(away, Deed::Break { node: 0, lasts: 700 });
    for n in 0..8 {
        stage.publish(away + 1_500 + n * 1_000, ALONE);
    }
}

/// One topic after another is left while all heads are being compared.
pub(super) fn left_while_heads_are_compared(stage: &mut Stage<'_>) {
    stage.cast(&[(Way::Socket, 0, &MANY), (Way::Socket, 1, &[ALONE])]);
    roomy(stage);
    publish_to_all(stage);
    stage.on(600, Deed::Slow { node: 0, by: 1_300, lasts: 11_000, what: Late::Commands });
    // Heads are compared every eight seconds, and that takes two and a half now.
    for (n, topic) in (0..).zip(&MANY[..4]) {
        stage.on(1_500 + n * 2_100, Deed::Unfollow { client: X, subject: (*topic).into() });
    }
    follow_all(stage, 15_000);
}

/// A topic is left while the heads of all are looked at because of a doubt.
pub(super) fn left_while_a_doubt_is_looked_at(stage: &mut Stage<'_>) {
    stage.cast(&[(Way::Socket, 0, &MANY), (Way::Socket, 1, &[ALONE])]);
    roomy(stage);
    publish_to_all(stage);
    stage.on(600, Deed::Slow { node: 0, by: 900, lasts: 8_000, what: Late::Commands });
    stage.on(700, Deed::Forget { node: 0, subject: ALONE.into() });
    stage.on(750, Deed::Probe { node: 0 });
    for topic in &MANY[..2] {
        let when = stage.between(3_000, 4_500);
        stage.on(when, Deed::Unfollow { client: X, subject: (*topic).into() });
    }
    follow_all(stage, 11_000);
}

/// A session comes back to a node whose memory does not reach so far back, and Redis refuses to read the log for a while.
pub(super) fn denied_read(stage: &mut Stage<'_>) {
    const TOPIC: &str = "comments:3";
    const Y: usize = 1;
    let way = stage.way();
    stage.cast(&[(way, 0, &[TOPIC]), (Way::Socket, 1, &[ALONE])]);
    roomy(stage);
    stage.plan.log_length = 1_000;
    stage.cut(0, X, 100, 1_500, 1);
    for n in 0..stage.between(2, 6) {
        stage.publish(100 + n * 100, TOPIC);
    }
    stage.on(900, Deed::Follow { client: Y, subject: TOPIC.into() });
    stage.on(1_400, Deed::Deny { topic: TOPIC.into(), lasts: 7_000 });
    stage.cut(12_000, X, 100, 50, 0);
    stage.on(13_000, Deed::Unfollow { client: Y, subject: TOPIC.into() });
}

/// Topics that one client follows, in the order in which it asks for them.
const MANY: [&str; 5] = ["comments:1", "comments:2", "comments:3", "content:7", ALONE];

/// Topics are closed at once, and nobody is slow.
fn roomy(stage: &mut Stage<'_>) {
    (stage.plan.nodes, stage.plan.linger, stage.plan.pace) = (2, 0, 1);
    (stage.plan.outbox_bytes, stage.plan.room) = (262_144, 4_000);
}

/// No two logs end at the same number.
fn publish_to_all(stage: &mut Stage<'_>) {
    for (n, topic) in (0..).zip(MANY) {
        for again in 0..=n {
            stage.publish(again * 10, topic);
        }
    }
}

fn follow_all(stage: &mut Stage<'_>, after: u64) {
    for topic in MANY {
        stage.on(after, Deed::Follow { client: X, subject: topic.into() });
    }
}
