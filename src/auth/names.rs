//! How editors are named, and a warning to the operator where that may be a mistake.
//!
//! A CMS that does not distinguish case may sign `Anna` today and publish for `anna` tomorrow. Nothing fails then, but nobody gets
//! the event; so the log says it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{config::Auth, protocol::Naming};

/// It is said so often at most.
const EVERY: Duration = Duration::from_hours(1);

/// How editors are named (`auth.fold_subject`).
pub fn naming(settings: &Auth) -> Naming {
    if settings.fold_subject { Naming::Folded } else { Naming::Exact }
}

/// When it was said last.
#[derive(Debug, Default)]
pub(super) struct CaseNotice(Mutex<Option<Instant>>);

impl CaseNotice {
    /// Says that the case of this name counts, unless that was said lately.
    pub(super) fn tell(&self, name: &str) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        *said = Some(Instant::now());
        drop(said);
        tracing::warn!(
            name,
            "an editor's name has upper-case letters, and names that differ in case are different editors (auth.fold_subject \
             is false): if the CMS does not distinguish them, set auth.fold_subject = true; best is a `sub` that never \
             changes, such as an id. This is said once an hour at most"
        );
    }
}
