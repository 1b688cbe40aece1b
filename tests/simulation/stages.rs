//! Schedules about who may listen: operators shut editors out, or have them renew, at every stage of a connection. They are
//! ordinary schedules, with everything that happens in those, and a few scenes more. Where they begin, and how far apart
//! their parts lie, is left to the seed.

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use crate::plan::{By, Deed, Plan, ProofBy, Step};

/// Seeds below have no people in them: the schedules of old findings stay what they are.
const FROM: u64 = 1_000_000;
/// One seed in so many has, and which.
const ONE_IN: (u64, u64) = (10, 5);

/// Adds people and orders to a schedule, where its seed is one of those.
pub(crate) fn add(plan: &mut Plan) {
    if plan.seed < FROM || plan.seed % ONE_IN.0 != ONE_IN.1 {
        return;
    }
    let mut rng = SmallRng::seed_from_u64(plan.seed ^ 0x0DE5);
    plan.proof = Some(if rng.random_bool(0.5) { ProofBy::Cms } else { ProofBy::Token });
    for _ in 0..rng.random_range(3..8) {
        let at = rng.random_range(3_000..45_000);
        let mut scene = Scene { at, rng: &mut rng, plan };
        match scene.rng.random_range(0..11) {
            0 | 1 => scene.handshake_from_before(),
            2 => scene.answer_under_way(),
            3 => scene.renewal(),
            4 => scene.on_another_node(),
            5 => scene.node_started_later(),
            6 => scene.redis_emptied(),
            7 => scene.other_master(),
            8 => scene.order_not_heard(),
            _ => scene.rights_have_changed(),
        }
    }
    plan.steps.sort_by_key(|step| step.at);
}

struct Scene<'a> {
    plan: &'a mut Plan,
    at: u64,
    rng: &'a mut SmallRng,
}

impl Scene<'_> {
    /// After up to `within` ms.
    fn then(&mut self, within: u64, deed: Deed) {
        self.at += self.rng.random_range(0..=within);
        self.plan.steps.push(Step { at: self.at, deed });
    }

    fn choose(&mut self, from: &[u64]) -> u64 {
        from.choose(self.rng).copied().unwrap_or(0)
    }

    fn client(&mut self) -> usize {
        self.rng.random_range(0..self.plan.parts.len())
    }

    fn node(&mut self) -> usize {
        self.rng.random_range(0..self.plan.nodes)
    }

    fn disconnect(&mut self, within: u64, client: usize) {
        let by = *[By::User, By::User, By::Session, By::Token].choose(self.rng).unwrap_or(&By::User);
        let (node, stubborn) = (self.node(), self.choose(&[0, 8_000, 20_000]));
        self.then(within, Deed::Disconnect { client, by, node, stubborn });
    }

    fn cut(&mut self, within: u64, client: usize, away: u64, node: usize) {
        self.then(within, Deed::Cut { client, percent: 100, away, node });
    }

    /// The CMS does not answer for a while, where it is asked at all.
    fn cms_away(&mut self, within: u64) {
        if self.plan.proof == Some(ProofBy::Cms) {
            self.then(within, Deed::CmsGone { lasts: 3_000 });
        }
    }

    /// What would be heard of it, if anybody still listened.
    fn events(&mut self, client: usize) {
        let subjects = &self.plan.parts[client].subjects;
        let subject = subjects.choose(self.rng).cloned().unwrap_or_else(|| "comments".into());
        let topic = subject.replace(":*", ":1");
        let begun = self.at;
        for after in [0, 1_500, 4_500, 7_000, 10_000, 13_000, 17_000] {
            self.at = begun + after;
            self.then(1_000, Deed::Publish { topic: topic.clone() });
            if self.rng.random_bool(0.3) {
                self.then(500, Deed::Live { topic: topic.clone() });
            }
        }
        self.at = begun;
    }

    fn handshake_from_before(&mut self) {
        let (client, node) = (self.client(), self.node());
        let lasts = self.choose(&[300, 3_000, 8_500]);
        self.then(0, Deed::Dawdle { client, lasts });
        self.cut(0, client, 1, node);
        self.disconnect(lasts / 2, client);
        self.events(client);
    }

    fn answer_under_way(&mut self) {
        let (client, node) = (self.client(), self.node());
        let by = self.choose(&[200, 900, 2_700]);
        self.then(0, Deed::CmsLate { by, lasts: 4_000 });
        self.cut(0, client, 1, node);
        self.disconnect(by, client);
        self.events(client);
        self.cms_away(9_000);
    }

    fn renewal(&mut self) {
        let client = self.client();
        let by = self.choose(&[0, 200, 2_700]);
        self.then(0, Deed::CmsLate { by, lasts: 4_000 });
        for _ in 0..3 {
            let old = self.rng.random_bool(0.5);
            self.then(100, Deed::Renew { client, old });
        }
        self.disconnect(50, client);
        for _ in 0..3 {
            let old = self.rng.random_bool(0.7);
            self.then(40, Deed::Renew { client, old });
        }
        self.events(client);
    }

    fn on_another_node(&mut self) {
        let client = self.client();
        self.disconnect(0, client);
        for _ in 0..3 {
            let (away, node) = (self.choose(&[1, 5, 50, 400]), self.node());
            self.cut(300, client, away, node);
        }
        self.events(client);
    }

    fn node_started_later(&mut self) {
        let (client, node) = (self.client(), self.node());
        let lasts = self.choose(&[50, 1_000, 5_000]);
        self.then(0, Deed::Kill { node, lasts });
        self.disconnect(lasts, client);
        self.then(500, Deed::Kill { node, lasts: 50 });
        self.cut(lasts, client, 1, node);
        self.events(client);
    }

    /// Everybody forgets: whoever still knows has to say so.
    fn redis_emptied(&mut self) {
        let (client, node) = (self.client(), self.node());
        self.disconnect(0, client);
        self.events(client);
        self.then(2_000, Deed::Flush);
        if self.rng.random_bool(0.7) {
            self.at += self.choose(&[0, 9_000]);
            self.then(500, Deed::Kill { node, lasts: 300 });
            self.at += 400;
            self.cut(200, client, 1, node);
        }
    }

    fn other_master(&mut self) {
        let (client, node) = (self.client(), self.node());
        self.disconnect(0, client);
        self.events(client);
        let lost = self.choose(&[0, 1, 3]);
        self.then(1_500, Deed::FailOver { lost });
        if self.rng.random_bool(0.7) {
            self.at += self.choose(&[0, 9_000]);
            self.then(500, Deed::Kill { node, lasts: 300 });
            self.at += 400;
            self.cut(200, client, 1, node);
        }
    }

    fn order_not_heard(&mut self) {
        let client = self.client();
        let node = self.plan.parts[client].node;
        self.cut(0, client, 1, node);
        self.at += 300;
        for node in 0..self.plan.nodes {
            self.then(0, Deed::Lose { node, count: 1 });
        }
        self.disconnect(0, client);
        self.events(client);
    }

    fn rights_have_changed(&mut self) {
        let (client, node) = (self.client(), self.node());
        self.then(0, Deed::Refresh { client, node });
        self.cms_away(5_000);
        for _ in 0..2 {
            let (away, node) = (self.choose(&[1, 400]), self.node());
            self.cut(20_000, client, away, node);
        }
        self.events(client);
    }
}
