//! No type of a crate has the name of another one: a name that is met in a message, a comment or a search means one thing.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use super::reading::{sources, without_comments_and_strings};
use crate::support::root;

/// Names that stand more than once, because the path before them says it better.
const SEVERAL: [&str; 7] = [
    // What a lock guards: private, and beside the type that has the lock.
    "Inner",
    // `bus::Settings`, `relay::Settings`, ...: what a room is told by the configuration.
    "Settings",
    // `config::Areas` is the section of that name, as all structs of `config` are; `protocol::Areas` are the areas.
    "Areas",
    // Builds with traces and builds without them: there is one of each in any build.
    "Traces",
    "Span",
    // `fuzzing` opens what is private to the targets, under its own name.
    "FrameDecoder",
    "Incoming",
];

#[test]
fn no_two_types_of_a_crate_have_one_name() {
    let mut complaints = String::new();
    for home in ["src", "crates/bench/src", "crates/cli/src"] {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in sources(&root().join(home)) {
            let code = without_comments_and_strings(&fs::read_to_string(&file).unwrap());
            for name in types(&code) {
                places
                    .entry(name)
                    .or_default()
                    .push(file.strip_prefix(root()).unwrap().display().to_string());
            }
        }
        assert!(places.len() > 10, "only {} types in {home}: is this the right place?", places.len());
        for (name, places) in places.iter().filter(|(_, places)| places.len() > 1) {
            if !SEVERAL.contains(&&**name) {
                writeln!(complaints, "{name} is in {}", places.join(" and ")).unwrap();
            }
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn types_of_all_kinds_are_found() {
    let code = "pub struct A<T>(T);\n    pub(super) enum B {}\ntrait C {}\ntype D = A<u8>;\nfn structure() {}\nimpl X { type Output = u8; }\n";
    assert_eq!(types(code), ["A", "B", "C", "D"]);
}

/// The types that the code makes. Those of a trait's implementation, which have the trait's name, are not among them.
fn types(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code.lines() {
        let inner = line.starts_with(' ');
        let words: Vec<&str> = line.split_whitespace().skip_while(|word| word.starts_with("pub")).collect();
        if let [kind, name, ..] = words[..]
            && (["struct", "enum", "trait"].contains(&kind) || kind == "type" && !inner)
        {
            found.push(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found
}
