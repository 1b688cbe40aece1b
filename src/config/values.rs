//! Values before they are checked: which keys there are, and where each value came from.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::LazyLock};

use ::config::Value;

use super::DEFAULT_TOML;

/// Keys of `default.toml`, in its order.
pub(super) static KNOWN: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut section = "";
    let mut keys = Vec::new();
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.push(format!("{section}.{name}"));
        }
    }
    keys
});

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// `default.toml`, compiled in.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// Set by a command, for example by an option of `carillon dev`.
    Command(&'static str),
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Command(what) => f.write_str(what),
        }
    }
}

/// Every value by its key, with its source.
pub(super) type Values = BTreeMap<String, (Value, ValueSource)>;
