//! The test of the test: each safeguard that a build with the feature `mutants` can take out (src/mutant.rs) is taken out,
//! and a minute of search must notice, from each of three seeds that have nothing to do with each other.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// Where the searches begin.
const SEEDS: [u64; 3] = [11_000_000, 4_200_000_000, 987_654_321_000];
/// How long each may take, s.
const SECONDS: &str = "60";
/// Safeguards of the real bus, in whose place the simulation has rules of its own: tests/faults takes the first two out,
/// `tests/simulation/run` the third.
const ELSEWHERE: [&str; 3] = ["probe", "reconcile", "unsubscribe"];

/// Takes each safeguard out. Whether one was not missed.
pub(crate) fn run() -> bool {
    let names = names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let (mut passed, mut failed) = (0, 0);
    for name in names.iter().filter(|name| !ELSEWHERE.contains(&name.as_str())) {
        for seed in SEEDS {
            let begun = Instant::now();
            if let Some(how) = noticed(name, seed) {
                passed += 1;
                println!("{name}, from {seed}: noticed after {:.1} s: {how}", begun.elapsed().as_secs_f64());
            } else {
                failed += 1;
                println!("{name}, from {seed}: NOT noticed");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    failed > 0 || passed == 0
}

/// What a search without this safeguard finds.
fn noticed(name: &str, seed: u64) -> Option<String> {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(["--seed", &seed.to_string(), "--seconds", SECONDS])
        .env("CARILLON_MUTANT", name)
        .stdin(Stdio::null())
        .output()
        .expect("a search");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find(|line| line.starts_with("seed ") && line.contains(": ")).map(str::to_owned)
}

/// The names of all safeguards that can be taken out, as the sources have them.
fn names(place: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(place).expect("the sources") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            found.extend(names(&path));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        for piece in text.split("mutant::is(\"").skip(1) {
            found.extend(piece.split('"').next().map(str::to_owned));
        }
    }
    found
}
