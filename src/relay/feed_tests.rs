//! The feed against a simple model: a log is a vector, and whoever was at `n` must get what comes after `n`.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::protocol::Areas;

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
fn only_the_successor_is_next() {
    let feed = started(5);
    let id = |epoch, seq| EntryId { epoch, seq };
    assert_eq!(feed.judge(id(7, 6)), Step::Next);
    assert_eq!(feed.judge(id(7, 5)), Step::Duplicate);
    assert_eq!(feed.judge(id(7, 7)), Step::Gap);
    assert_eq!(feed.judge(id(8, 1)), Step::Replaced);
    assert_eq!(feed.judge(id(6, 9)), Step::Earlier);
    assert_eq!(Feed::opening(1000).judge(id(7, 1)), Step::Gap);
}

#[test]
fn a_head_that_is_older_than_the_feed_shows_nothing() {
    let mut feed = started(5);
    let asked = feed.head().map(|head| head.top);
    feed.append(&topic(), EntryId { epoch: 7, seq: 6 }, Some(event(6)), 0, Instant::now());
    // It was read between the question and the event.
    assert_eq!(feed.compare_since(&head(5), asked), Ok(true));
    assert_eq!(feed.compare_since(&head(6), asked), Ok(true));
    assert_eq!(feed.compare_since(&head(8), asked), Ok(false));
    // Before the question it was further: the log went back.
    assert_eq!(feed.compare_since(&head(4), asked), Err(Reason::LogReplaced));
    assert_eq!(feed.compare_since(&head(5), None), Err(Reason::LogReplaced));
    feed.start(Head { top: EntryId { epoch: 9, seq: 1 }, ..head(0) });
    assert_eq!(feed.compare_since(&head(6), asked), Ok(true), "the head of the log before");
    let elsewhere = Head { lineage: Lineage::new("beef"), ..head(6) };
    assert_eq!(feed.compare_since(&elsewhere, asked), Err(Reason::RedisChanged));
}

#[test]
fn reasons_come_in_the_order_of_the_table() {
    let mut feed = started(5);
    let other =
        |lineage: &str, epoch, seq| Position { lineage: Lineage::new(lineage), id: EntryId { epoch, seq } };
    assert!(matches!(feed.resume(&other("beef", 9, 9)), Resumed::Resync(Reason::RedisChanged)));
    assert!(matches!(feed.resume(&other("cafe", 6, 9)), Resumed::Resync(Reason::LogReplaced)));
    assert!(matches!(feed.resume(&other("cafe", 9, 9)), Resumed::Ahead));
    assert!(matches!(feed.resume(&other("cafe", 7, 6)), Resumed::Ahead));
    assert!(matches!(feed.resume(&other("cafe", 7, 5)), Resumed::InStep));
    assert!(matches!(feed.resume(&other("cafe", 7, 4)), Resumed::Read(4)));
}

#[test]
fn a_trimmed_log_is_known_to_be_trimmed() {
    let now = Instant::now();
    let mut feed = started(20);
    assert_eq!(feed.merge(&topic(), 3, history(20, 10, 3, &[]), 0, now), Merged::Forward(vec![]));
    assert!(matches!(feed.resume(&at(9)), Resumed::Resync(Reason::Trimmed)));
    assert_eq!(replayed(&mut feed, 10), Some((11..=20).collect()));
    // A read that did not ask further back proves nothing about what lies there.
    let mut feed = started(20);
    feed.merge(&topic(), 15, history(20, 20, 15, &[]), 0, now);
    assert!(matches!(feed.resume(&at(9)), Resumed::Read(9)));
}

#[test]
fn what_is_not_an_event_is_a_resync_for_who_has_not_passed_it() {
    let mut feed = started(10);
    feed.merge(&topic(), 0, history(10, 100, 0, &[4]), 0, Instant::now());
    assert!(matches!(feed.resume(&at(3)), Resumed::Resync(Reason::Invalid)));
    assert_eq!(replayed(&mut feed, 4), Some((5..=10).collect()));
}

#[test]
fn another_history_starts_the_feed_anew() {
    let mut feed = started(10);
    let mut read = history(12, 100, 10, &[]);
    read.head.lineage = Lineage::new("beef");
    assert_eq!(feed.merge(&topic(), 10, read, 0, Instant::now()), Merged::Replaced(Reason::RedisChanged));
    assert_eq!(feed.position().unwrap().to_string(), "beef.7-12");
    let mut feed = started(10);
    assert_eq!(
        feed.merge(&topic(), 10, history(9, 100, 10, &[]), 0, Instant::now()),
        Merged::Replaced(Reason::LogReplaced)
    );
    let mut feed = started(10);
    assert_eq!(
        feed.merge(&topic(), 10, history(30, 5, 10, &[]), 0, Instant::now()),
        Merged::Replaced(Reason::Trimmed)
    );
}

#[test]
fn a_read_that_the_wire_has_overtaken_is_not_a_log_that_went_back() {
    let (topic, now) = (topic(), Instant::now());
    let mut feed = started(10);
    feed.asking();
    feed.append(&topic, EntryId { epoch: 7, seq: 11 }, Some(event(11)), 0, now);
    assert_eq!(feed.merge(&topic, 0, history(10, 100, 0, &[]), 0, now), Merged::Forward(vec![]));
    assert_eq!(feed.position(), Some(at(11)));
    assert_eq!(replayed(&mut feed, 4), Some((5..=11).collect()));
    // But a log that ends before what was known when it was asked for did go back.
    let mut feed = started(10);
    feed.asking();
    let merged = feed.merge(&topic, 0, history(9, 100, 0, &[]), 0, now);
    assert_eq!(merged, Merged::Replaced(Reason::LogReplaced));
}

#[test]
fn a_read_that_was_asked_of_another_log_says_nothing() {
    let mut feed = started(10);
    feed.asking();
    let other = |seq| Head { top: EntryId { epoch: 8, seq }, ..head(0) };
    feed.start(other(1));
    let late = History { head: other(0), entries: Vec::new() };
    assert_eq!(feed.merge(&topic(), 10, late, 0, Instant::now()), Merged::Forward(vec![]));
    assert_eq!(feed.head(), Some(&other(1)));
}

proptest! {
    /// Whatever arrives, is lost, comes twice or is read back: a replay is exactly what the log has after a position.
    #[test]
    fn a_replay_is_what_the_log_has(steps in prop::collection::vec((0u8..5, 0u64..40), 1..120)) {
        let (topic, now) = (topic(), Instant::now());
        let mut feed = started(0);
        let mut top = 0u64;
        for (step, n) in steps {
            match step {
                0 | 1 => {
                    top += 1;
                    let id = EntryId { epoch: 7, seq: top };
                    if feed.judge(id) == Step::Next {
                        feed.append(&topic, id, Some(event(top)), 0, now);
                    }
                }
                // Lost on the wire.
                2 => top += 1,
                // Comes again.
                3 => prop_assert_eq!(feed.judge(EntryId { epoch: 7, seq: n.min(feed.head().unwrap().top.seq) }), Step::Duplicate),
                _ => {
                    let asked = n.min(feed.head().unwrap().top.seq);
                    match feed.merge(&topic, asked, history(top, 1000, asked, &[]), 0, now) {
                        Merged::Forward(entries) => for (id, event) in entries {
                            prop_assert_eq!(feed.judge(id), Step::Next);
                            feed.append(&topic, id, event, 0, now);
                        },
                        other @ Merged::Replaced(_) => prop_assert!(false, "{:?}", other),
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
