//! The program as a user starts it, with an environment of the test's own.

use std::ffi::OsString;

/// What is taken out of the program, where it is one whose defences can be (`tests/defences`): the variable that a program
/// with an otherwise empty environment needs, or the test would pass without them.
pub(crate) fn taken_out() -> Option<(&'static str, OsString)> {
    const NAME: &str = "CARILLON_MUTANT";
    std::env::var_os(NAME).map(|value| (NAME, value))
}
