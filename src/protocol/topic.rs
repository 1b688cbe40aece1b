//! Topics: `area` or `area:key`, and what a session may follow.
//!
//! A topic is compared byte by byte, so there is exactly one spelling of it: whoever builds a key encodes the
//! reserved characters. Must not know who may follow what (that is `auth::grant`).

use std::{collections::BTreeSet, fmt, sync::Arc};

use percent_encoding::percent_decode_str;
use serde::{Serialize, Serializer};

/// The longest key, in bytes as it stands in the topic.
pub const MAX_KEY_BYTES: usize = 200;

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
    #[error("{topic:?} is in a private area, whose keys are lower-cased: write {right:?}")]
    PrivateSpelling {
        /// What was asked for.
        topic: String,
        /// The topic that was probably meant.
        right: String,
    },
}

/// The configured areas. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Areas {
    inner: Arc<AreaSets>,
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
        let areas = Self { inner: Arc::new(set) };
        for name in areas.inner.private.iter().chain(&areas.inner.recorded_only) {
            areas.known(name)?;
        }
        Ok(areas)
    }

    /// Every area, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.names.iter().map(String::as_str)
    }

    /// The private areas, in alphabetical order.
    pub fn private(&self) -> impl Iterator<Item = &str> {
        self.inner.private.iter().map(String::as_str)
    }

    /// The areas in which a bare `PUBLISH` is refused, in alphabetical order.
    pub fn recorded_only(&self) -> impl Iterator<Item = &str> {
        self.inner.recorded_only.iter().map(String::as_str)
    }

    /// Whether keys of this area are editors' names.
    pub fn is_private(&self, area: &str) -> bool {
        self.inner.private.contains(area)
    }

    /// Whether a bare `PUBLISH` into this area is refused.
    pub fn is_recorded_only(&self, area: &str) -> bool {
        self.inner.recorded_only.contains(area)
    }

    fn known(&self, area: &str) -> Result<(), TopicError> {
        if !is_area(area) {
            return Err(TopicError::Area(area.into()));
        }
        if self.inner.names.contains(area) {
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

    /// Reads a topic as publishers write it: the key of a private area must be the editor's own
    /// ([`Topic::own_key`]), else nobody would ever receive it.
    pub fn parse_published(text: &str, areas: &Areas) -> Result<Self, TopicError> {
        let topic = Self::parse(text, areas)?;
        let right = topic.clone().with_own_key(areas);
        if right == topic {
            return Ok(topic);
        }
        Err(TopicError::PrivateSpelling { topic: text.into(), right: right.to_string() })
    }

    /// The same topic with the key of a private area converted to the editor's own spelling; other topics unchanged.
    #[must_use]
    pub fn with_own_key(self, areas: &Areas) -> Self {
        match self.key() {
            Some(key) if areas.is_private(self.area()) => {
                let name = percent_decode_str(key).decode_utf8_lossy();
                Self::private(self.area(), &name)
            }
            _ => self,
        }
    }

    /// The private topic of an editor in a private area.
    pub fn private(area: &str, user: &str) -> Self {
        Self(format!("{area}:{}", Self::own_key(user)).into())
    }

    /// An editor's key in private areas: the name in lower case (Unicode), reserved characters encoded.
    pub fn own_key(user: &str) -> String {
        encode_key(&user.to_lowercase())
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

/// Encodes the reserved characters of a raw key.
pub fn encode_key(raw: &str) -> String {
    let mut key = String::with_capacity(raw.len());
    for c in raw.chars() {
        if c == '%' || is_reserved(c) { key.push_str(&encode_char(c)) } else { key.push(c) }
    }
    key
}

/// Characters that never stand in a key as they are. A `%` does, but only as the start of an escape.
fn is_reserved(c: char) -> bool {
    matches!(c, ' ' | '*' | ',' | '{' | '}') || c.is_control()
}

fn encode_char(c: char) -> String {
    let mut buffer = [0; 4];
    c.encode_utf8(&mut buffer).bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
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

/// What a session may follow: one topic, or every key of an area (`area:*`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// One topic.
    Topic(Topic),
    /// Every key of the area whose area-wide topic this is; written `area:*`.
    Every(Topic),
}

impl Subject {
    /// Reads a topic or `area:*`.
    pub fn parse(text: &str, areas: &Areas) -> Result<Self, TopicError> {
        match text.strip_suffix(":*") {
            Some(area) if !area.contains(':') => Topic::parse(area, areas).map(Self::Every),
            _ => Topic::parse(text, areas).map(Self::Topic),
        }
    }

    /// The area it lies in.
    pub fn area(&self) -> &str {
        match self {
            Self::Topic(topic) | Self::Every(topic) => topic.area(),
        }
    }

    /// The area-wide topic that is followed along with it.
    pub fn wide(&self) -> Topic {
        match self {
            Self::Topic(topic) => topic.wide(),
            Self::Every(area) => area.clone(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => topic.fmt(f),
            Self::Every(area) => write!(f, "{area}:*"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn areas() -> Areas {
        Areas::new(["comments", "notifications"], ["notifications"], []).unwrap()
    }

    #[test]
    fn topics_are_read_to_the_letter() {
        for good in
            ["comments", "comments:42", "comments:a:b", "comments:%2A", "comments:ä/ö", "notifications:Anna"]
        {
            assert_eq!(Topic::parse(good, &areas()).unwrap().as_str(), good);
        }
        let long = format!("comments:{}", "k".repeat(201));
        for bad in [
            "",
            "Comments",
            "content",
            "comments:",
            "comments:a b",
            "comments:*",
            "comments:a,b",
            "comments:{x}",
            "comments:a\nb",
            "comments:%",
            "comments:%2",
            "comments:%zz",
            "comments:\u{85}",
            &long,
            "comments :1",
            ":1",
        ] {
            assert!(Topic::parse(bad, &areas()).is_err(), "{bad:?} passed");
        }
    }

    #[test]
    fn an_editors_own_key_is_lower_case_and_encoded() {
        assert_eq!(Topic::own_key("Anna"), "anna");
        assert_eq!(Topic::own_key("DOMAIN\\Anna@Example.COM"), "domain\\anna@example.com");
        assert_eq!(Topic::own_key("Ärger Ö,*%{}\n"), "ärger%20ö%2C%2A%25%7B%7D%0A");
        assert_eq!(Topic::own_key("a\u{85}b"), "a%C2%85b");
    }

    #[test]
    fn publishers_are_told_the_right_private_key() {
        let error = Topic::parse_published("notifications:Anna%2a", &areas()).unwrap_err();
        assert!(error.to_string().contains("notifications:anna%2A"), "{error}");
        assert!(Topic::parse_published("notifications:anna%2A", &areas()).is_ok());
        assert!(Topic::parse_published("comments:Anna", &areas()).is_ok());
    }

    #[test]
    fn an_area_can_be_followed_whole() {
        let every = Subject::parse("comments:*", &areas()).unwrap();
        assert_eq!(every.to_string(), "comments:*");
        assert_eq!(every.wide().as_str(), "comments");
        assert!(Subject::parse("comments:a*", &areas()).is_err());
        assert!(Subject::parse("comments:a:*", &areas()).is_err());
        assert!(Subject::parse("*", &areas()).is_err());
    }
}
