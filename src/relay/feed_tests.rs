//! The feed against a simple model: a log is a vector, and whoever was at `n` must get what comes after `n`.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    protocol::{Areas, Lineage},
    relay::{
        area_progress::AreaVerdict,
        question::{Question, Questions},
    },
};

fn id(epoch: u64, seq: u64) -> EntryId {
    EntryId { epoch, seq }
}

/// Whether followers of the whole area get this message.
fn first(feed: &mut Feed, id: EntryId) -> bool {
    feed.by_wire(id) == AreaVerdict::Pass
}

/// The stamps of questions that are asked one after the other.
fn stamps() -> impl Iterator<Item = Stamp> {
    let mut questions = Questions::default();
    std::iter::repeat_with(move || questions.ask(Question::Marks))
}

fn stamp() -> Stamp {
    stamps().next().unwrap()
}

/// An event arrives; `None`: it was not the successor of the last.
fn arrive(feed: &mut Feed, seq: u64) -> Option<u64> {
    match feed.arrive(&topic(), id(7, seq), Some(event(seq)), 0, Instant::now()) {
        Arrival::Deliver(frame) => frame.seq(),
        _ => None,
    }
}

/// A read of the log from after a number.
fn read(feed: &mut Feed, asked: u64, history: History) -> (Vec<LogEntry>, Arrival) {
    feed.asking(stamp());
    feed.merge(&topic(), asked, history, 0, Instant::now())
}

fn topic() -> Topic {
    Topic::parse("comments:1", &Areas::new(["comments"], [], []).unwrap()).unwrap()
}

