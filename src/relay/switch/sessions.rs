//! What sessions ask.

use std::sync::Arc;

use super::Switch;
use crate::{
    hub::{MemberId, Outbox, RoomId, Standing},
    protocol::{NodeMessage, Proof, Reason, Subject},
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
                let unsure = self.areas_unsure_of(member, &subjects);
                let (topics, left) = self.hub.unsubscribe(member, &subjects);
                for area in unsure {
                    self.hub.owe(member, area, Reason::Gap);
                }
                self.interest.left_empty(left, self.turn.now.instant);
                let rooms: Vec<_> = topics.iter().filter_map(|topic| self.hub.find(topic)).collect();
                outbox.message(NodeMessage::Unsubscribed { topics });
                self.resyncs.look_at(member);
                // It may have waited for one of these, and goes on with the others; or, before its welcome, without any.
                let greeted = self.hub.member(member).is_some_and(|member| member.welcomed);
                let waits = |(_, standing): &(RoomId, Standing)| *standing == Standing::Waiting;
                if !greeted || self.hub.standings(member).iter().any(waits) {
                    let ids = self.joins.waiting_of(&outbox, &rooms);
                    self.attempt(ids);
                }
            }
            Command::Ping(outbox) => {
                // Nothing is proven to who waits for its welcome: what it lacks has yet to be told.
                let id = self.hub.member_of(&outbox);
                let member = id.filter(|id| self.hub.member(*id).is_some_and(|member| member.welcomed));
                let at = member.map_or(0, |member| self.hub.at_of(member, self.link.at()));
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

    /// The whole areas that a member follows and of whose keys it leaves one that it is not in step in. What it lacks there would have
    /// come by key only.
    fn areas_unsure_of(&self, member: MemberId, subjects: &[Subject]) -> Vec<RoomId> {
        // The whole topic itself never comes by the area, and a key that was never in step, nor is owed anything, still does.
        let is_by_key = |room| self.hub.follow(member, room).is_some_and(|follow| follow.from < u64::MAX);
        let lacks = |subject: &&Subject| {
            let key = matches!(subject, Subject::Topic(topic) if *topic != subject.wide());
            self.hub.find(subject).filter(|_| key).is_some_and(|room| match self.hub.standing(member, room) {
                Some(Standing::Owed(_)) => true,
                Some(Standing::Waiting) => is_by_key(room),
                Some(Standing::InStep) => !self.feeds.is_live(room),
                None => false,
            })
        };
        let areas = subjects.iter().filter(lacks).filter_map(|s| self.hub.find(&Subject::Every(s.wide())));
        areas
            .filter(|area| self.hub.standing(member, *area).is_some_and(|s| s != Standing::Waiting))
            .collect()
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
