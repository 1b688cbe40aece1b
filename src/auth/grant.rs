//! What an editor may follow and publish.
//!
//! A grant is compared byte by byte with topics that have passed the grammar, so there is one spelling of each and
//! nothing to normalise. A prefix (`content:s1/*`) ends where a part of a key ends, so `s1` never opens `s10`. Private areas stand above every grant: their keys belong to the editor of that name alone.

use std::collections::HashSet;

use crate::protocol::{Areas, Subject, Topic};

/// What the prefix of a pattern may end in.
const SEPARATORS: [char; 5] = ['/', '.', ':', '_', '-'];

/// Patterns of a claim: exact topics, `area:*` (every key and the area itself), `area:prefix/*` (the keys that go on from
/// there), or `*`. What is none of these matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    all: bool,
    areas: HashSet<String>,
    topics: HashSet<String>,
    prefixes: Vec<String>,
}

impl Patterns {
    /// Reads patterns.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Self {
        let mut read = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            match pattern.strip_suffix(":*") {
                _ if pattern == "*" => read.all = true,
                Some(area) if !area.contains(':') => drop(read.areas.insert(area.into())),
                _ => match prefix_of(pattern) {
                    Some(prefix) => read.prefixes.push(prefix.into()),
                    None => drop(read.topics.insert(pattern.into())),
                },
            }
        }
        read
    }

    /// Whether this very topic is meant. A prefix opens nothing in a private area: there a key is somebody's name.
    pub fn covers(&self, topic: &Topic, areas: &Areas) -> bool {
        let goes_on =
            |prefix: &String| topic.as_str().len() > prefix.len() && topic.as_str().starts_with(prefix);
        self.covers_area(topic.area())
            || self.topics.contains(topic.as_str())
            || (!areas.is_private(topic.area()) && self.prefixes.iter().any(goes_on))
    }

    fn covers_area(&self, area: &str) -> bool {
        self.all || self.areas.contains(area)
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        !self.all && self.areas.is_empty() && self.topics.is_empty() && self.prefixes.is_empty()
    }
}

/// The prefix of `area:prefix*`, where it is one: it ends with a separator, and no escape is cut in two.
fn prefix_of(pattern: &str) -> Option<&str> {
    let prefix = pattern.strip_suffix('*')?;
    let (_, key) = prefix.split_once(':')?;
    (key.ends_with(SEPARATORS) && Topic::is_key(key)).then_some(prefix)
}

/// What an editor may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    own_key: String,
    patterns: Patterns,
}

impl Grant {
    /// The grant of an editor, by the key of their name (`Naming::key`).
    pub fn new<S: AsRef<str>>(own_key: &str, patterns: impl IntoIterator<Item = S>) -> Self {
        Self { own_key: own_key.into(), patterns: Patterns::new(patterns) }
    }

    /// Whether the editor may follow the subject.
    ///
    /// In a private area: the editor's own key and the area-wide topic, always; another key or `area:*`, never.
    /// Elsewhere: what the patterns cover; and the area-wide topic along with any key of it, because following the key
    /// follows the area too (contract, 1) and a refusal would hide nothing.
    pub fn allows(&self, subject: &Subject, areas: &Areas) -> bool {
        let area = subject.area();
        match subject {
            Subject::Every(_) => !areas.is_private(area) && self.patterns.covers_area(area),
            Subject::Topic(topic) if areas.is_private(area) => {
                topic.key().is_none_or(|key| key == self.own_key)
            }
            Subject::Topic(topic) => {
                self.patterns.covers(topic, areas) || (topic.is_wide() && self.covers_a_key_of(area))
            }
        }
    }

