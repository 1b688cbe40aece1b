//! The documents against what they describe: docs/configuration.md is what src/config/default.toml says, every link in
//! README.md and docs/ leads somewhere, every file that they name is there, and the words are plain ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use crate::support::root;

const DEFAULTS: &str = include_str!("../../src/config/default.toml");

/// What stands above the tables of docs/configuration.md.
const PREFACE: &str = "\
# Configuration

Every setting with its default, written from the defaults that are compiled in (`carillon config default` prints the same).

A setting comes from, later wins: 1. the defaults · 2. the TOML file of `--config` or `CARILLON_CONFIG` · 3. the environment:
`CARILLON__HTTP__LISTEN` sets `http.listen`, two underscores before each part; lists are comma-separated. `\"\"` means \"not set\".

- **One decision is yours**: `auth.mode`. Everything else has a default that works.
- An unknown key or a bad value stops the start. The message names the key, where it was set, and what is allowed.
- **Secrets** can be in files of their own: set the key with `_file` instead. They never show in logs or in `config show`.
- `carillon config check` says whether a node would start, and asks Redis too (`--offline` does not); `carillon config show`
  prints what is in effect.
- `redis.prefix`, `auth.fold_subject`, `areas.*`, `log.*` and `limits.event_bytes` must be the same on all nodes of one Redis.
  `settings.generation` lets you change the last three while nodes run.
";

/// A group of keys of one section that share an explanation.
struct Group<'a> {
    section: &'a str,
    keys: Vec<(&'a str, &'a str)>,
    meaning: String,
}

fn groups() -> Vec<Group<'static>> {
    let (mut section, mut groups) = ("", Vec::<Group<'_>>::new());
    let mut meaning: Option<String> = None;
    for line in DEFAULTS.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            (section, meaning) = (name, None);
            groups.push(Group { section, keys: Vec::new(), meaning: String::new() });
        } else if let Some(comment) = line.strip_prefix('#') {
            let meaning = meaning.get_or_insert_default();
            meaning.push(' ');
            meaning.push_str(comment.trim());
        } else if let Some((key, value)) = line.split_once(" = ") {
            if let Some(meaning) = meaning.take() {
                groups.push(Group { section, keys: Vec::new(), meaning: meaning.trim().to_owned() });
            }
            groups.last_mut().expect("a section before its keys").keys.push((key, value));
        }
    }
    groups.retain(|group| !group.keys.is_empty());
    groups
}

/// Text of a comment as Markdown in a table's cell; what stands between backticks stays as it is.
fn cell(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(at, part)| match at % 2 {
        0 => part.replace('|', "\\|").replace('*', "\\*").replace('_', "\\_").replace('<', "\\<"),
        _ => part.replace('|', "\\|"),
    });
    parts.collect::<Vec<_>>().join("`")
}

fn configuration() -> String {
    let (mut page, mut section) = (PREFACE.to_owned(), "");
    for group in groups() {
        if group.section != section {
            section = group.section;
            write!(page, "\n## `[{section}]`\n\n| key | default | meaning |\n|---|---|---|\n").unwrap();
        }
        let column = |text: &dyn Fn(&(&str, &str)) -> String| {
            group.keys.iter().map(text).collect::<Vec<_>>().join("<br>")
        };
        let keys = column(&|(key, _)| format!("`{section}.{key}`"));
        let values = column(&|(_, value)| format!("`{value}`"));
        writeln!(page, "| {keys} | {values} | {} |", cell(&group.meaning)).unwrap();
    }
    page
}

#[test]
fn the_page_of_settings_is_what_the_defaults_say() {
    let told = configuration();
    let keys = groups().iter().map(|group| group.keys.len()).sum::<usize>();
    let lines = DEFAULTS.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
    assert!(keys > 60 && keys == lines, "{keys} keys in {lines} lines");
    let page = root().join("docs/configuration.md");
    if fs::read_to_string(&page).unwrap_or_default() != told {
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("configuration.md");
        fs::write(&fresh, told).unwrap();
        panic!("docs/configuration.md is stale: cp {} {}", fresh.display(), page.display());
    }
}

/// README.md and every Markdown file of docs/.
fn pages() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "md") {
                found.push(entry);
            }
        }
    }
    found
}

/// Lines outside fenced blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((at + 1, line))
    })
}

/// `line` without what stands between backticks, and what stood there.
fn without_code(line: &str) -> (String, Vec<&str>) {
    let (mut text, mut code) = (String::new(), Vec::new());
    for (at, part) in line.split('`').enumerate() {
        if at % 2 == 0 { text.push_str(part) } else { code.push(part) }
    }
    (text, code)
}

