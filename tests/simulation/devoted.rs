//! Schedules that are devoted to one situation: a cast that is made for it, little else, and the same scene several times,
//! each time with other distances between its parts. Random schedules play such scenes too seldom to show that a safeguard is
//! needed.

use rand::{RngExt, rngs::SmallRng, seq::IndexedRandom};

use crate::plan::{Deed, Late, Part, Plan, Step, Way};

/// A topic whose area has no others.
const ALONE: &str = "projects";
/// Who plays: the first clients of the schedule.
const X: usize = 0;
const Z: usize = 2;

/// A scene: the cast, and what happens from a moment on.
type Scene = fn(&mut Stage<'_>);
/// Each with the moments at which it is played, ms.
const SCENES: [(Scene, &[u64]); 17] = [
    (claims, &[3_000, 12_000, 21_000, 30_000, 39_000, 48_000]),
    (overflow_behind_a_proof, &[3_000, 15_000, 27_000, 39_000, 51_000]),
    (overflow_and_lost_link, &[3_000, 15_000, 27_000, 39_000, 51_000]),
    (late_mark, &[3_000, 15_000, 27_000, 39_000, 51_000]),
    (clock_ahead, &[3_000, 18_000, 33_000, 48_000]),
    (no_marks_and_a_clock_behind, &[8_000]),
    (denied_topic_and_lost_link, &[5_000]),
    (denied_topic_and_live_event, &[4_000, 34_000]),
    (more_than_is_held, &[3_000, 33_000]),
    (late_messages_of_a_replaced_log, &[3_000, 13_000, 23_000, 33_000, 43_000]),
    (read_before_the_wire, &[3_000, 12_000, 21_000, 30_000, 39_000, 48_000]),
    (gap_in_an_area, &[14_000]),
    (calm_polls, &[4_000, 14_000, 24_000, 34_000, 44_000]),
    (lost_live_event, &[14_000, 34_000]),
    (found_loss, &[14_000, 34_000]),
    (read_ahead_of_the_wire, &[3_000, 13_000, 23_000, 33_000, 43_000]),
    (emptied_redis, &[3_000, 18_000, 33_000, 48_000]),
];

/// Makes the schedule one that is devoted to a scene.
pub(crate) fn devote(plan: &mut Plan, rng: &mut SmallRng, steps: &mut Vec<Step>) {
    let (scene, moments) = *SCENES.choose(rng).unwrap_or(&SCENES[0]);
    for at in moments {
        scene(&mut Stage { plan, at: *at, first: *at == moments[0], rng, steps });
    }
}

struct Stage<'a> {
    plan: &'a mut Plan,
    at: u64,
    /// Whether the scene is played for the first time.
    first: bool,
    rng: &'a mut SmallRng,
    steps: &'a mut Vec<Step>,
}

impl Stage<'_> {
    /// So long after the scene began, give or take what anything takes.
    fn on(&mut self, after: u64, deed: Deed) {
        let at = self.at + after + self.rng.random_range(0..=self.plan.pace);
        self.steps.push(Step { at, deed });
    }

    fn publish(&mut self, after: u64, topic: &str) {
        self.on(after, Deed::Publish { topic: topic.into() });
    }

    fn live(&mut self, after: u64, topic: &str) {
        self.on(after, Deed::Live { topic: topic.into() });
    }

    fn cut(&mut self, after: u64, client: usize, percent: u8, away: u64, node: usize) {
        self.on(after, Deed::Cut { client, percent, away, node });
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        self.rng.random_range(from..=to)
    }

    fn one_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    /// Who follows what, and where; nobody else follows any of it.
    fn cast(&mut self, cast: &[(Way, usize, &[&str])]) {
        if !self.first {
            return;
        }
        let taken: Vec<&str> = cast.iter().flat_map(|(_, _, subjects)| subjects.iter().copied()).collect();
        for part in &mut self.plan.parts {
            part.subjects.retain(|subject| !taken.contains(&subject.as_str()));
        }
        for (n, (way, node, subjects)) in cast.iter().enumerate() {
            let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
            self.plan.parts[n] = Part { way: *way, node: *node, subjects };
        }
        // What else would happen to them is left out.
        let spoils = |deed: &Deed| match deed {
            Deed::Publish { topic } | Deed::Live { topic } => taken.contains(&topic.as_str()),
            Deed::Follow { client, subject } => taken.contains(&subject.as_str()) || *client < cast.len(),
            Deed::Cut { client, .. } | Deed::Unfollow { client, .. } => *client < cast.len(),
            _ => false,
        };
        self.steps.retain(|step| !spoils(&step.deed));
    }

    fn way(&mut self) -> Way {
        self.one_of(&[Way::Socket, Way::Stream])
    }
}

