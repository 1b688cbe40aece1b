//! What is said while Redis refuses something on a link that works: live events without a mark, logs that it does not give.

use super::{
    rig::{Rig, Told, told},
    *,
};
use crate::{
    hub::{Item, Outbox},
    protocol::{NodeMessage, time},
};

#[test]
fn who_follows_an_area_whose_live_events_are_withheld_is_told() {
    let mut rig = Rig::live();
    let (anna, bo) = (rig.join(&["comments:1"]), rig.join(&["projects"]));
    rig.redis.marks_refused = true;
    rig.arrive("comments:2", Content::Live(event(1)));
    rig.serve();
    assert_eq!((told(&anna), told(&bo)), (vec!["status false".to_owned()], Told::new()));
    let late = rig.connect(&["comments:*"], None, 1_000);
    rig.serve();
    assert_eq!(told(&late), ["welcome away comments=0"]);
    rig.wait(3);
    assert_eq!(told(&anna), Told::new(), "still withheld");
    rig.redis.marks_refused = false;
    rig.tick();
    rig.serve();
    rig.tick();
    assert_eq!(told(&anna), ["resync live comments:1 comments", "status true"]);
    assert_eq!(told(&late), ["resync live comments comments:*", "status true"]);
    assert_eq!(told(&bo), Told::new());
}

#[test]
fn live_events_that_a_lost_link_has_dropped_are_told_before_live_true() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1"]);
    rig.arrive("comments:1", Content::Live(event(1)));
    rig.questions.clear();
    rig.event(BusEvent::Link(LinkChange::Down { reason: "lost".into(), lineage_changed: false }));
    rig.event(BusEvent::Link(LinkChange::Up));
    rig.prove();
    rig.serve();
    assert_eq!(told(&anna), ["status false"]);
    rig.tick();
    rig.serve();
    rig.tick();
    assert_eq!(told(&anna), ["resync live comments:1 comments", "status true"]);
}

#[test]
fn who_waits_for_a_topic_is_told_since_when_and_makes_nobody_else_wait() {
    let mut rig = Rig::live();
    let (anna, bo) = (rig.join(&["comments:1"]), rig.join(&["comments:2"]));
    rig.now.wall_ms += 3_600_000;
    rig.publish("comments:1", true);
    rig.redis.refused.push("comments:1");
    rig.publish("comments:1", false);
    rig.serve();
    let Item::Message(NodeMessage::Status { live: false, since, .. }) = anna.pull(1).remove(0) else {
        panic!("anna is told that she lacks something");
    };
    assert_eq!(since, time::rfc3339(rig.now.wall_ms), "not since the link became live");
    for _ in 0..5_000 {
        rig.prove();
    }
    rig.arrive("comments:2", Content::Invalid(EntryId { epoch: rig.redis.now, seq: 1 }));
    let items = bo.pull(10);
    assert!(
        matches!(items[..], [Item::Message(NodeMessage::Resync { spread_ms: 5_000, .. })]),
        "5,000 turns in which anna waits are no refetches: {items:?}"
    );
}

#[test]
fn a_mark_that_is_not_renewed_while_the_one_before_holds_costs_nobody_a_refetch() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1"]);
    rig.arrive("comments:1", Content::Live(event(1)));
    rig.serve();
    rig.pass(1_200);
    rig.redis.marks_refused = true;
    rig.arrive("comments:1", Content::Live(event(2)));
    rig.serve();
    rig.redis.marks_refused = false;
    rig.tick();
    rig.arrive("comments:1", Content::Live(event(3)));
    rig.serve();
    rig.tick();
    assert_eq!(told(&anna), ["comments:1 0", "comments:1 0", "comments:1 0"]);
}

#[test]
fn a_mark_that_redis_refuses_is_asked_for_once_a_second_however_many_events_come() {
    let mut rig = Rig::live();
    let _anna = rig.join(&["comments:1"]);
    rig.redis.marks_refused = true;
    rig.arrive("comments:1", Content::Live(event(1)));
    rig.serve();
    for n in 0..10 {
        rig.arrive("comments:1", Content::Live(event(n)));
    }
    assert!(rig.questions.is_empty(), "{:?}", rig.questions);
    rig.tick();
    assert!(matches!(rig.questions.pop_front(), Some((_, Question::Mark { .. }))));
}

#[test]
fn live_again_is_said_with_the_time_at_which_it_became_so() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1"]);
    rig.redis.marks_refused = true;
    rig.arrive("comments:1", Content::Live(event(1)));
    rig.serve();
    rig.now.wall_ms += 3_600_000;
    rig.redis.marks_refused = false;
    rig.wait(2);
    let Some(Item::Message(NodeMessage::Status { live: true, since, .. })) = anna.pull(10).pop() else {
        panic!("anna is told that she lacks nothing");
    };
    assert_eq!(since, time::rfc3339(rig.now.wall_ms), "not since the link became live");
}

