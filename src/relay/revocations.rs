//! Revocations in the relay's one order: the last look at whoever becomes a member, and the end of whoever is one.
//!
//! A revocation and a `connect` pass through the switch one after the other. Whoever comes first: a member that was
//! admitted before is closed by the revocation, and one that comes after it is looked at here, whatever was found out
//! about it earlier.

use std::sync::Arc;

use crate::{
    hub::{Closing, Hub, MemberId, Outbox},
    mutant,
    protocol::{CloseCode, Heard, Kind, Proof, Revocation, Revocations},
};

/// What is revoked, looked at where sessions are taken in.
#[derive(Debug)]
pub(super) struct RevocationCheck {
    known: Revocations,
}

impl RevocationCheck {
    /// `known`: what is revoked, the node's one list.
    pub(super) fn new(known: Revocations) -> Self {
        Self { known }
    }

    /// Whether somebody may be a member with this proof. If not, the session is closed.
    pub(super) fn admits(&self, outbox: &Outbox, session: &str, proof: &Proof) -> bool {
        let covered = self.known.covers(proof, Some(session)).filter(|_| !mutant::is("last-look"));
        let Some(kind) = covered else { return true };
        let (code, reason) = match kind {
            // The proof is good, but the session that it would go on with was ended: it is told what it would have been told then.
            _ if self.known.covers(proof, None).is_none() => {
                (CloseCode::Forbidden, "an operator has closed this session")
            }
            Kind::Disconnect => {
                (CloseCode::Unauthenticated, "an operator has closed this editor's sessions: get a new token")
            }
            Kind::Refresh => {
                (CloseCode::Unauthenticated, "this editor's rights have changed: get a new token")
            }
        };
        close(outbox, code, reason);
        outbox.answered();
        false
    }

    /// Operators have revoked something: closes the sessions that must end, and returns them to be dismissed, so that
    /// nothing more is delivered, however long saying goodbye takes. Whoever has to renew is told by the session registry.
    pub(super) fn revoke(&self, orders: &[Revocation], heard: Heard, hub: &Hub) -> Vec<MemberId> {
        let news = orders.iter().filter(|order| self.known.learn(order, heard)).count();
        if news == 0 {
            return Vec::new();
        }
        let is_out = |(session, proof): &(Box<str>, Arc<Proof>)| {
            self.known.covers(proof, Some(session)) == Some(Kind::Disconnect)
        };
        let mut out = Vec::new();
        for (id, member) in hub.members() {
            if member.proof.as_ref().is_some_and(is_out) {
                close(&member.outbox, CloseCode::Forbidden, "an operator has closed this editor's sessions");
                out.push(id);
            }
        }
        tracing::info!(
            orders = news,
            sessions = out.len(),
            "orders of operators (disconnect or refresh) are in force; sessions were closed"
        );
        out
    }
}

fn close(outbox: &Outbox, code: CloseCode, reason: &str) {
    outbox.close(Closing { code, reason: reason.into(), reconnect_after_ms: None });
}