/// The names under which GitHub and mdBook offer a page's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut found, mut seen) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    for heading in prose(text).filter_map(|(_, line)| line.strip_prefix('#')) {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let name: String = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let before = seen.entry(name.clone()).or_default();
        found.insert(if *before == 0 { name } else { format!("{name}-{before}") });
        *before += 1;
    }
    found
}

/// Targets of `[…](target)` in a line, also of pictures.
fn targets(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()).collect()
}

/// Why a link of `page` leads nowhere.
fn broken(page: &Path, target: &str) -> Option<String> {
    if ["https://", "http://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
    if !path.exists() {
        return Some(format!("{target}: there is no such file"));
    }
    if anchor.is_empty() {
        return None;
    }
    let offered = anchors(&fs::read_to_string(&path).ok()?);
    (!offered.contains(anchor)).then(|| format!("{target}: no such heading; there are {offered:?}"))
}

#[test]
fn every_link_leads_somewhere() {
    let (mut links, mut faults) = (0, Vec::new());
    for page in pages() {
        for (at, line) in prose(&fs::read_to_string(&page).unwrap()) {
            for target in targets(line) {
                links += 1;
                faults.extend(broken(&page, target).map(|why| format!("{}:{at}: {why}", page.display())));
            }
        }
    }
    assert!(links > 100, "only {links} links were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_broken_link_is_found() {
    let page = root().join("README.md");
    assert!(broken(&page, "docs/nothing.md").is_some());
    assert!(broken(&page, "docs/contract.md#nothing").is_some());
    assert_eq!(broken(&page, "docs/contract.md#3-publishing"), None);
    assert_eq!(targets("a [b](c.md) and ![d](e.png \"f\")"), ["c.md", "e.png"]);
}

/// The folders whose files a page names by their path from the root.
const ROOMS: [&str; 10] = [
    "src/",
    "docs/",
    "tests/",
    "client/",
    "deploy/",
    "demo/",
    "benches/",
    "examples/",
    "integrations/",
    "crates/",
];

#[test]
fn every_file_that_is_named_is_there() {
    let (mut named, mut faults) = (0, Vec::new());
    for page in pages() {
        for (at, line) in prose(&fs::read_to_string(&page).unwrap()) {
            for code in without_code(line).1 {
                let word = code.split([' ', ':', '#']).next().unwrap_or_default();
                if !ROOMS.iter().any(|room| word.starts_with(room)) || word.starts_with("tests/output") {
                    continue;
                }
                named += 1;
                if !root().join(word).exists() {
                    faults.push(format!("{}:{at}: {word}", page.display()));
                }
            }
        }
    }
    assert!(named > 20, "only {named} files are named");
    assert!(faults.is_empty(), "there is no such file:\n{}", faults.join("\n"));
}

/// The index and the book's table of contents name every page, and the book those of docs/ only.
#[test]
fn the_index_and_the_book_name_every_page() {
    let docs = root().join("docs");
    for list in ["README.md", "SUMMARY.md"] {
        let text = fs::read_to_string(docs.join(list)).unwrap();
        let linked: BTreeSet<PathBuf> = prose(&text)
            .flat_map(|(_, line)| targets(line))
            .map(|target| docs.join(target.split('#').next().unwrap()))
            .collect();
        for page in pages().into_iter().skip(1) {
            let own = page.ends_with("SUMMARY.md") || page == docs.join("README.md");
            assert!(own || linked.contains(&page), "docs/{list} does not lead to {}", page.display());
        }
    }
}

/// Words that say "a man" where a person is meant.
const NO_PERSON: [&str; 5] = ["he", "him", "himself", "his", "whosoever"];

/// Riddles, and what to say instead.
const RIDDLES: [(&str, &str); 6] = [
    ("is not its to tell", "are not shown"),
    ("where it matters", "in production"),
    ("sign Carillon off", "for security reviewers"),
    ("that is its right", "Redis is refusing writes"),
    ("an event too few", "events are never silently missed"),
    ("known later", "detected later"),
];

/// Every Markdown file of the repository that people read.
fn everything_written() -> Vec<PathBuf> {
    let mut found = pages();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            // What is built, installed or hidden is not ours.
            if name.starts_with('.')
                || ["docs", "target", "node_modules", "output", "vendor", "site-packages"].contains(&&*name)
            {
                continue;
            }
            if entry.is_dir() && !entry.is_symlink() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "md")
                && entry.parent() != Some(root())
                || ["CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md", "CHANGELOG.md"].contains(&&*name)
            {
                found.push(entry);
            }
        }
    }
    found
}

