//! The configuration table of README.md against the defaults that are compiled in: every key, its default, no other.
//! Must not know what the keys mean.

use std::collections::BTreeMap;

const README: &str = include_str!("../../README.md");
const DEFAULTS: &str = include_str!("../../src/config/default.toml");

/// `section.key` and its value as written; `_file` twins are told beside their key.
fn defaults() -> BTreeMap<String, String> {
    let mut section = "";
    let mut found = BTreeMap::new();
    for line in DEFAULTS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else {
            let (key, value) = line.split_once(" = ").expect(line);
            found.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    found
}

/// Rows `` | `section.key` | `default` | … ``.
fn documented() -> BTreeMap<String, String> {
    let quoted = |cell: &str| cell.trim().strip_prefix('`')?.strip_suffix('`').map(str::to_owned);
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix('|')?.split('|');
        let key = quoted(cells.next()?).filter(|key| key.contains('.'))?;
        Some((key, quoted(cells.next()?)?))
    };
    README.lines().filter_map(row).collect()
}

#[test]
fn the_table_names_every_key_with_its_default() {
    let mut defaults = defaults();
    let twins: Vec<String> =
        defaults.keys().filter_map(|key| key.strip_suffix("_file").map(str::to_owned)).collect();
    for key in twins.iter().filter(|key| defaults.contains_key(*key)).cloned().collect::<Vec<_>>() {
        defaults.remove(&format!("{key}_file"));
        let row = README.lines().find(|line| line.starts_with(&format!("| `{key}` "))).expect(&key);
        assert!(row.contains("_file"), "README does not say that {key} may stand in a file");
    }
    assert!(defaults.len() > 40, "the defaults were not read: {defaults:?}");
    assert_eq!(documented(), defaults);
}

#[test]
fn its_first_paragraph_says_what_redis_is_needed() {
    let first = README.split("\n\n").nth(1).unwrap().replace('\n', " ");
    assert!(first.contains("Redis 7 or newer"), "{first}");
}
