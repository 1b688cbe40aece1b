//! How sessions get in step that come back or ask for more: what their logs say, and how often they are read for it.

use super::{
    rig::{Rig, told},
    *,
};

#[test]
fn a_log_that_rolls_over_faster_than_it_is_read_is_trimmed_and_no_gap() {
    let mut rig = Rig::live_keeping(4);
    rig.join(&["comments:1"]);
    let publish = |rig: &mut Rig| (0..8).for_each(|_| rig.publish("comments:1", false));
    publish(&mut rig);
    rig.pass(120_000);
    rig.tick();
    let resume = rig.resume(&[("comments:1", 7), ("comments", 0)], rig.switch.at());
    let anna = rig.connect(&["comments:1"], Some(resume), 10_000);
    while let Some((stamp, question)) = rig.questions.pop_front() {
        let reads = READ(&question);
        let answer = rig.redis.answer(question);
        if reads {
            publish(&mut rig);
        }
        rig.take(SwitchInput::Answer(stamp, answer));
    }
    assert_eq!(told(&anna), ["welcome live comments=0", "resync trimmed comments:1"]);
}

#[test]
fn a_position_of_another_epoch_has_the_log_looked_at() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1"]);
    // Deleted, and opened anew by a master whose clock is behind. Another node has seen it, this one has not.
    let topic = rig.topic("comments:1");
    let epoch = rig.redis.logs[&topic].0;
    rig.redis.logs.insert(topic.clone(), (epoch - 100, 3));
    let resume = rig.resume(&[("comments:1", 3), ("comments", 0)], rig.switch.at());
    let bob = rig.connect(&["comments:1"], Some(resume), 1_000);
    rig.serve();
    assert_eq!(told(&bob), ["welcome live comments:1=3 comments=0"]);
    assert_eq!(told(&anna), ["resync log-replaced comments:1"]);
    // Of a log that is gone.
    rig.redis.logs.insert(topic.clone(), (epoch - 200, 3));
    let resume = rig.resume(&[("comments:1", 3), ("comments", 0)], rig.switch.at());
    rig.redis.logs.insert(topic, (epoch - 100, 3));
    let carl = rig.connect(&["comments:1"], Some(resume), 1_000);
    rig.serve();
    assert_eq!(told(&carl), ["welcome live comments=0", "resync log-replaced comments:1"]);
}

#[test]
fn a_log_that_cannot_be_read_is_read_again_and_is_no_gap() {
    let mut rig = Rig::live();
    rig.join(&["comments:1"]);
    for _ in 0..40 {
        rig.publish("comments:1", false);
    }
    rig.pass(120_000);
    rig.tick();
    let resume = rig.resume(&[("comments:1", 38), ("comments", 0)], rig.switch.at());
    rig.redis.refused.push("comments:1");
    let anna = rig.connect(&["comments:1"], Some(resume), 10_000);
    for _ in 0..3 {
        rig.serve();
        rig.tick();
    }
    rig.redis.refused.clear();
    rig.tick();
    rig.serve();
    assert_eq!(told(&anna), ["welcome live comments:1=38 comments=0", "comments:1 39", "comments:1 40"]);
}

#[test]
fn a_second_join_of_a_topic_is_not_finished_by_the_first() {
    let mut rig = Rig::live();
    rig.join(&["comments:1"]);
    rig.publish("comments:1", false);
    rig.redis.refused.push("projects");
    let anna = rig.connect(&["projects"], None, 10_000);
    for _ in 0..6 {
        rig.serve();
        rig.tick();
    }
    told(&anna);
    let projects = Subject::parse("projects", &rig.areas).unwrap();
    let unsubscribe = Command::Unsubscribe { outbox: Arc::clone(&anna), subjects: vec![projects.clone()] };
    rig.take(SwitchInput::Command(unsubscribe));
    rig.redis.refused.clear();
    let topic = rig.topic("projects");
    rig.redis.logs.insert(topic, (7, 3));
    let resume = Some(rig.resume(&[("projects", 1)], rig.switch.at()));
    let request = Request { subjects: vec![projects], refused: Vec::new(), resume };
    rig.take(SwitchInput::Command(Command::Subscribe { outbox: Arc::clone(&anna), request }));
    rig.tick();
    rig.serve();
    let after = told(&anna);
    assert_eq!(after[1..], ["subscribed projects=1", "projects 2", "projects 3", "status true"]);
}

