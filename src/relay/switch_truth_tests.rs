//! What the switch may say, and when: `live:true`, a proof, which of two logs is the present one; and what it asks again.

use super::{
    rig::{Rig, Told, told},
    *,
};
use crate::{
    hub::{Frame, Item, Outbox},
    protocol::{NodeMessage, Passed, Resume},
};

/// A session whose outbox holds little, and whose node has been away from Redis while so many events were recorded.
fn behind(events: usize) -> (Rig, Arc<Outbox>) {
    let mut rig = Rig::live();
    let anna = rig.connect(&["comments:1"], None, 1_000);
    rig.serve();
    rig.event(BusEvent::Link(LinkChange::Down { reason: "cut".into(), lineage_changed: false }));
    assert_eq!(told(&anna), ["welcome live comments:1=0 comments=0", "status false"]);
    (0..events).for_each(|_| rig.publish("comments:1", true));
    rig.event(BusEvent::Link(LinkChange::Up));
    rig.prove();
    rig.serve();
    (rig, anna)
}

#[test]
fn nobody_is_told_live_who_is_owed_a_resync() {
    let (mut rig, anna) = behind(20);
    assert_eq!(told(&anna), Told::new(), "what it lacked was more than it may keep waiting");
    rig.tick();
    assert_eq!(told(&anna), Told::new());
    rig.take(SwitchInput::Command(Command::Drained(Arc::clone(&anna))));
    rig.tick();
    assert_eq!(told(&anna), ["resync slow comments:1", "status true"]);
}

#[test]
fn live_is_taken_back_with_the_events_before_it() {
    let (mut rig, anna) = behind(1);
    (0..12).for_each(|_| rig.publish("comments:1", false));
    assert_eq!(told(&anna), Told::new(), "it waited behind an event that was dropped");
    rig.take(SwitchInput::Command(Command::Drained(Arc::clone(&anna))));
    rig.tick();
    assert_eq!(told(&anna), ["resync slow comments:1", "status true"]);
}

#[test]
fn marks_are_renewed_before_anybody_is_told_of_a_clock_that_was_set_ahead() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1"]);
    rig.pass(5_000);
    rig.prove();
    let before = rig.switch.at();
    assert_eq!(rig.ping(&anna), [format!("pong {before}")]);
    assert!(rig.questions.is_empty(), "a clock that runs as ours does needs nothing");
    // Another node counts on a mark that is over by the new clock.
    rig.redis.now += 60_000;
    rig.pass(5_000);
    rig.prove();
    assert_eq!(rig.ping(&anna), [format!("pong {before}")]);
    let renewal = rig.keep(LOOK);
    assert!(matches!(&renewal.1, Question::Look { places, renew: true } if places.is_empty()));
    rig.redis.marks_refused = true;
    rig.answer(renewal);
    assert_eq!(rig.ping(&anna), [format!("pong {before}")], "refused");
    rig.redis.marks_refused = false;
    rig.tick();
    rig.serve();
    assert_eq!(rig.ping(&anna), [format!("pong {}", before + 65_000)]);
}

#[test]
fn a_head_that_is_refused_is_asked_for_ever_more_seldom_and_renews_no_marks() {
    let mut rig = Rig::live();
    let _anna = rig.join(&["comments:1", "projects:1"]);
    rig.redis.refused = vec!["projects:1"];
    rig.event(BusEvent::Doubt(Some(Subject::parse("projects:1", &rig.areas).unwrap())));
    let (mut asked, mut renewed) = (0, 0);
    for _ in 0..60 {
        while let Some((stamp, question)) = rig.questions.pop_front() {
            if let Question::Look { renew, .. } = &question {
                asked += 1;
                renewed += usize::from(*renew);
            }
            rig.answer((stamp, question));
        }
        rig.tick();
    }
    assert!((10..=20).contains(&asked), "{asked} looks in a minute");
    assert_eq!(renewed, 1, "only what was lost before the first look needs to be told");
    // What is lost meanwhile is looked at at once, and told to who is away.
    rig.serve();
    rig.event(BusEvent::Doubt(Some(Subject::parse("comments:1", &rig.areas).unwrap())));
    let look = rig.keep(LOOK);
    let topic = rig.topic("comments:1");
    let Question::Look { places, renew: true } = &look.1 else { panic!("{look:?}") };
    assert!(places.iter().any(|place| place.topic == topic));
    rig.answer(look);
    rig.redis.refused.clear();
    rig.wait(5);
    assert!(rig.switch.is_live() && rig.questions.is_empty());
}

