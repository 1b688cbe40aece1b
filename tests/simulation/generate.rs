//! From a seed to a schedule: a few clients of every kind, and a mix of deeds that differs from seed to seed, so that some
//! schedules are about one fault only and others have everything at once.

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use crate::{
    devoted,
    plan::{Deed, Late, Part, Plan, Step, Way},
    redis::Refusal,
    stages, themes,
};

/// Topics by key, and what whole-area subscriptions there may be.
pub(crate) const TOPICS: [&str; 7] =
    ["comments:1", "comments:2", "comments:3", "comments", "projects", "content:7", "content"];
const AREAS: [&str; 2] = ["comments:*", "content:*"];
const WAYS: [Way; 4] = [Way::Socket, Way::Stream, Way::Sse, Way::Poll];
/// How long a schedule is busy, ms.
const BUSY: u64 = 60_000;
/// How many of the schedules are devoted to one situation.
const DEVOTED: f64 = 0.25;

/// The schedule of a seed; devoted to a scene, where one is named.
pub(crate) fn plan(seed: u64, scene: Option<&str>) -> Plan {
    let mut plan = crowd(seed, scene);
    stages::add(&mut plan);
    plan
}

/// The same, before it is decided who its clients are.
fn crowd(seed: u64, scene: Option<&str>) -> Plan {
    let mut rng = SmallRng::seed_from_u64(seed);
    let nodes = rng.random_range(2..=3);
    let parts = (0..rng.random_range(8..=10)).map(|n| part(n, nodes, &mut rng)).collect::<Vec<_>>();
    let mut plan = Plan {
        seed,
        nodes,
        log_length: *[4, 12, 1000].choose(&mut rng).unwrap_or(&12),
        log_ttl: if rng.random_bool(0.1) { 40_000 } else { 86_400_000 },
        linger: *[0, 2_000, 30_000].choose(&mut rng).unwrap_or(&0),
        outbox_bytes: *[600, 1_500, 262_144].choose(&mut rng).unwrap_or(&1_500),
        room: *[60, 400, 4_000].choose(&mut rng).unwrap_or(&400),
        pace: *[1, 5, 40].choose(&mut rng).unwrap_or(&5),
        proof: None,
        steps: Vec::new(),
        parts,
    };
    let mut steps = Vec::new();
    if rng.random_bool(DEVOTED) || scene.is_some() {
        for _ in 0..rng.random_range(20..50) {
            let deed = busy(&plan, &mut rng);
            steps.push(Step { at: rng.random_range(500..BUSY), deed });
        }
        devoted::devote(&mut plan, scene, &mut rng, &mut steps);
        return ordered(plan, steps);
    }
    // Weights of the kinds of deeds: most schedules have only some of them.
    let faults: Vec<u8> = (0..20u8).filter(|_| rng.random_bool(0.3)).collect();
    for _ in 0..rng.random_range(60..160) {
        let deed = busy(&plan, &mut rng);
        steps.push(Step { at: rng.random_range(500..BUSY), deed });
    }
    if !faults.is_empty() {
        for _ in 0..rng.random_range(1..12) {
            let kind = *faults.choose(&mut rng).unwrap_or(&0);
            let deed = fault(kind, &plan, &mut rng);
            let at = rng.random_range(2_000..BUSY);
            steps.push(Step { at, deed });
            close_by(at, &plan, &mut rng, &mut steps);
        }
    }
    for _ in 0..rng.random_range(0..4) {
        let at = rng.random_range(2_000..BUSY);
        themes::add(&plan, at, &mut rng, &mut steps);
    }
    ordered(plan, steps)
}

fn ordered(mut plan: Plan, mut steps: Vec<Step>) -> Plan {
    steps.sort_by_key(|step| step.at);
    for step in &mut steps {
        // A scene may have changed how many nodes there are.
        if let Deed::Cut { node, .. } = &mut step.deed {
            *node %= plan.nodes;
        }
    }
    for part in &mut plan.parts {
        part.node %= plan.nodes;
    }
    plan.steps = steps;
    plan
}

