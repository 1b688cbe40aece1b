//! Takes values out of the merged layers one by one, checks them, and remembers every complaint.
//!
//! A reader of our own instead of a deserialised raw struct, because a complaint must name the key, where its value
//! was written and what is allowed, must never quote a secret, and all complaints should come at once.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, path::PathBuf, time::Duration};

use ::config::ValueKind;

use super::{
    secret::{Secret, hidden, shown_url},
    values::{ValueSource, Values},
};

/// Reads values and collects complaints. A bad value reads as a harmless one, since nobody sees the result then.
#[derive(Debug)]
pub(super) struct ValueReader {
    values: Values,
    problems: Vec<String>,
}

impl ValueReader {
    /// A reader of merged values.
    pub(super) fn new(values: Values) -> Self {
        Self { values, problems: Vec::new() }
    }

    /// What was wrong.
    pub(super) fn into_problems(self) -> Vec<String> {
        self.problems
    }

    /// Where each value was written.
    pub(super) fn sources(&self) -> BTreeMap<String, ValueSource> {
        self.values.iter().map(|(key, (_, source))| (key.clone(), source.clone())).collect()
    }

    /// Each value as TOML, secrets hidden.
    pub(super) fn literals(&self) -> BTreeMap<String, String> {
        self.values.iter().map(|(key, (value, _))| (key.clone(), hidden(key, literal(&value.kind)))).collect()
    }

    /// Whether nobody has said anything about a key.
    pub(super) fn is_default(&self, key: &str) -> bool {
        self.values.get(key).is_none_or(|(_, source)| *source == ValueSource::Default)
    }

    /// Complains about a key; `what` continues the sentence «http.listen (carillon.toml) …».
    pub(super) fn complain(&mut self, key: &str, what: impl fmt::Display) {
        let source = self.values.get(key).map(|(_, source)| source.to_string()).unwrap_or_default();
        self.problems.push(format!("{key} ({source}) {what}"));
    }

    /// Complains about a secret. One that came from a file is called by its file: «`auth.secret_file`
    /// (carillon.toml) is /run/secrets/carillon: that secret …».
    pub(super) fn complain_of_secret(&mut self, key: &str, what: impl fmt::Display) {
        let twin = format!("{key}_file");
        match self.text(&twin) {
            Some(path) => self.complain(&twin, format_args!("is {path}: that secret {what}")),
            None => self.complain(key, what),
        }
    }

