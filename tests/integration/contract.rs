//! The contract's tables of codes and reasons are those of the code, in both directions: what a node may say is written down
//! there, and what is written down there exists.

use std::{collections::BTreeSet, fs};

use carillon::protocol::{
    CloseCode, ErrorCode, ProblemCode, Reason, RefusedCode,
    codes::Listener::{Both, Internal, Public},
};

use crate::support::root;

fn contract() -> String {
    fs::read_to_string(root().join("docs/contract.md")).unwrap()
}

/// What stands between `begin` and the next `end`.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("the contract has no {begin:?}"));
    rest.split_once(end).map_or(rest, |(part, _)| part)
}

/// The codes in a text: what stands in backticks and is made of small letters and hyphens.
fn codes(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|code| code.chars().all(|c| c.is_ascii_lowercase() || c == '-')).collect()
}

/// The cells of each row of the table that begins with `head`.
fn rows<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let (_, rest) = text.split_once(head).unwrap_or_else(|| panic!("the contract has no table {head:?}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').skip(1).map(str::trim).collect()).collect()
}

/// The HTTP statuses in a cell, whatever else stands there (`404, 405`; 503 and a header).
fn statuses(cell: &str) -> BTreeSet<u16> {
    cell.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[test]
fn close_codes_are_those_of_the_table() {
    let text = contract();
    let written: Vec<u16> =
        rows(&text, "| close code |").iter().map(|row| row[0].parse().expect("a number")).collect();
    assert_eq!(written, CloseCode::ALL.map(CloseCode::number));
}

#[test]
fn reasons_of_a_resync_stand_in_the_order_in_which_they_are_given() {
    let text = contract();
    let written = codes(between(&text, "Reasons, the first that holds:", "|"));
    assert_eq!(written, Reason::ALL.map(Reason::name));
}

#[test]
fn refused_topics_and_errors_have_the_codes_that_are_written() {
    let text = contract();
    let refused = codes(between(&text, "- **`refused[].code`**:", " ("));
    assert_eq!(refused, RefusedCode::ALL.map(RefusedCode::name));
    let error = between(&text, r#"{"type":"error","#, "|\n").replace("}`", "}").replace('"', "`");
    let written: Vec<_> = codes(&error).into_iter().filter(|code| code.contains('-')).collect();
    assert_eq!(written, ErrorCode::ALL.map(ErrorCode::name));
}

#[test]
fn problems_of_the_public_listener_are_those_of_the_table() {
    let text = contract();
    let mut written = BTreeSet::new();
    for row in rows(between(&text, "### 4.5", "\n## "), "| status | code |") {
        let (statuses, named) = (statuses(row[0]), codes(row[1]));
        assert!(!statuses.is_empty() && !named.is_empty(), "{row:?}");
        let known = |name: &str| ProblemCode::ALL.iter().find(|code| code.name() == name);
        let named: Vec<_> =
            named.iter().map(|name| known(name).unwrap_or_else(|| panic!("no node says {name}"))).collect();
        for code in &named {
            let fits = code.statuses().iter().any(|status| statuses.contains(status));
            assert!(fits, "{} never comes with {statuses:?}", code.name());
        }
        for status in statuses {
            let some = named.iter().any(|code| code.statuses().contains(&status));
            assert!(some, "none of {named:?} comes with {status}");
        }
        written.extend(named.iter().map(|code| code.name()));
    }
    assert_eq!(written, said_at(&[Public, Both]));
}

#[test]
fn problems_of_the_internal_listener_are_those_that_are_written() {
    let text = contract();
    let said = between(&text, "- Partial failure:", "- Authorised by");
    assert_eq!(codes(said).into_iter().collect::<BTreeSet<_>>(), said_at(&[Internal, Both]));
}

/// The names of the codes that clients meet there.
fn said_at(listeners: &[carillon::protocol::codes::Listener]) -> BTreeSet<&'static str> {
    let said = ProblemCode::ALL.iter().filter(|code| listeners.contains(&code.listener()));
    said.map(|code| code.name()).collect()
}
