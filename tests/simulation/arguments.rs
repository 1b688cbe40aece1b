//! What is asked for on the command line.

use std::{ops::Range, path::PathBuf, time::Duration};

/// What to do.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// Try seeds from this one on until the time is over, or so many were tried.
    Search { from: u64, time: Duration, most: u64 },
    /// Try these seeds.
    Seeds(Range<u64>),
    /// Show one seed's schedule, shrunk, with its timeline.
    Replay(u64),
    /// Take each safeguard out: these, or all.
    Mutants(Vec<String>),
    /// Run a schedule from a file.
    Schedule(PathBuf),
}

/// How it is called.
pub(crate) const USAGE: &str = "\
tests/simulation/run [--seconds N] [--seed S]   try seeds from S on for N seconds (60)
                     [--most N]                 ... and no more than so many
tests/simulation/run --seeds A..B               try these seeds
tests/simulation/run --replay SEED              shrink a seed that fails, and print its timeline
tests/simulation/run --schedule FILE            run one schedule and print its timeline
tests/simulation/run --mutants [NAME...]        take each safeguard out: it must be noticed within so many seeds as two idle
                                                cores try in a minute";

/// Reads the arguments; `None` for wrong ones.
pub(crate) fn read() -> Option<Order> {
    let mut arguments = std::env::args().skip(1);
    let (mut seconds, mut seed, mut most) = (60, None, u64::MAX);
    while let Some(name) = arguments.next() {
        if name == "--mutants" {
            return Some(Order::Mutants(arguments.collect()));
        }
        let value = arguments.next()?;
        match name.as_str() {
            "--seconds" => seconds = value.parse().ok()?,
            "--most" => most = value.parse().ok()?,
            "--seed" => seed = Some(value.parse().ok()?),
            "--replay" => return Some(Order::Replay(value.parse().ok()?)),
            "--schedule" => return Some(Order::Schedule(value.into())),
            "--seeds" => {
                let (from, to) = value.split_once("..")?;
                return Some(Order::Seeds(from.parse().ok()?..to.parse().ok()?));
            }
            _ => return None,
        }
    }
    // Without a seed each run tries new ones; the first is printed.
    let from = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()) * 1_000_000);
    Some(Order::Search { from, time: Duration::from_secs(seconds), most })
}
