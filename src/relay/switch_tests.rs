//! The switch driven by values: what is held back, refused, lost or late, with no clock and no Redis but a table.

#[path = "switch_area_tests.rs"]
mod area;
#[path = "switch_join_tests.rs"]
mod join;
#[path = "switch_rig.rs"]
mod rig;
#[path = "switch_truth_tests.rs"]
mod truth;
#[path = "switch_withheld_tests.rs"]
mod withheld;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use self::rig::{FakeRedis, Rig, Told, event, told};
use super::*;
use crate::{
    bus::{BusEvent, Content, LinkChange},
    protocol::EntryId,
    relay::{Command, Request, question::Question},
};

const OPEN: fn(&Question) -> bool = |question| matches!(question, Question::Open(_));
const READ: fn(&Question) -> bool = |question| matches!(question, Question::Read { .. });
const LOOK: fn(&Question) -> bool = |question| matches!(question, Question::Look { .. });
const MARK: fn(&Question) -> bool = |question| matches!(question, Question::Mark { .. });

#[test]
fn a_gap_is_read_once_and_what_was_held_follows() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1"]);
    rig.publish("comments:1", false);
    rig.publish("comments:1", true);
    rig.publish("comments:1", false);
    rig.publish("comments:1", false);
    assert_eq!(told(&anna), ["comments:1 1"]);
    assert_eq!(rig.questions.len(), 1, "one read for all that is missing");
    rig.serve();
    assert_eq!(told(&anna), ["comments:1 2", "comments:1 3", "comments:1 4"]);
}

#[test]
fn what_an_overflow_dropped_is_not_claimed_by_what_stays_behind_it() {
    let mut rig = Rig::live();
    let anna = rig.connect(&["comments:1"], None, 1_000);
    rig.serve();
    assert_eq!(told(&anna), ["welcome live comments:1=0 comments=0"]);
    let before = rig.switch.at();
    rig.publish("comments", false);
    rig.pass(5_000);
    rig.prove();
    let subjects = vec![Subject::parse("comments:2", &rig.areas).unwrap()];
    let request = Request { subjects, ..Request::default() };
    rig.take(SwitchInput::Command(Command::Subscribe { outbox: Arc::clone(&anna), request }));
    rig.serve();
    rig.take(SwitchInput::Command(Command::Ping(Arc::clone(&anna))));
    for _ in 0..12 {
        rig.publish("comments:1", false);
    }
    // The position of `comments` is beyond the event of it that is gone, and so is the later proof.
    assert_eq!(told(&anna), ["subscribed comments:2=0".to_owned(), format!("pong {before}")]);
    assert_eq!(rig.ping(&anna), [format!("pong {before}")], "nor does anything else until the resync");
    rig.take(SwitchInput::Command(Command::Drained(Arc::clone(&anna))));
    assert_eq!(told(&anna), ["resync slow comments:1 comments"]);
}

#[test]
fn marks_are_read_after_the_last_topic_is_followed() {
    let mut rig = Rig::live();
    rig.redis.answer(Question::Open(vec![Subject::parse("comments:1", &rig.areas).unwrap()]));
    rig.redis.answer(Question::Open(vec![Subject::parse("comments", &rig.areas).unwrap()]));
    let resume = rig.resume(&[("comments:1", 0), ("comments", 0)], rig.switch.at());
    let anna = rig.connect(&["comments:1"], Some(resume), 1_000);
    let open = rig.keep(OPEN);
    rig.serve();
    // Before this node follows it, another one delivers a live event.
    rig.pass(1_000);
    rig.redis.marks.insert("comments".into(), rig.redis.now + 2_000);
    rig.answer(open);
    rig.serve();
    assert_eq!(told(&anna), ["welcome live", "resync live comments:1 comments"]);
}

#[test]
fn marks_that_were_refused_are_read_again() {
    let mut rig = Rig::live();
    rig.join(&["comments:1"]);
    rig.publish("comments:1", false);
    rig.redis.marks_refused = true;
    let resume = rig.resume(&[("comments:1", 0), ("comments", 0)], rig.switch.at());
    let anna = rig.connect(&["comments:1"], Some(resume), 1_000);
    rig.serve();
    assert_eq!(rig.questions.len(), 0, "not again and again");
    rig.wait(6);
    assert_eq!(told(&anna), ["welcome away"], "nobody waits for ever");
    rig.redis.marks_refused = false;
    rig.wait(3);
    assert_eq!(told(&anna), ["comments:1 1", "status true"]);
}

