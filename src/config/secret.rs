//! A text that must not be seen: passwords, signing secrets, tokens.
//!
//! It prints as `***` in every way Rust has of printing, so that it cannot reach a log, an error or `config show` by
//! accident; whoever needs it says [`Secret::expose`], which is easy to search for.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use serde::{Serialize, Serializer};

/// What is shown instead.
pub(super) const HIDDEN: &str = "***";

/// Keys whose values are secrets.
const SECRETS: [&str; 7] = [
    "auth.secret",
    "auth.previous_secret",
    "internal.publish_token",
    "redis.node_secret",
    "redis.password",
    "redis.previous_node_secret",
    "redis.sentinel_password",
];
/// What is not set, in TOML.
pub(super) const EMPTY: &str = "\"\"";
/// Keys whose values are URLs, which may hold a secret.
const URLS: [&str; 4] = ["redis.url", "auth.jwks", "auth.callback_url", "telemetry.otlp_endpoint"];

/// A text that never prints. Cheap to clone. Comparing takes the same time wherever the texts differ.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `other` is the same text; how long it takes depends on the lengths only.
    pub fn matches(&self, other: &str) -> bool {
        let (own, other) = (self.0.as_bytes(), other.as_bytes());
        let difference = own.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b));
        own.len() == other.len() && std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// A URL as it may be shown: what stands before the last `@` (but for the user's name), and passwords in the query, are
/// hidden. Rather too much than too little: a password may hold an `@`, `/` or `?` that nobody encoded.
pub fn shown_url(url: &str) -> String {
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
    let mut shown = scheme.to_owned();
    let rest = match rest.rfind('@') {
        Some(at) => {
            let user = rest[..at].split_once(':').map_or("", |(user, _)| user);
            let _ = write!(shown, "{user}:{HIDDEN}");
            &rest[at..]
        }
        None => rest,
    };
    let (front, query) = rest.split_once('?').map_or((rest, None), |(front, query)| (front, Some(query)));
    shown.push_str(front);
    for (index, pair) in query.iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) if is_secret_parameter(name) => drop(write!(shown, "{name}={HIDDEN}")),
            _ => shown.push_str(pair),
        }
    }
    shown
}

fn is_secret_parameter(name: &str) -> bool {
    let name = name.to_lowercase();
    ["password", "secret", "token", "key", "auth", "sig", "code"].iter().any(|word| name.contains(word))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("hunter2-hunter2");
        let printed =
            format!("{secret} {secret:?} {:#?} {}", Some(&secret), serde_json::to_string(&secret).unwrap());
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(printed.contains(HIDDEN));
    }

    #[test]
    fn a_secret_matches_only_itself() {
        let secret = Secret::new("abcdef");
        assert!(secret.matches("abcdef"));
        for other in ["", "abcde", "abcdeg", "abcdefg", "ABCDEF", "bbcdef"] {
            assert!(!secret.matches(other), "{other}");
        }
    }

    #[test]
    fn passwords_in_urls_are_hidden() {
        for (url, shown) in [
            ("redis://localhost:6379/0", "redis://localhost:6379/0"),
            ("redis://anna:pa:ss@host/1", "redis://anna:***@host/1"),
            ("redis://:pass@host", "redis://:***@host"),
            ("redis://token@host", "redis://:***@host"),
            ("redis://:p@s?s/w@host:1/2", "redis://:***@host:1/2"),
            (
                "redis-sentinel://a:1?sentinelServiceName=m&sentinelPassword=x",
                "redis-sentinel://a:1?sentinelServiceName=m&sentinelPassword=***",
            ),
            ("https://cms/jwks?api_key=1&v=2", "https://cms/jwks?api_key=***&v=2"),
        ] {
            assert_eq!(shown_url(url), shown);
        }
    }
}
