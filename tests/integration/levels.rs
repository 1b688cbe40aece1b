//! The command of the tests itself, `tests/run`: its levels, its list, and what it says to what it does not know.

use std::process::Command;

use crate::support::root;

/// Exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let root = root();
    let output = Command::new(root.join("tests/run")).args(arguments).current_dir(root).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_list_says_what_each_part_needs_and_the_readme_has_the_same_table() {
    let (code, list, _) = run(&["--list"]);
    assert_eq!(code, Some(0), "{list}");
    let readme = include_str!("../README.md");
    for line in
        list.lines().skip(1).filter(|line| !line.starts_with("Minutes") && !line.contains("another suite"))
    {
        let part = line.split_whitespace().next().unwrap();
        let row = readme.lines().find(|row| row.starts_with(&format!("| {part} |")));
        let row = row.unwrap_or_else(|| panic!("tests/README.md has no row for {part}"));
        let minutes = line.split_whitespace().nth(2).unwrap().replace('/', " / ");
        assert!(row.contains(&format!("| {minutes} |")), "{part}: {minutes} in tests/run, but {row}");
    }
    for part in ["lint", "rust", "client", "acceptance", "browser"] {
        assert!(
            list.lines().any(|line| line.starts_with(part) && line.contains(" quick ")),
            "{part}: {list}"
        );
    }
}

#[test]
fn what_is_not_known_is_named() {
    for (arguments, named) in [
        (&["--fast"][..], "--fast"),
        (&["nonsense"], "nonsense"),
        (&["full", "rust"], "rust"),
        (&["quick", "--fast"], "--fast"),
        (&["rust", "lint", "nonsense"], "nonsense"),
    ] {
        let (code, output, error) = run(arguments);
        assert_eq!((code, output.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(error.contains(named) && error.contains("--help"), "{arguments:?}: {error}");
    }
    let (code, help, _) = run(&["--help"]);
    assert!(code == Some(0) && help.contains("tests/run full") && help.contains("--list"), "{help}");
}

#[test]
fn the_installation_can_be_asked_what_it_would_do() {
    let root = root();
    let output = Command::new(root.join("tests/install")).arg("--dry-run").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("to install: ") || said.contains("everything is there"), "{said}");
}
