//! The feed among everything that can happen to a topic, against a model that knows the truth: what Redis' log has held
//! in each of its histories. The model's node does with the feed what the switch does, without its tasks. Sessions may
//! see the successor of what they have, or be told to refetch for a reason that is true; and in the end nobody is stale.

#[path = "feed_model_node.rs"]
mod node;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::{prelude::*, test_runner::RngSeed};

use super::*;
use crate::protocol::{Areas, EventError};
use node::{LONGEST, Node};

/// What a log has held: a number for each event, `None` for what is not one. Entry `seq` stands at `seq - 1`.
type Entries = Vec<Option<u64>>;

/// What can happen.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// Something is published; not always an event.
    Publish { good: bool },
    /// The wire brings its next message.
    Arrive,
    /// The wire loses its next message; mostly the bus knows, and says so.
    Lose { told: bool },
    /// The wire brings a message once more.
    Repeat(usize),
    /// The log is trimmed to its last entries.
    Trim(usize),
    /// The log is deleted, and opened anew with the next event; by a clock that is behind, sometimes.
    Replace { behind: bool },
    /// The link is lost and is back later; what was on the wire is gone. Redis may have failed over and lost a tail.
    Interrupt { lost: Option<usize> },
    /// Messages of the topic may be missing on a link that is up.
    Doubt,
    /// The link is back, or a doubt is looked into: heads are compared.
    Back,
    /// Redis answers the read of the log that is under way.
    Answer,
    /// The answer reaches the node.
    Take,
    /// Time passes.
    Pass,
    /// A session comes with a place that was true once (`beyond`: or never).
    Resume { history: usize, seq: usize, beyond: bool },
}

impl Happening {
    fn is_trouble(self) -> bool {
        use Happening as H;
        !matches!(self, H::Publish { .. } | H::Arrive | H::Answer | H::Take | H::Back | H::Resume { .. })
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    prop_oneof![
        8 => prop::bool::weighted(0.9).prop_map(|good| H::Publish { good }),
        8 => Just(H::Arrive),
        2 => prop::bool::weighted(0.7).prop_map(|told| H::Lose { told }),
        1 => (0usize..50).prop_map(H::Repeat),
        1 => (0usize..20).prop_map(H::Trim),
        1 => prop::bool::weighted(0.2).prop_map(|behind| H::Replace { behind }),
        1 => prop::option::of(0usize..5).prop_map(|lost| H::Interrupt { lost }),
        1 => Just(H::Doubt),
        3 => Just(H::Back),
        4 => Just(H::Answer),
        4 => Just(H::Take),
        1 => Just(H::Pass),
        4 => (0usize..10, 0usize..60, prop::bool::weighted(0.1))
            .prop_map(|(history, seq, beyond)| H::Resume { history, seq, beyond }),
    ]
}

/// Redis, with all that it ever held.
struct Redis {
    lineage: u32,
    epoch: u64,
    /// The lowest number that the log still has.
    first: u64,
    published: u64,
    histories: BTreeMap<(u32, u64), Entries>,
}

impl Redis {
    fn entries(&mut self) -> &mut Entries {
        self.histories.entry((self.lineage, self.epoch)).or_default()
    }

    fn top(&self) -> EntryId {
        let seq = self.histories.get(&(self.lineage, self.epoch)).map_or(0, Vec::len) as u64;
        EntryId { epoch: self.epoch, seq }
    }

    fn head(&self) -> Head {
        Head { lineage: lineage(self.lineage), top: self.top() }
    }

    fn publish(&mut self, good: bool) -> (EntryId, Option<u64>) {
        self.published += 1;
        let entry = good.then_some(self.published);
        self.entries().push(entry);
        // Every publish trims the log to its length, exactly (`XADD … MAXLEN`).
        self.first = self.first.max((self.top().seq + 1).saturating_sub(LONGEST as u64));
        (self.top(), entry)
    }

    fn history(&self, after: EntryId) -> History {
        let from = if after.epoch == self.epoch { after.seq + 1 } else { 1 }.max(self.first);
        let entries = (from..=self.top().seq).map(|seq| {
            let entry = self.histories[&(self.lineage, self.epoch)][seq as usize - 1];
            (EntryId { epoch: self.epoch, seq }, entry.map(event).ok_or(EventError::Type))
        });
        History { head: self.head(), entries: entries.collect() }
    }
}

fn lineage(number: u32) -> Lineage {
    Lineage::new(&format!("{number:016x}"))
}

fn event(n: u64) -> Event {
    Event::parse(Bytes::from(format!(r#"{{"type":"a.b","n":{n}}}"#)), 1000).unwrap()
}

/// A session: where it stands, or what it came with.
#[derive(Debug)]
struct Session {
    place: Position,
    waiting: Option<u8>,
    /// It came with a place that was not true then; it may have become so since.
    forged: bool,
    /// Something went wrong before it came and is not mended, or while it waits: its two reads may be used up by that.
    disturbed: bool,
}

impl Session {
    fn in_step(place: Position) -> Self {
        Self { place, waiting: None, forged: false, disturbed: false }
    }
}

/// A session receives an event: the very next one of the history that it is in.
fn receive(session: &mut Session, frame: &Frame, truth: &BTreeMap<(u32, u64), Entries>) {
    let (lineage_of_frame, id) = frame.position().unwrap();
    assert_eq!(&session.place.lineage, lineage_of_frame, "another history, and no resync");
    assert_eq!(session.place.id.next(), *id, "not the successor");
    let held =
        truth.iter().find(|((number, epoch), _)| lineage(*number) == *lineage_of_frame && *epoch == id.epoch);
    let entry = held.and_then(|(_, entries)| entries.get(id.seq as usize - 1).copied().flatten());
    assert_eq!(entry, Some(number(frame.event())), "not what was published under {id}");
    session.place.id = *id;
}

fn number(event: &Event) -> u64 {
    serde_json::from_slice::<serde_json::Value>(event.json()).unwrap()["n"].as_u64().unwrap()
}

fn topic() -> Topic {
    Topic::parse("comments:1", &Areas::new(["comments"], [], []).unwrap()).unwrap()
}

proptest! {
    // The same cases every time: a gate is no place for discoveries. Others: change the seed, and the number. A million
    // each of two other seeds found nothing (release build, three minutes each).
    #![proptest_config(ProptestConfig { cases: 1000, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_ever_silently_stale(happenings in prop::collection::vec(happening(), 1..200)) {
        let mut node = Node::new();
        for happening in happenings {
            node.happen(happening);
        }
        node.settle();
    }
}
