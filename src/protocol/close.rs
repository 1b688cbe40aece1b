//! Every close code that a node sends, in one table.

/// Close codes (RFC 6455, 7.4): 1002, 1009 and 1012 to 1013 are registered, 4400 to 4499 are ours and mirror HTTP's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// Broken framing (RFC 6455, 7.4.1). Do not reconnect.
    Protocol = 1002,
    /// A message larger than `limits.message_bytes` (RFC 6455, 7.4.1). Reconnect after `reconnect_after_ms`, with less in one
    /// message.
    TooBig = 1009,
    /// The node is draining. Reconnect after `reconnect_after_ms`.
    Drain = 1012,
    /// Over a limit. Reconnect after `reconnect_after_ms`.
    TryLater = 1013,
    /// Malformed message, binary frame, a second `connect`, a message before `connect`. Do not reconnect.
    BadMessage = 4400,
    /// Token missing, invalid or expired. Reconnect with a new one.
    Unauthenticated = 4401,
    /// Forbidden or revoked. Do not reconnect.
    Forbidden = 4403,
    /// No `connect` in time, or nothing heard for two heartbeats. Reconnect.
    TimedOut = 4408,
    /// A `resync` that was owed could not be written within 10 s. Reconnect.
    TooSlow = 4409,
}

impl CloseCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }
}
