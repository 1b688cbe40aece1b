//! The nemesis: faults in a random order, under load, for a given time, with small mischief beside them.
//!
//! The order comes from the seed, so that a run that failed can be tried again. Every fault has its own budget of
//! resyncs, also here.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    node::Node,
    process::until,
    record::{Fact, Reason},
    scenarios::{self, Scenario},
    soak::{self, Soak},
    store::Kind,
    watch::PROMISE,
    world::{Setup, World},
};

/// How often every fault must fire in a run that is long enough for all of them.
const LEAST: u32 = 2;
/// Faults, by the beginnings of their names, that need neither a kind of Redis nor proxies on the way to it.
const ANYWHERE: &[&str] = &[
    "node-",
    "session-",
    "client-",
    "publish-",
    "log-",
    "redis-kill",
    "redis-empty",
    "redis-flushall",
    "redis-maxmemory",
    "link-pubsub-killed",
    "link-output-limit",
    "link-subscription-refused",
];
/// Minutes from which on a run is long enough.
const LONG: u64 = 10;

/// What is asked of the nemesis.
pub(crate) struct Run {
    pub(crate) kind: Kind,
    pub(crate) minutes: u64,
    pub(crate) seed: u64,
    /// Whether visitors come and go meanwhile, and nothing may grow.
    pub(crate) soak: bool,
}

impl Run {
    /// Lets the nemesis loose on a world, with the faults that are wanted. Whether all was well.
    pub(crate) async fn unleash(&self, wanted: impl Fn(&Scenario) -> bool) -> Result<bool> {
        let &Self { kind, minutes, seed, soak } = self;
        let stays =
            |fault: &Scenario| !soak || !soak::LEFT_OUT.iter().any(|group| fault.name.starts_with(group));
        let (mine, others): (Vec<Scenario>, Vec<Scenario>) = scenarios::all()
            .into_iter()
            .partition(|fault| fault.weight > 0 && fits(fault, kind) && stays(fault) && wanted(fault));
        ensure!(!mine.is_empty(), "no fault of that name can be done to {kind:?}; --list names them");
        println!("nemesis on {kind:?}, seed {seed}, {minutes} minutes; {} faults", mine.len());
        println!("left out: {}", others.iter().map(|fault| fault.name).collect::<Vec<_>>().join(" "));
        let mut setup = setup(kind, seed);
        if soak {
            setup.env.extend(soak::SETTINGS);
        }
        let mut world = World::start(setup).await?;
        mischief(&mut world, seed);
        let soak = soak.then(|| Soak::start(&mut world)).transpose()?;
        let began = Instant::now();
        let mut done = self.faults(&mut world, &mine).await;
        let seconds = began.elapsed().as_secs();
        if done.failures.is_empty() && minutes >= LONG {
            let rare = done.fired.iter().filter(|(_, count)| **count < LEAST);
            done.failures.extend(rare.map(|(name, count)| format!("{name} fired {count} times only")));
        }
        done.allowed.sort_unstable();
        done.allowed.dedup();
        let verdict = world.finish(&done.allowed).await;
        let rate = verdict.figures.recorded as f64 / seconds.max(1) as f64;
        println!("{}\n{rate:.1} recorded events a second", verdict.figures);
        println!("fired: {}\nbit: {}", join(&done.fired), join(&world.bites));
        println!("slowest: known {:?} ms, in step {:?} ms", world.times.known, world.times.recovered);
        let mut failures = done.failures;
        failures.extend(verdict.violations);
        failures.extend(soak.into_iter().flat_map(|soak| soak.verdict()));
        for violation in &failures {
            println!("VIOLATION {violation}");
        }
        let fired = done.fired.values().sum::<u32>();
        println!("seed {seed}, {seconds} s\n{fired} passed, {} failed", failures.len());
        Ok(failures.is_empty())
    }

    /// One fault after the other, until the time is over or one fails.
    async fn faults(&self, world: &mut World, mine: &[Scenario]) -> Done {
        let (mut random, began) = (StdRng::seed_from_u64(self.seed), Instant::now());
        let mut done = Done {
            fired: mine.iter().map(|fault| (fault.name, 0)).collect(),
            allowed: vec![Reason::Live],
            failures: Vec::new(),
        };
        while done.failures.is_empty() && began.elapsed() < Duration::from_secs(self.minutes * 60) {
            let fault = pick(mine, &done.fired, &mut random);
            *done.fired.entry(fault.name).or_default() += 1;
            done.allowed.extend(fault.allowed);
            let started = Instant::now();
            let outcome = unleash(&fault, world).await;
            println!(
                "{:>6} s  {:<26} {:.1} s {}",
                began.elapsed().as_secs(),
                fault.name,
                started.elapsed().as_secs_f64(),
                if outcome.is_ok() { "ok" } else { "FAILED" }
            );
            done.failures.extend(outcome.err().map(|error| format!("{}: {error:#}", fault.name)));
        }
        done
    }
}

