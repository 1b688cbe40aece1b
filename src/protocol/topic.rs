//! Topics: `area` or `area:key`.
//!
//! A topic is compared byte by byte, so there is exactly one spelling of it: whoever builds a key encodes the reserved
//! characters. Who may follow what is decided in `auth::grant`.

use std::{borrow::Cow, collections::BTreeSet, fmt, sync::Arc};

use arc_swap::ArcSwap;
use percent_encoding::percent_decode_str;
use serde::{Serialize, Serializer};

use super::naming::{NameError, Naming, encode_char, is_reserved};

pub use super::naming::MAX_KEY_BYTES;

/// Why a text is not a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The area does not match `[a-z][a-z0-9-]{0,31}`.
    #[error("{0:?} is not an area: an area is a lower-case letter followed by up to 31 of a-z, 0-9 and -")]
    Area(String),
    /// The area is not one of `areas.names`.
    #[error("area {area:?} is not one of the configured areas ({known})")]
    UnknownArea {
        /// What was asked for.
        area: String,
        /// The configured areas, comma-separated.
        known: String,
    },
    /// The key is empty or too long.
    #[error("the key of {0:?} must have 1 to {MAX_KEY_BYTES} bytes")]
    KeyLength(String),
    /// The key has a character that must be percent-encoded.
    #[error("the key of {topic:?} has a {character:?}: percent-encode it as {encoded}")]
    Character {
        /// What was asked for.
        topic: String,
        /// The first offending character.
        character: char,
        /// How it is written instead.
        encoded: String,
    },
    /// A `%` that does not start an escape.
    #[error(
        "the key of {0:?} has a % that is not followed by two hexadecimal digits: write %25 for a percent sign"
    )]
    Escape(String),
    /// The key of a private area is not spelled as the editor's own key is.
    #[error("{topic:?} is in a private area, whose keys have one spelling{}: write {right:?}", .naming.spelling())]
    PrivateSpelling {
        /// What was asked for.
        topic: String,
        /// The topic that was probably meant.
        right: String,
        /// How editors are named here.
        naming: Naming,
    },
    /// The key of a private area that no editor can have.
    #[error("{topic:?} is in a private area, and no editor is called so: the name {why}")]
    Nobody {
        /// What was asked for.
        topic: String,
        /// What is wrong with the name.
        why: NameError,
    },
}

/// The areas: the configured ones, until others are adopted. Cheap to clone; clones change together.
#[derive(Debug, Clone)]
pub struct Areas {
    inner: Arc<ArcSwap<AreaSets>>,
    naming: Naming,
}

#[derive(Debug)]
struct AreaSets {
    names: BTreeSet<String>,
    private: BTreeSet<String>,
    recorded_only: BTreeSet<String>,
}

impl Areas {
    /// Areas by name. `private` and `recorded_only` must be subsets of `names`.
    pub fn new<S: Into<String>>(
        names: impl IntoIterator<Item = S>,
        private: impl IntoIterator<Item = S>,
        recorded_only: impl IntoIterator<Item = S>,
    ) -> Result<Self, TopicError> {
        let set = AreaSets {
            names: names.into_iter().map(Into::into).collect(),
            private: private.into_iter().map(Into::into).collect(),
            recorded_only: recorded_only.into_iter().map(Into::into).collect(),
        };
        if let Some(bad) = set.names.iter().find(|name| !is_area(name)) {
            return Err(TopicError::Area(bad.clone()));
        }
        let areas = Self { inner: Arc::new(ArcSwap::from_pointee(set)), naming: Naming::default() };
        let set = areas.inner.load_full();
        for name in set.private.iter().chain(&set.recorded_only) {
            areas.known(name)?;
        }
        Ok(areas)
    }

    /// The same areas, with this naming of editors in the private ones.
    #[must_use]
    pub fn with_naming(self, naming: Naming) -> Self {
        Self { naming, ..self }
    }

    /// How editors are named; [`Naming::Exact`] unless something else was said.
    pub fn naming(&self) -> Naming {
        self.naming
    }

    /// Replaces the areas, in all clones. Areas that were recorded only and still exist stay so.
    pub fn adopt<S: Into<String>>(
        &self,
        names: impl IntoIterator<Item = S>,
        private: impl IntoIterator<Item = S>,
    ) -> Result<(), TopicError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let recorded: Vec<String> = self.recorded_only().filter(|area| names.contains(area)).collect();
        let other = Self::new(names, private.into_iter().map(Into::into), recorded)?;
        self.inner.store(other.inner.load_full());
        Ok(())
    }

    /// Every area, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.inner.load().names.clone().into_iter()
    }

    /// The private areas, in alphabetical order.
    pub fn private(&self) -> impl Iterator<Item = String> {
        self.inner.load().private.clone().into_iter()
    }

    /// The areas in which a bare `PUBLISH` is refused, in alphabetical order.
    pub fn recorded_only(&self) -> impl Iterator<Item = String> {
        self.inner.load().recorded_only.clone().into_iter()
    }

    /// Whether keys of this area are editors' names.
    pub fn is_private(&self, area: &str) -> bool {
        self.inner.load().private.contains(area)
    }

    /// Whether a bare `PUBLISH` into this area is refused.
    pub fn is_recorded_only(&self, area: &str) -> bool {
        self.inner.load().recorded_only.contains(area)
    }

    fn known(&self, area: &str) -> Result<(), TopicError> {
        if !is_area(area) {
            return Err(TopicError::Area(area.into()));
        }
        if self.inner.load().names.contains(area) {
            return Ok(());
        }
        let known = self.names().collect::<Vec<_>>().join(", ");
        Err(TopicError::UnknownArea { area: area.into(), known })
    }
}

