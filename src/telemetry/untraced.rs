//! Traces in a build without the feature `otlp`: there are none, and a configuration that asks for them is refused, so
//! that nobody waits for spans that never come.

use std::{fmt, time::Duration};

use super::stage::Stage;
use crate::{config::Secret, protocol::Topic, shutdown::Tasks};

const WITHOUT: &str = "is set, but this program was built without traces: use a released build, build it with \
                       `--features full`, or remove the setting";

/// Where spans would go.
#[derive(Debug, Clone, Default)]
pub struct Traces(());

impl Traces {
    /// No traces.
    pub fn off() -> Self {
        Self::default()
    }

    /// Always an error, which says so.
    pub fn check(_endpoint: &Secret) -> Result<(), String> {
        Err(WITHOUT.into())
    }

    /// Always an error, which says so.
    pub fn start(endpoint: &Secret, _node: &str, _tasks: &Tasks) -> Result<Self, String> {
        Self::check(endpoint).map(|()| Self::off())
    }

    /// Never begins a step.
    pub fn begin(&self, _stage: Stage, _topic: &Topic, _event: &[u8]) -> Option<Span> {
        None
    }

    /// There is nothing to send.
    #[expect(clippy::unused_async, reason = "as with traces")]
    pub async fn end(&self, _tasks: &Tasks, _patience: Duration) {}
}

/// A step under way: there is none.
#[derive(Debug)]
pub enum Span {}

impl Span {
    /// To how many sessions of this node the event was handed.
    #[must_use]
    pub fn reached(self, _sessions: u64) -> Self {
        match self {}
    }

    /// What became of a publish.
    pub fn published<E: fmt::Display>(&mut self, _result: Result<Option<String>, E>) {
        match *self {}
    }
}
