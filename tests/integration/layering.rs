//! Reads the sources and fails where they leave the ladder: a path to a module on the same rung or above, a file that
//! does not say what it is, a file that has grown too long, a crate used outside its room. Without it the rule «a module
//! names only modules on lower rungs» holds until the first hurried change. Must not know what the modules do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

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
    ("mutant", 1),
    ("shutdown", 1),
    ("outbound", 1),
    ("printable", 1),
    ("seldom", 1),
];

/// Crates that stay in their rooms: a change of one of them must not reach further.
const KEPT_IN: [(&str, &[&str]); 3] =
    [("fred", &["bus"]), ("axum", &["http", "app"]), ("config", &["config"])];

/// Pure rooms, tested with values alone: no runtime in them.
const WITHOUT_TOKIO: [&str; 3] = ["protocol/", "session/machine", "relay/"];
/// The files in them that meet the runtime: the handle, and the task that drives the values.
const WITH_TOKIO: [&str; 2] = ["relay/mod.rs", "relay/task.rs"];

/// Rooms whose files are layers too.
const WITHOUT_CIRCLES: [&str; 3] = ["hub", "relay", "session"];

const LINES: usize = 400;

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

#[test]
fn no_files_of_a_room_name_each_other_in_a_circle() {
    let root = root().join("src");
    for room in WITHOUT_CIRCLES {
        let texts = sources(&root.join(room)).into_iter().map(|file| {
            let name = file.strip_prefix(root.join(room)).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&file).unwrap())
        });
        let texts: Vec<(String, String)> = texts.collect();
        assert!(texts.len() > 3, "{room}: is this the right place?");
        assert_eq!(circle(room, &texts), None, "in {room}");
    }
}

#[test]
fn a_planted_circle_is_found() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let map = file("mod.rs", "//! x\nmod a;\nmod b;\npub use a::A;\npub use self::{b::{B, C}, c::D};\n");
    let a = file("a.rs", "//! x\nuse super::{B, c::D};\n");
    assert_eq!(circle("hub", &[map.clone(), a.clone(), file("b.rs", "//! x\nuse std::fmt;\n")]), None);
    let b = file("b/inner.rs", "//! x\nuse crate::{bus, hub::{A, c}};\n");
    assert_eq!(circle("hub", &[map.clone(), a.clone(), b]).unwrap(), "a -> b -> a");
    let c = file("c.rs", "//! x\nfn f() -> super::a::A {}\n");
    assert_eq!(circle("hub", &[map, a, c]).unwrap(), "a -> c -> a");
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
        ("relay/mod.rs", "//! x\nuse fred::prelude::*;\n", "fred"),
        ("session/websocket.rs", "//! x\nuse axum::Router;\n", "axum"),
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
        ("bus/redis/line.rs", "//! x\nuse fred::prelude::*;\nuse crate::config::Redis;\n"),
    ];
    for (name, text) in allowed {
        assert_eq!(complaints_about(name, text), Vec::<String>::new(), "{name}: {text:?}");
    }
}

fn sources(place: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(place).into_iter().flatten() {
        let path = entry.unwrap().path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
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

/// Files of a room (by their paths in it) that name each other in a circle. A folder counts as one with the file of its
/// name; the room's map, `mod.rs`, says where the types are that are named without their file.
fn circle(room: &str, texts: &[(String, String)]) -> Option<String> {
    let module = |name: &str| name.trim_end_matches(".rs").split('/').next().unwrap_or_default().to_owned();
    let map =
        texts.iter().find(|(name, _)| name == "mod.rs").map(|(_, text)| without_comments_and_strings(text));
    let mut home: BTreeMap<String, String> = BTreeMap::new();
    for used in map.iter().flat_map(|map| map.split("pub use ").skip(1)) {
        let used = used.split(';').next().unwrap_or_default().trim_start_matches("self::");
        for (at, _) in used.match_indices("::") {
            let file: String =
                used[..at].chars().rev().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let file: String = file.chars().rev().collect();
            home.extend(names(&used[at + 2..]).into_iter().map(|name| (name, file.clone())));
        }
    }
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in texts.iter().filter(|(name, _)| name != "mod.rs") {
        let code = without_comments_and_strings(text);
        let climb = "super::".repeat(name.split('/').count());
        let (inside, whole) = (format!("{room}::"), format!("crate::{room}::"));
        let group = paths(&code, "crate::{").filter_map(|rest| paths(rest, &inside).next());
        let named = paths(&code, &climb).chain(paths(&code, &whole)).chain(group);
        let named = named.flat_map(names).map(|name| home.get(&name).cloned().unwrap_or(name));
        edges.entry(module(name)).or_default().extend(named.filter(|other| *other != module(name)));
    }
    edges.keys().find_map(|start| {
        let mut way = vec![start.clone()];
        walk(&edges, start, &mut way, &mut BTreeSet::new()).then(|| way.join(" -> "))
    })
}

/// Whether a way from its end leads back to `start`; then it is the whole way.
fn walk(
    edges: &BTreeMap<String, BTreeSet<String>>,
    start: &str,
    way: &mut Vec<String>,
    seen: &mut BTreeSet<String>,
) -> bool {
    for next in edges.get(way.last().map_or("", String::as_str)).into_iter().flatten() {
        let back = next == start;
        if !back && !seen.insert(next.clone()) {
            continue;
        }
        way.push(next.clone());
        if back || walk(edges, start, way, seen) {
            return true;
        }
        way.pop();
    }
    false
}

fn manners(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") {
        complaints.push("does not open with //! and what it is".into());
    }
    let lines = text.lines().count();
    if lines > LINES {
        complaints.push(format!("has {lines} lines, more than {LINES}: split it by thing"));
    }
    complaints
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

/// What follows each occurrence of `prefix` that begins a path.
fn paths<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(prefix).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        (!before.is_alphanumeric() && !['_', ':'].contains(&before)).then(|| &code[at + prefix.len()..])
    })
}

/// The modules among [`names`].
fn first_names(rest: &str) -> Vec<String> {
    names(rest).into_iter().filter(|name| starts_lower(name)).collect()
}

/// The first names of `name…`, or of each element of `{name…, {…}, name…}`.
fn names(rest: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else {
        return vec![word(rest)];
    };
    let (mut names, mut depth, mut fresh) = (Vec::new(), 1, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            _ if depth == 1 && fresh && !c.is_whitespace() => {
                names.push(word(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn starts_lower(name: &str) -> bool {
    name.starts_with(|c: char| c.is_lowercase())
}

/// The code alone, so that a link in a comment or a word in a message is not taken for a path.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                end
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skip..];
    }
    code
}

/// How many `#` a raw string begins with, if one begins here.
fn raw_string(rest: &str) -> Option<usize> {
    let rest = rest.strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}
