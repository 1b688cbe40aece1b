//! Calls of functions whose answer begins with the lineage, which is compared with those that the client was opened with:
//! another one means that Redis' history has changed behind our back, and the client gives itself up.
//!
//! Where functions may not use INFO (some services), the node asks by itself, before the call and behind it. A master that has
//! lost its place comes back with another lineage, so where both say the same, it was the same all the time. (Not MULTI: a
//! full Redis queues nothing, not even reads.)

use std::{sync::atomic::Ordering, time::Duration, vec};

use fred::types::Value;
use futures_util::future::BoxFuture;
use tracing::info;

use super::{commands::CommandClient, connection::Connection, fault::Fault, lineage::LINEAGE_CHANGED, reply};
use crate::{mutant, protocol::Lineage};

impl CommandClient {
    /// Whether the line gave itself up because Redis' history is another one.
    pub(super) fn has_other_lineage(&self) -> bool {
        self.lineages.changed.load(Ordering::Acquire)
    }

    /// Calls a function whose answer begins with the lineage; the lineage, and the rest of the answer. The function must be
    /// one that may be called twice.
    pub(super) async fn call_told(
        &self,
        connection: &Connection,
        function: &str,
        keys: &[String],
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<(Lineage, vec::IntoIter<Value>), Fault> {
        let call = self.arguments(function, keys, args);
        if !self.lineages.asked_outside.load(Ordering::Acquire) {
            let mut answer = self.call_over(connection, &keys[0], call.clone(), timeout).await?.into_iter();
            let told = reply::text(answer.next().unwrap_or(Value::Null));
            if !told.is_empty() {
                return Ok((self.checked(&told)?, answer));
            }
            if !self.lineages.asked_outside.swap(true, Ordering::AcqRel) {
                info!("functions may not use INFO in this Redis: this node asks for its history by itself");
            }
        }
        let asked = || connection.command_with_lineage("FCALL", &keys[0], call.clone(), timeout);
        let asked: BoxFuture<'_, _> = Box::pin(self.retried(asked));
        let (answer, lineage) = asked.await?;
        let mut answer = reply::items(answer).into_iter();
        // Its place is empty.
        answer.next();
        Ok((self.checked(&lineage.unwrap_or_default())?, answer))
    }

    /// A lineage, where it is known; gives the client up where it is not.
    fn checked(&self, text: &str) -> Result<Lineage, Fault> {
        let lineage = Lineage::new(text);
        let known = self.lineages.known.contains(&lineage);
        let strange = || [self.connection(), self.reads()].iter().any(|c| c.is_strangers(lineage.as_str()));
        if known || (!text.is_empty() && strange()) || mutant::is("lineage") {
            return Ok(lineage);
        }
        self.lineages.changed.store(true, Ordering::Release);
        self.connection().fail(LINEAGE_CHANGED);
        Err(Fault::Away(LINEAGE_CHANGED.into()))
    }
}
