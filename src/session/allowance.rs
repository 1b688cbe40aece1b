//! How much a client may send: two small buckets that fill with time. Pure; the caller knows the time.

/// What a client may still send. A full bucket holds two seconds' worth, so that short bursts pass.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    messages: TokenBucket,
    topics: TokenBucket,
}

/// One bucket.
#[derive(Debug, Default)]
pub(crate) struct TokenBucket {
    /// Used up, in thousandths.
    used: u32,
    /// When `used` was right, ms since 1970, low bits.
    at: u32,
}

impl Allowance {
    /// Counts a message. `false`: more than `per_second` for longer than a burst.
    pub(crate) fn message(&mut self, per_second: u32, now: u64) -> bool {
        self.messages.take(1, per_second, now)
    }

    /// Counts frames that carry no message.
    pub(crate) fn frames(&mut self, count: u32, per_second: u32, now: u64) -> bool {
        self.messages.take(count, per_second, now)
    }

    /// Counts topics that are followed or left.
    pub(crate) fn topics(&mut self, per_second: u32, count: usize, now: u64) -> bool {
        self.topics.take(u32::try_from(count).unwrap_or(u32::MAX), per_second, now)
    }
}

impl TokenBucket {
    /// Takes `count` out, where they are in it. 0 `per_second`: any number.
    pub(crate) fn take(&mut self, count: u32, per_second: u32, now: u64) -> bool {
        if per_second == 0 {
            return true;
        }
        let elapsed = (now as u32).wrapping_sub(self.at);
        self.at = now as u32;
        self.used = self.used.saturating_sub(elapsed.saturating_mul(per_second));
        let used = self.used.saturating_add(count.saturating_mul(1000));
        if used > per_second.saturating_mul(2000) {
            return false;
        }
        self.used = used;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let mut allowance = Allowance::default();
        let now = 1_763_700_000_000;
        assert!((0..20).all(|_| allowance.message(10, now)));
        assert!(!allowance.message(10, now));
        assert!(!allowance.message(10, now + 99));
        assert!(allowance.message(10, now + 100));
        assert!(
            (0..1000).all(|i| allowance.message(10, now + 1000 + i * 100)),
            "a steady rate passes for good"
        );
        assert!(!allowance.topics(10, 21, now) && allowance.topics(10, 20, now));
        assert!((0..1000).all(|_| allowance.message(0, now)), "0 is no limit");
    }
}
