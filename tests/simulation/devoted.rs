//! Schedules that are devoted to one situation: a cast that is made for it, little else, and the same scene several times,
//! each time with other distances between its parts. Random schedules play such scenes too seldom to show that a safeguard is
//! needed.

mod live;
mod logs;
mod overflow;

use rand::{RngExt, rngs::SmallRng, seq::IndexedRandom};

use crate::plan::{Deed, Part, Plan, Step, Way};

/// A topic whose area has no others.
const ALONE: &str = "projects";
/// Who plays: the first clients of the schedule.
const X: usize = 0;
const Z: usize = 2;

/// A scene.
struct Scene {
    name: &'static str,
    /// The cast, and what happens from a moment on.
    play: fn(&mut Stage<'_>),
    /// The moments at which it is played, ms.
    moments: &'static [u64],
}

/// Makes the table of scenes.
macro_rules! scenes {
    ($($place:ident::$name:ident at [$($moment:literal),+];)+) => {
        [$(Scene { name: stringify!($name), play: $place::$name, moments: &[$($moment),+] }),+]
    };
}

const SCENES: [Scene; 22] = scenes! {
    overflow::claims at [3_000, 12_000, 21_000, 30_000, 39_000, 48_000];
    overflow::overflow_behind_a_proof at [3_000, 27_000, 51_000];
    overflow::overflow_and_lost_link at [3_000, 15_000, 27_000, 39_000, 51_000];
    live::late_mark at [3_000, 33_000];
    live::clock_ahead at [3_000, 18_000, 33_000, 48_000];
    live::marks_of_a_redis_that_is_gone at [4_000];
    live::denied_topic_and_live_event at [4_000, 34_000];
    live::calm_polls at [4_000, 14_000, 24_000, 34_000, 44_000];
    live::lost_live_event at [14_000, 34_000];
    live::found_loss at [14_000, 34_000];
    live::withheld at [3_000, 33_000];
    live::probe_sent_late at [4_000, 19_000, 34_000, 49_000];
    live::emptied_redis at [3_000, 18_000, 33_000, 48_000];
    logs::denied_topic_and_lost_link at [5_000];
    logs::denied_read at [3_000, 20_000, 37_000];
    logs::more_than_is_held at [3_000, 17_000, 31_000, 45_000];
    logs::late_messages_of_a_replaced_log at [3_000, 13_000, 23_000, 33_000, 43_000];
    logs::read_before_the_wire at [3_000, 12_000, 21_000, 30_000, 39_000, 48_000];
    logs::read_ahead_of_the_wire at [3_000, 13_000, 23_000, 33_000, 43_000];
    logs::gap_in_an_area at [14_000];
    logs::left_while_heads_are_compared at [3_000, 22_000, 41_000];
    logs::left_while_a_doubt_is_looked_at at [3_000, 17_000, 31_000, 45_000];
};

/// The names of all scenes.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    SCENES.iter().map(|scene| scene.name)
}

/// Makes the schedule one that is devoted to a scene: this one, or any.
pub(crate) fn devote(plan: &mut Plan, scene: Option<&str>, rng: &mut SmallRng, steps: &mut Vec<Step>) {
    let named = SCENES.iter().find(|known| Some(known.name) == scene);
    let scene = named.or_else(|| SCENES.choose(rng)).unwrap_or(&SCENES[0]);
    for at in scene.moments {
        (scene.play)(&mut Stage { plan, at: *at, first: *at == scene.moments[0], rng, steps });
    }
}

struct Stage<'a> {
    plan: &'a mut Plan,
    at: u64,
    /// Whether the scene is played for the first time.
    first: bool,
    rng: &'a mut SmallRng,
    steps: &'a mut Vec<Step>,
}

impl Stage<'_> {
    /// So long after the scene began, give or take what anything takes.
    fn on(&mut self, after: u64, deed: Deed) {
        let at = self.at + after + self.rng.random_range(0..=self.plan.pace);
        self.steps.push(Step { at, deed });
    }

    fn publish(&mut self, after: u64, topic: &str) {
        self.on(after, Deed::Publish { topic: topic.into() });
    }

    fn live(&mut self, after: u64, topic: &str) {
        self.on(after, Deed::Live { topic: topic.into() });
    }

    fn cut(&mut self, after: u64, client: usize, percent: u8, away: u64, node: usize) {
        self.on(after, Deed::Cut { client, percent, away, node });
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        self.rng.random_range(from..=to)
    }

    fn one_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    /// Who follows what, and where; nobody else follows any of it.
    fn cast(&mut self, cast: &[(Way, usize, &[&str])]) {
        if !self.first {
            return;
        }
        let taken: Vec<&str> = cast.iter().flat_map(|(_, _, subjects)| subjects.iter().copied()).collect();
        for part in &mut self.plan.parts {
            part.subjects.retain(|subject| !taken.contains(&subject.as_str()));
        }
        for (n, (way, node, subjects)) in cast.iter().enumerate() {
            let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
            self.plan.parts[n] = Part { way: *way, node: *node, subjects };
        }
        // What else would happen to them is left out.
        let spoils = |deed: &Deed| match deed {
            Deed::Publish { topic } | Deed::Live { topic } => taken.contains(&topic.as_str()),
            Deed::Follow { client, subject } => taken.contains(&subject.as_str()) || *client < cast.len(),
            Deed::Cut { client, .. } | Deed::Unfollow { client, .. } => *client < cast.len(),
            _ => false,
        };
        self.steps.retain(|step| !spoils(&step.deed));
    }

    fn way(&mut self) -> Way {
        self.one_of(&[Way::Socket, Way::Stream])
    }
}
