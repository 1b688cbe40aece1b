//! Tests of the audit itself: what is whole must pass, and each kind of damage must be found.
//!
//! A binary of its own, because the fault tests have their own `main` and take minutes.
#![allow(dead_code, reason = "the fault tests use the rest")]
#![allow(clippy::unwrap_used, clippy::type_complexity, reason = "a test stops where it cannot go on")]

mod audit;
mod record;

use std::collections::{HashMap, HashSet};

use audit::{Evidence, Verdict, audit};
use record::{Ack, Fact, Id, Ledger, Ms, Position, Reason, Shout, Told};

const EPOCH: u64 = 1_000;

fn at(seq: u64) -> Position {
    Position::parse(&format!("a.{EPOCH}-{seq}")).unwrap()
}

fn event(seq: u64) -> Fact {
    Fact::Event { topic: 0, position: Some(at(seq)), number: seq }
}

fn start(seq: u64) -> Fact {
    Fact::Start { topic: 0, resuming: false, live: true, asked: None, given: Some(at(seq)) }
}

fn resync(reason: Reason, seq: u64) -> Fact {
    Fact::Resync { topic: 0, reason, position: Some(at(seq)) }
}

/// Audits one session against a log of `published` entries; facts come a second apart, publishes in between.
fn judge(facts: &[Fact], published: u64, change: impl FnOnce(&mut Ledger)) -> Verdict {
    let mut ledger = Ledger::default();
    for seq in 1..=published {
        ledger.tried.insert(seq, 0);
        ledger.acks.push(Ack { topic: 0, number: seq, id: Id { epoch: EPOCH, seq }, sent: seq * 1000 - 500 });
    }
    change(&mut ledger);
    let facts = facts.iter().cloned().enumerate().map(|(n, fact)| (n as Ms * 1000, fact)).collect();
    audit(&Evidence {
        topics: &["comments:1".to_owned()],
        told: &[Told { name: "s1".into(), follows: vec![0], facts }],
        ledger: &ledger,
        heads: &HashMap::from([(0, Id { epoch: EPOCH, seq: published })]),
        allowed: &[Reason::Slow, Reason::Live],
        live: &HashSet::from([0]),
        notes: &[],
    })
}

fn finds(facts: &[Fact], published: u64, what: &str) {
    let verdict = judge(facts, published, |_| {});
    assert!(
        verdict.violations.iter().any(|text| text.contains(what)),
        "{what:?} not in {:#?}",
        verdict.violations
    );
}

fn passes(facts: &[Fact], published: u64) {
    let verdict = judge(facts, published, |_| {});
    assert!(verdict.violations.is_empty(), "{:#?}", verdict.violations);
}

#[test]
fn a_whole_stream_passes() {
    passes(&[start(0), event(1), event(2), event(3)], 3);
    passes(&[start(2), event(3)], 3);
}

#[test]
fn a_hole_is_found_in_the_middle_and_at_the_end() {
    finds(&[start(0), event(1), event(3)], 3, "hole: 2..2 are missing");
    finds(&[start(0), event(1), event(2)], 3, "silently stale");
}

#[test]
fn a_duplicate_and_a_wrong_order_are_found() {
    finds(&[start(0), event(1), event(1), event(2)], 2, "duplicate");
    finds(&[start(1), event(2), event(1)], 2, "out of order");
}

#[test]
fn a_resync_excuses_what_was_before_and_nothing_after() {
    passes(&[start(0), event(1), resync(Reason::Slow, 3), event(4)], 4);
    finds(&[start(0), event(1), resync(Reason::Slow, 3), event(5)], 5, "hole: 4..4");
}

#[test]
fn a_resync_over_budget_is_found() {
    finds(&[start(0), resync(Reason::Gap, 1)], 1, "over budget");
}