/// What the nemesis did.
struct Done {
    /// How often each fault was tried.
    fired: BTreeMap<&'static str, u32>,
    /// The resyncs that these faults may cost.
    allowed: Vec<Reason>,
    failures: Vec<String>,
}

/// Three nodes, 300 sessions, and a proxy wherever there can be one.
fn setup(kind: Kind, seed: u64) -> Setup {
    Setup {
        kind,
        nodes: 3,
        sessions: 300,
        keys: 20,
        recorded: 70.0,
        live: 5.0,
        proxied: has_proxies(kind),
        fronted: true,
        redis: scenarios::NODE_USER,
        env: scenarios::NODE_LOGIN.into(),
        seed,
        ..Setup::default()
    }
}

/// Does one fault to the world: it must bite, cost nobody more than it may, and be over for everybody in time.
async fn unleash(fault: &Scenario, world: &mut World) -> Result<()> {
    let (onset, bites) = (world.clock.now(), world.bites.values().sum::<u64>());
    world.note(format!("==== {}", fault.name));
    (fault.body)(world).await?;
    ensure!(world.bites.values().sum::<u64>() > bites, "nothing proves that the fault bit");
    within_budget(world, onset, fault.allowed)?;
    world.in_step_within(PROMISE).await?;
    // Also where nobody is at a node: the next fault begins with all of them.
    until("every node is ready", PROMISE, || async {
        join_all(world.nodes.iter().map(Node::is_ready)).await.into_iter().all(|ready| ready)
    })
    .await
    .with_context(|| world.logs())
}

fn join<K: std::fmt::Display, V: std::fmt::Display>(counts: &BTreeMap<K, V>) -> String {
    counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
}

/// Whether a fault can be done to the nemesis' world.
fn fits(fault: &Scenario, kind: Kind) -> bool {
    let setup = (fault.setup)();
    let same = std::mem::discriminant(&setup.kind) == std::mem::discriminant(&kind);
    same || ANYWHERE.iter().any(|group| fault.name.starts_with(group))
        || (has_proxies(kind) && fault.name.starts_with("link-"))
}

/// Whether there are proxies on the way to Redis. Before the masters under Sentinel there are none: the sentinels would go
/// through them as well, and take for dead what is only out of the nodes' sight.
fn has_proxies(kind: Kind) -> bool {
    !matches!(kind, Kind::Sentinel(_))
}

/// The next fault: by weight, but first each as often as it must.
fn pick(faults: &[Scenario], fired: &BTreeMap<&'static str, u32>, random: &mut StdRng) -> Scenario {
    let least = fired.values().min().copied().unwrap_or(0);
    let due = |fault: &&Scenario| {
        let fired = fired[fault.name];
        if least < LEAST { fired == least } else { fired <= least + fault.weight }
    };
    let due: Vec<&Scenario> = faults.iter().filter(due).collect();
    let total: u32 = due.iter().map(|fault| fault.weight).sum();
    let mut left = random.random_range(0..total.max(1));
    for fault in &due {
        if left < fault.weight {
            return **fault;
        }
        left -= fault.weight;
    }
    *due[0]
}

/// Fails where a session was told since the onset of a fault to refetch for a reason that the fault does not allow.
fn within_budget(world: &World, onset: u64, allowed: &[Reason]) -> Result<()> {
    let over = |fact: &Fact| matches!(fact, Fact::Resync { reason, .. } if *reason != Reason::Live && !allowed.contains(reason));
    for session in &world.sessions {
        let state = session.state();
        let mut since = state.told.facts.iter().rev().take_while(|(at, _)| *at >= onset);
        if let Some((at, fact)) = since.find(|(_, fact)| over(fact)) {
            let topic = fact.topic().map_or("-", |topic| world.topics.name(topic));
            let (at, name) = (*at, state.told.name.clone());
            let what = format!("over budget at {at} ms: session {name} topic {topic}: {fact}");
            drop(state);
            bail!("{what}\n{}", session.tail(40));
        }
    }
    Ok(())
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
