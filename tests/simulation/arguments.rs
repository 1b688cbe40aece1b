//! What is asked for on the command line.

use std::{ops::Range, path::PathBuf, time::Duration};

use crate::devoted;

/// The scene that all schedules are devoted to, where one is named.
type Scene = Option<String>;

/// What to do.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// Try seeds from this one on until the time is over, or so many were tried.
    Search { from: u64, time: Duration, most: u64, scene: Scene },
    /// Try these seeds.
    Seeds(Range<u64>, Scene),
    /// Show one seed's schedule, shrunk, with its timeline.
    Replay(u64, Scene),
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
                     [--scene NAME]             ... all of them devoted to this scene (also with --seeds and --replay)
tests/simulation/run --replay SEED              shrink a seed that fails, and print its timeline
tests/simulation/run --schedule FILE            run one schedule and print its timeline
tests/simulation/run --mutants [NAME...]        take each safeguard out: it must be noticed within so many seeds as two idle
                                                cores try in a minute";

/// Reads the arguments; `None` for wrong ones.
pub(crate) fn read() -> Option<Order> {
    let mut arguments = std::env::args().skip(1);
    let (mut seconds, mut seed, mut most) = (60, None, u64::MAX);
    let (mut scene, mut seeds, mut replayed) = (None, None, None);
    while let Some(name) = arguments.next() {
        if name == "--mutants" {
            return Some(Order::Mutants(arguments.collect()));
        }
        let value = arguments.next()?;
        match name.as_str() {
            "--seconds" => seconds = value.parse().ok()?,
            "--most" => most = value.parse().ok()?,
            "--seed" => seed = Some(value.parse().ok()?),
            "--replay" => replayed = Some(value.parse().ok()?),
            "--scene" => scene = Some(devoted::names().find(|name| *name == value)?.to_owned()),
            "--schedule" => return Some(Order::Schedule(value.into())),
            "--seeds" => {
                let (from, to) = value.split_once("..")?;
                seeds = Some(from.parse().ok()?..to.parse().ok()?);
            }
            _ => return None,
        }
    }
    if let Some(seed) = replayed {
        return Some(Order::Replay(seed, scene));
    }
    if let Some(seeds) = seeds {
        return Some(Order::Seeds(seeds, scene));
    }
    // Without a seed each run tries new ones; the first is printed.
    let from = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()) * 1_000_000);
    Some(Order::Search { from, time: Duration::from_secs(seconds), most, scene })
}
