//! The nemesis: faults in a random order, under load, for a given time, with small mischief beside them.
//!
//! The order comes from the seed, so that a run that failed can be tried again. Every fault has its own budget of
//! resyncs, also here.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    record::{Fact, Reason},
    scenarios::{self, Scenario},
    watch::PROMISE,
    world::{Kind, Setup, World},
};

/// Lets the nemesis loose on a world.
pub(crate) async fn run(kind: Kind, minutes: u64, seed: u64) -> Result<bool> {
    let setup = Setup {
        kind,
        nodes: 3,
        sessions: 300,
        keys: 20,
        recorded: 60.0,
        live: 5.0,
        proxied: kind == Kind::Alone,
        fronted: true,
        seed,
        ..Setup::default()
    };
    println!("nemesis on {kind:?}, seed {seed}, {minutes} minutes, {} sessions", setup.sessions);
    let faults: Vec<Scenario> =
        scenarios::all().into_iter().filter(|s| s.weight > 0 && fits(s, kind)).collect();
    let mut world = World::start(setup).await?;
    mischief(&mut world, seed);
    let (mut random, began) = (StdRng::seed_from_u64(seed), Instant::now());
    let mut fired: BTreeMap<&'static str, u32> = faults.iter().map(|fault| (fault.name, 0)).collect();
    let mut allowed = vec![Reason::Live];
    let mut failure = None;
    while failure.is_none() && began.elapsed() < Duration::from_secs(minutes * 60) {
        let fault = pick(&faults, &fired, &mut random);
        let started = Instant::now();
        let onset = world.clock.now();
        let outcome = (fault.body)(&mut world).await;
        *fired.entry(fault.name).or_default() += 1;
        allowed.extend(fault.allowed);
        println!(
            "{:>6} s  {:<26} {:.1} s {}",
            began.elapsed().as_secs(),
            fault.name,
            started.elapsed().as_secs_f64(),
            if outcome.is_ok() { "ok" } else { "FAILED" }
        );
        failure = outcome.err().map(|error| format!("{}: {error:#}", fault.name));
        failure = failure.or_else(|| over_budget(&world, onset, fault.allowed));
        if failure.is_none() {
            failure = world
                .in_step_within(PROMISE)
                .await
                .err()
                .map(|error| format!("after {}: {error:#}", fault.name));
        }
    }
    allowed.sort_unstable();
    allowed.dedup();
    let verdict = world.finish(&allowed).await;
    println!("{}", verdict.figures);
    println!("fired: {}", join(&fired));
    println!("bit: {}", join(&world.bites));
    for violation in verdict.violations.iter().chain(&failure) {
        println!("VIOLATION {violation}");
    }
    let failed = verdict.violations.len() + usize::from(failure.is_some());
    println!(
        "seed {seed}, {} s\n{} passed, {failed} failed",
        began.elapsed().as_secs(),
        fired.values().sum::<u32>()
    );
    Ok(failed == 0)
}

fn join<K: std::fmt::Display, V: std::fmt::Display>(counts: &BTreeMap<K, V>) -> String {
    counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
}

/// Whether a fault can be done to the nemesis' world.
fn fits(fault: &Scenario, kind: Kind) -> bool {
    let setup = (fault.setup)();
    let same = std::mem::discriminant(&setup.kind) == std::mem::discriminant(&kind);
    let anywhere = ["node-", "client-", "publish-"].iter().any(|group| fault.name.starts_with(group));
    // Trimming needs more events between two visits than this world has.
    (same || anywhere) && fault.name != "log-trimmed"
}

/// The next fault: by weight, but none may be left out.
fn pick(faults: &[Scenario], fired: &BTreeMap<&'static str, u32>, random: &mut StdRng) -> Scenario {
    let least = fired.values().min().copied().unwrap_or(0);
    let fresh: Vec<&Scenario> =
        faults.iter().filter(|fault| fired[fault.name] <= least + fault.weight).collect();
    let total: u32 = fresh.iter().map(|fault| fault.weight).sum();
    let mut left = random.random_range(0..total.max(1));
    for fault in &fresh {
        if left < fault.weight {
            return **fault;
        }
        left -= fault.weight;
    }
    *fresh[0]
}

/// Resyncs since the onset of a fault that it does not allow.
fn over_budget(world: &World, onset: u64, allowed: &[Reason]) -> Option<String> {
    for session in &world.sessions {
        let state = session.state();
        for (at, fact) in state.told.facts.iter().rev().take_while(|(at, _)| *at >= onset) {
            if let Fact::Resync { topic, reason, .. } = fact
                && *reason != Reason::Live
                && !allowed.contains(reason)
            {
                let (name, topic) = (&state.told.name, world.topics.name(*topic));
                return Some(format!(
                    "over budget at {at} ms: session {name} topic {topic}: resync {}",
                    reason.name()
                ));
            }
        }
    }
    None
}

/// Single sessions that lose their connection all the time, whatever else happens.
fn mischief(world: &mut World, seed: u64) {
    let sessions: Vec<_> = world.sessions.iter().map(Arc::clone).collect();
    let mut random = StdRng::seed_from_u64(seed ^ 0xc0ff_ee00);
    world.beside(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(random.random_range(200..1500))).await;
            sessions[random.random_range(0..sessions.len())].drop_connection();
        }
    });
}
