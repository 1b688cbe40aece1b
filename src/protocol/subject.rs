//! What a session may follow: a topic, or every key of an area.
//!
//! Who may follow what is decided in `auth::grant`.

use std::fmt;

use serde::{Serialize, Serializer};

use super::topic::{Areas, Topic, TopicError};

/// What a session may follow: one topic, or every key of an area (`area:*`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// One topic.
    Topic(Topic),
    /// Every key of the area whose area-wide topic this is; written `area:*`.
    Every(Topic),
}

impl Subject {
    /// Reads a topic (as [`Topic::parse_published`] does) or `area:*`.
    pub fn parse(text: &str, areas: &Areas) -> Result<Self, TopicError> {
        match text.strip_suffix(":*") {
            Some(area) if !area.contains(':') => Topic::parse(area, areas).map(Self::Every),
            _ => Topic::parse_published(text, areas).map(Self::Topic),
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
    fn an_area_can_be_followed_whole() {
        let every = Subject::parse("comments:*", &areas()).unwrap();
        assert_eq!(every.to_string(), "comments:*");
        assert_eq!(every.wide().as_str(), "comments");
        assert!(Subject::parse("comments:a*", &areas()).is_err());
        assert!(Subject::parse("comments:a:*", &areas()).is_err());
        assert!(Subject::parse("*", &areas()).is_err());
    }

    #[test]
    fn a_private_key_is_followed_by_its_one_spelling() {
        assert!(Subject::parse("notifications:Anna%20B", &areas()).is_ok());
        for other in
            ["notifications:%41nna", "notifications:a%2a", "notifications:%C3%A4", "notifications:%FF"]
        {
            assert!(Subject::parse(other, &areas()).is_err(), "{other}");
        }
    }
}
