//! The program as a user starts it, with an environment of the test's own.

use std::{ffi::OsString, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

use super::node::within;

/// The lines that a program logs.
pub(crate) type ProgramLog = Lines<BufReader<ChildStderr>>;

/// Starts a node of its own process, which ends with the test. `command` starts it, with settings of its own.
pub(crate) fn logged(command: &mut Command) -> (Child, ProgramLog) {
    let mut node = command
        .env_remove("CARILLON_CONFIG")
        .env("CARILLON__AUTH__MODE", "jwt")
        .env("CARILLON__INTERNAL__LISTEN", "127.0.0.1:0")
        .env("NO_COLOR", "1")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let log = BufReader::new(node.stderr.take().unwrap()).lines();
    (node, log)
}

/// Reads the log until a line has these words; that line.
pub(crate) async fn said(log: &mut ProgramLog, words: &str) -> String {
    let found = async {
        let mut before = Vec::new();
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains(words) {
                return line;
            }
            before.push(line);
        }
        panic!("the node ended without {words:?}: {before:#?}");
    };
    within(words, found).await
}

/// What is taken out of the program, where it is one whose defences can be (`tests/defences`): the variable that a program
/// with an otherwise empty environment needs, or the test would pass without them.
pub(crate) fn taken_out() -> Option<(&'static str, OsString)> {
    const NAME: &str = "CARILLON_MUTANT";
    std::env::var_os(NAME).map(|value| (NAME, value))
}