/// An answer that names positions waits behind events that an overflow drops.
fn claims(stage: &mut Stage<'_>) {
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
fn overflow_behind_a_proof(stage: &mut Stage<'_>) {
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
    let (when, percent) = (stage.between(4_000, soon), stage.one_of(&[50, 70, 100]));
    stage.cut(when, X, percent, 50, 0);
}

/// A session owes itself a `resync` while its node loses the link and has it again.
fn overflow_and_lost_link(stage: &mut Stage<'_>) {
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

/// The answer to the write of a mark comes late, and a live event meanwhile.
fn late_mark(stage: &mut Stage<'_>) {
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
    stage.cut(8_000, X, 100, 50, 0);
}

/// Redis' clock is set ahead while a mark still holds by the clock of a node.
fn clock_ahead(stage: &mut Stage<'_>) {
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

/// The marks are gone, and the clock of the next master is behind.
fn no_marks_and_a_clock_behind(stage: &mut Stage<'_>) {
    stage.cast(&[(Way::Poll, 0, &[ALONE]), (Way::Socket, 0, &[ALONE]), (Way::Socket, 1, &[ALONE])]);
    stage.live(0, ALONE);
    stage.on(1_000, Deed::Flush);
    stage.on(1_100, Deed::Clock { by: -20_000 });
    stage.on(1_200, Deed::Clock { by: -20_000 });
    stage.on(1_300, Deed::FailOver { lost: 0 });
    for n in 0..8 {
        stage.publish(4_000 + n * 4_000, ALONE);
    }
}

/// One topic of a session is refused, and it comes back while its node has no link.
fn denied_topic_and_lost_link(stage: &mut Stage<'_>) {
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

/// One topic of a session is refused when it comes back, and has a live event until it can be followed.
fn denied_topic_and_live_event(stage: &mut Stage<'_>) {
    let way = stage.way();
    stage.cast(&[(way, 0, &["comments:3", ALONE]), (Way::Socket, 1, &["comments:3"])]);
    stage.plan.linger = 0;
    stage.publish(0, "comments:3");
    stage.cut(300, X, 100, 3_000, 0);
    stage.on(500, Deed::Deny { topic: "comments:3".into(), lasts: 11_000 });
    let when = stage.between(9_000, 11_000);
    stage.live(when, "comments:3");
}

/// While heads are compared more comes than is held, and nothing after it.
fn more_than_is_held(stage: &mut Stage<'_>) {
    let way = stage.way();
    stage.cast(&[(way, 0, &[ALONE]), (Way::Socket, 1, &[ALONE])]);
    (stage.plan.log_length, stage.plan.pace) = (1_000, 1);
    (stage.plan.outbox_bytes, stage.plan.room) = (262_144, 4_000);
    stage.on(0, Deed::Break { node: 0, lasts: 50 });
    stage.on(60, Deed::Slow { node: 0, by: 900, lasts: 2_500, what: Late::Commands });
    let (when, count) = (stage.between(2_000, 2_700), stage.between(560, 700) as u32);
    stage.on(when, Deed::Burst { topic: ALONE.into(), count });
}

/// A log is replaced, a node learns it by a read, and only then come the last messages of the log before.
fn late_messages_of_a_replaced_log(stage: &mut Stage<'_>) {
    const TOPIC: &str = "comments:1";
    stage.cast(&[(Way::Socket, 0, &["comments:*"]), (Way::Stream, 0, &[TOPIC]), (Way::Socket, 1, &[TOPIC])]);
    stage.plan.pace = stage.one_of(&[1, 5]);
    for n in 0..stage.between(4, 9) {
        stage.publish(n * 10, TOPIC);
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
}

/// A read brings events before the wire does, and their topic is left in between.
fn read_before_the_wire(stage: &mut Stage<'_>) {
    const TOPIC: &str = "comments:1";
    stage.cast(&[
        (Way::Socket, 0, &["comments:*", TOPIC]),
        (Way::Stream, 0, &[TOPIC]),
        (Way::Socket, 1, &[TOPIC]),
    ]);
    stage.plan.pace = stage.one_of(&[1, 5]);
    stage.on(0, Deed::Follow { client: X, subject: TOPIC.into() });
    stage.publish(500, TOPIC);
    stage.on(800, Deed::Slow { node: 0, by: 1_000, lasts: 1_500, what: Late::Pushes });
    for n in 0..stage.between(1, 3) {
        stage.publish(820 + n * 10, TOPIC);
    }
    stage.cut(900, Z, 100, 1, 0);
    let when = stage.between(1_100, 1_600);
    stage.on(when, Deed::Unfollow { client: X, subject: TOPIC.into() });
    stage.cut(4_000, Z, 100, 10, 1);
}

/// A message is lost where a topic is followed by key, and somebody else follows its whole area.
fn gap_in_an_area(stage: &mut Stage<'_>) {
    const TOPIC: &str = "comments:2";
    let way = stage.way();
    stage.cast(&[(way, 0, &["comments:*"]), (Way::Socket, 0, &[TOPIC])]);
    stage.publish(0, TOPIC);
    stage.on(400, Deed::Lose { node: 0, count: 1 });
    stage.publish(450, TOPIC);
    for n in 0..3 {
        stage.publish(1_000 + n * 300, TOPIC);
    }
}

/// Live events, and polls that hop between nodes that all follow their topic.
fn calm_polls(stage: &mut Stage<'_>) {
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
fn lost_live_event(stage: &mut Stage<'_>) {
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
fn found_loss(stage: &mut Stage<'_>) {
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

/// A topic is opened while what was published before is still on its way by the wire, and a read brings what comes after.
fn read_ahead_of_the_wire(stage: &mut Stage<'_>) {
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

/// Redis is emptied, and nodes count on a mark that is gone.
fn emptied_redis(stage: &mut Stage<'_>) {
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
