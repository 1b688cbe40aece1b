//! Mutants: the program with one of its safeguards taken out. The audit must find each of them.
//!
//! They exist only in a build with the feature `mutants`; the environment names the one that is active.

use anyhow::{Result, bail, ensure};

/// The environment variable that names the active mutant.
pub(crate) const VARIABLE: &str = "CARILLON_MUTANT";

/// A safeguard that is taken out, and the fault that must show it.
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    pub(crate) scenario: &'static str,
}

/// Every mutant.
pub(crate) const ALL: [Mutant; 6] = [
    Mutant { name: "probe", scenario: "link-deaf" },
    Mutant { name: "contiguity", scenario: "link-messages-lost" },
    Mutant { name: "lineage", scenario: "sentinel-lost-tail" },
    // Everybody comes back with positions inside the tails, again and again.
    Mutant { name: "filter", scenario: "client-cut" },
    Mutant { name: "reconcile", scenario: "link-subscription-lost" },
    Mutant { name: "stood-still", scenario: "node-stands-still" },
];

/// Runs the fault tests of every mutant in a process of its own, and fails where one of them passes.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    if !cfg!(feature = "mutants") {
        bail!("mutants need a build of their own: cargo test --features mutants --test faults -- --mutants");
    }
    let wanted: Vec<_> = ALL.iter().filter(|mutant| only.is_none_or(|only| mutant.name == only)).collect();
    ensure!(!wanted.is_empty(), "there is no such mutant: {}", ALL.map(|mutant| mutant.name).join(", "));
    let mut survived = Vec::new();
    for mutant in &wanted {
        println!("mutant {}: {} must fail", mutant.name, mutant.scenario);
        let output = std::process::Command::new(std::env::current_exe()?)
            .args(["--only", mutant.scenario, "--exact"])
            .env(VARIABLE, mutant.name)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            survived.push(mutant.name);
            println!("{text}\nmutant {} was NOT found", mutant.name);
        } else {
            let lines = text
                .lines()
                .filter(|line| line.contains("FAILED") || line.contains(" at ") || line.contains("waited"));
            println!("{}\nmutant {} was found\n", lines.take(6).collect::<Vec<_>>().join("\n"), mutant.name);
        }
    }
    println!("{} passed, {} failed", wanted.len() - survived.len(), survived.len());
    if survived.is_empty() { Ok(()) } else { bail!("these mutants were not found: {}", survived.join(", ")) }
}
