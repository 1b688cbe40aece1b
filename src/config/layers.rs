//! Defaults ← file ← environment ← command line, merged, with the place that each value came from.
//!
//! The `config` crate reads and merges; what it would pass over in silence (an unknown key, a variable with one
//! underscore too few) or print in full (the line of the file with the password) is dealt with here. The known keys
//! are those of `default.toml`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use ::config::{Config as Tree, Environment, File, FileFormat, Map, Source as Layer, Value, ValueKind};

use super::{
    Config, ConfigError, DEFAULT_TOML,
    reader::ValueReader,
    values::{KNOWN, ValueSource, Values},
};

const PREFIX: &str = "CARILLON__";

/// The layers that a configuration is made of. Never prints: secrets may be among them.
#[derive(Clone, Default)]
pub struct Layers {
    file: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    command_defaults: Pairs,
    command_values: Pairs,
    problems: Vec<String>,
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layers")
    }
}

impl Layers {
    /// The defaults alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a TOML file.
    #[must_use]
    pub fn file(mut self, path: Option<&Path>) -> Self {
        self.file = path.map(Path::to_path_buf);
        self
    }

    /// Adds the environment of this process.
    #[must_use]
    pub fn environment(self) -> Self {
        self.variables(std::env::vars_os())
    }

    /// Adds environment variables. Those that are not ours are left alone.
    #[must_use]
    pub fn variables<N: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        for (name, value) in variables {
            let (Ok(name), value) = (name.into().into_string(), value.into()) else { continue };
            let known = KNOWN.iter().find(|key| variable(key) == name);
            // One underscore in any place where two belong, or small letters.
            let spelt = |name: &str| name.to_uppercase().replace("__", "_");
            let meant = || KNOWN.iter().find(|key| spelt(&variable(key)) == spelt(&name));
            if let Some(meant) = meant().filter(|_| known.is_none()) {
                self.problems.push(format!(
                    "environment variable {name} is not read: for {meant} write {}, in capitals and with two underscores between the parts",
                    variable(meant)
                ));
            } else if known.is_none() && name.starts_with(PREFIX) {
                let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
                self.problems.push(unknown(&key, &ValueSource::Environment(name)));
            } else if known.is_some() {
                match value.into_string() {
                    Ok(value) => drop(self.environment.insert(name, value)),
                    Err(_) => self.problems.push(format!("environment variable {name} is not valid UTF-8")),
                }
            }
        }
        self
    }

    /// Sets a key on behalf of a command; `by` says which, for messages. Lists are comma-separated, "" is "not set".
    /// Wins over all others.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<String>, by: &'static str) -> Self {
        self.command_values.0.insert(key.into(), (value.into(), by));
        self
    }

    /// Sets a key unless the file or the environment says something else.
    #[must_use]
    pub fn set_default(mut self, key: &str, value: impl Into<String>, by: &'static str) -> Self {
        self.command_defaults.0.insert(key.into(), (value.into(), by));
        self
    }

    /// Merges and checks. All problems are reported at once.
    pub fn load(self) -> Result<Config, ConfigError> {
        let (values, mut problems) = self.clone().merge()?;
        let mut reader = ValueReader::new(values);
        let config = Config { layers: self, ..Config::read(&mut reader) };
        problems.extend(reader.into_problems());
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }

    fn merge(self) -> Result<(Values, Vec<String>), ConfigError> {
        let mut builder = Tree::builder()
            .add_source(File::from_str(DEFAULT_TOML, FileFormat::Toml))
            .add_source(self.command_defaults.clone());
        if let Some(path) = &self.file {
            // The crate's own message about a missing file does not say why.
            std::fs::read_to_string(path).map_err(|error| {
                ConfigError(vec![format!("configuration file {} cannot be read: {error}", path.display())])
            })?;
            builder = builder.add_source(File::from(path.as_path()).format(FileFormat::Toml));
        }
        let variables = self.environment.into_iter().collect();
        let environment = Environment::with_prefix("CARILLON").separator("__").ignore_empty(true);
        builder =
            builder.add_source(environment.source(Some(variables))).add_source(self.command_values.clone());
        let tree = builder.build().map_err(|error| {
            let path = self.file.as_deref().unwrap_or(Path::new("")).display();
            ConfigError(vec![match error {
                ::config::ConfigError::FileParse { cause, .. } => {
                    format!("configuration file {path} is not TOML: {}", without_excerpt(&cause.to_string()))
                }
                other => without_excerpt(&other.to_string()),
            }])
        })?;
        let mut problems = self.problems;
        let mut values = Values::new();
        flatten("", &tree.cache, &mut |key, value| {
            let said =
                |pairs: &Pairs| pairs.0.get(key).map(|(_, by)| *by).filter(|by| Some(*by) == value.origin());
            let known = KNOWN.iter().any(|known| known == key);
            let source =
                match (said(&self.command_values).or_else(|| said(&self.command_defaults)), value.origin()) {
                    (Some(by), _) => ValueSource::Command(by),
                    (None, Some("the environment")) => ValueSource::Environment(variable(key)),
                    (None, None) if known => ValueSource::Default,
                    // An empty section has no origin; what nobody compiled in stands in the file.
                    (None, _) => ValueSource::File(self.file.clone().unwrap_or_default()),
                };
            if known {
                values.insert(key.to_owned(), (value.clone(), source));
            } else {
                problems.push(unknown(key, &source));
            }
        });
        Ok((values, problems))
    }
}

/// Keys that a command sets, each with the command's name as origin.
#[derive(Debug, Clone, Default)]
struct Pairs(BTreeMap<String, (String, &'static str)>);

impl Layer for Pairs {
    fn clone_into_box(&self) -> Box<dyn Layer + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        let value = |text: &String, by: &str| Value::new(Some(&by.to_owned()), text.clone());
        Ok(self.0.iter().map(|(key, (text, by))| (key.clone(), value(text, by))).collect())
    }
}

fn flatten(path: &str, value: &Value, found: &mut impl FnMut(&str, &Value)) {
    match &value.kind {
        ValueKind::Table(table) if !table.is_empty() || path.is_empty() => {
            for (name, value) in table {
                let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&key, value, found);
            }
        }
        // An empty section that is known sets nothing.
        ValueKind::Table(_) if sections().any(|section| section == path) => {}
        _ => found(path, value),
    }
}

fn sections() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    KNOWN.iter().filter_map(move |key| {
        let section = key.split('.').next().unwrap_or_default();
        (section != std::mem::replace(&mut last, section)).then_some(section)
    })
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

fn unknown(key: &str, source: &ValueSource) -> String {
    let (section, name) = key.split_once('.').unwrap_or((key, ""));
    let lower = section.to_lowercase();
    if !sections().any(|known| known == lower) {
        let known = sections().collect::<Vec<_>>().join(", ");
        return format!("unknown key {key} ({source}): the sections are {known}");
    }
    if section != lower {
        return format!("unknown key {key} ({source}): keys are written in lower case, {lower}.{name}");
    }
    let known = KNOWN.iter().filter_map(|known| known.strip_prefix(&format!("{section}.")));
    let known = known.collect::<Vec<_>>().join(", ");
    if name.is_empty() {
        return format!("{section} ({source}) is a section, not a value: it takes {known}");
    }
    format!("unknown key {key} ({source}): [{section}] takes {known}")
}

/// A parser's message without the quoted lines of the file, which may hold a secret.
fn without_excerpt(message: &str) -> String {
    let lines = message.lines().filter(|line| {
        let line = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        !line.trim_start().starts_with('|')
    });
    lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ")
}
