//! Refusals over HTTP: `application/problem+json` (RFC 9457) with a `code` for programs.

use serde::Serialize;

use super::ProblemCode;

/// A refusal. `title` and `detail` are for people, `code` is for programs and never changes.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Which problem it is.
    pub code: ProblemCode,
    /// What happened, in a few words.
    pub title: String,
    /// Where, and what to do about it.
    pub detail: String,
    /// Members of this kind of problem, for example which headers arrived.
    #[serde(flatten)]
    pub members: serde_json::Map<String, serde_json::Value>,
    /// Seconds for the `Retry-After` header.
    #[serde(skip)]
    pub retry_after: Option<u32>,
}

impl Problem {
    /// A problem without further members. `status` is one of the code's.
    pub fn new(status: u16, code: ProblemCode, title: impl Into<String>, detail: impl Into<String>) -> Self {
        debug_assert!(code.statuses().contains(&status), "{status} is not in the table for {}", code.name());
        let members = serde_json::Map::new();
        Self { status, code, title: title.into(), detail: detail.into(), members, retry_after: None }
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.members.insert(name.into(), value.into());
        self
    }

    /// Asks the client to come back after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}