#[test]
fn a_mark_holds_as_long_as_redis_says_however_long_its_answer_took() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1"]);
    rig.arrive("comments:1", Content::Live(event(1)));
    let (stamp, question) = rig.keep(MARK);
    let answer = rig.redis.answer(question);
    rig.pass(2_500);
    rig.take(SwitchInput::Answer(stamp, answer));
    assert_eq!(told(&anna), Told::new(), "its mark is over");
    let (stamp, question) = rig.keep(MARK);
    assert!(matches!(&question, Question::Mark { ahead, .. } if *ahead > Duration::from_secs(5)));
    let answer = rig.redis.answer(question);
    rig.pass(2_500);
    rig.take(SwitchInput::Answer(stamp, answer));
    assert_eq!(told(&anna), ["comments:1 0"], "the next one is written further ahead");
}

#[test]
fn a_topic_that_redis_refuses_does_not_hold_up_the_others() {
    let mut rig = Rig::live();
    rig.redis.refused.push("projects");
    let anna = rig.connect(&["comments:1", "projects"], None, 10_000);
    rig.serve();
    assert_eq!(told(&anna), ["welcome away comments:1=0 comments=0"], "at once: it will not change soon");
    let bo = rig.connect(&["projects"], None, 10_000);
    rig.serve();
    assert_eq!(told(&bo), ["welcome away"], "who comes later waits for nothing either");
    rig.publish("comments:1", false);
    assert_eq!(told(&anna), ["comments:1 1"]);
    rig.event(BusEvent::Link(LinkChange::Down { reason: "cut".into(), lineage_changed: false }));
    rig.publish("comments:1", true);
    rig.event(BusEvent::Link(LinkChange::Up));
    rig.serve();
    assert!(rig.switch.is_live(), "the node is well");
    assert_eq!(told(&anna), ["comments:1 2"], "but not all that this session follows");
    rig.redis.refused.clear();
    rig.tick();
    rig.serve();
    assert_eq!(told(&anna), ["resync gap projects", "status true"]);
}

#[test]
fn many_who_wait_for_many_refused_topics_do_not_multiply() {
    let mut rig = Rig::live();
    let topics: Vec<&str> = (0..60).map(|n| &*format!("comments:{n}").leak()).collect();
    rig.redis.refused.clone_from(&topics);
    let waiting: Vec<_> = (0..20).map(|_| rig.connect(&topics, None, 100_000)).collect();
    for _ in 0..8 {
        rig.serve();
        rig.tick();
    }
    assert!(waiting.iter().all(|outbox| told(outbox) == ["welcome away comments=0"]));
}

#[test]
fn a_message_of_an_earlier_log_hides_nothing_from_who_follows_the_area() {
    let mut rig = Rig::live();
    let (_key, area) = (rig.join(&["comments:1"]), rig.join(&["comments:*"]));
    rig.publish("comments:1", false);
    assert_eq!(told(&area), ["comments:1 1"]);
    let late = EntryId { epoch: 1, seq: 50 };
    rig.arrive("comments:1", Content::Recorded(late, event(999)));
    rig.serve();
    rig.publish("comments:1", false);
    assert_eq!(told(&area), ["comments:1 2"]);
}

#[test]
fn who_follows_the_area_is_told_of_what_a_look_finds_missing() {
    let mut rig = Rig::live();
    let (key, area) = (rig.join(&["comments:1"]), rig.join(&["comments:*"]));
    rig.publish("comments:1", true);
    rig.event(BusEvent::Doubt(Some(Subject::parse("comments:1", &rig.areas).unwrap())));
    rig.serve();
    assert_eq!(told(&key), ["comments:1 1"]);
    assert_eq!(told(&area), ["resync gap comments:*"]);
}

#[test]
fn a_topic_that_is_refused_after_a_lost_link_holds_up_no_other_and_lacks_nothing_when_it_is_back() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1", "projects:1"]);
    let bo = rig.join(&["comments:2", "comments:*"]);
    rig.event(BusEvent::Link(LinkChange::Down { reason: "x".into(), lineage_changed: false }));
    for subject in ["projects:1", "comments:*"] {
        rig.event(BusEvent::Refused(Subject::parse(subject, &rig.areas).unwrap()));
    }
    rig.event(BusEvent::Link(LinkChange::Up));
    rig.redis.refused = vec!["projects:1", "comments:*"];
    rig.prove();
    rig.serve();
    assert!(rig.switch.is_live());
    rig.publish("comments:1", false);
    rig.publish("projects:1", true);
    rig.publish("comments:2", true);
    assert_eq!(told(&anna), ["status false", "comments:1 1"], "not complete, and not stopped");
    assert_eq!(told(&bo), ["status false"]);
    // The right is back.
    rig.redis.refused.clear();
    rig.tick();
    rig.serve();
    rig.prove();
    rig.tick();
    assert_eq!(told(&anna), ["projects:1 1", "status true"]);
    assert_eq!(told(&bo)[0], "resync gap comments:*");
}