#[test]
fn five_thousand_topics_join_in_one_go() {
    let mut rig = Rig::live();
    let names: Vec<String> = (0..5_000).map(|n| format!("comments:{n}")).collect();
    let anna = rig.connect(&names.iter().map(String::as_str).collect::<Vec<_>>(), None, 10_000);
    assert_eq!(rig.questions.len(), 1);
    rig.serve();
    let welcome = told(&anna);
    assert_eq!(welcome.len(), 1);
    assert_eq!(welcome[0].split(' ').count(), 2 + 5_001);
}

#[test]
fn who_lacks_an_event_whose_log_redis_does_not_give_is_not_live() {
    let mut rig = Rig::live();
    let (anna, bo) = (rig.join(&["comments:1"]), rig.join(&["comments:2"]));
    rig.publish("comments:1", true);
    rig.redis.refused.push("comments:1");
    rig.publish("comments:1", false);
    rig.serve();
    assert_eq!(told(&anna), ["status false"], "the second shows that the first is missing");
    rig.redis.refused.clear();
    rig.wait(3);
    assert_eq!(told(&anna), ["comments:1 1", "comments:1 2", "status true"]);
    assert_eq!(told(&bo), Told::new());
}

#[test]
fn who_waited_for_a_topic_that_is_left_goes_on_with_the_others() {
    for closes in [false, true] {
        let mut rig = Rig::live();
        let other = rig.join(&["comments:2"]);
        // Redis shows no marks, so the second topic stays in doubt; and refuses the first at first.
        rig.redis.marks_refused = true;
        rig.event(BusEvent::Doubt(Some(Subject::parse("comments:2", &rig.areas).unwrap())));
        rig.redis.refused.push("projects:1");
        let anna = rig.connect(&["projects:1", "comments:2"], None, 1_000);
        rig.wait(6);
        rig.redis.refused.clear();
        rig.wait(6);
        told(&anna);
        rig.take(SwitchInput::Command(Command::Leave(other)));
        let subjects = vec![Subject::parse("comments:2", &rig.areas).unwrap()];
        rig.take(SwitchInput::Command(Command::Unsubscribe { outbox: Arc::clone(&anna), subjects }));
        if closes {
            rig.wait(40);
        }
        rig.redis.marks_refused = false;
        rig.serve();
        rig.publish("projects:1", false);
        assert!(told(&anna).contains(&"projects:1 1".to_owned()), "closes {closes}");
    }
}

#[test]
fn who_leaves_all_that_they_waited_for_is_answered() {
    let mut rig = Rig::live();
    let anna = rig.connect(&["comments:1"], None, 1_000);
    let subjects = vec![Subject::parse("comments:1", &rig.areas).unwrap()];
    rig.take(SwitchInput::Command(Command::Unsubscribe { outbox: Arc::clone(&anna), subjects }));
    let heard = told(&anna);
    assert!(heard.iter().any(|message| message.starts_with("welcome")), "{heard:?}");
}

#[test]
fn a_join_of_several_topics_begins_behind_what_was_held_of_each() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:*"]);
    let subjects =
        ["comments:1", "comments:2"].map(|name| Subject::parse(name, &rig.areas).unwrap()).to_vec();
    let request = Request { subjects, refused: Vec::new(), resume: None };
    rig.take(SwitchInput::Command(Command::Subscribe { outbox: Arc::clone(&anna), request }));
    // The logs' ends are read before this is published, and shown after it has come.
    rig.publish("comments:2", false);
    assert_eq!(told(&anna), ["comments:2 1"]);
    let topic = rig.topic("comments:2");
    let (epoch, _) = rig.redis.logs[&topic];
    rig.redis.logs.insert(topic.clone(), (epoch, 0));
    let open = rig.keep(|question| matches!(question, Question::Open(_)));
    rig.answer(open);
    rig.redis.logs.insert(topic, (epoch, 1));
    rig.serve();
    assert_eq!(told(&anna), ["subscribed comments:1=0 comments:2=1 comments=0"]);
}
