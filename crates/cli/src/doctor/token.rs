//! Is the token good? What the node says of it, and what it says itself.
//!
//! It is read without being checked: the node has the key. It is never printed.

use std::time::Duration;

use carillon::protocol::time::{now_ms, rfc3339};
use serde_json::Value;

use super::{super::token::parts, report::Finding, session::End};

const QUESTION: &str = "token";

/// A session was welcomed.
pub(super) fn accepted(token: Option<&str>, welcome: &Value) -> Finding {
    let user = welcome["user"].as_str().unwrap_or("?");
    let Some(token) = token else {
        return Finding::good(
            QUESTION,
            format!("None was given and none is needed: the node lets {user} in."),
        );
    };
    let ends = match welcome["expires_in"].as_u64() {
        Some(seconds) => {
            format!(" for another {}", humantime::format_duration(Duration::from_secs(seconds)))
        }
        None => String::new(),
    };
    let Ok([_, claims]) = parts(token) else {
        return Finding::good(QUESTION, format!("The node accepts it: {user}{ends}."));
    };
    match claims["topics"].as_array() {
        Some(topics) if topics.is_empty() => Finding::warning(
            QUESTION,
            format!("The node accepts it ({user}{ends}), but its claim `topics` is empty."),
            "Let the CMS write into `topics` what the editor may follow: exact topics, \"area:*\" or \"*\".",
        ),
        Some(topics) => {
            let topics: Vec<_> = topics.iter().filter_map(Value::as_str).take(5).collect();
            Finding::good(
                QUESTION,
                format!("The node accepts it: {user}{ends}; topics: {}.", topics.join(", ")),
            )
        }
        None => Finding::good(
            QUESTION,
            format!("The node accepts it: {user}{ends}; it names no topics, so auth.default_topics count."),
        ),
    }
}

/// A session was welcomed with a token of our own making.
pub(super) fn minted() -> Finding {
    let sentence =
        "The node accepts one that was minted with auth.secret; the CMS's own were not seen (--token-file).";
    Finding::good(QUESTION, sentence)
}

/// There was no welcome.
pub(super) fn refused(token: Option<&str>, end: &End) -> Finding {
    let End::Closed(4401, reason) = end else {
        return Finding::bad(
            QUESTION,
            format!("The session is not welcomed: {end}."),
            match end {
                End::Closed(1013, _) => "Wait, or raise the limit that is named.",
                End::Closed(1012, _) => "That node was draining: try again.",
                End::Closed(..) => "See the node's log.",
                _ => {
                    "Frames do not pass in both directions: something between keeps them (web application firewall, \
                      antivirus)."
                }
            },
        );
    };
    if token.is_none() {
        return missing();
    }
    explained(token.unwrap_or_default(), reason)
}

/// No token was given where one is needed.
pub(super) fn missing() -> Finding {
    Finding::warning(
        QUESTION,
        "The node wants a token, and none was given: what comes after the handshake cannot be examined.",
        "Give --token-file FILE with a token of the CMS, or --config FILE of the node, whose secret one is minted with.",
    )
}

