//! Reads the sources and fails where they leave the ladder: a path to a module on the same rung or above, a file that
//! does not say what it is, a file that has grown too long, a crate used outside its room. Without it the rule «a module
//! names only modules on lower rungs» holds until the first hurried change.

mod circles;
mod names;
mod reading;

use std::{fmt::Write as _, fs};

use self::reading::{first_names, functions, paths, sources, without_comments_and_strings};
use crate::support::root;

/// The rung of each module at the top of the node's crate. `lib` is the map: it may name all.
const LADDER: [(&str, u8); 17] = [
    ("app", 6),
    ("http", 5),
    ("fuzzing", 5),
    ("session", 4),
    ("relay", 3),
    ("hub", 2),
    ("bus", 2),
    ("auth", 2),
    ("telemetry", 2),
    ("protocol", 1),
    ("config", 1),
    ("metrics", 1),
    ("mutant", 0),
    ("shutdown", 1),
    ("outbound", 1),
    ("printable", 1),
    ("seldom", 1),
];

/// Crates that stay in their rooms: a change of one of them must not reach further.
const KEPT_IN: [(&str, &[&str]); 4] =
    [("fred", &["bus"]), ("redis_protocol", &["bus"]), ("axum", &["http", "app"]), ("config", &["config"])];

/// Pure rooms, tested with values alone: no runtime in them.
const WITHOUT_TOKIO: [&str; 3] = ["protocol/", "session/machine", "relay/"];
/// The files in them that meet the runtime: the handle, and the task that drives the values.
const WITH_TOKIO: [&str; 2] = ["relay/mod.rs", "relay/task.rs"];

/// Lines of a file, and of a function, at most.
const LINES: usize = 400;
const FUNCTION_LINES: usize = 60;

