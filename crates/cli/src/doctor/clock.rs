//! Do the clocks agree? Tokens end by the clock: the node's, and the one that wrote `exp`.

use std::time::UNIX_EPOCH;

use carillon::auth::LEEWAY;

use super::report::Finding;

const QUESTION: &str = "clock";

/// Seconds apart that are worth a word; the `Date` header has whole seconds.
const NOTICEABLE: u64 = 5;

/// Compares the time of an answer (`Date`, RFC 9110, 6.6.1) with this machine's, in ms since 1970.
pub(super) fn compare(date: Option<&str>, now_ms: u64) -> Finding {
    let Some(there) = date.and_then(seconds) else {
        return Finding::untested(QUESTION, "The answers carry no time to compare.");
    };
    let here = now_ms / 1000;
    let apart = here.abs_diff(there);
    let direction = if there > here { "ahead of" } else { "behind" };
    let sentence = format!("The clock there is {apart} s {direction} this machine's.");
    if apart <= NOTICEABLE {
        return Finding::good(QUESTION, format!("The clocks agree to {NOTICEABLE} s."));
    }
    let advice = format!(
        "Synchronise the clocks of nodes, CMS and this machine (NTP): tokens are judged with a leeway of {LEEWAY} s."
    );
    if apart > LEEWAY {
        Finding::bad(QUESTION, sentence, advice)
    } else {
        Finding::warning(QUESTION, sentence, advice)
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970.
fn seconds(date: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let parts: Vec<&str> = date.split([' ', ',']).filter(|part| !part.is_empty()).collect();
    let [_, day, month, year, time, "GMT"] = parts[..] else { return None };
    let month = MONTHS.find(month).filter(|at| month.len() == 3 && at % 3 == 0)? / 3 + 1;
    let time = humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::{super::report::Verdict, *};

    #[test]
    fn times_are_compared() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let now = 784_111_777_000;
        let verdict = |now| compare(Some(date), now).verdict;
        assert_eq!(seconds(date), Some(784_111_777));
        assert_eq!((verdict(now), verdict(now + 4_000)), (Verdict::Good, Verdict::Good));
        assert_eq!((verdict(now + 10_000), verdict(now - 60_000)), (Verdict::Warning, Verdict::Bad));
        assert!(compare(Some(date), now - 60_000).sentence.contains("60 s ahead of"));
        for unreadable in [None, Some("yesterday"), Some("Sun, 06 Nov 1994 08:49:37 CET")] {
            assert_eq!(compare(unreadable, now).verdict, Verdict::Untested);
        }
    }
}