#[test]
fn a_confirmation_that_was_asked_for_before_a_refusal_is_void() {
    let mut rig = Rig::live();
    let anna = rig.connect(&["comments:1"], None, 100_000);
    let open = rig.keep(|question| matches!(question, Question::Open(_)));
    rig.event(BusEvent::Refused(Subject::parse("comments:1", &rig.areas).unwrap()));
    rig.answer(open);
    rig.pass(6000);
    rig.tick();
    let again = rig.keep(|question| matches!(question, Question::Open(_)));
    rig.serve();
    assert_eq!(told(&anna), ["welcome away comments=0"]);
    rig.answer(again);
    rig.serve();
    assert_eq!(told(&anna).last().unwrap(), "status true");
}

#[test]
fn heads_are_those_of_the_topics_that_they_name() {
    let mut rig = Rig::live();
    let zed = rig.join(&["comments:a", "comments:b"]);
    let anna = rig.join(&["comments:c"]);
    for _ in 0..3 {
        rig.publish("comments:c", false);
    }
    told(&anna);
    rig.take(SwitchInput::Command(Command::Leave(zed)));
    rig.event(BusEvent::Doubt(None));
    let look = rig.keep(LOOK);
    // Meanwhile rooms close, and others take their places.
    rig.pass(31_000);
    rig.tick();
    rig.serve();
    let bo = rig.join(&["projects:1", "projects:2"]);
    rig.answer(look);
    rig.serve();
    assert_eq!((told(&anna), told(&bo)), (Told::new(), Told::new()));
    rig.publish("comments:c", false);
    assert_eq!(told(&anna), ["comments:c 4"]);
}

#[test]
fn what_could_not_be_held_is_looked_for_at_once() {
    let mut rig = Rig::live();
    let anna = rig.connect(&["comments:1"], None, 1_000_000);
    rig.serve();
    told(&anna);
    rig.publish("comments:1", true);
    rig.publish("comments:1", false);
    let (stamp, question) = rig.keep(READ);
    let answer = rig.redis.answer(question);
    for _ in 0..1_200 {
        rig.publish("comments:1", false);
    }
    rig.take(SwitchInput::Answer(stamp, answer));
    rig.serve();
    let expected: Vec<String> = (1..=1_202).map(|seq| format!("comments:1 {seq}")).collect();
    assert_eq!(told(&anna), expected);
}

#[test]
fn a_replaced_log_is_told_before_its_events_to_who_follows_the_area_as_well() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:*", "comments:1"]);
    for _ in 0..5 {
        rig.publish("comments:1", false);
    }
    told(&anna);
    rig.pass(10);
    let topic = rig.topic("comments:1");
    rig.redis.logs.remove(&topic);
    rig.publish("comments:1", false);
    assert_eq!(told(&anna), ["resync log-replaced comments:1", "resync gap comments:*"]);
    rig.publish("comments:1", false);
    assert_eq!(told(&anna), ["comments:1 2"]);
}

#[test]
fn a_doubt_costs_as_much_as_is_doubtful() {
    let mut rig = Rig::live();
    let names: Vec<String> = (0..100).map(|n| format!("comments:{n}")).collect();
    rig.join(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names[..3] {
        rig.event(BusEvent::Doubt(Some(Subject::parse(name, &rig.areas).unwrap())));
    }
    for _ in 0..5 {
        rig.tick();
    }
    let asked: Vec<usize> = rig
        .questions
        .iter()
        .filter_map(|(_, question)| match question {
            Question::Look { places, .. } => Some(places.len()),
            Question::Read { .. } => panic!("nothing is known to be missing"),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [1], "the others wait for the answer");
    rig.serve();
    assert!(rig.questions.is_empty());
}

#[test]
fn a_master_whose_clock_is_behind_costs_one_resync() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1"]);
    rig.redis.marks.insert("comments".into(), rig.redis.now + 2_000);
    rig.arrive("comments:1", Content::Live(event(1)));
    rig.serve();
    rig.event(BusEvent::Link(LinkChange::Down { reason: "failover".into(), lineage_changed: true }));
    rig.redis = FakeRedis { lineage: "beef", now: 400_000, marks: BTreeMap::new(), ..rig.redis };
    rig.redis.logs.clear();
    rig.event(BusEvent::Link(LinkChange::Up));
    rig.prove();
    rig.serve();
    assert_eq!(
        told(&anna),
        ["comments:1 0", "status false", "resync redis-changed comments:1 comments", "status true"]
    );
    rig.redis.marks.insert("comments".into(), 401_000);
    rig.pass(5_000);
    rig.prove();
    let resume = rig.resume(&[("comments:1", 0), ("comments", 0)], rig.switch.at());
    let bo = rig.connect(&["comments:1"], Some(resume), 1_000);
    rig.serve();
    assert_eq!(told(&bo), ["welcome live comments:1=0 comments=0"], "marks of before are of another clock");
}
