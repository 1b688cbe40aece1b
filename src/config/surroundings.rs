//! What else the environment says: where a user's programs keep their state, and whether the terminal wants colours.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The folder for what `carillon dev` leaves to the user's other commands: below `XDG_RUNTIME_DIR`, else
/// `XDG_STATE_HOME`, else `~/.local/state`. `None` where the user has no such place.
pub fn user_state_dir() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".local/state"));
    let base = absolute("XDG_RUNTIME_DIR").filter(|path| Path::is_dir(path));
    Some(base.or_else(|| absolute("XDG_STATE_HOME")).or_else(home)?.join("carillon"))
}

/// Whether to write colours and progress to a stream that is, or is not, a terminal: `NO_COLOR` (<https://no-color.org>)
/// and `TERM=dumb` say no.
pub fn is_coloured(terminal: bool) -> bool {
    terminal
        && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}
