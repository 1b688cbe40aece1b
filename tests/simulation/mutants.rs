//! The test of the test: each safeguard that a build with the feature `mutants` can take out (src/mutant.rs) is taken out,
//! and a minute of search must notice, from each of three seeds that have nothing to do with each other. A minute is counted
//! in seeds, as many as two idle cores try in that time, so that a busy machine says the same as an idle one.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// Where the searches begin.
const SEEDS: [u64; 3] = [11_000_000, 4_200_000_000, 987_654_321_000];
/// Seeds that each may try: so many take two idle cores a minute.
const MOST: &str = "4000";
/// For how long at most, s.
const SECONDS: &str = "3600";
/// Safeguards of what the simulation has rules of its own for: the real bus, sockets, a process that stands still. Tests with
/// real servers must notice: tests/faults takes the first three out, `tests/simulation/run` the others.
const ELSEWHERE: [&str; 8] =
    ["probe", "reconcile", "stood-still", "unsubscribe", "reads-apart", "ask", "torn", "stuck"];

/// Takes each safeguard out; only these, where any are named. Whether one was not missed.
pub(crate) fn run(only: &[String]) -> bool {
    let names = names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let (mut passed, mut failed) = (0, 0);
    let wanted =
        |name: &&String| !ELSEWHERE.contains(&name.as_str()) && (only.is_empty() || only.contains(name));
    for name in names.iter().filter(wanted) {
        for seed in SEEDS {
            let begun = Instant::now();
            let found = noticed(name, seed);
            let took = begun.elapsed().as_secs_f64();
            let Some((found, how)) = found else {
                failed += 1;
                println!("{name}, from {seed}: NOT noticed, {took:.0} s");
                continue;
            };
            // What fails in the same way with all safeguards in place shows nothing about this one.
            let with = violation(&["--seeds", &format!("{found}..{}", found + 1)], "");
            if with.is_some_and(|(_, with)| with.split(':').next() == how.split(':').next()) {
                failed += 1;
                println!("{name}, from {seed}: seed {found} fails with it, too: {how}");
            } else {
                passed += 1;
                println!("{name}, from {seed}: noticed after {} seeds, {took:.0} s: {how}", found - seed + 1);
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    failed > 0 || passed == 0
}

/// The first seed that a search without this safeguard finds, and what is wrong with it.
fn noticed(name: &str, seed: u64) -> Option<(u64, String)> {
    violation(&["--seed", &seed.to_string(), "--most", MOST, "--seconds", SECONDS], name)
}

/// The first seed that is not right where this program is called so, without a safeguard (none where that is empty), and why.
fn violation(arguments: &[&str], without: &str) -> Option<(u64, String)> {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(arguments)
        .env("CARILLON_MUTANT", without)
        .stdin(Stdio::null())
        .output()
        .expect("a search");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (seed, how) = text.lines().find_map(|line| line.strip_prefix("seed ")?.split_once(": "))?;
    Some((seed.parse().ok()?, how.to_owned()))
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