    /// A text; `None` where it is not set.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        let kind = self.values.get(key).map(|(value, _)| value.kind.clone());
        match kind {
            Some(ValueKind::String(text)) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Some(ValueKind::I64(_) | ValueKind::U64(_) | ValueKind::Boolean(_) | ValueKind::Float(_)) => {
                self.complain(key, "must be a text: put it in quotation marks");
                None
            }
            Some(ValueKind::Nil) | None => None,
            Some(_) => {
                self.complain(key, "must be one text, not a list or a section");
                None
            }
        }
    }

    /// A text that `parse` understands; `allowed` says what it would.
    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let value = parse(&text);
        if value.is_none() {
            self.complain(key, format_args!("is {text:?}: it must be {allowed}"));
        }
        value
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let words = choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let find = |text: &str| choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        self.parsed(key, &format!("one of {words}"), find)
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, key: &str, allowed: RangeInclusive<u64>) -> u64 {
        let kind = self.values.get(key).map(|(value, _)| value.kind.clone());
        let number = match &kind {
            Some(ValueKind::I64(number)) => u64::try_from(*number).ok(),
            Some(ValueKind::U64(number)) => Some(*number),
            Some(ValueKind::String(text)) => text.trim().parse().ok(),
            _ => None,
        };
        if let Some(number) = number.filter(|number| allowed.contains(number)) {
            return number;
        }
        let written = kind.as_ref().map(literal).unwrap_or_default();
        let (least, most) = (allowed.start(), allowed.end());
        self.complain(key, format_args!("is {written}: it must be a whole number from {least} to {most}"));
        *least
    }

    /// A number of seconds within bounds.
    pub(super) fn seconds(&mut self, key: &str, allowed: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(key, allowed))
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, key: &str) -> bool {
        let kind = self.values.get(key).map(|(value, _)| value.kind.clone());
        let flag = match &kind {
            Some(ValueKind::Boolean(flag)) => Some(*flag),
            Some(ValueKind::String(text)) => match text.trim().to_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        };
        flag.unwrap_or_else(|| {
            let written = kind.as_ref().map(literal).unwrap_or_default();
            self.complain(key, format_args!("is {written}: it must be true or false"));
            false
        })
    }

    /// A list of texts; a single text is split at commas.
    pub(super) fn list(&mut self, key: &str) -> Vec<String> {
        let kind = self.values.get(key).map(|(value, _)| value.kind.clone());
        let items: Option<Vec<String>> = match kind {
            Some(ValueKind::String(text)) => Some(text.split(',').map(str::to_owned).collect()),
            Some(ValueKind::Array(items)) => items
                .into_iter()
                .map(|item| match item.kind {
                    ValueKind::String(text) => Some(text),
                    _ => None,
                })
                .collect(),
            Some(ValueKind::Nil) | None => Some(Vec::new()),
            Some(_) => None,
        };
        let Some(items) = items else {
            self.complain(key, "must be a list of texts: [\"a\", \"b\"], or \"a,b\" in the environment");
            return Vec::new();
        };
        items.iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    }

    /// A list whose every item `parse` understands.
    pub(super) fn parsed_list<T>(
        &mut self,
        key: &str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let mut parsed = Vec::new();
        for item in self.list(key) {
            match parse(&item) {
                Some(value) => parsed.push(value),
                None => self.complain(key, format_args!("has {item:?}: each must be {allowed}")),
            }
        }
        parsed
    }

    /// A file that can be read.
    pub(super) fn file(&mut self, key: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key)?);
        match std::fs::File::open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_dir() => {
                self.complain(key, format_args!("is {}: that is a directory", path.display()));
            }
            Ok(_) => {}
            Err(error) => {
                // Perhaps a URL with a password and a slip of the pen.
                let shown = shown_url(&path.display().to_string());
                self.complain(key, format_args!("is {shown}: it cannot be read: {error}"));
            }
        }
        Some(path)
    }

    /// Two files that only make sense together.
    pub(super) fn file_pair(&mut self, first: &str, second: &str) -> Option<(PathBuf, PathBuf)> {
        match (self.file(first), self.file(second)) {
            (Some(a), Some(b)) => Some((a, b)),
            (None, None) => None,
            (Some(_), None) => {
                self.complain(first, format_args!("needs {second} beside it"));
                None
            }
            (None, Some(_)) => {
                self.complain(second, format_args!("needs {first} beside it"));
                None
            }
        }
    }

    /// A secret, from its key or from the file that its `…_file` twin names (one line end at the end is dropped).
    /// Spaces belong to it.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let own = match self.values.get(key).map(|(value, _)| value.kind.clone()) {
            Some(ValueKind::String(text)) => Some(text).filter(|text| !text.is_empty()),
            Some(ValueKind::Nil) | None => None,
            Some(_) => {
                self.complain(key, "must be a text: put it in quotation marks");
                None
            }
        };
        let twin = format!("{key}_file");
        let Some(path) = self.text(&twin) else { return own.map(Secret::new) };
        if own.is_some() {
            self.complain(key, format_args!("and {twin} are both set: keep one of them"));
            return None;
        }
        match secret_file(std::path::Path::new(&path)) {
            Ok(secret) => Some(Secret::new(secret)),
            Err(problem) => {
                self.complain(&twin, format_args!("is {path}: {problem}"));
                None
            }
        }
    }
}

/// Reads a secret from a file, without the ends of lines that editors put behind it; or says what is wrong with the file.
pub fn secret_file(path: &std::path::Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))?;
    if text.starts_with('\u{feff}') {
        return Err(
            "it begins with a byte-order mark, which would be part of the secret: save it as UTF-8 without \
                    one"
            .into(),
        );
    }
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err("that file is empty".into()) } else { Ok(text.to_owned()) }
}

/// A value as TOML writes it.
fn literal(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        ValueKind::Array(items) => {
            let items = items.iter().map(|item| literal(&item.kind)).collect::<Vec<_>>();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}