fn is_area(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && text.len() <= 32
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// What the topics of canaries begin with.
const CANARY: &str = "_canary-";

/// A place that events are published to. Cheap to clone; compared byte by byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Reads `area` or `area:key` to the letter.
    pub fn parse(text: &str, areas: &Areas) -> Result<Self, TopicError> {
        let (area, key) = split(text);
        areas.known(area)?;
        if let Some(key) = key {
            check_key(text, key)?;
        }
        Ok(Self(text.into()))
    }

    /// Reads a topic as its followers spell it: a key of a private area must be an editor's own ([`Naming::key`]), else
    /// nobody would ever follow it.
    pub fn parse_published(text: &str, areas: &Areas) -> Result<Self, TopicError> {
        let topic = Self::parse(text, areas)?;
        let right = topic.own(areas)?;
        if right == topic { Ok(topic) } else { Err(misspelt(text, &right, areas)) }
    }

    /// Reads a topic as people and programs outside name it: as [`Topic::parse_published`], but where editors' names do
    /// not distinguish case, any will do.
    pub fn parse_named(text: &str, areas: &Areas) -> Result<Self, TopicError> {
        let topic = Self::parse(text, areas)?;
        let (right, exact) = (topic.own(areas)?, areas.clone().with_naming(Naming::Exact));
        // Letters may be any; what is encoded, and how, may not.
        if topic.own(&exact)? == topic { Ok(right) } else { Err(misspelt(text, &right, areas)) }
    }

    /// The topic on which a node sends itself an event now and then. No area begins like that, so nobody else can name it.
    pub fn canary(node: &str) -> Self {
        Self(format!("{CANARY}{node}").into())
    }

    /// Whether this is the topic of a node's canary.
    pub fn is_canary(&self) -> bool {
        self.0.starts_with(CANARY)
    }

    /// Reads the topic of a channel: as [`Topic::parse`], or that of a canary.
    pub fn parse_arrived(text: &str, areas: &Areas) -> Result<Self, TopicError> {
        if text.starts_with(CANARY) { Ok(Self(text.into())) } else { Self::parse(text, areas) }
    }

    /// The same topic with the key of a private area as the editor's own is; other topics unchanged.
    fn own(&self, areas: &Areas) -> Result<Self, TopicError> {
        match self.key() {
            Some(key) if areas.is_private(self.area()) => {
                let nobody = |why| TopicError::Nobody { topic: self.to_string(), why };
                let name = percent_decode_str(key).decode_utf8().map_err(|_| nobody(NameError::Utf8))?;
                Ok(Self::private(self.area(), &areas.naming.key(&name).map_err(nobody)?))
            }
            _ => Ok(self.clone()),
        }
    }

    /// The editor's name in the key of a private area, as far as it can be read; `None` for other topics.
    pub fn private_name(&self, areas: &Areas) -> Option<Cow<'_, str>> {
        let key = self.key().filter(|_| areas.is_private(self.area()))?;
        Some(percent_decode_str(key).decode_utf8_lossy())
    }

    /// The topic of an editor in a private area, by their [`Naming::key`].
    pub fn private(area: &str, key: &str) -> Self {
        Self(format!("{area}:{key}").into())
    }

    /// Whether a text could be a key: within the grammar, reserved characters encoded, no escape cut in two.
    pub fn is_key(text: &str) -> bool {
        check_key(text, text).is_ok()
    }

    /// The area.
    pub fn area(&self) -> &str {
        split(&self.0).0
    }

    /// The key, encoded as it stands in the topic; `None` for an area-wide topic.
    pub fn key(&self) -> Option<&str> {
        split(&self.0).1
    }

    /// Whether this is an area-wide topic.
    pub fn is_wide(&self) -> bool {
        !self.0.contains(':')
    }

    /// The area-wide topic of the same area.
    #[must_use]
    pub fn wide(&self) -> Self {
        if self.is_wide() { self.clone() } else { Self(self.area().into()) }
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn misspelt(text: &str, right: &Topic, areas: &Areas) -> TopicError {
    TopicError::PrivateSpelling { topic: text.into(), right: right.to_string(), naming: areas.naming }
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((area, key)) => (area, Some(key)),
        None => (text, None),
    }
}

fn check_key(topic: &str, key: &str) -> Result<(), TopicError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(TopicError::KeyLength(topic.into()));
    }
    if let Some(character) = key.chars().find(|c| is_reserved(*c)) {
        return Err(TopicError::Character {
            topic: topic.into(),
            character,
            encoded: encode_char(character),
        });
    }
    let mut rest = key;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        let hex = rest.as_bytes();
        if hex.len() < 2 || !hex[0].is_ascii_hexdigit() || !hex[1].is_ascii_hexdigit() {
            return Err(TopicError::Escape(topic.into()));
        }
    }
    Ok(())
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
#[path = "topic_tests.rs"]
mod tests;
