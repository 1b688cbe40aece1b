//! The relay in parts: whatever has rules keeps its fields to itself, and no type becomes the place where everything is. A
//! record, which only carries values from one part to another, may show them.

use std::{collections::BTreeMap, fs};

use crate::support::root;

/// Fields of one type.
const FIELDS: usize = 12;

/// A type as its file has it.
#[derive(Debug, Default, PartialEq)]
struct Type {
    fields: usize,
    /// Fields that can be seen outside the file.
    seen: usize,
    /// It has methods that change it: there are rules about what it holds.
    has_rules: bool,
}

/// The types of a file, by name.
fn types(text: &str) -> BTreeMap<String, Type> {
    let mut types = BTreeMap::<String, Type>::new();
    let (mut structure, mut methods) = (None, None);
    for line in text.lines() {
        let first =
            |rest: &str| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
        if line == "}" {
            (structure, methods) = (None, None);
        } else if let Some((_, rest)) = line.split_once("struct ").filter(|_| line.ends_with('{')) {
            structure = Some(first(rest));
        } else if let Some(rest) = line.strip_prefix("impl ").filter(|rest| !rest.contains(" for ")) {
            methods = Some(first(rest));
        } else if let Some(name) = &structure {
            let field = line.strip_prefix("    ").filter(|rest| !rest.starts_with([' ', '/', '#']));
            if field.is_some_and(|field| field.contains(": ")) {
                let of = types.entry(name.clone()).or_default();
                of.fields += 1;
                of.seen += usize::from(line.starts_with("    pub"));
            }
        } else if let Some(name) = &methods
            && line.contains("fn ")
            && line.contains("&mut self")
        {
            types.entry(name.clone()).or_default().has_rules = true;
        }
    }
    types
}

/// What is wrong with the types of a file.
fn complaints(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, of) in types(text) {
        if of.fields > FIELDS {
            complaints.push(format!("{name} has {} fields, more than {FIELDS}", of.fields));
        }
        if of.has_rules && of.seen > 0 {
            complaints.push(format!("{name} has rules, and {} of its fields are seen outside", of.seen));
        }
    }
    complaints
}

#[test]
fn parts_of_the_relay_are_small_and_keep_their_fields_to_themselves() {
    let place = root().join("src/relay");
    let mut read = 0;
    for folder in [place.clone(), place.join("switch"), place.join("feeds")] {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_file() && !name.ends_with("_tests.rs") && name != "switch_rig.rs" {
                let text = fs::read_to_string(&path).unwrap();
                assert_eq!(complaints(&text), Vec::<String>::new(), "{name}");
                read += types(&text).len();
            }
        }
    }
    assert!(read > 30, "only {read} types were found");
}

#[test]
fn a_part_that_shows_its_fields_is_found() {
    let shown = "struct A {\n    a: u8,\n    /// b: x\n    pub(super) b: u8,\n}\nimpl A {\n    fn c(&mut self) {}\n}\n";
    assert_eq!(complaints(shown), ["A has rules, and 1 of its fields are seen outside"]);
    let record = shown.replace("&mut self", "&self");
    assert_eq!(complaints(&record), Vec::<String>::new());
    let fields: String = (0..13).map(|n| format!("    f{n}: u8,\n")).collect();
    assert_eq!(complaints(&format!("struct B {{\n{fields}}}\n")), ["B has 13 fields, more than 12"]);
}
