//! Times as people and JSON read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, by this machine's clock.
pub fn now_ms() -> u64 {
    #[cfg(feature = "simulation")]
    if let Some(shown) = SHOWN.get() {
        return shown;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(feature = "simulation")]
thread_local! {
    /// What the clock shows in a simulation, which has this thread to itself.
    static SHOWN: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// In a simulation: what the clock shows from now on, to whoever asks in this thread.
#[cfg(feature = "simulation")]
pub fn show(ms: u64) {
    SHOWN.set(Some(ms));
}

/// Milliseconds since 1970 of an RFC 3339 time in UTC; `None` for anything else.
pub fn from_rfc3339(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_millis() as u64)
}

/// RFC 3339 in UTC with milliseconds, for example `2026-11-21T22:30:00.000Z`.
pub fn rfc3339(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}
