//! No files name each other in a circle: who reads one file then knows which to read next. Every folder of sources is looked
//! at by itself, with the tests that stand in its files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::reading::{names, paths, sources, without_comments_and_strings};
use crate::support::root;

#[test]
fn no_files_of_a_folder_name_each_other_in_a_circle() {
    let mut found = String::new();
    let mut folders = 0;
    for home in ["src", "crates/bench/src", "crates/cli/src"] {
        for (room, texts) in rooms(&root().join(home)) {
            folders += 1;
            if let Some(circle) = circle(&room, &texts) {
                found += &format!("\nin {home}/{room}: {circle}");
            }
        }
    }
    assert!(folders > 10, "only {folders} folders: is this the right place?");
    assert!(found.is_empty(), "{found}");
}

/// Every folder below `home` by its path, with its files by their paths in it. What stands beside a folder under its name is
/// its map, as `mod.rs` is in it.
fn rooms(home: &Path) -> Vec<(String, Vec<(String, String)>)> {
    let mut rooms = BTreeMap::<String, Vec<(String, String)>>::new();
    for file in sources(home) {
        let (name, text) =
            (file.strip_prefix(home).unwrap().to_str().unwrap(), fs::read_to_string(&file).unwrap());
        let parts: Vec<&str> = name.split('/').collect();
        for depth in 0..parts.len() {
            // At the top, modules are kept apart by the ladder; a crate without one is a room itself.
            if depth > 0 || home != root().join("src") {
                rooms
                    .entry(parts[..depth].join("/"))
                    .or_default()
                    .push((parts[depth..].join("/"), text.clone()));
            }
        }
    }
    for (room, texts) in &mut rooms {
        if let Ok(text) = fs::read_to_string(home.join(format!("{room}.rs"))) {
            texts.push(("mod.rs".into(), text));
        }
    }
    rooms.into_iter().collect()
}

#[test]
fn a_planted_circle_is_found() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let map = file("mod.rs", "//! x\nmod a;\nmod b;\npub use a::A;\npub use self::{b::{B, C}, c::D};\n");
    let a = file("a.rs", "//! x\nuse super::{B, c::D};\n");
    assert_eq!(circle("hub", &[map.clone(), a.clone(), file("b.rs", "//! x\nuse std::fmt;\n")]), None);
    let b = file("b/inner.rs", "//! x\nuse crate::{bus, hub::{A, c}};\n");
    assert_eq!(circle("hub", &[map.clone(), a.clone(), b]).unwrap(), "a -> b -> a");
    let tests = file("c.rs", "//! x\nmod tests {\n    use super::{super::a, *};\n}\n");
    assert_eq!(circle("hub", &[map.clone(), a.clone(), tests]).unwrap(), "a -> c -> a");
    let c = file("c.rs", "//! x\nfn f() -> super::a::A {}\n");
    assert_eq!(circle("hub", &[map, a, c]).unwrap(), "a -> c -> a");
}

/// Files of a room (by their paths in it) that name each other in a circle. A folder counts as one with the file of its
/// name, and so do tests in a file of their own; the room's map, `mod.rs`, says where the types are that are named without
/// their file.
fn circle(room: &str, texts: &[(String, String)]) -> Option<String> {
    let is_map = |name: &str| ["mod.rs", "lib.rs"].contains(&name);
    let module = |name: &str| {
        let first = name.trim_end_matches(".rs").split('/').next().unwrap_or_default();
        first.trim_end_matches("_tests").to_owned()
    };
    let map = texts.iter().find(|(name, _)| is_map(name)).map(|(_, text)| without_comments_and_strings(text));
    let home = homes(map.as_deref().unwrap_or_default());
    let inside = room.replace('/', "::") + if room.is_empty() { "" } else { "::" };
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in texts.iter().filter(|(name, _)| !is_map(name)) {
        let code = without_comments_and_strings(text);
        let (own, tests) = code.split_at(code.find("mod tests {").unwrap_or(code.len()));
        let depth = name.split('/').count() + usize::from(name.ends_with("_tests.rs"));
        let mut named = named(own, depth, &inside);
        named.extend(self::named(tests, depth + 1, &inside));
        let named = named.into_iter().map(|name| home.get(&name).cloned().unwrap_or(name));
        edges.entry(module(name)).or_default().extend(named.filter(|other| *other != module(name)));
    }
    edges.keys().find_map(|start| {
        let mut way = vec![start.clone()];
        walk(&edges, start, &mut way, &mut BTreeSet::new()).then(|| way.join(" -> "))
    })
}

/// In which file of a room each name is that its map makes known.
fn homes(map: &str) -> BTreeMap<String, String> {
    let mut home = BTreeMap::new();
    for used in map.split("pub use ").skip(1) {
        let used = used.split(';').next().unwrap_or_default().trim_start_matches("self::");
        for (at, _) in used.match_indices("::") {
            let file: String =
                used[..at].chars().rev().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let file: String = file.chars().rev().collect();
            home.extend(names(&used[at + 2..]).into_iter().map(|name| (name, file.clone())));
        }
    }
    home
}

/// What the code of a file names in its room: by climbing `depth` times, or by the room's whole path.
fn named(code: &str, depth: usize, inside: &str) -> Vec<String> {
    let climb = "super::".repeat(depth);
    let grouped = "super::".repeat(depth - 1) + "{super::";
    let whole = format!("crate::{inside}");
    let group = paths(code, "crate::{").filter_map(|rest| paths(rest, inside).next());
    let group: Vec<&str> = if inside.is_empty() { Vec::new() } else { group.collect() };
    let climbed = paths(code, &climb).chain(paths(code, &grouped).filter(|_| depth > 1));
    climbed.chain(paths(code, &whole)).chain(group).flat_map(names).collect()
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
