//! Short scenes that random deeds would hardly play by themselves: an overflow that is followed by a cut, live events around
//! a return, a refusal in the middle of a join. Where they begin, whom they meet and how far apart their parts lie is left
//! to the seed.

use rand::{RngExt, rngs::SmallRng, seq::IndexedRandom};

use crate::{
    plan::{Deed, Late, Plan, Step},
    redis::Refusal,
};

/// How many there are.
const THEMES: u8 = 9;

/// Adds one of the scenes from `at` on.
pub(crate) fn add(plan: &Plan, at: u64, rng: &mut SmallRng, steps: &mut Vec<Step>) {
    let mut scene = Scene { plan, at, rng, steps };
    match scene.rng.random_range(0..THEMES) {
        0 => scene.overflow_and_cut(),
        1 => scene.live_around_a_return(),
        2 => scene.late_mark(),
        3 => scene.refused_join(),
        4 => scene.lost_link_and_churn(),
        5 => scene.denied_topic(),
        6 => scene.replaced_log(),
        7 => scene.clock_behind(),
        _ => scene.more_than_is_held(),
    }
}

struct Scene<'a> {
    plan: &'a Plan,
    at: u64,
    rng: &'a mut SmallRng,
    steps: &'a mut Vec<Step>,
}

impl Scene<'_> {
    /// After up to `within` ms.
    fn then(&mut self, within: u64, deed: Deed) {
        self.at += self.rng.random_range(0..=within);
        self.steps.push(Step { at: self.at, deed });
    }

    fn client(&mut self) -> usize {
        self.rng.random_range(0..self.plan.parts.len())
    }

    fn node(&mut self) -> usize {
        self.rng.random_range(0..self.plan.nodes)
    }

    /// A topic that a client follows.
    fn topic_of(&mut self, client: usize) -> String {
        let subjects = &self.plan.parts[client].subjects;
        let subject = subjects.choose(self.rng).cloned().unwrap_or_else(|| "comments".into());
        subject.replace(":*", ":1")
    }

    fn choose(&mut self, from: &[u64]) -> u64 {
        from.choose(self.rng).copied().unwrap_or(0)
    }

    fn cut(&mut self, client: usize, within: u64) {
        let (percent, node) = (self.choose(&[0, 50, 100]) as u8, self.node());
        let away = self.choose(&[0, 50, 400, 3_000]);
        self.then(within, Deed::Cut { client, percent, away, node });
    }

    fn overflow_and_cut(&mut self) {
        let client = self.client();
        let topic = self.topic_of(client);
        let lasts = self.choose(&[500, 3_000]);
        self.then(0, Deed::Stall { client, lasts });
        for _ in 0..self.rng.random_range(4..20) {
            self.then(30, Deed::Publish { topic: topic.clone() });
            match self.rng.random_range(0..8) {
                0 => {
                    let subject =
                        (*["comments:3", "content:7", "projects"].choose(self.rng).unwrap_or(&"projects"))
                            .into();
                    self.then(5, Deed::Follow { client, subject });
                }
                1 => self.then(5, Deed::Live { topic: topic.clone() }),
                _ => {}
            }
        }
        self.cut(client, lasts + 300);
    }

    fn live_around_a_return(&mut self) {
        let client = self.client();
        let topic = self.topic_of(client);
        self.cut(client, 0);
        for _ in 0..self.rng.random_range(2..8) {
            self.then(self.plan.pace * 4 + 20, Deed::Live { topic: topic.clone() });
        }
        self.cut(client, 500);
    }

    fn late_mark(&mut self) {
        let (client, node) = (self.client(), self.node());
        let topic = self.topic_of(client);
        let by = self.choose(&[300, 900, 1_300]);
        self.then(0, Deed::Slow { node, by, lasts: 9_000, what: Late::All });
        for _ in 0..self.rng.random_range(10..30) {
            self.then(400, Deed::Live { topic: topic.clone() });
            if self.rng.random_bool(0.25) {
                self.cut(client, 50);
            }
        }
    }

    fn refused_join(&mut self) {
        let client = self.client();
        let topic = self.topic_of(client);
        let why =
            *[Refusal::NoReplicas, Refusal::MisConf, Refusal::Oom].choose(self.rng).unwrap_or(&Refusal::Oom);
        let lasts = self.choose(&[20, 300, 4_000]);
        self.cut(client, 0);
        self.then(100, Deed::Publish { topic: topic.clone() });
        self.then(300, Deed::Refuse { why, lasts });
        self.then(200, Deed::Live { topic });
        self.cut(client, lasts);
    }

    fn lost_link_and_churn(&mut self) {
        let node = self.node();
        let lasts = self.choose(&[20, 300, 2_000]);
        self.then(0, Deed::Break { node, lasts });
        for _ in 0..self.rng.random_range(3..12) {
            let client = self.client();
            let topic = self.topic_of(client);
            match self.rng.random_range(0..4) {
                0 => self.then(lasts / 2 + 100, Deed::Unfollow { client, subject: topic }),
                1 => self.then(lasts / 2 + 100, Deed::Follow { client, subject: topic }),
                2 => self.cut(client, lasts / 2 + 100),
                _ => self.then(lasts / 2 + 100, Deed::Publish { topic }),
            }
        }
    }

    fn denied_topic(&mut self) {
        let (client, node) = (self.client(), self.node());
        let topic = self.topic_of(client);
        self.then(0, Deed::Deny { topic: "comments:3".into(), lasts: 9_000 });
        self.then(300, Deed::Follow { client, subject: "comments:3".into() });
        self.cut(client, 500);
        self.then(1_000, Deed::Break { node, lasts: 50 });
        self.then(1_000, Deed::Publish { topic });
    }

    fn replaced_log(&mut self) {
        let client = self.client();
        let topic = self.topic_of(client);
        self.then(0, Deed::Publish { topic: topic.clone() });
        let harm =
            if self.rng.random_bool(0.5) { Deed::Flush } else { Deed::Delete { topic: topic.clone() } };
        self.then(200, harm);
        for _ in 0..self.rng.random_range(1..4) {
            self.then(300, Deed::Publish { topic: topic.clone() });
        }
        self.cut(client, 300);
    }

    fn clock_behind(&mut self) {
        let client = self.client();
        let topic = self.topic_of(client);
        self.then(0, Deed::Live { topic: topic.clone() });
        self.then(3_000, Deed::Clock { by: -20_000 });
        self.then(300, Deed::FailOver { lost: 0 });
        if self.rng.random_bool(0.5) {
            // The log that follows is of an earlier epoch.
            self.then(3_000, Deed::Delete { topic: topic.clone() });
        }
        for _ in 0..self.rng.random_range(1..5) {
            self.then(3_000, Deed::Publish { topic: topic.clone() });
        }
    }

    fn more_than_is_held(&mut self) {
        // Who reads little at a time would read for a minute.
        if self.plan.log_length < 1_000 || self.plan.room < 4_000 {
            return self.lost_link_and_churn();
        }
        let client = self.client();
        let (topic, node) = (self.topic_of(client), self.plan.parts[client].node);
        self.then(0, Deed::Lose { node, count: 1 });
        self.then(0, Deed::Slow { node, by: 300, lasts: 2_000, what: Late::All });
        let count = self.rng.random_range(400..700);
        self.then(5, Deed::Burst { topic, count });
    }
}