#[test]
fn who_names_the_live_events_that_it_had_gets_the_others_and_no_resync() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1"]);
    let _bo = rig.join(&["comments:2"]);
    let at = proven_twice(&mut rig);
    let digest = |n| Frame::new(rig.topic("comments:1"), None, 0, &event(n)).digest();
    let digests = [digest(1), digest(2)];
    let had = |names: &[u64]| {
        let mut passed = Passed::default();
        for digest in names {
            passed.push(*digest, at);
        }
        Some(passed)
    };
    let back = |rig: &mut Rig, passed: Option<Passed>| {
        let resume = rig.resume(&[("comments:1", 0), ("comments", 0)], at);
        let session = rig.connect(&["comments:1"], Some(Resume { passed, ..resume }), 100_000);
        rig.serve();
        told(&session)
    };
    let welcome = "welcome live comments:1=0 comments=0";
    for n in [1, 2] {
        rig.arrive("comments:1", Content::Live(event(n)));
        rig.serve();
    }
    assert_eq!(told(&anna), ["comments:1 0", "comments:1 0"]);
    assert_eq!(back(&mut rig, had(&[])), [welcome, "comments:1 0", "comments:1 0"]);
    assert_eq!(back(&mut rig, had(&[digests[0]])), [welcome, "comments:1 0"]);
    assert_eq!(back(&mut rig, had(&digests)), [welcome]);
    // It hopped while the first was on its way, and had it from both nodes.
    assert_eq!(back(&mut rig, had(&[digests[0], digests[0]])), [welcome, "comments:1 0"]);
    let resync = ["welcome live", "resync live comments:1 comments"];
    assert_eq!(back(&mut rig, None), resync, "nobody kept count");
    // Said once more: which of the two it had cannot be told.
    rig.arrive("comments:1", Content::Live(event(1)));
    rig.serve();
    let twice = ["welcome live comments=0", "resync live comments:1"];
    assert_eq!(back(&mut rig, had(&digests)), twice);
    assert_eq!(back(&mut rig, had(&[digests[1]])), [welcome, "comments:1 0", "comments:1 0"]);
    // What was on its way over a link that is lost is not known.
    rig.event(BusEvent::Link(LinkChange::Down { reason: "cut".into(), lineage_changed: false }));
    rig.event(BusEvent::Link(LinkChange::Up));
    rig.prove();
    rig.serve();
    assert_eq!(back(&mut rig, had(&digests)), resync);
}

/// Two proofs, as what was before the first one is known to be so by the second. When the second was, ms of Redis' clock.
fn proven_twice(rig: &mut Rig) -> u64 {
    for _ in 0..2 {
        rig.pass(5_000);
        rig.prove();
    }
    rig.pass(10);
    rig.switch.at()
}

/// Comes back to `comments:1` and `comments` with what was told up to `at`, and has had no live event since.
fn hop(rig: &mut Rig, at: u64) -> Vec<String> {
    let resume = rig.resume(&[("comments:1", 0), ("comments", 0)], at);
    let resume = Resume { passed: Some(Passed::default()), ..resume };
    let session = rig.connect(&["comments:1"], Some(resume), 100_000);
    rig.serve();
    told(&session)
}

#[test]
fn a_live_event_that_was_lost_on_the_way_here_is_told_by_its_mark() {
    let mut rig = Rig::live();
    let _anna = rig.join(&["comments:1"]);
    let _bo = rig.join(&["comments:2"]);
    let at = proven_twice(&mut rig);
    let resync = ["welcome live", "resync live comments:1 comments"];
    rig.pass(1_000);
    // Another node has heard one.
    rig.redis.marks.insert("comments".into(), rig.redis.now + 2_000);
    assert_eq!(hop(&mut rig, at), resync);
    rig.arrive("comments:1", Content::Live(event(1)));
    rig.serve();
    let welcome = "welcome live comments:1=0 comments=0";
    assert_eq!(hop(&mut rig, at), [welcome, "comments:1 0"], "it is the one that was heard here");
    rig.pass(4_000);
    rig.redis.marks.insert("comments".into(), rig.redis.now + 2_000);
    assert_eq!(hop(&mut rig, at), resync, "there was one more");
}