#[test]
fn a_resume_must_start_where_it_was_asked_to() {
    let back =
        |seq| Fact::Start { topic: 0, resuming: true, live: true, asked: Some(at(1)), given: Some(at(seq)) };
    passes(&[start(0), event(1), back(1), event(2), event(3)], 3);
    finds(&[start(0), event(1), back(3)], 3, "silent jump");
    finds(&[start(0), event(1), back(1), event(1), event(2)], 2, "duplicate");
}

#[test]
fn an_owed_resync_must_come_before_events_and_before_the_end() {
    let owed = Fact::Start { topic: 0, resuming: true, live: true, asked: Some(at(1)), given: None };
    passes(&[start(0), event(1), owed.clone(), resync(Reason::Slow, 2)], 2);
    finds(&[start(0), event(1), owed.clone(), event(2)], 2, "before the resync");
    finds(&[start(0), event(1), owed], 1, "never came");
}

#[test]
fn who_is_welcomed_while_redis_is_away_goes_on_where_he_was() {
    let away = |asked| Fact::Start { topic: 0, resuming: true, live: false, asked, given: None };
    passes(&[start(0), event(1), away(Some(at(1))), event(2)], 2);
    passes(&[start(0), event(1), away(Some(at(1))), resync(Reason::Slow, 2)], 2);
    finds(&[start(0), event(1), away(Some(at(1))), event(3)], 3, "hole: 2..2");
    finds(&[start(0), event(1), away(Some(at(1)))], 2, "silently stale");
    finds(&[start(0), event(1), away(None), event(2)], 2, "before the resync");
}

#[test]
fn another_lineage_or_log_without_a_resync_is_found() {
    let place = |text: &str, number| Fact::Event { topic: 0, position: Position::parse(text), number };
    finds(&[start(0), event(1), place("b.1000-2", 2)], 2, "lineage changed");
    finds(&[start(0), event(1), place("a.2000-1", 2)], 2, "the log changed");
}

#[test]
fn a_number_that_a_failover_used_twice_is_found() {
    // n1 got number 1 from the old master; n2 got it from the new one, and nobody was told.
    let verdict = judge(&[start(0), event(1)], 1, |ledger| {
        ledger.tried.insert(2, 0);
        ledger.acks.push(Ack { topic: 0, number: 2, id: Id { epoch: EPOCH, seq: 1 }, sent: 5_000 });
    });
    assert!(verdict.violations.iter().any(|text| text.contains("lost: n2")), "{:#?}", verdict.violations);
}

#[test]
fn a_publish_that_was_recorded_twice_is_found() {
    let again = Fact::Event { topic: 0, position: Some(at(2)), number: 1 };
    finds(&[start(0), event(1), again], 2, "and again as");
}

#[test]
fn an_event_that_nobody_published_is_found() {
    let strange = Fact::Event { topic: 0, position: Some(at(1)), number: 77 };
    finds(&[start(0), strange], 1, "never published");
}

#[test]
fn a_missed_live_event_must_be_told() {
    let shout = |ledger: &mut Ledger| {
        ledger.tried.insert(90, 0);
        ledger.shouts.push(Shout { topic: 0, number: 90, sent: 1_500 });
    };
    let missed = judge(&[start(0), event(1), event(2)], 2, shout);
    assert!(missed.violations.iter().any(|text| text.contains("live event n90")), "{:#?}", missed.violations);
    let came = Fact::Event { topic: 0, position: None, number: 90 };
    assert!(judge(&[start(0), event(1), came, event(2)], 2, shout).violations.is_empty());
    assert!(judge(&[start(0), event(1), resync(Reason::Live, 2)], 2, shout).violations.is_empty());
}

#[test]
fn a_violation_shows_session_topic_and_timeline() {
    let verdict = judge(&[start(0), event(1), event(3)], 3, |_| {});
    let text = verdict.violations.concat();
    assert!(text.contains("session s1 topic comments:1") && text.contains("event n1 at a.1000-1"), "{text}");
}
