//! How a connection ends: once, for one reason, known to all who use it.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Whether and why a connection has been given up.
#[derive(Debug, Default)]
pub(super) struct Ending {
    token: CancellationToken,
    reason: Mutex<Option<String>>,
}

impl Ending {
    /// Cancelled when the connection has shown trouble.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Gives the connection up; the first reason counts.
    pub(super) fn fail(&self, why: impl Into<String>) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why.into());
        self.token.cancel();
    }

    /// Why it was given up or lost.
    pub(super) fn reason(&self) -> String {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        reason.clone().unwrap_or_else(|| "the connection was closed".into())
    }
}
