//! Lines of the log that could come in thousands: one of a kind is written every ten seconds, and says how many were left
//! out since.
//!
//! A log that is filled by one trouble hides the next, and costs more than the trouble.

use std::time::{Duration, Instant};

/// How often a line of one kind is written.
pub const EVERY: Duration = Duration::from_secs(10);

/// Lines of one kind.
#[derive(Debug, Default)]
pub struct Seldom {
    written: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// One is due to be written: how many were left out since the last that was. `None`: leave it out.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        if self.written.is_some_and(|at| now.saturating_duration_since(at) < EVERY) {
            self.left_out += 1;
            return None;
        }
        self.written = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_written_and_the_others_are_counted() {
        let (mut lines, begin) = (Seldom::default(), Instant::now());
        assert_eq!(lines.due(begin), Some(0), "the first at once");
        assert_eq!((0..5000).find_map(|ms| lines.due(begin + Duration::from_millis(ms))), None);
        assert_eq!(lines.due(begin + EVERY), Some(5000));
        assert_eq!(lines.due(begin + EVERY * 2), Some(0));
    }
}
