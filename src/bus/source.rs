//! Sources: publishers that vouch for themselves, as Redis keeps them.
//!
//! Who is late is decided in `relay`.

/// A source as it stands in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Until when it is vouched for, ms of Redis' clock; 0: it has said good-bye.
    pub until: u64,
    /// Since when its oldest event waits to be published, ms of Redis' clock; 0: none waits.
    pub since: u64,
}

/// How long the oldest event of a source may wait to be published before the source is late, ms.
pub const MAY_WAIT_MS: u64 = 10_000;

impl Source {
    /// Whether it has not said good-bye.
    pub fn is_present(&self) -> bool {
        self.until > 0
    }

    /// Whether its changes may be late, where Redis' clock shows `now`: nobody vouches for it any more, or its oldest event
    /// waits for too long.
    pub fn is_late(&self, now: u64) -> bool {
        let waits = self.since > 0 && now.saturating_sub(self.since) > MAY_WAIT_MS;
        self.is_present() && (now >= self.until || waits)
    }

    /// How it is, in words: "vouched for 12 s more; its oldest event waits for 3 s".
    pub fn in_words(&self, now: u64) -> String {
        let seconds = |from: u64, to: u64| to.saturating_sub(from).div_ceil(1000);
        let vouched = if now < self.until {
            format!("vouched for {} s more", seconds(now, self.until))
        } else {
            format!("silent for {} s", seconds(self.until, now))
        };
        match self.since {
            0 => format!("{vouched}; nothing waits"),
            since => format!("{vouched}; its oldest event waits for {} s", seconds(since, now)),
        }
    }

    /// Whether this is a name that the function takes: 1 to 64 letters, digits and `. _ : / @ -`.
    pub fn is_name(text: &str) -> bool {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'/' | b'@' | b'-');
        (1..=64).contains(&text.len()) && text.bytes().all(fits)
    }
}

/// All sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Redis' clock when they were read, ms.
    pub now: u64,
    /// The sources, those that have said good-bye among them.
    pub list: Vec<Source>,
}

/// A source that a node remembers and Redis has lost. Ages, because Redis may be another one with another clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSource {
    /// Its name.
    pub name: String,
    /// For how long it is still vouched for, ms; below 0 it has ended.
    pub left_ms: i64,
    /// The age of its oldest event that waits, ms; 0: none waits.
    pub oldest_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_late_when_it_is_silent_or_something_waits_too_long() {
        let late = |until, since| Source { name: "cms".into(), until, since }.is_late(100_000);
        assert!(!late(100_001, 0) && !late(100_001, 90_000) && !late(0, 1));
        assert!(late(100_000, 0) && late(100_001, 89_999));
        let words = |until, since| Source { name: "cms".into(), until, since }.in_words(100_000);
        assert_eq!(words(112_000, 0), "vouched for 12 s more; nothing waits");
        assert_eq!(words(40_000, 70_000), "silent for 60 s; its oldest event waits for 30 s");
    }

    #[test]
    fn names_are_those_that_the_function_takes() {
        assert!(Source::is_name("cms-1.eu:a/b@c_d") && Source::is_name(&"n".repeat(64)));
        assert!(!Source::is_name("") && !Source::is_name("a b") && !Source::is_name(&"n".repeat(65)));
        assert!(!Source::is_name("ä") && !Source::is_name("a\n"));
    }
}