#[test]
fn the_sources_keep_to_the_ladder() {
    let mut complaints = String::new();
    let mut read = 0;
    for file in sources(&root().join("src")) {
        let name = file.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_owned();
        for complaint in complaints_about(&name, &fs::read_to_string(&file).unwrap()) {
            writeln!(complaints, "src/{name}: {complaint}").unwrap();
        }
        read += 1;
    }
    assert!(read > 20, "only {read} files under src: is this the right place?");
    for file in sources(&root().join("crates")) {
        for complaint in complaints_beside_the_node(&fs::read_to_string(&file).unwrap()) {
            writeln!(complaints, "{}: {complaint}", file.display()).unwrap();
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn tests_and_benches_say_what_they_are_and_stay_short() {
    let mut complaints = String::new();
    let places = ["tests", "benches", "fuzz/src", "fuzz/fuzz_targets"];
    for file in places.iter().flat_map(|place| sources(&root().join(place))) {
        for complaint in manners(&fs::read_to_string(&file).unwrap()) {
            writeln!(complaints, "{}: {complaint}", file.display()).unwrap();
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

/// The test of the test: what it is there for is planted, and must be found.
#[test]
fn what_is_planted_is_found() {
    let planted = [
        ("hub/rooms.rs", "//! x\nuse crate::relay::Feed;\n", "relay"),
        ("bus/mod.rs", "//! x\nuse crate::{protocol::Topic, hub::Outbox};\n", "hub"),
        (
            "bus/redis/mod.rs",
            "//! x\nuse crate::{\n    metrics,\n    session::{Session, machine},\n};\n",
            "session",
        ),
        ("protocol/topic.rs", "//! x\nfn f() { crate::http::router() }\n", "http"),
        ("session/mod.rs", "//! x\nuse super::http::Door;\n", "http"),
        ("relay/feed.rs", "//! x\nuse super::super::app::App;\n", "app"),
        ("gossip.rs", "//! x\n", "not on the ladder"),
        ("hub/mod.rs", "//! x\nuse crate::gossip::Rumour;\n", "gossip"),
        ("hub/mod.rs", "use std::fmt;\n", "//!"),
        ("hub/mod.rs", &format!("//! x\n{}", "\n".repeat(LINES)), "401 lines"),
        (
            "hub/mod.rs",
            &format!("//! x\nfn long() {{\n{}}}\n", "    f();\n".repeat(FUNCTION_LINES)),
            "long has 62",
        ),
        ("relay/mod.rs", "//! x\nuse fred::prelude::*;\n", "fred"),
        ("relay/mod.rs", "//! x\nuse redis_protocol::resp3;\n", "redis_protocol"),
        ("session/websocket/plain.rs", "//! x\nuse axum::Router;\n", "axum"),
        ("app/mod.rs", "//! x\nuse ::config::Config;\n", "config"),
        ("relay/feed.rs", "//! x\nuse tokio::time::Instant;\n", "tokio"),
        ("relay/switch/answers.rs", "//! x\nuse tokio::sync::mpsc;\n", "tokio"),
    ];
    assert!(complaints_beside_the_node("//! x\nuse fred::prelude::*;\n")[0].contains("fred"));
    for (name, text, word) in planted {
        let found = complaints_about(name, text);
        assert!(
            found.iter().any(|complaint| complaint.contains(word)),
            "{name} passed with {text:?}: {found:?}"
        );
    }
}

#[test]
fn what_is_allowed_passes() {
    let allowed = [
        (
            "relay/mod.rs",
            "//! x\nuse crate::{bus::Bus, hub, protocol::{Topic, Event}};\nuse crate::relay::feed;\n",
        ),
        (
            "hub/rooms.rs",
            "//! x\n//! Called by [`crate::relay`].\n// crate::relay does\nconst S: &str = \"crate::app\";\n",
        ),
        ("hub/rooms.rs", "//! x\nmod tests { use super::super::hub; use super::*; }\n"),
        ("lib.rs", "//! x\npub mod app;\npub use crate::app::run;\n"),
        ("config/layers.rs", "//! x\nuse ::config::Config;\nuse super::rooms;\n"),
        ("bus/redis/commands.rs", "//! x\nuse fred::prelude::*;\nuse crate::config::Redis;\n"),
    ];
    for (name, text) in allowed {
        assert_eq!(complaints_about(name, text), Vec::<String>::new(), "{name}: {text:?}");
    }
}

/// Everything that is wrong with the file `name` (its path under `src`) that holds `text`.
fn complaints_about(name: &str, text: &str) -> Vec<String> {
    let mut complaints = manners(text);
    let code = without_comments_and_strings(text);
    let own = name.split(['/', '.']).next().unwrap_or_default();
    if own != "lib" {
        match rung(own) {
            None => complaints.push(format!(
                "module {own} is not on the ladder: give it a rung in tests/integration/layering.rs"
            )),
            Some(here) => complaints.extend(modules_named(name, &code).into_iter().filter_map(|other| {
                match rung(&other) {
                    _ if other == own => None,
                    None => Some(format!("names crate::{other}, which is not on the ladder")),
                    Some(there) if there < here => None,
                    Some(there) => Some(format!("{own} (rung {here}) names crate::{other} (rung {there})")),
                }
            })),
        }
    }
    complaints.extend(crates_out_of_place(own, &code));
    let pure = WITHOUT_TOKIO.iter().any(|pure| name.starts_with(pure)) && !WITH_TOKIO.contains(&name);
    if pure && paths(&code, "tokio::").next().is_some() {
        complaints.push("uses tokio in a room that is pure".into());
    }
    complaints
}

/// Everything that is wrong with a file of the command line or the bench, which may name every room of the node.
fn complaints_beside_the_node(text: &str) -> Vec<String> {
    let mut complaints = manners(text);
    complaints.extend(crates_out_of_place("crates", &without_comments_and_strings(text)));
    complaints
}

/// The crates that `code` of the room `own` uses and that stay in others.
fn crates_out_of_place(own: &str, code: &str) -> Vec<String> {
    let used = KEPT_IN.into_iter().filter(|(kept, rooms)| {
        let path = if *kept == "config" { "::config::".into() } else { format!("{kept}::") };
        !rooms.contains(&own) && paths(code, &path).next().is_some()
    });
    used.map(|(kept, rooms)| format!("uses the crate {kept}, which stays in {}", rooms.join(" and ")))
        .collect()
}

fn rung(module: &str) -> Option<u8> {
    LADDER.iter().find(|(name, _)| *name == module).map(|(_, rung)| *rung)
}

/// The modules at the top of the crate that the code names, by `crate::` or by climbing with `super::`.
fn modules_named(name: &str, code: &str) -> Vec<String> {
    let depth = name.trim_end_matches("mod.rs").trim_end_matches('/').split('/').count();
    let mut named: Vec<String> = paths(code, "crate::").flat_map(first_names).collect();
    let climb = "super::".repeat(depth);
    // A climb may end in an inner module, so only names that are on the ladder count.
    named.extend(paths(code, &climb).flat_map(first_names).filter(|name| rung(name).is_some()));
    named.sort();
    named.dedup();
    named
}

/// What every file keeps to: it says what it is, and it is short.
fn manners(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push("does not open with //! and what it is".into());
    }
    let lines = text.lines().count();
    if lines > LINES {
        complaints.push(format!("has {lines} lines, more than {LINES}: split it by thing"));
    }
    for (name, line, lines) in functions(&without_comments_and_strings(text)) {
        if lines > FUNCTION_LINES {
            complaints.push(format!(
                "line {line}: {name} has {lines} lines, more than {FUNCTION_LINES}: split it by step"
            ));
        }
    }
    complaints
}
