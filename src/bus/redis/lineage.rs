//! The lineages that the answers of a client may have.

use std::{collections::HashSet, sync::atomic::AtomicBool};

use fred::prelude::Value;

use super::reply;
use crate::protocol::Lineage;

/// Why a client gives itself up when Redis answers from another history.
pub(super) const LINEAGE_CHANGED: &str = "Redis' history is another one: it was restarted or failed over";

/// The histories that the answers of a client may come from.
#[derive(Debug)]
pub(super) struct Lineages {
    pub(super) known: HashSet<Lineage>,
    /// Whether the client gave itself up because another one came.
    pub(super) changed: AtomicBool,
    /// Whether functions cannot tell, so that the node asks by itself.
    pub(super) asked_outside: AtomicBool,
}

impl Lineages {
    /// Those of the masters.
    pub(super) fn new(known: HashSet<Lineage>) -> Self {
        Self { known, changed: AtomicBool::new(false), asked_outside: AtomicBool::new(false) }
    }
}

/// The lineage in a master's answer to INFO. A replica's proves nothing of the master, whose command a proxy may have sent it.
pub(super) fn told(answer: Option<Value>) -> Option<String> {
    let info = reply::text(answer?);
    if reply::info(&info, "role") != Some("master") {
        return None;
    }
    reply::info(&info, "master_replid").map(str::to_owned)
}