#[test]
fn proofs_go_on_for_who_leaves_the_topic_that_is_behind_and_when_it_has_caught_up() {
    let mut rig = Rig::live();
    let (anna, bo) = (rig.join(&["comments:1", "comments:2"]), rig.join(&["comments:2"]));
    let pong = |rig: &mut Rig, outbox: &Arc<Outbox>| rig.ping(outbox).pop().unwrap();
    rig.publish("comments:2", true);
    rig.redis.refused.push("comments:2");
    rig.publish("comments:2", false);
    rig.serve();
    let before = rig.switch.at();
    rig.pass(5_000);
    rig.prove();
    let (old, new) = (format!("pong {before}"), format!("pong {}", before + 5_000));
    assert_eq!((pong(&mut rig, &anna), pong(&mut rig, &bo)), (old.clone(), old.clone()));
    let subjects = vec![Subject::parse("comments:2", &rig.areas).unwrap()];
    rig.take(SwitchInput::Command(Command::Unsubscribe { outbox: Arc::clone(&anna), subjects }));
    assert_eq!((pong(&mut rig, &anna), pong(&mut rig, &bo)), (new.clone(), old));
    rig.redis.refused.clear();
    rig.wait(5);
    assert_eq!(pong(&mut rig, &bo), new);
}

#[test]
fn who_changes_nodes_while_redis_refuses_is_told_what_the_other_node_withheld() {
    let mut rig = Rig::live();
    rig.join(&["comments:1"]);
    rig.redis.marks_refused = true;
    let resume = rig.resume(&[("comments:1", 0), ("comments", 0)], rig.switch.at());
    let anna = rig.connect(&["comments:1"], Some(resume), 1_000);
    rig.serve();
    rig.tick();
    rig.redis.marks_refused = false;
    rig.tick();
    rig.serve();
    // The other node tries in the second after.
    rig.redis.marks.insert("comments".into(), rig.redis.now + 2_500);
    rig.wait(3);
    assert_eq!(told(&anna), ["welcome live", "resync live comments:1 comments"]);
}

#[test]
fn who_starts_while_redis_is_away_is_told_no_proof() {
    let mut rig = Rig::live();
    rig.event(BusEvent::Link(LinkChange::Down { reason: "lost".into(), lineage_changed: false }));
    let anna = rig.connect(&["comments:1"], None, 1_000);
    let Some(Item::Message(NodeMessage::Welcome(welcome))) = anna.pull(1).pop() else {
        panic!("anna is welcomed");
    };
    assert_eq!((welcome.live, welcome.at), (false, 0), "the next master's clock may be behind");
}

/// A session that follows a whole area and one of its topics, and leaves that topic now; what it was told by then and since.
fn leave(rig: &mut Rig, anna: &Arc<Outbox>) -> (Told, Told) {
    let before = told(anna);
    let subjects = vec![Subject::parse("comments:1", &rig.areas).unwrap()];
    rig.take(SwitchInput::Command(Command::Unsubscribe { outbox: Arc::clone(anna), subjects }));
    (before, told(anna))
}

#[test]
fn what_was_held_for_a_topic_is_told_to_who_leaves_it_and_follows_the_whole_area() {
    let gone = r#"{"type":"unsubscribed","topics":["comments:1"]}"#;
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:*", "comments:1"]);
    assert_eq!(leave(&mut rig, &anna), (Told::new(), vec![gone.to_owned()]), "it lacks nothing");
    // The topic is in doubt, and its next event is held.
    let anna = rig.join(&["comments:*", "comments:1"]);
    rig.event(BusEvent::Doubt(Some(Subject::parse("comments:1", &rig.areas).unwrap())));
    rig.publish("comments:1", false);
    let left = leave(&mut rig, &anna);
    assert_eq!(left, (Told::new(), vec![gone.to_owned(), "resync gap comments:*".to_owned()]));
    // The key hangs at a log that is not shown.
    rig.serve();
    rig.redis.refused.push("comments:1");
    let resume = rig.resume(&[("comments:1", 7)], rig.switch.at());
    let bo = rig.connect(&["comments:*", "comments:1"], Some(resume), 1_000);
    rig.wait(6);
    rig.publish("comments:1", false);
    assert_eq!(leave(&mut rig, &bo).1, [gone, "resync gap comments:*"]);
    // One that was never given by key has come by the area, until it is owed something.
    let mut rig = Rig::live();
    rig.redis.refused.push("comments:1");
    let follow = ["comments:*", "comments:1"];
    let both = [rig.connect(&follow, None, 1_000), rig.connect(&follow, None, 1_000)];
    rig.wait(6);
    rig.publish("comments:1", false);
    let [dora, emil] = both;
    assert_eq!(
        (told(&dora).pop(), leave(&mut rig, &dora).1),
        (Some("comments:1 1".into()), vec![gone.to_owned()])
    );
    (0..20).for_each(|_| rig.publish("comments:1", false));
    told(&emil);
    rig.take(SwitchInput::Command(Command::Drained(Arc::clone(&emil))));
    assert_eq!(leave(&mut rig, &emil).1, [gone, "resync gap comments:*"]);
}

