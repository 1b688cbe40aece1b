//! The fault tests: real processes, real faults, and an auditor that is told nothing but what the contract promises.
//!
//! `cargo test --test faults` tries every fault once. `-- --list` names them, `--only NAME` picks, `--repeat N` repeats,
//! `--minutes N --seed N` lets the nemesis loose, `--soak N` does so for N minutes with nodes that must not grow, `--mutants`
//! takes safeguards out and expects to be found out.
#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own: it reads its environment and decides its exit code"
)]
#![allow(clippy::cast_sign_loss, reason = "counts of what happened are not negative")]
#![allow(clippy::large_enum_variant, reason = "there is one Redis in a world")]

mod audit;
mod client;
mod door;
mod journal;
mod mutants;
mod nemesis;
mod node;
mod process;
mod proxy;
mod publisher;
mod reads;
mod record;
mod redis;
mod resp;
mod scenarios;
mod soak;
mod store;
mod trial;
mod watch;
mod world;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, Result, bail};
use tokio::{sync::Semaphore, task::JoinSet};

use journal::Journal;
use scenarios::Scenario;
use store::Kind;

/// What was asked for.
struct Options {
    only: Vec<String>,
    exact: bool,
    skip: Vec<String>,
    repeat: usize,
    jobs: usize,
    minutes: Option<u64>,
    soak: bool,
    seed: u64,
    on: Kind,
    mutants: bool,
    list: bool,
    journal: Option<PathBuf>,
    table: Option<PathBuf>,
}

const USAGE: &str = "options: --list | --only NAME (part of a name; may be repeated) --exact --skip NAME --repeat N --jobs N --journal FILE \
                     | --table JOURNAL | --minutes N --seed N --on standalone|sentinel|cluster | --soak MINUTES --seed N | --mutants [--only MUTANT]";

impl Options {
    fn read() -> Result<Self> {
        let mut options = Self {
            only: Vec::new(),
            exact: false,
            skip: Vec::new(),
            repeat: 1,
            jobs: 2,
            minutes: None,
            soak: false,
            seed: std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs() % 100_000),
            on: Kind::Alone,
            mutants: false,
            list: false,
            journal: None,
            table: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
            match arg.as_str() {
                "--only" => options.only.push(value()?),
                "--exact" => options.exact = true,
                "--skip" => options.skip.push(value()?),
                "--repeat" => options.repeat = value()?.parse()?,
                "--jobs" => options.jobs = value()?.parse()?,
                "--minutes" => options.minutes = Some(value()?.parse()?),
                "--soak" => (options.minutes, options.soak) = (Some(value()?.parse()?), true),
                "--journal" => options.journal = Some(value()?.into()),
                "--table" => options.table = Some(value()?.into()),
                "--seed" => options.seed = value()?.parse()?,
                "--on" => {
                    options.on = match value()?.as_str() {
                        "standalone" => Kind::Alone,
                        "sentinel" => Kind::Sentinel(2),
                        "cluster" => Kind::Cluster,
                        other => bail!("no such Redis: {other}\n{USAGE}"),
                    }
                }
                "--mutants" => options.mutants = true,
                "--list" => options.list = true,
                // What cargo passes on to every test.
                "--nocapture" | "--test-threads=1" => {}
                name if !name.starts_with('-') => options.only.push(name.to_owned()),
                other => bail!("unknown option {other}\n{USAGE}"),
            }
        }
        Ok(options)
    }

    fn wants(&self, scenario: &Scenario) -> bool {
        let among = |names: &[String]| {
            names.iter().any(|name| {
                if self.exact { scenario.name == name } else { scenario.name.contains(name.as_str()) }
            })
        };
        (self.only.is_empty() || among(&self.only)) && !among(&self.skip)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let options = Options::read()?;
    if options.list {
        for scenario in scenarios::all() {
            println!("{}", scenario.name);
        }
        return Ok(true);
    }
    if let Some(path) = &options.table {
        print!("{}", journal::table(path)?);
        return Ok(true);
    }
    if options.mutants {
        return mutants::run(options.only.first().map(String::as_str)).map(|()| true);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match options.minutes {
            Some(minutes) => {
                let run = nemesis::Run { kind: options.on, minutes, seed: options.seed, soak: options.soak };
                run.unleash(|fault| options.wants(fault)).await
            }
            None => try_all(&options).await,
        }
    })
}

/// Tries every wanted fault, a few at a time.
async fn try_all(options: &Options) -> Result<bool> {
    let wanted: Vec<Scenario> =
        scenarios::all().into_iter().filter(|scenario| options.wants(scenario)).collect();
    if wanted.is_empty() {
        bail!("no fault is called so; --list names them");
    }
    let journal = options.journal.as_deref().map(Journal::open).transpose()?;
    let (places, mut trials) = (Arc::new(Semaphore::new(options.jobs)), JoinSet::new());
    let began = std::time::Instant::now();
    let (mut passed, mut failed) = (0, Vec::new());
    for round in 0..options.repeat {
        for scenario in wanted.clone() {
            if journal.as_ref().is_some_and(|journal| journal.has_passed(scenario.name, round)) {
                passed += 1;
                continue;
            }
            // Thousands of sessions need the machine for themselves.
            let many = (scenario.setup)().sessions > 1000;
            let need = if many { options.jobs as u32 } else { 1 };
            let (places, seed) = (Arc::clone(&places), options.seed);
            trials.spawn(async move {
                let _place = places.acquire_many(need).await;
                trial::run(scenario, seed, round).await
            });
        }
    }
    while let Some(trial) = trials.join_next().await {
        let trial = trial?;
        println!("{trial}");
        journal.as_ref().map_or(Ok(()), |journal| journal.note(&trial))?;
        if trial.is_passed() { passed += 1 } else { failed.push(trial.name) }
    }
    println!(
        "in {} s{}",
        began.elapsed().as_secs(),
        if failed.is_empty() { String::new() } else { format!("; failed: {}", failed.join(", ")) }
    );
    println!("{passed} passed, {} failed", failed.len());
    Ok(failed.is_empty())
}