/// Faults matter for what happens around them.
fn close_by(at: u64, plan: &Plan, rng: &mut SmallRng, steps: &mut Vec<Step>) {
    for _ in 0..rng.random_range(0..6) {
        let deed = busy(plan, rng);
        let near = *[20, 300, 4_000].choose(rng).unwrap_or(&300);
        steps.push(Step { at: (at + rng.random_range(0..near)).saturating_sub(near / 3), deed });
    }
}

fn part(n: usize, nodes: usize, rng: &mut SmallRng) -> Part {
    let way = WAYS[n % WAYS.len()];
    let mut subjects: Vec<String> = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        let subject = subject(way, rng);
        if !subjects.contains(&subject) {
            subjects.push(subject);
        }
    }
    Part { way, node: rng.random_range(0..nodes), subjects }
}

fn subject(way: Way, rng: &mut SmallRng) -> String {
    let every = way != Way::Poll && rng.random_bool(0.15);
    let names: &[&str] = if every { &AREAS } else { &TOPICS };
    (*names.choose(rng).unwrap_or(&"comments:1")).to_owned()
}

fn topic(rng: &mut SmallRng) -> String {
    (*TOPICS.choose(rng).unwrap_or(&"comments:1")).to_owned()
}

/// What happens on any day.
fn busy(plan: &Plan, rng: &mut SmallRng) -> Deed {
    let client = rng.random_range(0..plan.parts.len());
    let node = rng.random_range(0..plan.nodes);
    match rng.random_range(0..100) {
        0..62 => Deed::Publish { topic: topic(rng) },
        62..72 => Deed::Live {
            topic: (*["comments:1", "content:7", "comments"].choose(rng).unwrap_or(&"comments")).into(),
        },
        72..86 => Deed::Cut {
            client,
            percent: *[0, 30, 70, 100].choose(rng).unwrap_or(&100),
            away: *[0, 200, 3_000, 12_000].choose(rng).unwrap_or(&200),
            node,
        },
        86..91 => Deed::Follow { client, subject: subject(plan.parts[client].way, rng) },
        91..96 => Deed::Unfollow { client, subject: subject(plan.parts[client].way, rng) },
        _ => Deed::Ping { client },
    }
}

fn fault(kind: u8, plan: &Plan, rng: &mut SmallRng) -> Deed {
    let node = rng.random_range(0..plan.nodes);
    let client = rng.random_range(0..plan.parts.len());
    let lasts = *[50, 400, 3_000, 9_000].choose(rng).unwrap_or(&400);
    // Longer than the promised ten seconds.
    let long = if lasts == 9_000 { 25_000 } else { lasts };
    match kind {
        0 | 1 => Deed::Break { node, lasts },
        2 => Deed::Deafen { node, lasts: lasts * 2 },
        3 => Deed::Slow {
            node,
            by: *[30, 200, 900].choose(rng).unwrap_or(&200),
            lasts: lasts * 2,
            what: *[Late::All, Late::All, Late::Pushes, Late::Commands, Late::Reads]
                .choose(rng)
                .unwrap_or(&Late::All),
        },
        4 => Deed::Lose { node, count: rng.random_range(1..5) },
        5 => Deed::Forget { node, subject: topic(rng) },
        6 => Deed::Refuse { why: Refusal::NoReplicas, lasts: long },
        7 => Deed::Refuse { why: Refusal::Oom, lasts },
        8 => Deed::Refuse { why: Refusal::MisConf, lasts: long },
        9 => Deed::Deny { topic: topic(rng), lasts: long },
        10 => Deed::FailOver { lost: rng.random_range(0..4) },
        11 => Deed::Flush,
        12 => Deed::Trim { topic: topic(rng), keep: rng.random_range(0..4) },
        13 => Deed::Delete { topic: topic(rng) },
        14 => Deed::Clock { by: *[-20_000, -700, 700, 4_000, 20_000].choose(rng).unwrap_or(&700) },
        15 => Deed::Freeze { node, lasts },
        16 => Deed::Kill { node, lasts },
        17 => Deed::Drain { node, lasts },
        18 => Deed::Poison { topic: topic(rng) },
        _ => Deed::Stall { client, lasts },
    }
}