#[test]
fn the_time_of_a_probe_that_was_read_before_it_was_sent_is_no_bound_of_what_came_before_it() {
    let mut rig = Rig::live();
    let _bo = rig.join(&["comments:2"]);
    let _carl = rig.join(&["comments:3"]);
    let welcome = "welcome live comments:1=0 comments=0";
    let resync = ["welcome live comments=0", "resync live comments:1"];
    // Followed only after the probe's time was read: what was published in between did not come here.
    proven_twice(&mut rig);
    let (read, asked) = (rig.redis.now, rig.now.instant);
    rig.pass(10);
    rig.arrive("comments:2", Content::Live(event(1)));
    rig.serve();
    let elsewhere = rig.redis.now + 10;
    rig.pass(40);
    let _anna = rig.join(&["comments:1"]);
    rig.event(BusEvent::Proof { at: read, asked });
    assert_eq!(hop(&mut rig, elsewhere), resync);
    // Published after the probe's time was read, and come before the probe.
    proven_twice(&mut rig);
    let (read, asked) = (rig.redis.now, rig.now.instant);
    let elsewhere = rig.redis.now + 20;
    rig.pass(50);
    rig.arrive("comments:1", Content::Live(event(2)));
    rig.serve();
    rig.pass(10);
    rig.event(BusEvent::Proof { at: read, asked });
    assert_eq!(hop(&mut rig, elsewhere), [welcome, "comments:1 0"]);
    // A probe that was long on its way to Redis does not make the next one look earlier.
    rig.pass(5_000);
    rig.event(BusEvent::Proof { at: rig.redis.now, asked });
    rig.pass(2_300);
    rig.prove();
    assert_eq!(hop(&mut rig, elsewhere), [welcome, "comments:1 0"]);
}

#[test]
fn who_was_served_by_a_node_that_then_finds_a_loss_is_told_there_and_everywhere() {
    let mut rig = Rig::live();
    let _anna = rig.join(&["comments:1"]);
    let _bo = rig.join(&["comments:2"]);
    rig.arrive("comments:1", Content::Live(event(1)));
    rig.serve();
    let at = proven_twice(&mut rig);
    let welcome = "welcome live comments:1=0 comments=0";
    rig.arrive("comments:1", Content::Live(event(2)));
    rig.serve();
    assert_eq!(hop(&mut rig, at), [welcome, "comments:1 0"]);
    // Another node finds that it may have lost some, and marks that.
    rig.redis.marks.insert("comments!".into(), rig.redis.now + 2_000);
    let resync = ["welcome live", "resync live comments:1 comments"];
    assert_eq!(hop(&mut rig, at), resync);
    // This one finds it: the numbers of a log show a gap, and nobody is told of a later proof before all marks are renewed.
    let mut rig = Rig::live();
    let _anna = rig.join(&["comments:1"]);
    let _bo = rig.join(&["comments:2"]);
    rig.arrive("comments:1", Content::Live(event(1)));
    rig.serve();
    let at = proven_twice(&mut rig);
    rig.publish("comments:1", true);
    rig.publish("comments:1", false);
    let look = rig.keep(|question| matches!(question, Question::Look { renew: true, .. }));
    rig.serve();
    rig.pass(1_000);
    rig.prove();
    assert_eq!(rig.switch.at(), at, "the marks are not renewed yet");
    for mark in ["comments", "comments!"] {
        rig.redis.marks.insert(mark.into(), rig.redis.now + 2_000);
    }
    rig.answer(look);
    assert_eq!(rig.switch.at(), rig.redis.now);
    let told = hop(&mut rig, at);
    assert!(told.iter().any(|line| line.starts_with("resync live")), "{told:?}");
}

#[test]
fn a_mark_that_lies_far_ahead_is_not_counted_on_once_redis_may_have_been_emptied() {
    let mut rig = Rig::live();
    let _anna = rig.join(&["comments:1"]);
    // Of a master whose clock was ahead.
    rig.redis.marks.insert("comments".into(), rig.redis.now + 20_000);
    rig.arrive("comments:1", Content::Live(event(1)));
    rig.serve();
    rig.redis.marks.clear();
    rig.pass(3_000);
    rig.arrive("comments:1", Content::Live(event(2)));
    rig.serve();
    assert_eq!(rig.redis.marks.get("comments"), Some(&(rig.redis.now + 2_000)));
}

#[test]
fn marks_that_are_gone_with_a_replaced_log_are_written_again() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1"]);
    rig.arrive("comments:1", Content::Live(event(1)));
    rig.publish("comments:1", false);
    rig.serve();
    rig.redis.marks.clear();
    rig.redis.logs.clear();
    rig.pass(100);
    rig.publish("comments:1", false);
    rig.serve();
    assert_eq!(told(&anna).last().unwrap(), "resync log-replaced comments:1");
    assert_eq!(rig.redis.marks.get("comments"), Some(&(rig.redis.now + 2_000)));
}

