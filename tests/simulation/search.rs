//! Trying seeds, on every core, until the time is over or one fails.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use carillon::{auth::Authenticator, metrics::Metrics};

use crate::{
    arguments::Order, audit::Violation, generate, mutants, node, plan::Plan, report::Report, shrink,
    world::World,
};

/// What one schedule has come to.
pub(crate) struct Outcome {
    /// What was not right.
    pub violation: Option<Violation>,
    /// What it met.
    pub report: Report,
    /// What happened, where that was asked for.
    pub journal: Vec<String>,
}

/// Who runs schedules in a thread.
pub(crate) struct Runner {
    runtime: tokio::runtime::Runtime,
    auth: Authenticator,
    metrics: Metrics,
}

impl Runner {
    /// A runtime whose clock only moves when it is told to.
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        Self { runtime: runtime.expect("a runtime"), auth: node::authenticator(), metrics: Metrics::new() }
    }

    /// Runs a schedule.
    pub(crate) fn run(&self, plan: Plan, journal: bool) -> Outcome {
        let plan = Arc::new(plan);
        self.runtime.block_on(async {
            let mut world = World::new(plan, &self.auth, &self.metrics, journal);
            world.run().await;
            let mut report = std::mem::take(&mut world.report);
            (report.seeds, report.steps) = (1, world.steps);
            report.verdicts(carillon::relay::take_verdicts());
            Outcome {
                violation: world.audit.violation.take(),
                report,
                journal: world.journal.take().unwrap_or_default(),
            }
        })
    }
}

/// Does what was asked. Whether something was not right.
pub(crate) fn run(order: &Order) -> bool {
    match order {
        Order::Search { from, time, most, scene } => {
            let until = Instant::now() + *time;
            let again = schedules();
            // The first that fails is enough to go on with.
            let seeds = *from..from.saturating_add(*most);
            search(seeds, scene.as_deref(), again, &|failed| !failed && Instant::now() < until)
        }
        Order::Seeds(seeds, scene) => search(seeds.clone(), scene.as_deref(), (0, 0), &|_| true),
        Order::Replay(seed, scene) => {
            let runner = Runner::new();
            let failed = shrink::show(&runner, generate::plan(*seed, scene.as_deref()));
            println!("{}", if failed { "0 passed, 1 failed" } else { "1 passed, 0 failed" });
            failed
        }
        Order::Mutants(names) => mutants::run(names),
        Order::Schedule(path) => {
            let outcome = Runner::new().run(read(path), true);
            outcome.journal.iter().for_each(|line| println!("{line}"));
            let failed = outcome.violation.is_some();
            println!("{}", if failed { "0 passed, 1 failed" } else { "1 passed, 0 failed" });
            failed
        }
    }
}

fn read(path: &Path) -> Plan {
    let text = std::fs::read_to_string(path).expect("a schedule");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The schedules of holes that were closed, each once more. How many passed, and how many failed.
fn schedules() -> (u64, u64) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/schedules");
    let mut paths: Vec<_> =
        std::fs::read_dir(place).expect("schedules").flatten().map(|file| file.path()).collect();
    paths.sort();
    let runner = Runner::new();
    let (mut passed, mut failed) = (0, 0);
    for path in paths {
        match runner.run(read(&path), false).violation {
            None => passed += 1,
            Some(found) => {
                failed += 1;
                println!("schedule {}: {}: {}", path.display(), found.kind, found.text);
            }
        }
    }
    println!("{passed} of {} schedules of closed holes hold", passed + failed);
    (passed, failed)
}

/// `scene`: what all schedules are devoted to; `going`: whether to go on, after one has failed or not.
fn search(
    seeds: Range<u64>,
    scene: Option<&str>,
    again: (u64, u64),
    going: &(dyn Fn(bool) -> bool + Sync),
) -> bool {
    println!("seeds from {}", seeds.start);
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicBool::new(false);
    let total = Mutex::new((Report::default(), Vec::<(u64, Violation)>::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let runner = Runner::new();
                let mut report = Report::default();
                while going(failed.load(Ordering::Relaxed)) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = runner.run(generate::plan(seed, scene), false);
                    report.add(&outcome.report);
                    if let Some(violation) = outcome.violation {
                        failed.store(true, Ordering::Relaxed);
                        // At once: a search may go on for long.
                        println!("seed {seed}: {}: {}", violation.kind, violation.text);
                        total.lock().expect("the total").1.push((seed, violation));
                    }
                }
                total.lock().expect("the total").0.add(&report);
            });
        }
    });
    let (report, mut found) = total.into_inner().expect("the total");
    report.print();
    println!("{:.1} s", begun.elapsed().as_secs_f64());
    found.sort_by_key(|(seed, _)| *seed);
    for (seed, _) in &found {
        println!("replay it with: tests/simulation/run --replay {seed}");
    }
    let seldom = report.seldom();
    for text in &seldom {
        println!("{text}");
    }
    let failed = found.len() as u64 + again.1 + seldom.len() as u64;
    println!("{} passed, {failed} failed", report.seeds - found.len() as u64 + again.0);
    failed > 0
}
