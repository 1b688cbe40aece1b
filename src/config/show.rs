//! The configuration in effect, as TOML with the place that each value came from. Secrets are hidden.

use std::fmt::Write as _;

use super::{
    Config, Source,
    layers::KNOWN,
    secret::{HIDDEN, shown_url},
};

const SECRETS: [&str; 5] = [
    "auth.secret",
    "auth.previous_secret",
    "internal.publish_token",
    "redis.password",
    "redis.sentinel_password",
];
const EMPTY: &str = "\"\"";
const URLS: [&str; 4] = ["redis.url", "auth.jwks", "auth.callback_url", "telemetry.otlp_endpoint"];

impl Config {
    /// What `carillon config show` prints.
    pub fn show(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for key in KNOWN.iter() {
            let (own, name) = key.split_once('.').unwrap_or(("", key));
            if own != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}[{own}]");
                section = own;
            }
            let _ = write!(text, "{name} = {}", self.literals.get(key).map_or(EMPTY, String::as_str));
            match self.source(key) {
                None | Some(Source::Default) => text.push('\n'),
                Some(source) => drop(writeln!(text, " # {source}")),
            }
        }
        text
    }
}

/// A value of the file as it may be shown.
pub(super) fn hidden(key: &str, literal: String) -> String {
    if literal == EMPTY {
        literal
    } else if SECRETS.contains(&key) {
        format!("\"{HIDDEN}\"")
    } else if URLS.contains(&key) {
        // What is left of a URL when its quotation marks go needs no escapes.
        format!("\"{}\"", shown_url(&literal.replace(['"', '\\'], "")))
    } else {
        literal
    }
}