    fn covers_a_key_of(&self, area: &str) -> bool {
        let is_key = |topic: &String| {
            topic.strip_prefix(area).is_some_and(|rest| rest.len() > 1 && rest.starts_with(':'))
        };
        self.patterns.topics.iter().any(is_key) || self.patterns.prefixes.iter().any(is_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Naming, naming::folded};

    fn areas() -> Areas {
        Areas::new(["comments", "comments-x", "projects", "notifications"], ["notifications"], []).unwrap()
    }

    fn allows(user: &str, patterns: &[&str], subject: &str) -> bool {
        let subject = Subject::parse(subject, &areas()).unwrap_or_else(|error| panic!("{subject}: {error}"));
        Grant::new(user, patterns).allows(&subject, &areas())
    }

    #[test]
    fn patterns_are_compared_to_the_letter() {
        for (patterns, subject, allowed) in [
            (&["comments:42"][..], "comments:42", true),
            (&["comments:42"], "comments:43", false),
            (&["comments:42"], "comments:420", false),
            (&["comments:42"], "comments:4", false),
            (&["comments:42"], "comments:%34%32", false),
            (&["comments:42"], "comments", true),
            (&["comments:42"], "comments:*", false),
            (&["comments:42"], "comments-x", false),
            (&["comments-x:1"], "comments", false),
            (&["comments"], "comments", true),
            (&["comments"], "comments:42", false),
            (&["comments:"], "comments", false),
            (&["comments:*"], "comments:42", true),
            (&["comments:*"], "comments", true),
            (&["comments:*"], "comments:*", true),
            (&["comments:*"], "projects", false),
            (&["comments:*"], "comments-x:1", false),
            (&["*"], "projects:*", true),
            (&["*"], "projects:a:b", true),
            (&[], "projects", false),
            (&["**", "*:*", "comm*", "comments:4*", "Comments:42", " comments:42", ""], "comments:42", false),
        ] {
            assert_eq!(allows("anna", patterns, subject), allowed, "{patterns:?} {subject}");
        }
    }

    #[test]
    fn a_prefix_opens_the_keys_that_go_on_from_it_and_nothing_else() {
        for (patterns, subject, allowed) in [
            (&["comments:s1/*"][..], "comments:s1/7", true),
            (&["comments:s1/*"], "comments:s1/a/b", true),
            (&["comments:s1/*"], "comments:s1/", false),
            (&["comments:s1/*"], "comments:s1", false),
            (&["comments:s1/*"], "comments:s10/7", false),
            (&["comments:s1/*"], "comments:S1/7", false),
            (&["comments:s1/*"], "comments:%731/7", false),
            (&["comments:s1/*"], "comments-x:s1/7", false),
            (&["comments:s1/*"], "comments:*", false),
            (&["comments:s1/*"], "comments", true),
            (&["comments:s1/*"], "projects", false),
            (&["comments:a.*", "comments:b:*", "comments:c_*", "comments:d-*"], "comments:a.1", true),
            (&["comments:a.*", "comments:b:*", "comments:c_*", "comments:d-*"], "comments:b:1", true),
            (&["comments:a.*", "comments:b:*", "comments:c_*", "comments:d-*"], "comments:c_1", true),
            (&["comments:a.*", "comments:b:*", "comments:c_*", "comments:d-*"], "comments:d-1", true),
            (
                &["comments:s1*", "comments:é*", "comments:s1/**", "comments:*/*", "comments:/ *"],
                "comments:s1/7",
                false,
            ),
            (&["comments:%2*", "comments:%*", "comments:%/*", "comments:a%2-*"], "comments:%2F", false),
            (&["comments:%20/*"], "comments:%20/x", true),
            (&["notifications:anna/*", "notifications:-*", "*"], "notifications:anna/x", false),
        ] {
            assert_eq!(allows("anna", patterns, subject), allowed, "{patterns:?} {subject}");
        }
        assert!(Subject::parse("comments:s1/*", &areas()).is_err(), "a prefix cannot be subscribed to");
        let publish = Patterns::new(["notifications:a/*", "comments:s1/*"]);
        let covers = |topic: &str| publish.covers(&Topic::parse(topic, &areas()).unwrap(), &areas());
        assert!(covers("comments:s1/7") && !covers("comments") && !covers("notifications:a/b"));
        assert!(!Patterns::new(["comments:s1/*"]).is_empty());
    }

    #[test]
    fn private_topics_are_for_their_editor_alone_whatever_the_grant_says() {
        let everything = ["*", "notifications:*", "notifications:bob", "notifications:anna", "notifications"];
        for patterns in [&everything[..], &[]] {
            assert!(allows("Anna", patterns, "notifications:Anna"));
            assert!(allows("Anna", patterns, "notifications"), "the area-wide topic is open to every editor");
            for subject in [
                "notifications:*",
                "notifications:bob",
                "notifications:anna",
                "notifications:ANNA",
                "notifications:Anna%20",
                "notifications:Anna:",
                "notifications:Anna:x",
                "notifications:Ann",
                "notifications:Annaa",
                "notifications:А\u{301}nna",
                "notifications:%2A",
            ] {
                assert!(!allows("Anna", patterns, subject), "{subject}");
            }
        }
        assert!(allows("DOM\\Jörg%20Ä%2A", &[], "notifications:DOM\\Jörg%20Ä%2A"));
        assert!(!allows("DOM\\Jörg%20Ä%2A", &[], "notifications:dom\\jörg%20ä%2A"));
        assert!(!allows("%2A", &[], "notifications:*"));
    }

    #[test]
    fn two_names_that_look_alike_are_two_editors_where_case_counts_and_one_where_it_does_not() {
        let names = [
            "anna",
            "Anna",
            "ANNA",
            "\u{212A}ai",
            "kai",
            "Kai",
            "ΣΟΦΟΣ",
            "σοφος",
            "σοφοσ",
            "İ",
            "i",
            "i\u{307}",
            "é",
            "e\u{301}",
        ];
        for naming in [Naming::Exact, Naming::Folded] {
            let areas = areas().with_naming(naming);
            for (one, other) in names.iter().flat_map(|one| names.map(|other| (*one, other))) {
                let grant = Grant::new(&naming.key(one).unwrap(), ["*"]);
                let theirs = Topic::parse_named(&format!("notifications:{other}"), &areas).unwrap();
                let same = if naming == Naming::Exact { one == other } else { folded(one) == folded(other) };
                assert_eq!(grant.allows(&Subject::Topic(theirs), &areas), same, "{one} {other} {naming:?}");
            }
        }
        assert_eq!(folded("ΣΟΦΟΣ"), "σοφοσ");
    }

    #[test]
    fn publishing_follows_the_same_patterns_without_the_implied_area() {
        let publish = Patterns::new(["comments:42", "projects", "notifications:*"]);
        let covers = |topic: &str| publish.covers(&Topic::parse(topic, &areas()).unwrap(), &areas());
        assert!(covers("comments:42") && covers("projects") && covers("notifications:bob"));
        assert!(!covers("comments") && !covers("comments:43") && !covers("projects:1"));
        assert!(Patterns::new([""; 0]).is_empty() && !publish.is_empty());
    }
}
