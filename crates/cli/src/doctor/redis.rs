//! What the bus finds out about Redis, in the words of the report.
//!
//! What is asked and how it weighs is decided in `bus`.

use carillon::{
    bus::{
        self,
        redis::{self, Weight},
    },
    shutdown::Tasks,
};

use super::report::Finding;

/// What to do where a finding does not say it.
const SEE_LOG: &str = "See Redis' log, and the rights that carillon redis-function --acl prints.";

/// Asks everything.
pub(super) async fn examine(settings: &bus::Settings, tasks: &Tasks) -> Vec<Finding> {
    redis::examine(settings, tasks).await.into_iter().map(|found| told(&found)).collect()
}

/// What was found holds for the user `default` alone, and nodes may log in as another one.
pub(super) fn user_is_unknown() -> Finding {
    Finding::warning(
        "user",
        "This was asked as Redis' user default; a node that logs in as another one may have fewer rights.",
        "Give the node's own configuration with --config, or its user in --redis: redis://USER:PASSWORD@HOST:PORT.",
    )
}

fn told(found: &redis::Finding) -> Finding {
    if found.weight == Weight::Good {
        return Finding::good(found.what, sentence(&found.detail));
    }
    // «What is wrong. What to do», or «what is wrong: what to do».
    let parts = found.detail.split_once(". ").or_else(|| found.detail.split_once(": "));
    let (what, advice) = parts.unwrap_or((&found.detail, SEE_LOG));
    let told = if found.weight == Weight::Bad { Finding::bad } else { Finding::warning };
    told(found.what, sentence(what), sentence(advice))
}

/// With a capital and a full stop; names of settings keep their own way of writing.
fn sentence(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let first = text.split(' ').next().unwrap_or_default().trim_end_matches(',');
    let mut chars = text.chars();
    match chars.next() {
        Some(letter) if first.chars().all(char::is_alphabetic) => {
            format!("{}{}.", letter.to_uppercase(), chars.as_str())
        }
        _ => format!("{text}."),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::Verdict, *};

    fn told_of(weight: Weight, detail: &str) -> (Verdict, String, Option<String>) {
        let Finding { verdict, sentence, advice, .. } =
            told(&redis::Finding { what: "server", weight, detail: detail.into() });
        (verdict, sentence, advice)
    }

    #[test]
    fn what_is_wrong_is_told_apart_from_what_to_do() {
        let place = "Redis at redis://127.0.0.1:6379 is version 6.2: Carillon needs 7.0";
        let expected = "Redis at redis://127.0.0.1:6379 is version 6.2.".to_owned();
        assert_eq!(told_of(Weight::Bad, place), (Verdict::Bad, expected, Some("Carillon needs 7.0.".into())));
        let policy = "maxmemory-policy is allkeys-lru: logs may go. Set noeviction";
        let expected = "maxmemory-policy is allkeys-lru: logs may go.".to_owned();
        assert_eq!(
            told_of(Weight::Advice, policy),
            (Verdict::Warning, expected, Some("Set noeviction.".into()))
        );
        assert_eq!(told_of(Weight::Good, "loaded: well"), (Verdict::Good, "loaded: well.".into(), None));
        assert_eq!(told_of(Weight::Good, "loaded, and well").1, "Loaded, and well.");
        assert_eq!(told_of(Weight::Bad, "no").2, Some(SEE_LOG.into()));
    }
}
