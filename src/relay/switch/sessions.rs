//! What sessions ask.

use std::sync::Arc;

use super::Switch;
use crate::{
    hub::{MemberId, Outbox},
    protocol::{NodeMessage, Proof},
    relay::{Command, Request, join::Reply, joins::Joins},
};

impl Switch {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Connect { outbox, mut welcome, proof, request } => {
                if self.last_look.admits(&outbox, &welcome.session, &proof) {
                    let member = self.hub.admit(&outbox);
                    self.hub.name(member, &welcome.session, proof);
                    welcome.refused.clone_from(&request.refused);
                    self.join(member, outbox, Reply::Welcome(welcome), &request);
                }
            }
            Command::Renew { outbox, proof } => self.renew(&outbox, proof),
            Command::Subscribe { outbox, request } => {
                let Some(member) = self.hub.member_of(&outbox) else { return outbox.answered() };
                self.join(member, outbox, Reply::Subscribed(request.refused.clone()), &request);
            }
            Command::Unsubscribe { outbox, subjects } => {
                let Some(member) = self.hub.member_of(&outbox) else { return };
                let (topics, left) = self.hub.unsubscribe(member, &subjects);
                self.interest.left_empty(left, self.turn.now.instant);
                outbox.message(NodeMessage::Unsubscribed { topics });
            }
            Command::Ping(outbox) => {
                let at = self.link.at();
                let at = self.hub.member_of(&outbox).map_or(at, |member| self.hub.at_of(member, at));
                outbox.message(NodeMessage::Pong { at });
            }
            Command::Drained(outbox) => {
                if let Some(member) = self.hub.member_of(&outbox) {
                    outbox.settle();
                    self.resyncs.look_at(member);
                }
            }
            Command::Leave(outbox) => {
                if let Some(member) = self.hub.member_of(&outbox) {
                    self.dismiss(member);
                }
            }
        }
    }

    /// A member goes on with a newer proof.
    fn renew(&mut self, outbox: &Arc<Outbox>, proof: Arc<Proof>) {
        let Some(id) = self.hub.member_of(outbox) else { return };
        let session = self.hub.member(id).and_then(|member| Some(member.proof.as_ref()?.0.clone()));
        let session = session.unwrap_or_default();
        if self.last_look.admits(outbox, &session, &proof) {
            self.hub.name(id, &session, proof);
        } else {
            self.dismiss(id);
        }
    }

    /// A member is no more.
    pub(super) fn dismiss(&mut self, member: MemberId) {
        self.resyncs.forget(member);
        let empty = self.hub.dismiss(member);
        self.interest.left_empty(empty, self.turn.now.instant);
    }

    fn join(&mut self, member: MemberId, outbox: Arc<Outbox>, reply: Reply, request: &Request) {
        let parts = (&mut self.hub, &mut self.feeds, &mut self.interest);
        let id = self.joins.add(member, outbox, reply, request, self.turn.now.instant, parts);
        if !self.link.is_up() {
            self.with_joins(Joins::answer_all_without_redis);
        }
        self.attempt([id]);
    }
}