fn event(n: u64) -> Event {
    Event::parse(Bytes::from(format!(r#"{{"type":"a.b","n":{n}}}"#)), 1000).unwrap()
}

fn head(seq: u64) -> Head {
    Head { lineage: Lineage::new("cafe"), top: EntryId { epoch: 7, seq } }
}

fn at(seq: u64) -> Position {
    Position { lineage: Lineage::new("cafe"), id: EntryId { epoch: 7, seq } }
}

/// What a log that was trimmed to its last `kept` of `top` entries answers.
fn history(top: u64, kept: u64, after: u64, bad: &[u64]) -> History {
    let first = (top.saturating_sub(kept) + 1).max(after + 1);
    let entries = (first..=top).map(|seq| {
        let entry = if bad.contains(&seq) { Err(crate::protocol::EventError::Type) } else { Ok(event(seq)) };
        (EntryId { epoch: 7, seq }, entry)
    });
    History { head: head(top), entries: entries.collect() }
}

fn replayed(feed: &mut Feed, seq: u64) -> Option<Vec<u64>> {
    match feed.resume(&at(seq)) {
        Resumed::InStep => Some(Vec::new()),
        Resumed::Replay(replay) => Some(replay.frames().iter().filter_map(Frame::seq).collect()),
        _ => None,
    }
}

fn started(seq: u64) -> Feed {
    let mut feed = Feed::opening(1000);
    feed.start(head(seq));
    feed
}

#[test]
fn only_the_successor_is_delivered() {
    let verdict = |feed: &mut Feed, epoch, seq| {
        feed.arrive(&topic(), id(epoch, seq), Some(event(seq)), 0, Instant::now())
    };
    let mut feed = started(5);
    assert!(matches!(verdict(&mut feed, 7, 5), Arrival::Nothing));
    assert!(matches!(verdict(&mut feed, 6, 9), Arrival::Earlier));
    assert!(matches!(verdict(&mut feed, 7, 6), Arrival::Deliver(_)));
    let invalid = feed.arrive(&topic(), id(7, 7), None, 0, Instant::now());
    assert!(matches!(invalid, Arrival::Invalid));
    assert!(matches!(verdict(&mut feed, 7, 9), Arrival::Read(after) if after == id(7, 7)));
    assert!(matches!(verdict(&mut feed, 7, 8), Arrival::Nothing), "held until the log was read");
    assert_eq!(feed.release().0.iter().map(|(id, _)| id.seq).collect::<Vec<_>>(), [9, 8]);
    let mut feed = started(5);
    assert!(matches!(verdict(&mut feed, 8, 1), Arrival::Replaced(Reason::LogReplaced)));
    assert_eq!(feed.head().unwrap().top, id(8, 1));
}

#[test]
fn what_is_not_in_the_log_is_invalid_after_one_read() {
    let mut feed = started(5);
    let hear = |feed: &mut Feed, seq| {
        assert_ne!(feed.by_wire(id(7, seq)), AreaVerdict::Nothing);
        feed.arrive(&topic(), id(7, seq), Some(event(seq)), 0, Instant::now())
    };
    assert!(matches!(hear(&mut feed, 900), Arrival::Read(after) if after == id(7, 5)), "published by hand");
    feed.asking(stamp());
    // What comes while the log is read may be younger than the answer: it is no stray.
    assert!(matches!(hear(&mut feed, 907), Arrival::Nothing));
    let (entries, verdict) = feed.merge(&topic(), 5, history(6, 99, 5, &[]), 0, Instant::now());
    assert!(matches!(verdict, Arrival::Invalid));
    assert_eq!((entries.len(), feed.release().0.len()), (1, 1));
    assert!(feed.is_live() && !first(&mut feed, id(7, 6)), "they were told");
    assert!(first(&mut feed, id(7, 7)), "and it hides nothing that comes");
}

#[test]
fn what_says_something_else_in_a_known_place_is_told_and_nothing_of_the_tail_is_believed() {
    let now = Instant::now();
    let mut feed = started(5);
    arrive(&mut feed, 6);
    arrive(&mut feed, 7);
    assert!(matches!(feed.arrive(&topic(), id(7, 6), Some(event(6)), 0, now), Arrival::Nothing), "once more");
    for other in [Some(event(60)), None] {
        assert!(matches!(feed.arrive(&topic(), id(7, 6), other, 0, now), Arrival::Replaced(Reason::Invalid)));
        assert!(matches!(feed.resume(&at(5)), Resumed::Read(5)), "the log itself answers");
        assert_eq!(arrive(&mut feed, 6), None, "and nothing is told twice");
        feed = started(5);
        arrive(&mut feed, 6);
    }
    // What a read of the log shows counts as well.
    let mut feed = started(5);
    assert!(matches!(feed.arrive(&topic(), id(7, 6), Some(event(60)), 0, now), Arrival::Deliver(_)));
    let (_, verdict) = read(&mut feed, 0, history(6, 99, 0, &[]));
    assert!(matches!(verdict, Arrival::Replaced(Reason::Invalid)));
    assert!(feed.is_live() && feed.position() == Some(at(6)));
}

#[test]
fn what_cannot_be_held_is_remembered() {
    let mut feed = started(5);
    for seq in 7..7 + HELD as u64 + 10 {
        assert_eq!(arrive(&mut feed, seq), None);
    }
    let (held, unheld) = feed.release();
    assert_eq!((held.len(), unheld), (HELD, Some(id(7, 6 + HELD as u64 + 10))));
    assert!(!feed.has(id(7, 6)) && feed.has(id(7, 5)) && !feed.has(id(6, 1)));
}

#[test]
fn a_late_message_of_a_log_whose_epoch_was_later_does_not_bring_that_log_back() {
    let mut feed = started(5);
    let now = Head { lineage: Lineage::new("cafe"), top: id(6, 2) };
    let arrival = feed.compare(&now, Some(id(7, 5)), stamp());
    assert!(matches!(arrival, Arrival::Replaced(Reason::LogReplaced)), "by a master whose clock is behind");
    let verdict = |feed: &mut Feed, epoch, seq| {
        feed.arrive(&topic(), id(epoch, seq), Some(event(seq)), 0, Instant::now())
    };
    assert!(matches!(verdict(&mut feed, 7, 6), Arrival::Earlier), "the log itself must say which it is");
    assert!(matches!(verdict(&mut feed, 6, 3), Arrival::Deliver(_)));
    assert!(matches!(verdict(&mut feed, 8, 1), Arrival::Replaced(Reason::LogReplaced)), "a new one");
}

#[test]
fn a_message_of_an_earlier_log_proves_nothing_about_the_wire() {
    let mut feed = started(5);
    assert!(first(&mut feed, id(7, 6)));
    assert!(arrive(&mut feed, 6).is_some() && !first(&mut feed, id(7, 6)));
    assert!(!first(&mut feed, id(6, 50)), "late, and not of this log");
    assert!(first(&mut feed, id(7, 7)), "it does not hide what follows");
}

#[test]
fn where_a_log_was_trimmed_what_was_handed_on_does_not_come_again_by_the_wire() {
    let mut feed = started(5);
    assert_eq!(feed.handed().by_read(id(7, 6)), AreaVerdict::Gap, "5 may be on its way");
    feed.doubt();
    assert!(matches!(feed.compare(&head(12), Some(id(7, 5)), stamp()), Arrival::Read(_)));
    let (_, verdict) = read(&mut feed, 5, history(12, 2, 5, &[]));
    assert!(matches!(verdict, Arrival::Replaced(Reason::Trimmed)));
    assert!(!first(&mut feed, id(7, 6)) && first(&mut feed, id(7, 7)));
}

#[test]
fn a_head_that_was_asked_for_before_the_log_was_known_may_be_older_than_what_came() {
    let mut feed = started(5);
    assert_eq!(arrive(&mut feed, 6), Some(6));
    feed.doubt();
    assert!(matches!(feed.compare(&head(5), None, stamp()), Arrival::Nothing));
    assert!(feed.is_live() && feed.position() == Some(at(6)));
    feed.doubt();
    assert!(matches!(feed.compare(&head(7), None, stamp()), Arrival::Read(_)));
    // Likewise where another log was known when it was asked for.
    let mut feed = started(5);
    assert_eq!(arrive(&mut feed, 6), Some(6));
    feed.doubt();
    assert!(matches!(feed.compare(&head(5), Some(id(9, 40)), stamp()), Arrival::Nothing));
}

#[test]
fn a_head_that_is_older_than_the_feed_shows_nothing() {
    let mut feed = started(5);
    let asked = feed.head().map(|head| head.top);
    arrive(&mut feed, 6);
    let compare = |feed: &mut Feed, head: Head, asked| {
        feed.doubt();
        feed.compare(&head, asked, stamp())
    };
    // It was read between the question and the event.
    assert!(matches!(compare(&mut feed, head(5), asked), Arrival::Nothing));
    assert!(matches!(compare(&mut feed, head(6), asked), Arrival::Nothing));
    assert!(matches!(compare(&mut feed, head(8), asked), Arrival::Read(after) if after == id(7, 6)));
    // Before the question it was further: the log went back.
    assert!(matches!(compare(&mut feed, head(4), asked), Arrival::Replaced(Reason::Invalid)));
    let mut feed = started(6);
    assert!(matches!(compare(&mut feed, head(5), Some(id(7, 6))), Arrival::Replaced(Reason::Invalid)));
    feed.start(Head { top: id(9, 1), ..head(0) });
    assert!(matches!(compare(&mut feed, head(6), asked), Arrival::Nothing), "the head of the log before");
    let elsewhere = Head { lineage: Lineage::new("beef"), ..head(6) };
    assert!(matches!(compare(&mut feed, elsewhere, asked), Arrival::Replaced(Reason::RedisChanged)));
}

#[test]
fn reasons_come_in_the_order_of_the_table() {
    let mut feed = started(5);
    let other =
        |lineage: &str, epoch, seq| Position { lineage: Lineage::new(lineage), id: EntryId { epoch, seq } };
    assert!(matches!(feed.resume(&other("beef", 9, 9)), Resumed::Resync(Reason::RedisChanged)));
    assert!(matches!(feed.resume(&other("cafe", 6, 9)), Resumed::OtherEpoch));
    assert!(matches!(feed.resume(&other("cafe", 9, 9)), Resumed::OtherEpoch));
    assert!(matches!(feed.resume(&other("cafe", 7, 6)), Resumed::Ahead));
    assert!(matches!(feed.resume(&other("cafe", 7, 5)), Resumed::InStep));
    assert!(matches!(feed.resume(&other("cafe", 7, 4)), Resumed::Read(4)));
}

#[test]
fn a_trimmed_log_is_known_to_be_trimmed() {
    let mut feed = started(20);
    let (entries, verdict) = read(&mut feed, 3, history(20, 10, 3, &[]));
    assert!(entries.is_empty() && matches!(verdict, Arrival::Nothing));
    assert!(matches!(feed.resume(&at(9)), Resumed::Resync(Reason::Trimmed)));
    assert_eq!(replayed(&mut feed, 10), Some((11..=20).collect()));
    // What is kept here is replayed, even if the log has become shorter.
    read(&mut feed, 9, history(20, 5, 9, &[]));
    assert_eq!(replayed(&mut feed, 10), Some((11..=20).collect()));
    // A read that did not ask further back proves nothing about what lies there.
    let mut feed = started(20);
    read(&mut feed, 15, history(20, 20, 15, &[]));
    assert!(matches!(feed.resume(&at(9)), Resumed::Read(9)));
}

#[test]
fn what_is_not_an_event_is_a_resync_for_who_has_not_passed_it() {
    let mut feed = started(10);
    read(&mut feed, 0, history(10, 100, 0, &[4]));
    assert!(matches!(feed.resume(&at(3)), Resumed::Resync(Reason::Invalid)));
    assert_eq!(replayed(&mut feed, 4), Some((5..=10).collect()));
}

#[test]
fn another_history_starts_the_feed_anew() {
    let mut feed = started(10);
    let mut other = history(12, 100, 10, &[]);
    other.head.lineage = Lineage::new("beef");
    let (_, verdict) = read(&mut feed, 10, other);
    assert!(matches!(verdict, Arrival::Replaced(Reason::RedisChanged)));
    assert_eq!(feed.position().unwrap().to_string(), "beef.7-12");
    let (_, verdict) = read(&mut started(10), 10, history(9, 100, 10, &[]));
    assert!(matches!(verdict, Arrival::Replaced(Reason::Invalid)));
    let (_, verdict) = read(&mut started(10), 10, history(30, 5, 10, &[]));
    assert!(matches!(verdict, Arrival::Replaced(Reason::Trimmed)));
}

#[test]
fn a_read_that_the_wire_has_overtaken_is_not_a_log_that_went_back() {
    let (topic, now) = (topic(), Instant::now());
    let mut feed = started(10);
    feed.asking(stamp());
    arrive(&mut feed, 11);
    let (entries, verdict) = feed.merge(&topic, 0, history(10, 100, 0, &[]), 0, now);
    assert!(entries.is_empty() && matches!(verdict, Arrival::Nothing));
    assert_eq!(feed.position(), Some(at(11)));
    assert_eq!(replayed(&mut feed, 4), Some((5..=11).collect()));
    // But a log that ends before what was known when it was asked for did go back.
    let (_, verdict) = read(&mut started(10), 0, history(9, 100, 0, &[]));
    assert!(matches!(verdict, Arrival::Replaced(Reason::Invalid)));
}

#[test]
fn a_read_that_was_asked_of_another_log_says_nothing() {
    let mut feed = started(10);
    feed.asking(stamp());
    let other = |seq| Head { top: id(8, seq), ..head(0) };
    feed.start(other(1));
    // A gap in the new log: the read under way cannot close it.
    assert!(matches!(
        feed.arrive(&topic(), id(8, 3), None, 0, Instant::now()),
        Arrival::Read(after) if after == id(8, 1)
    ));
    let late = History { head: other(0), entries: Vec::new() };
    let (entries, verdict) = feed.merge(&topic(), 10, late, 0, Instant::now());
    assert!(entries.is_empty() && matches!(verdict, Arrival::Read(after) if after == id(8, 1)));
    assert_eq!((feed.head(), feed.state()), (Some(&other(1)), FeedState::Filling));
}

#[test]
fn a_read_does_not_settle_a_doubt_that_came_after_it_was_asked() {
    let mut feed = started(10);
    feed.asking(stamp());
    feed.doubt();
    let (entries, _) = feed.merge(&topic(), 5, history(12, 100, 5, &[]), 0, Instant::now());
    assert!(entries.is_empty());
    assert_eq!(feed.state(), FeedState::Doubt, "the look at the head is still to come");
    assert!(matches!(feed.compare(&head(12), Some(id(7, 10)), stamp()), Arrival::Read(_)));
}

proptest! {
    /// Whatever arrives, is lost, comes twice or is read back: a replay is exactly what the log has after a position.
    #[test]
    fn a_replay_is_what_the_log_has(steps in prop::collection::vec((0u8..5, 0u64..40), 1..120)) {
        let mut feed = started(0);
        let mut top = 0u64;
        for (step, n) in steps {
            match step {
                0 | 1 => {
                    top += 1;
                    let expected = feed.is_live() && feed.head().unwrap().top.seq + 1 == top;
                    prop_assert_eq!(arrive(&mut feed, top), expected.then_some(top));
                }
                // Lost on the wire.
                2 => top += 1,
                // Comes again.
                3 => {
                    let again = n.min(feed.head().unwrap().top.seq);
                    prop_assert_eq!(arrive(&mut feed, again), None);
                }
                _ => {
                    let asked = n.min(feed.head().unwrap().top.seq);
                    let (entries, verdict) = read(&mut feed, asked, history(top, 1000, asked, &[]));
                    prop_assert!(matches!(verdict, Arrival::Nothing), "{:?}", verdict);
                    for (id, _) in entries {
                        prop_assert_eq!(arrive(&mut feed, id.seq), Some(id.seq));
                    }
                    for (id, _) in feed.release().0 {
                        prop_assert_eq!(arrive(&mut feed, id.seq), None);
                    }
                    prop_assert_eq!(feed.head().unwrap().top.seq, top);
                }
            }
            let end = feed.head().unwrap().top.seq;
            if let Some(seqs) = replayed(&mut feed, n.min(end)) {
                prop_assert_eq!(seqs, (n.min(end) + 1..=end).collect::<Vec<_>>());
            }
        }
    }
}