#[test]
fn the_words_are_plain() {
    // Anna and Bilal, of the demo, are persons of their own.
    let of_the_demo = |line: &str| line.contains("Bilal") || line.contains("Anna");
    let mut faults = Vec::new();
    assert!(everything_written().len() > pages().len() + 10);
    for page in everything_written() {
        let text = fs::read_to_string(&page).unwrap();
        let lines: Vec<_> = prose(&text).collect();
        for (at, line) in &lines {
            let words = without_code(line).0;
            for word in words.split(|c: char| !c.is_alphabetic()) {
                if NO_PERSON.contains(&word.to_lowercase().as_str()) && !of_the_demo(line) {
                    faults.push(format!("{}:{at}: “{word}” for a person: they", page.display()));
                }
            }
        }
        let flowing = lines.iter().map(|(_, line)| *line).collect::<Vec<_>>().join(" ");
        for (riddle, plain) in RIDDLES {
            if flowing.contains(riddle) {
                faults.push(format!("{}: “{riddle}”: say “{plain}”", page.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Blocks of commands and code that no test runs, by the beginning of their first line, and why.
const NOT_RUN: [(&str, &str); 18] = [
    ("cargo run -- dev", "cli_dev runs `carillon dev`; this is the build before it"),
    ("tests/run", "the command of the tests itself"),
    ("cargo build --release --features full", "measures for half an hour"),
    ("const rt = new Realtime({ url: '/realtime', token: async ({ topics })", "a summary of signatures"),
    ("var redis = await ConnectionMultiplexer", "needs .NET"),
    (
        "import { Realtime } from '/realtime/realtime.js';",
        "needs a page and a CMS; client/README.md has pages that are run",
    ),
    ("rt.on('comments:42', load);", "part of a page"),
    ("pip install wagtail-carillon", "tests/integrations installs it from this tree"),
    ("INSTALLED_APPS +=", "settings of a Django project; tests/integrations has one"),
    ("from carillon_notify.django import emit", "part of a Django project; tests/integrations has one"),
    ("from carillon_notify import mint", "part of a CMS; tests/integrations mints tokens"),
    ("builder.Services.AddSingleton", "needs .NET"),
    ("[InitializableModule]", "needs .NET and Optimizely"),
    ("public class CarillonHandler", "needs .NET and Umbraco"),
    ("app.MapGet(\"/carillon-token\"", "needs .NET"),
    ("// carillon.js", "part of a CMS on Node.js"),
    ("import { tell, topic } from './carillon.js';", "needs Payload or Directus"),
    ("// src/index.js", "needs Strapi"),
];

/// Whether a test runs a block: `tests/acceptance/test_readme.py` the README's, `runbooks` those of its chapter.
fn is_run(page: &Path, heading: &str, language: &str, first: &str) -> bool {
    let tour = first.starts_with("# tour: ");
    page.ends_with("README.md") && (tour || heading == "## Publishing" && "sh python js".contains(language))
        || page.ends_with("docs/operations.md") && heading == "## 4. Redis" && language == "sh"
}

#[test]
fn every_block_of_commands_is_run_by_a_test_or_listed_with_the_reason() {
    let (mut run, mut faults, mut listed) = (0, Vec::new(), BTreeSet::new());
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let (mut heading, mut lines, mut fenced) = ("", text.lines().enumerate(), false);
        while let Some((at, line)) = lines.next() {
            if !fenced && line.starts_with("## ") {
                heading = line;
            }
            let Some(language) = line.strip_prefix("```") else { continue };
            fenced = !fenced;
            if !fenced || ["", "json"].contains(&language) {
                continue;
            }
            let first = lines.next().map(|(_, first)| first).unwrap_or_default();
            if is_run(&page, heading, language, first) {
                run += 1;
            } else if let Some((known, _)) = NOT_RUN.iter().find(|(known, _)| first.starts_with(known)) {
                listed.insert(*known);
            } else {
                faults.push(format!("{}:{}: {first}", page.display(), at + 1));
            }
        }
    }
    assert_eq!(run, 16, "the tour's three blocks, three publishers, and ten of the runbooks");
    assert!(faults.is_empty(), "run these in a test, or list them with the reason:\n{}", faults.join("\n"));
    for (known, _) in NOT_RUN {
        assert!(listed.contains(known), "{known}: no page has this block any more");
    }
}

#[test]
fn every_block_of_json_is_an_event() {
    let mut read = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let event: serde_json::Value = serde_json::from_str(block).expect(block);
            assert!(
                event["type"].as_str().is_some_and(|kind| kind.contains('.')),
                "{}: {event}",
                page.display()
            );
            read += 1;
        }
    }
    assert!(read >= 3, "only {read} blocks were found");
}