#[test]
fn what_is_said_of_sources_behind_dropped_events_leaves_nobody_with_live_true() {
    let mut rig = Rig::live();
    let anna = rig.connect(&["comments:1"], None, 1_000);
    rig.serve();
    told(&anna);
    let now = rig.redis.now;
    rig.publish("comments:1", false);
    rig.redis.sources = vec![("cms", now + 60_000, now - 30_000)];
    rig.wait(5);
    (0..20).for_each(|_| rig.publish("comments:1", false));
    rig.event(BusEvent::Link(LinkChange::Down { reason: "lost".into(), lineage_changed: false }));
    let told = told(&anna);
    assert!(
        matches!(&told[..], [late] if late.starts_with("status false") && late.contains("cms")),
        "{told:?}"
    );
}

#[test]
fn who_left_while_the_marks_were_refused_holds_up_nobody_who_comes_later() {
    let mut rig = Rig::live();
    rig.join(&["comments:1"]);
    rig.redis.marks_refused = true;
    let resume = rig.resume(&[("comments:1", 0), ("comments", 0)], rig.switch.at());
    let anna = rig.connect(&["comments:1"], Some(resume.clone()), 1_000);
    rig.serve();
    rig.take(SwitchInput::Command(Command::Leave(anna)));
    rig.redis.marks_refused = false;
    rig.wait(5);
    let bo = rig.connect(&["comments:1"], Some(resume), 1_000);
    rig.serve();
    assert_eq!(told(&bo), ["welcome live comments:1=0 comments=0"], "at once");
    rig.tick();
    assert!(!rig.questions.iter().any(|(_, question)| matches!(question, Question::Marks)));
}

#[test]
fn proofs_go_on_for_who_followed_a_topic_of_an_area_that_is_gone() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1", "projects:1"]);
    rig.publish("projects:1", true);
    rig.redis.refused.push("projects:1");
    rig.publish("projects:1", false);
    rig.serve();
    rig.pass(5_000);
    rig.prove();
    let ttl = Duration::from_secs(3_600);
    rig.event(BusEvent::Adopted { areas: vec!["comments".to_owned()], log_ttl: ttl });
    assert_eq!(rig.ping(&anna).pop().unwrap(), format!("pong {}", rig.switch.at()));
}

#[test]
fn who_asks_for_more_while_a_topic_is_in_doubt_is_told_no_later_proof() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1"]);
    let before = rig.switch.at();
    rig.redis.refused.push("comments:1");
    rig.event(BusEvent::Doubt(Some(Subject::parse("comments:1", &rig.areas).unwrap())));
    rig.serve();
    for _ in 0..3 {
        rig.pass(5_000);
        rig.prove();
        rig.serve();
    }
    told(&anna);
    let request =
        Request { subjects: vec![Subject::parse("projects:1", &rig.areas).unwrap()], ..Request::default() };
    rig.take(SwitchInput::Command(Command::Subscribe { outbox: Arc::clone(&anna), request }));
    rig.serve();
    let at = |item| match item {
        Item::Message(NodeMessage::Subscribed { at, .. } | NodeMessage::Pong { at }) => Some(at),
        _ => None,
    };
    rig.take(SwitchInput::Command(Command::Ping(Arc::clone(&anna))));
    let told = anna.pull(10).into_iter().filter_map(at).collect::<Vec<_>>();
    assert_eq!(told, [before, before]);
}

#[test]
fn who_follows_a_topic_that_is_published_where_this_node_hears_nothing_is_told() {
    let mut rig = Rig::live();
    let (anna, bo) = (rig.join(&["comments:1"]), rig.join(&["projects"]));
    (rig.redis.refused, rig.redis.refusal) = (vec!["comments:1"], "ASTRAY its slot is being moved");
    rig.pass(120_000);
    rig.wait(2);
    assert_eq!((told(&anna), told(&bo)), (vec!["status false".to_owned()], Told::new()));
    rig.redis.refused.clear();
    rig.wait(5);
    assert_eq!(told(&anna), ["status true"]);
}

#[test]
fn who_pings_before_their_welcome_is_told_no_proof() {
    let mut rig = Rig::live();
    rig.join(&["comments:1"]);
    let resume = rig.resume(&[("comments:1", 0), ("comments", 0)], rig.switch.at());
    rig.redis.marks_refused = true;
    rig.pass(5_000);
    rig.prove();
    let anna = rig.connect(&["comments:1"], Some(resume), 1_000);
    rig.serve();
    assert_eq!(rig.ping(&anna), ["pong 0"], "live events may be missing");
}
