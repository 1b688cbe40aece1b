//! How editors are named: from a token's `sub` to the key of their private topics.
//!
//! That key is what is compared, byte by byte, wherever one editor is told from another: topics, grants, revocations,
//! renewals, limits. It is made here and nowhere else, because two rules that differ in one letter let two people read
//! each other's notifications.

/// The longest key, in bytes as it stands in the topic.
pub const MAX_KEY_BYTES: usize = 200;

/// Why nobody can be called so. Each reads on from a noun: "the token's `sub` …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("is empty")]
    Empty,
    /// It is not UTF-8 once decoded.
    #[error("is not valid UTF-8")]
    Utf8,
    /// It has one of Unicode's control characters (C0, DEL, C1).
    #[error("has a control character")]
    Control,
    /// Its key would be too long.
    #[error("has {0} bytes as a topic's key, at most {MAX_KEY_BYTES} are allowed")]
    Long(usize),
}

/// Whether editors' names distinguish case (`auth.fold_subject`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Naming {
    /// They do: `Anna` and `anna` are two editors.
    #[default]
    Exact,
    /// They do not: every letter counts as its lower-case one.
    Folded,
}

impl Naming {
    /// The key of the editor whom a token's `sub` names: the name itself, only what must be encoded is.
    pub fn key(self, sub: &str) -> Result<String, NameError> {
        if sub.is_empty() {
            return Err(NameError::Empty);
        }
        if sub.chars().any(char::is_control) {
            return Err(NameError::Control);
        }
        let key = match self {
            Self::Exact => encode_key(sub),
            Self::Folded => encode_key(&folded(sub)),
        };
        if key.len() > MAX_KEY_BYTES { Err(NameError::Long(key.len())) } else { Ok(key) }
    }

    /// How a key is spelled: it continues the words "keys have one spelling".
    pub(super) fn spelling(self) -> &'static str {
        match self {
            Self::Exact => "",
            Self::Folded => ", in lower case",
        }
    }

    /// Whether the name would be another one if case were not distinguished: a CMS that does not distinguish it may
    /// spell the same name otherwise the next time.
    pub fn minds_case_of(self, sub: &str) -> bool {
        self == Self::Exact && sub.chars().any(|c| lower(c) != c)
    }
}

/// A name in lower case, letter by letter (Unicode's simple mapping): as long in letters as it was, whatever stands
/// beside each.
pub fn folded(name: &str) -> String {
    name.chars().map(lower).collect()
}

/// One letter has a longer lower case in Unicode's full mapping, which begins with the simple one: İ.
fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// Encodes the reserved characters of a raw key, in upper-case hexadecimal.
pub fn encode_key(raw: &str) -> String {
    let mut key = String::with_capacity(raw.len());
    for c in raw.chars() {
        if c == '%' || is_reserved(c) { key.push_str(&encode_char(c)) } else { key.push(c) }
    }
    key
}

/// Characters that never stand in a key as they are. A `%` does, but only as the start of an escape.
pub(super) fn is_reserved(c: char) -> bool {
    matches!(c, ' ' | '*' | ',' | '{' | '}') || c.is_control()
}

pub(super) fn encode_char(c: char) -> String {
    let mut buffer = [0; 4];
    c.encode_utf8(&mut buffer).bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_has_one_in_lower_case_which_stays_as_it_is() {
        let mut longer = Vec::new();
        for c in '\0'..=char::MAX {
            if c.to_lowercase().count() != 1 {
                longer.push(c);
            }
            assert_eq!(lower(lower(c)), lower(c), "{c:?}");
        }
        assert_eq!(longer, ['İ'], "the first letter of a longer lower case is the simple one");
        assert_eq!(folded("İ\u{212A}ΣΟΦΟΣ"), "ikσοφοσ");
    }

    #[test]
    fn names_that_nobody_can_have_are_told_why() {
        let key = |name: &str| Naming::Exact.key(name);
        assert_eq!(key(""), Err(NameError::Empty));
        for control in ["a\0", "\u{1f}", "a\u{7f}", "\u{85}b"] {
            assert_eq!(key(control), Err(NameError::Control), "{control:?}");
        }
        assert_eq!(key(&"x".repeat(200)), Ok("x".repeat(200)));
        assert_eq!(key(&"x".repeat(201)), Err(NameError::Long(201)));
        assert_eq!(key(&" ".repeat(67)), Err(NameError::Long(201)));
        // The lower case of Ⱥ takes three bytes and not two.
        assert_eq!(key(&"Ⱥ".repeat(100)), Ok("Ⱥ".repeat(100)));
        assert_eq!(Naming::Folded.key(&"Ⱥ".repeat(100)), Err(NameError::Long(300)));
    }

    #[test]
    fn a_name_whose_case_counts_is_noticed_while_it_counts() {
        for name in ["Anna", "\u{212A}", "ǅ", "a\u{13A0}"] {
            assert!(Naming::Exact.minds_case_of(name), "{name}");
            assert!(!Naming::Folded.minds_case_of(name));
        }
        for name in ["anna", "7", "名前", "ß", "a%20"] {
            assert!(!Naming::Exact.minds_case_of(name), "{name}");
        }
    }
}