/// What the node said of the token, with what stands in it.
pub(super) fn explained(token: &str, reason: &str) -> Finding {
    let (header, claims) = match parts(token) {
        Ok([header, claims]) => (header, claims),
        Err(error) => {
            return Finding::bad(
                QUESTION,
                format!("The node refuses the token: {error}"),
                "Give it as the CMS made it, without quotes and line breaks.",
            );
        }
    };
    let named = |claims: &Value, name: &str| claims.get(name).map_or("nothing".into(), Value::to_string);
    let about = |word: &str| reason.contains(word);
    let advice = if about("expired") {
        let written = match (claims["iat"].as_u64(), claims["exp"].as_u64()) {
            (Some(from), Some(until)) => format!(
                " It was written at {} for {}.",
                rfc3339(from.min(253_402_300_799) * 1000),
                humantime::format_duration(Duration::from_secs(until.saturating_sub(from)))
            ),
            _ => String::new(),
        };
        format!(
            "Let the CMS give a fresh token whenever `token` of Realtime asks for one, not the one from when the page was \
             made; if it was fresh, the CMS's clock is behind.{written}"
        )
    } else if about("not valid before") {
        "The clock of the CMS is ahead of the node's: synchronise them (NTP).".into()
    } else if about("`aud`") {
        format!(
            "Let the CMS sign for the audience that auth.audience of the nodes names, or add {} to auth.audience.",
            named(&claims, "aud")
        )
    } else if about("`iss`") {
        format!(
            "Add {} to auth.issuer of the nodes, or let the CMS name itself as they expect.",
            named(&claims, "iss")
        )
    } else if about("signature") {
        format!(
            "The CMS signs with another key than the nodes check with (alg {}, kid {}): compare auth.secret, \
             auth.public_key_file or auth.jwks with the CMS's key.",
            named(&header, "alg"),
            named(&header, "kid")
        )
    } else if about("algorithm") {
        "Let the CMS sign with an algorithm of auth.algorithms, or add its own there.".into()
    } else if about("`sub`") || about("`exp`") {
        "Let the CMS write the claims `sub` (the editor's name) and `exp` into every token.".into()
    } else {
        "See `carillon token show` for what is in it, and the node's log.".into()
    };
    Finding::bad(QUESTION, format!("The node refuses the token: {reason}."), advice)
}

/// What is wrong with a token as far as can be seen without a node.
pub(super) fn unasked(token: Option<&str>) -> Finding {
    let Some(token) = token else {
        return Finding::untested(QUESTION, "None was given.");
    };
    let claims = match parts(token) {
        Ok([_, claims]) => claims,
        Err(error) => {
            return Finding::bad(
                QUESTION,
                format!("The token cannot be read: {error}."),
                "Give it as the CMS made it.",
            );
        }
    };
    let now = now_ms() / 1000;
    match claims["exp"].as_u64() {
        Some(exp) if exp < now => {
            explained(token, &format!("the token expired {} ago, by this machine's clock", span(now - exp)))
                .unasked_of_the_node()
        }
        _ => Finding::untested(QUESTION, "The node could not be asked whether it is good."),
    }
}

fn span(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

impl Finding {
    fn unasked_of_the_node(mut self) -> Self {
        self.sentence = self.sentence.replacen("The node refuses the token: the token", "The token", 1);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::Verdict, *};

    /// {"alg":"HS256"} . {"sub":"anna","aud":"shop","iat":1000,"exp":1900} . x
    const TOKEN: &str =
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIiwiYXVkIjoic2hvcCIsImlhdCI6MTAwMCwiZXhwIjoxOTAwfQ.eA";

    #[test]
    fn refusals_are_explained() {
        let advice = |reason| explained(TOKEN, reason).advice.unwrap();
        let expired = advice("the token expired 1h ago, at 1970-01-01T00:31:40Z");
        assert!(
            expired.contains("fresh token") && expired.ends_with("1970-01-01T00:16:40.000Z for 15m."),
            "{expired}"
        );
        assert!(
            advice("the token's `aud` is \"shop\": it must be \"cms\" (auth.audience)")
                .contains("add \"shop\" to auth.audience")
        );
        assert!(advice("the token's signature is wrong").contains("alg \"HS256\", kid nothing"));
        assert!(explained("a.b", "?").sentence.contains("not a JWT"));
    }

    #[test]
    fn what_can_be_seen_without_a_node_is_said() {
        let finding = unasked(Some(TOKEN));
        assert_eq!(finding.verdict, Verdict::Bad);
        assert!(finding.sentence.starts_with("The token expired "), "{}", finding.sentence);
        assert_eq!(unasked(None).verdict, Verdict::Untested);
    }
}
