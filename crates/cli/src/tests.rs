//! That the command line is whole: every command has help with an example.

use clap::{Command, CommandFactory};

use super::Cli;

#[test]
fn every_command_has_help_with_an_example() {
    Cli::command().debug_assert();
    check(&Cli::command(), "carillon");
}

fn check(command: &Command, path: &str) {
    assert!(command.get_about().is_some(), "{path} has no description");
    let children = command.get_subcommands();
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    assert!(examples.contains("Example") && examples.contains("carillon "), "{path} has no example");
    for argument in command.get_arguments() {
        assert!(argument.get_help().is_some(), "{path}: {} is not explained", argument.get_id());
    }
    for child in children {
        check(child, &format!("{path} {}", child.get_name()));
    }
}
