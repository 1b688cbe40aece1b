//! The journal: what came of each trial, one JSON object a line, so that a long run can be stopped and taken up again.
//!
//! What has passed according to it is not tried again; its table shows the slowest trial of each fault.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::trial::Trial;

/// A journal in a file.
pub(crate) struct Journal {
    path: PathBuf,
    passed: HashSet<(String, u64)>,
}

impl Journal {
    /// Opens a journal, which need not exist yet.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let passed = entries(path)?.iter().filter(|entry| entry["passed"] == true).map(key).collect();
        Ok(Self { path: path.to_owned(), passed })
    }

    /// Whether a fault has passed in this round already.
    pub(crate) fn has_passed(&self, name: &str, round: usize) -> bool {
        self.passed.contains(&(name.to_owned(), round as u64))
    }

    /// Writes down what came of a trial.
    pub(crate) fn note(&self, trial: &Trial) -> Result<()> {
        let figures = &trial.figures;
        let resyncs: BTreeMap<&str, u64> =
            figures.resyncs.iter().map(|(reason, count)| (reason.name(), *count)).collect();
        let entry = json!({
            "name": trial.name, "round": trial.round, "seed": trial.seed, "passed": trial.is_passed(),
            "seconds": trial.seconds, "known": trial.times.known, "recovered": trial.times.recovered,
            "sessions": figures.sessions, "recorded": figures.recorded, "live": figures.shouted,
            "delivered": figures.delivered, "lost": figures.lost, "duplicates": figures.duplicates,
            "holes": figures.holes, "resyncs": resyncs, "bit": trial.bites, "measured": trial.measured,
            "failures": trial.failures,
        });
        let mut file = File::options().create(true).append(true).open(&self.path)?;
        writeln!(file, "{entry}").with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn key(entry: &Value) -> (String, u64) {
    (entry["name"].as_str().unwrap_or_default().to_owned(), entry["round"].as_u64().unwrap_or_default())
}

fn entries(path: &Path) -> Result<Vec<Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path)?;
    // A run that was killed may have left half a line.
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// A table of all faults in a journal: how often each was tried, and its worst figures. What failed counts as well.
pub(crate) fn table(path: &Path) -> Result<String> {
    let mut faults: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for entry in entries(path)? {
        faults.entry(key(&entry).0).or_default().push(entry);
    }
    let mut text = String::from(
        "| fault | passed | known after | in step after | recorded | delivered | lost | twice | holes | bit |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, trials) in &faults {
        let passed = trials.iter().filter(|trial| trial["passed"] == true).count();
        let most = |field: &str| trials.iter().filter_map(|trial| trial[field].as_u64()).max();
        let sum = |field: &str| trials.iter().filter_map(|trial| trial[field].as_u64()).sum::<u64>();
        let time = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
        let _ = writeln!(
            text,
            "| {name} | {passed}/{} | {} | {} | {} | {} | {} | {} | {} | {} |",
            trials.len(),
            time(most("known")),
            time(most("recovered")),
            sum("recorded"),
            sum("delivered"),
            sum("lost"),
            sum("duplicates"),
            sum("holes"),
            bites(trials)
        );
    }
    Ok(text)
}

fn bites(trials: &[Value]) -> String {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (what, count) in trials.iter().filter_map(|trial| trial["bit"].as_object()).flatten() {
        *sums.entry(what).or_default() += count.as_u64().unwrap_or_default();
    }
    sums.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}
