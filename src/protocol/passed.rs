//! Which live events a client has had since it was last told everything. They have no numbers, so each is named by a digest.
//!
//! As text: `<digest>-<at>` for each, with commas between; `?` stands for some that are not named.

use std::fmt;

/// Names that are kept: more live events than this between two proofs are told by `resync`.
const MOST: usize = 24;
/// How long a name is kept after the last proof before its event, ms of Redis' clock. By then every node has had a later proof, or has
/// lost its link.
const KEPT: u64 = 40_000;

/// The live events that a client has had lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// Digest, and the last proof before it, ms of Redis' clock.
    names: Vec<(u64, u64)>,
    /// Events up to this proof are not all named here, ms of Redis' clock; 0: all are.
    unnamed: u64,
}

impl Passed {
    /// Nobody knows which ones the client had up to this proof, ms of Redis' clock.
    pub fn unnamed_up_to(at: u64) -> Self {
        Self { names: Vec::new(), unnamed: at }
    }

    /// The client has had one more. `at`: the last proof before it.
    pub fn push(&mut self, digest: u64, at: u64) {
        self.names.push((digest, at));
        if self.names.len() > MOST {
            let (_, dropped) = self.names.remove(0);
            self.unnamed = self.unnamed.max(dropped);
        }
    }

    /// Forgets what every node knows to be old. `at`: up to when the client was told everything.
    pub fn forget_before(&mut self, at: u64) {
        self.names.retain(|(_, before)| before + KEPT > at);
        if self.unnamed + KEPT <= at {
            self.unnamed = 0;
        }
    }

    /// The last proof before the first event of this digest that the client had; `Some(None)`: it had none; `None`: unknown. An event
    /// may be named twice, if a session changed nodes while the event was on its way.
    pub fn since(&self, digest: u64) -> Option<Option<u64>> {
        let named = self.names.iter().filter(|(name, _)| *name == digest).map(|(_, at)| *at);
        (self.unnamed == 0).then_some(named.min())
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.unnamed == 0
    }

    /// As text, for a client that was told everything up to `at`; `None` if there is nothing to say. Names that need more than `most`
    /// bytes are left out.
    pub fn text(&self, at: u64, most: usize) -> Option<String> {
        let mut passed = self.clone();
        passed.forget_before(at);
        if passed.is_empty() {
            return None;
        }
        let whole = passed.to_string();
        if whole.len() <= most {
            return Some(whole);
        }
        let last = passed.names.iter().map(|(_, at)| *at).max().unwrap_or(0);
        Some(Self { names: Vec::new(), unnamed: passed.unnamed.max(last) }.to_string())
    }

    /// Reads what [`fmt::Display`] wrote; `None` for anything else.
    pub fn read(text: &str) -> Option<Self> {
        let mut passed = Self::default();
        for name in text.split(',') {
            let (digest, at) = name.split_once('-')?;
            let at = u64::from_str_radix(at, 16).ok()?;
            if digest == "?" {
                passed.unnamed = at;
            } else {
                passed.names.push((u64::from_str_radix(digest, 16).ok()?, at));
            }
        }
        (passed.names.len() <= MOST).then_some(passed)
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (digest, at) in &self.names {
            write!(f, "{comma}{digest:x}-{at:x}")?;
            comma = ",";
        }
        if self.unnamed > 0 { write!(f, "{comma}?-{:x}", self.unnamed) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(passed: &Passed) -> Option<Passed> {
        Passed::read(&passed.to_string())
    }

    #[test]
    fn what_was_had_is_named_until_every_node_knows_it_to_be_old() {
        let mut passed = Passed::default();
        assert!(passed.is_empty());
        passed.push(7, 1_000);
        passed.push(u64::MAX, 2_000);
        assert_eq!(read_back(&passed), Some(passed.clone()));
        assert_eq!((passed.since(7), passed.since(8)), (Some(Some(1_000)), Some(None)));
        passed.forget_before(41_000);
        assert_eq!(passed.since(7), Some(None));
        passed.push(u64::MAX, 3_000);
        assert_eq!(passed.since(u64::MAX), Some(Some(2_000)), "twice: since the first");
    }

    #[test]
    fn more_than_are_named_leave_nothing_to_be_told() {
        let mut passed = Passed::default();
        (0..=MOST as u64).for_each(|n| passed.push(n, 1_000 + n));
        assert_eq!(passed.since(99), None);
        assert_eq!(read_back(&passed), Some(passed.clone()));
        let short = passed.text(1_000, 20).and_then(|text| Passed::read(&text));
        assert_eq!(short.unwrap().since(5), None, "no room for names");
        passed.forget_before(1_000 + KEPT);
        assert_eq!(passed.since(99), Some(None), "that was long ago");
        assert_eq!(passed.since(5), Some(Some(1_005)));
    }

    #[test]
    fn anything_else_is_nothing() {
        for text in ["", "x", "7", "7-", "-7", "7-1,", "?-", "zz-1"] {
            assert_eq!(Passed::read(text), None, "{text:?}");
        }
    }
}
