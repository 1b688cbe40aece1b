//! Revocations in the relay's one order: the last look at whoever becomes a member, and the end of whoever is one.
//!
//! A revocation and a `connect` pass through the switch one after the other. Whoever comes first: a member that was
//! admitted before is closed by the revocation, and one that comes after it is looked at here, whatever was found out
//! about it earlier. Must not know tokens.

use std::sync::Arc;

use super::{Request, join::Reply, switch::Switch};
use crate::{
    hub::{Closing, MemberId, Outbox},
    protocol::{CloseCode, Kind, Proof, Revocation, message::Welcome},
};

impl Switch {
    /// Takes a session in, unless it was revoked by now.
    pub(super) fn connect(
        &mut self,
        outbox: Arc<Outbox>,
        mut welcome: Box<Welcome>,
        proof: Arc<Proof>,
        request: &Request,
    ) {
        if !self.look_last(&outbox, &welcome.session, &proof) {
            return;
        }
        let member = self.hub.admit(&outbox, &welcome.user);
        self.hub.name(member, &welcome.session, proof);
        welcome.refused.clone_from(&request.refused);
        self.join(member, outbox, Reply::Welcome(welcome), request);
    }

    /// Whether somebody may be a member with this proof. If not, the session is closed.
    fn look_last(&self, outbox: &Arc<Outbox>, session: &str, proof: &Proof) -> bool {
        let Some(kind) = self.settings.revocations.covers(proof, Some(session)) else { return true };
        let reason = match kind {
            Kind::Disconnect => "an operator has closed this editor's sessions: get a new token",
            Kind::Refresh => "this editor's rights have changed: get a new token",
        };
        close(outbox, CloseCode::Unauthenticated, reason);
        outbox.answered();
        false
    }

    /// A member goes on with a newer proof.
    pub(super) fn renew(&mut self, outbox: &Arc<Outbox>, proof: Arc<Proof>) {
        let Some(id) = self.hub.member_of(outbox) else { return };
        let session = self.hub.member(id).and_then(|member| Some(member.proof.as_ref()?.0.clone()));
        let session = session.unwrap_or_default();
        if self.look_last(outbox, &session, &proof) {
            self.hub.name(id, &session, proof);
        } else {
            self.dismiss(id);
        }
    }

    /// Operators have revoked something. Whoever has to renew is told by the roll, and goes on meanwhile.
    pub(super) fn revoke(&mut self, revocations: &[Revocation]) {
        let known = self.settings.revocations.clone();
        let news = revocations.iter().filter(|revocation| known.learn(revocation)).count();
        if news == 0 {
            return;
        }
        let is_out = |(session, proof): &(Box<str>, Arc<Proof>)| {
            known.covers(proof, Some(session)) == Some(Kind::Disconnect)
        };
        let out: Vec<_> = self
            .hub
            .members()
            .filter(|(_, member)| member.proof.as_ref().is_some_and(is_out))
            .map(|(id, member)| (id, Arc::clone(&member.outbox)))
            .collect();
        tracing::info!(orders = news, sessions = out.len(), "operators have revoked; sessions are closed");
        for (id, outbox) in out {
            close(&outbox, CloseCode::Forbidden, "an operator has closed this editor's sessions");
            // Nothing more is delivered, however long saying goodbye takes.
            self.dismiss(id);
        }
    }

    fn dismiss(&mut self, id: MemberId) {
        self.owed.remove(&id);
        let empty = self.hub.dismiss(id);
        self.left_empty(empty);
    }
}

fn close(outbox: &Arc<Outbox>, code: CloseCode, reason: &str) {
    outbox.close(Closing { code, reason: reason.into(), reconnect_after_ms: None });
}
