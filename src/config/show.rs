//! The configuration in effect, as TOML with the place that each value came from. Secrets are hidden.

use std::fmt::Write as _;

use super::{
    Config,
    secret::EMPTY,
    values::{KNOWN, ValueSource},
};

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
                None | Some(ValueSource::Default) => text.push('\n'),
                Some(source) => drop(writeln!(text, " # {source}")),
            }
        }
        text
    }

    /// The same for programs: `{"http.listen": {"value": "0.0.0.0:8080", "source": "default"}, …}`.
    pub fn show_json(&self) -> serde_json::Value {
        let entry = |key: &String| {
            let literal = self.literals.get(key).map_or(EMPTY, String::as_str);
            // Texts, numbers, booleans and lists are written in TOML as in JSON.
            let value: serde_json::Value = serde_json::from_str(literal).unwrap_or_else(|_| literal.into());
            let source =
                self.source(key).map_or_else(|| ValueSource::Default.to_string(), ToString::to_string);
            (key.clone(), serde_json::json!({"value": value, "source": source}))
        };
        KNOWN.iter().map(entry).collect::<serde_json::Map<_, _>>().into()
    }
}