#[test]
fn nobody_is_told_a_proof_of_another_master_whose_clock_was_ahead() {
    let mut rig = Rig::live();
    let _anna = rig.join(&["comments:1"]);
    let resume = rig.resume(&[("comments:1", 0), ("comments", 0)], rig.switch.at());
    rig.event(BusEvent::Link(LinkChange::Down { reason: "lost".into(), lineage_changed: true }));
    (rig.redis.lineage, rig.redis.now) = ("beef", rig.redis.now - 20_000);
    rig.event(BusEvent::Link(LinkChange::Up));
    rig.prove();
    let bo = rig.connect(&["comments:1", "comments:*"], Some(resume), 10_000);
    rig.serve();
    let resync = |item| match item {
        Item::Message(NodeMessage::Resync { at, reason, .. }) => Some((reason, at)),
        _ => None,
    };
    let told: Vec<_> = bo.pull(100).into_iter().filter_map(resync).collect();
    assert_eq!(told, [(Reason::RedisChanged, rig.redis.now), (Reason::NoPosition, rig.redis.now)]);
}

#[test]
fn only_the_last_of_several_resyncs_claims_a_later_proof() {
    let mut rig = Rig::live();
    rig.redis.answer(Question::Open(vec![Subject::parse("comments:1", &rig.areas).unwrap()]));
    rig.redis.answer(Question::Open(vec![Subject::parse("comments", &rig.areas).unwrap()]));
    let before = rig.switch.at();
    let resume = rig.resume(&[("comments:1", 0), ("comments", 0)], before);
    rig.redis.marks.insert("comments".into(), rig.redis.now + 100);
    rig.pass(5_000);
    rig.prove();
    let anna = rig.connect(&["comments:1", "projects:1"], Some(resume), 1_000);
    rig.serve();
    let at = |item| match item {
        crate::hub::Item::Message(crate::protocol::NodeMessage::Resync { reason, at, .. }) => {
            Some((reason.name(), at))
        }
        _ => None,
    };
    let told: Vec<_> = anna.pull(100).into_iter().filter_map(at).collect();
    assert_eq!(told, [("no-position", before), ("live", before + 5_000)]);
}

#[test]
fn an_event_of_another_history_comes_by_no_way_before_its_resync() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1", "comments:*"]);
    let bo = rig.join(&["comments:*"]);
    (0..3).for_each(|_| rig.publish("comments:1", false));
    let event = |n: u64| format!("comments:1 {n}");
    assert_eq!(told(&bo), [event(1), event(2), event(3)]);
    told(&anna);
    let fail_over = |rig: &mut Rig, lineage, seq| {
        rig.event(BusEvent::Link(LinkChange::Down { reason: "failover".into(), lineage_changed: true }));
        rig.redis.lineage = lineage;
        rig.redis.logs.get_mut(&rig.topic("comments:1")).unwrap().1 = seq;
        rig.event(BusEvent::Link(LinkChange::Up));
        rig.prove();
        rig.serve();
    };
    fail_over(&mut rig, "beef", 3);
    let changed = ["resync gap comments:*", "status true"];
    assert_eq!(told(&bo)[1..], ["resync redis-changed comments", changed[0], changed[1]]);
    assert!(told(&anna).contains(&"resync redis-changed comments:1 comments".to_owned()));
    rig.publish("comments:1", false);
    assert_eq!((told(&anna), told(&bo)), (vec![event(4)], vec![event(4)]));
    // The next master lacks the last three, and does not show the log: its number 2 is another event.
    rig.redis.refused = vec!["comments:1"];
    fail_over(&mut rig, "f00d", 1);
    told(&anna);
    told(&bo);
    rig.publish("comments:1", false);
    assert_eq!(told(&anna), Told::new(), "it is counted from number 3 of the history before");
    assert_eq!(told(&bo), [event(2)], "who has no place there gets what comes");
    rig.redis.refused.clear();
    rig.tick();
    rig.serve();
    let told_anna = told(&anna);
    assert!(told_anna.contains(&"resync redis-changed comments:1".to_owned()), "{told_anna:?}");
    told(&bo);
    rig.publish("comments:1", false);
    assert_eq!((told(&anna), told(&bo)), (vec![event(3)], vec![event(3)]));
}

#[test]
fn a_replay_claims_no_later_proof_while_another_topic_waits() {
    let mut rig = Rig::live();
    let bob = rig.join(&["comments:1"]);
    let before = rig.switch.at();
    let resume = rig.resume(&[("comments:1", 0), ("comments", 0)], before);
    rig.pass(5_000);
    rig.prove();
    rig.publish("comments:1", false);
    assert_eq!(told(&bob), ["comments:1 1"]);
    rig.redis.refused = vec!["projects:1"];
    let anna = rig.connect(&["comments:1", "projects:1"], Some(resume), 1_000);
    rig.serve();
    (0..6).for_each(|_| rig.tick());
    rig.serve();
    let at = |item| match item {
        crate::hub::Item::Event(frame) => Some(frame.at()),
        crate::hub::Item::Message(_) => None,
    };
    let claimed: Vec<_> = anna.pull(100).into_iter().filter_map(at).collect();
    assert_eq!(claimed, [before], "projects:1 may have lost something since");
}
