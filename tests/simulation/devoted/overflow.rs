//! Scenes in which a client does not read: its outbox overflows, and what waits behind the dropped events must claim no more
//! than was true before them.

use super::{ALONE, Stage, X};
use crate::plan::{Deed, Late, Way};

/// An answer that names positions waits behind events that an overflow drops.
pub(super) fn claims(stage: &mut Stage<'_>) {
    const OTHER: &str = "comments:3";
    let way = stage.way();
    stage.cast(&[(way, 0, &["comments"]), (Way::Socket, 1, &[OTHER])]);
    (stage.plan.outbox_bytes, stage.plan.room) = (1_500, stage.one_of(&[60, 400]));
    (stage.plan.linger, stage.plan.pace) = (0, stage.one_of(&[1, 5]));
    // Nobody takes what a client says while its socket is full: it asks before that, and the answer comes later.
    stage.on(0, Deed::Slow { node: 0, by: 300, lasts: 400, what: Late::Commands });
    stage.on(20, Deed::Follow { client: X, subject: OTHER.into() });
    stage.on(40, Deed::Stall { client: X, lasts: 2_000 });
    for n in 0..5 {
        stage.publish(60 + n * 20, "comments");
    }
    for n in 0..12 {
        stage.publish(1_200 + n * 20, "comments");
    }
    stage.on(5_000, Deed::Unfollow { client: X, subject: OTHER.into() });
}

/// A live event waits, a proof comes behind it, and an overflow drops the event; then comes one of another topic.
pub(super) fn overflow_behind_a_proof(stage: &mut Stage<'_>) {
    // A task that writes takes its events out of the outbox, where they cannot be dropped any more.
    stage.cast(&[(Way::Socket, 0, &[ALONE, "content"]), (Way::Socket, 1, &[ALONE, "content"])]);
    (stage.plan.outbox_bytes, stage.plan.room, stage.plan.pace) = (1_500, 400, stage.one_of(&[5, 40]));
    stage.plan.log_length = 1_000;
    stage.on(0, Deed::Stall { client: X, lasts: 4_000 });
    // The socket takes two of them and a piece of the third.
    for n in 0..stage.between(3, 5) {
        stage.publish(20 + n * 40, ALONE);
    }
    stage.live(400, ALONE);
    stage.on(3_100, Deed::Probe { node: 0 });
    for n in 0..12 {
        stage.publish(3_400 + n * 5, ALONE);
    }
    stage.publish(3_700, "content");
    let soon = 4_000 + 2 * stage.plan.pace;
    let (when, percent) = (stage.between(4_000, soon), stage.one_of(&[70, 100, 100]));
    stage.cut(when, X, percent, 50, 0);
}

/// A session owes itself a `resync` while its node loses the link and has it again.
pub(super) fn overflow_and_lost_link(stage: &mut Stage<'_>) {
    let way = stage.way();
    stage.cast(&[(way, 0, &[ALONE]), (Way::Socket, 1, &[ALONE])]);
    (stage.plan.outbox_bytes, stage.plan.room) = (600, stage.one_of(&[60, 400]));
    stage.on(0, Deed::Stall { client: X, lasts: 5_000 });
    for n in 0..12 {
        stage.publish(50 + n * 10, ALONE);
    }
    let (when, lasts) = (stage.between(300, 900), stage.one_of(&[20, 300]));
    stage.on(when, Deed::Break { node: 0, lasts });
}
