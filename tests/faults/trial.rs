//! One trial of one fault: a world is made, the fault is done to it, everything comes to rest and is audited.

use std::{collections::BTreeMap, fmt, time::Instant};

use crate::{
    audit::Figures,
    scenarios::Scenario,
    world::{Setup, Times, World},
};

/// What came of a trial.
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    pub(crate) round: usize,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) figures: Figures,
    pub(crate) times: Times,
    pub(crate) bites: BTreeMap<&'static str, u64>,
    pub(crate) measured: BTreeMap<&'static str, f64>,
    pub(crate) failures: Vec<String>,
}

/// Tries a fault. `round`: how often it was tried before.
pub(crate) async fn run(scenario: Scenario, seed: u64, round: usize) -> Trial {
    let began = Instant::now();
    let seed = seed + round as u64;
    let setup = Setup { seed, ..(scenario.setup)() };
    let mut trial = Trial {
        name: scenario.name,
        round,
        seed,
        seconds: 0.0,
        figures: Figures::default(),
        times: Times::default(),
        bites: BTreeMap::new(),
        measured: BTreeMap::new(),
        failures: Vec::new(),
    };
    match World::start(setup).await {
        Err(error) => trial.failures.push(format!("the world could not be started: {error:#}")),
        Ok(mut world) => {
            if let Err(error) = (scenario.body)(&mut world).await {
                trial.failures.push(format!("{error:#}"));
            }
            let verdict = world.finish(scenario.allowed).await;
            trial.failures.extend(verdict.violations);
            (trial.figures, trial.times, trial.bites, trial.measured) =
                (verdict.figures, world.times.clone(), world.bites.clone(), world.measured.clone());
            if trial.failures.is_empty() && trial.bites.values().sum::<u64>() == 0 {
                trial.failures.push("nothing proves that the fault bit".into());
            }
        }
    }
    trial.seconds = began.elapsed().as_secs_f64();
    trial
}

impl Trial {
    pub(crate) fn is_passed(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_passed() { "ok    " } else { "FAILED" };
        let time = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
        write!(
            f,
            "{verdict} {:<26} {:>5.1} s  known {:<6} recovered {:<6} {}",
            self.name,
            self.seconds,
            time(self.times.known),
            time(self.times.recovered),
            self.figures
        )?;
        let bites: Vec<String> = self.bites.iter().map(|(what, count)| format!("{count} {what}")).collect();
        write!(f, "  bit: {}", bites.join(", "))?;
        for (what, figure) in &self.measured {
            write!(f, "; {what}: {figure:.1}")?;
        }
        for failure in &self.failures {
            write!(f, "\n    {}", failure.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sessions {} recorded {} live {} delivered {} reconnects {} lost {} duplicates {} holes {} resyncs ",
            self.sessions,
            self.recorded,
            self.shouted,
            self.delivered,
            self.reconnects,
            self.lost,
            self.duplicates,
            self.holes
        )?;
        let resyncs: Vec<String> =
            self.resyncs.iter().map(|(reason, n)| format!("{}:{n}", reason.name())).collect();
        write!(f, "{}", if resyncs.is_empty() { "none".to_owned() } else { resyncs.join(",") })
    }
}
