//! Who follows a whole area beside those who follow its topics by key: what the wire brings, and what a read of a log does.

use super::{
    rig::{Rig, Told, told},
    *,
};

#[test]
fn an_event_that_a_read_has_brought_does_not_come_again_by_the_whole_area() {
    let mut rig = Rig::live();
    let anna = rig.join(&["comments:1", "comments:*"]);
    rig.publish("comments:1", true);
    // Another node was faster: who comes from there has the log read, which brings the event to everybody.
    let resume = rig.resume(&[("comments:1", 1), ("comments", 0)], rig.switch.at());
    let bob = rig.connect(&["comments:1"], Some(resume), 1_000);
    rig.serve();
    assert_eq!(told(&bob), ["welcome live comments:1=1 comments=0"]);
    assert_eq!(told(&anna), ["comments:1 1"]);
    let subjects = vec![Subject::parse("comments:1", &rig.areas).unwrap()];
    rig.take(SwitchInput::Command(Command::Unsubscribe { outbox: Arc::clone(&anna), subjects }));
    told(&anna);
    let (epoch, seq) = rig.redis.logs[&rig.topic("comments:1")];
    rig.arrive("comments:1", Content::Recorded(EntryId { epoch, seq }, event(seq)));
    assert_eq!(told(&anna), Told::new(), "it is only late");
    rig.publish("comments:1", false);
    assert_eq!(told(&anna), ["comments:1 2"]);
}

#[test]
fn a_read_that_overtakes_the_wire_is_a_gap_for_who_follows_the_area() {
    let mut rig = Rig::live();
    let (area, topic) = (rig.join(&["comments:*"]), rig.topic("comments:1"));
    let epoch = rig.redis.now;
    rig.redis.logs.insert(topic, (epoch, 7));
    let anna = rig.join(&["comments:1"]);
    // 7 and 8 are still on their way by the wire, and a read brings 8.
    rig.publish("comments:1", true);
    let resume = rig.resume(&[("comments:1", 6), ("comments", 0)], rig.switch.at());
    let _bob = rig.connect(&["comments:1"], Some(resume), 1_000);
    rig.serve();
    assert_eq!(told(&anna), ["comments:1 8"]);
    assert_eq!(told(&area), ["resync gap comments:*"]);
    for seq in [7, 8] {
        rig.arrive("comments:1", Content::Recorded(EntryId { epoch, seq }, event(seq)));
    }
    assert_eq!(told(&area), Told::new(), "it is only late");
    rig.publish("comments:1", false);
    assert_eq!(told(&area), ["comments:1 9"]);
}

#[test]
fn what_came_while_a_topic_was_opened_does_not_come_again_by_a_read() {
    let mut rig = Rig::live();
    let (area, topic) = (rig.join(&["comments:*"]), rig.topic("comments:1"));
    let epoch = rig.redis.now;
    let _anna = rig.connect(&["comments:1"], None, 1_000);
    // Number 8 is lost, and the head was read before it.
    for seq in [9, 10] {
        rig.arrive("comments:1", Content::Recorded(EntryId { epoch, seq }, event(seq)));
    }
    rig.redis.logs.insert(topic.clone(), (epoch, 7));
    let open = rig.keep(|question| matches!(question, Question::Open(_)));
    rig.answer(open);
    rig.redis.logs.insert(topic, (epoch, 10));
    rig.serve();
    assert_eq!(told(&area), ["comments:1 9", "comments:1 10", "resync gap comments:*"]);
    rig.publish("comments:1", false);
    assert_eq!(told(&area), ["comments:1 11"]);
}

#[test]
fn what_a_read_has_brought_does_not_come_again_when_nobody_follows_the_topic_by_key_any_more() {
    for back in [false, true] {
        let mut rig = Rig::live();
        let (area, anna) = (rig.join(&["comments:*"]), rig.join(&["comments:1"]));
        rig.publish("comments:1", true);
        let resume = rig.resume(&[("comments:1", 1), ("comments", 0)], rig.switch.at());
        let bob = rig.connect(&["comments:1"], Some(resume), 1_000);
        rig.serve();
        assert_eq!(told(&area), ["comments:1 1"]);
        rig.leave([anna, bob]);
        rig.serve();
        // Somebody may come back to it before the wire has brought the event.
        let _carl = back.then(|| rig.connect(&["comments:1"], None, 1_000));
        // This probe was asked for before the event was published.
        rig.prove();
        let (epoch, seq) = rig.redis.logs[&rig.topic("comments:1")];
        rig.arrive("comments:1", Content::Recorded(EntryId { epoch, seq }, event(seq)));
        assert_eq!(told(&area), Told::new(), "it is only late");
        rig.serve();
        rig.publish("comments:1", false);
        assert_eq!(told(&area), ["comments:1 2"]);
    }
}

#[test]
fn what_was_kept_from_followers_of_an_area_is_told_when_nobody_will_look_at_the_topic_any_more() {
    // The topic is left while its head is being compared, or Redis refuses it; the new log may have a later or an earlier epoch.
    for (refused, later) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut rig = Rig::live();
        let (area, anna) = (rig.join(&["comments:*"]), rig.join(&["comments:1"]));
        let topic = rig.topic("comments:1");
        let (epoch, _) = rig.redis.logs[&topic];
        let id = EntryId { epoch: if later { epoch + 1 } else { epoch - 1 }, seq: 1 };
        if later {
            rig.event(BusEvent::Doubt(Some(Subject::Topic(topic.clone()))));
        }
        rig.arrive("comments:1", Content::Recorded(id, event(1)));
        assert_eq!(told(&area), Told::new(), "the head will show what it means");
        if refused {
            rig.event(BusEvent::Refused(Subject::Topic(topic)));
        } else {
            rig.leave([anna]);
        }
        assert_eq!(told(&area), ["resync gap comments:*"], "refused {refused}, later {later}");
    }
}

#[test]
fn what_comes_of_a_topic_that_redis_refuses_reaches_followers_of_the_whole_area() {
    let mut rig = Rig::live();
    let (area, _anna) = (rig.join(&["comments:*"]), rig.join(&["comments:1"]));
    let topic = rig.topic("comments:1");
    let (epoch, _) = rig.redis.logs[&topic];
    rig.redis.refused.push("comments:1");
    rig.event(BusEvent::Refused(Subject::Topic(topic)));
    rig.arrive("comments:1", Content::Recorded(EntryId { epoch: epoch + 1, seq: 1 }, event(1)));
    assert_eq!(told(&area), ["comments:1 1"]);
}

#[test]
fn who_follows_an_area_is_told_where_a_number_of_nobody_hides_what_comes() {
    // While a topic is opened, or after Redis has refused it, somebody publishes by hand a number that its log does not have.
    for opened in [false, true] {
        let mut rig = Rig::live();
        let area = rig.join(&["comments:*"]);
        let topic = rig.topic("comments:1");
        let epoch = rig.redis.now;
        rig.redis.logs.insert(topic.clone(), (epoch, 50));
        if !opened {
            rig.redis.refused.push("comments:1");
        }
        let anna = rig.connect(&["comments:1"], None, 1_000);
        rig.serve();
        let arrive = |rig: &mut Rig, seq| {
            rig.arrive("comments:1", Content::Recorded(EntryId { epoch, seq }, event(seq)));
        };
        arrive(&mut rig, 900);
        if opened {
            assert_eq!(told(&area), ["resync gap comments:*"]);
        } else {
            assert_eq!(told(&area), ["comments:1 900"]);
        }
        arrive(&mut rig, 51);
        if opened {
            rig.event(BusEvent::Refused(Subject::Topic(topic)));
            assert_eq!(told(&area), ["resync gap comments:*"], "51 looked like one that came already");
        } else {
            assert_eq!(told(&area), ["comments:1 51"]);
        }
        arrive(&mut rig, 52);
        assert_eq!(told(&area), ["comments:1 52"], "opened {opened}");
        rig.leave([anna]);
        assert_eq!(told(&area), Told::new(), "opened {opened}");
    }
}

#[test]
fn what_is_kept_from_followers_of_an_area_is_told_where_redis_does_not_show_the_head() {
    for marks in [false, true] {
        let mut rig = Rig::live();
        let (area, _anna) = (rig.join(&["comments:*"]), rig.join(&["comments:1"]));
        let topic = rig.topic("comments:1");
        let (epoch, _) = rig.redis.logs[&topic];
        if marks {
            rig.redis.marks_refused = true;
        } else {
            rig.redis.refused.push("comments:1");
        }
        rig.event(BusEvent::Doubt(Some(Subject::Topic(topic))));
        rig.arrive("comments:1", Content::Recorded(EntryId { epoch: epoch + 1, seq: 1 }, event(1)));
        rig.serve();
        assert_eq!(told(&area), ["resync gap comments:*"]);
        for seq in [2, 3] {
            rig.wait(10);
            rig.arrive("comments:1", Content::Recorded(EntryId { epoch: epoch + 1, seq }, event(seq)));
            assert_eq!(told(&area), [format!("comments:1 {seq}")], "they were told, and get what follows");
        }
    }
}

#[test]
fn a_late_message_of_a_log_before_costs_followers_of_an_area_nothing() {
    let mut rig = Rig::live();
    let (area, anna) = (rig.join(&["comments:*"]), rig.join(&["comments:1"]));
    let topic = rig.topic("comments:1");
    let (epoch, _) = rig.redis.logs[&topic];
    rig.arrive("comments:1", Content::Recorded(EntryId { epoch: epoch - 1, seq: 9 }, event(9)));
    rig.serve();
    rig.event(BusEvent::Doubt(Some(Subject::Topic(topic))));
    rig.leave([anna]);
    assert_eq!(told(&area), Told::new());
}

#[test]
fn who_follows_a_topic_and_its_area_gets_no_event_of_a_new_log_before_they_are_told() {
    let mut rig = Rig::live();
    let topic = rig.topic("comments:1");
    let epoch = rig.redis.now;
    rig.redis.logs.insert(topic.clone(), (epoch, 50));
    let both = rig.join(&["comments:1", "comments:*"]);
    rig.redis.refused.push("comments:1");
    rig.event(BusEvent::Doubt(Some(Subject::Topic(topic.clone()))));
    for seq in [1, 2] {
        rig.arrive("comments:1", Content::Recorded(EntryId { epoch: epoch + 1, seq }, event(seq)));
        rig.serve();
    }
    assert_eq!(told(&both), ["status false", "resync gap comments:*"], "their place is 50 of the log before");
    rig.redis.refused.clear();
    rig.redis.logs.insert(topic, (epoch + 1, 2));
    rig.wait(10);
    assert_eq!(told(&both)[0], "resync log-replaced comments:1");
}

#[test]
fn what_is_lost_while_a_log_is_read_is_told_as_well() {
    let mut rig = Rig::live();
    let (area, anna) = (rig.join(&["comments:*"]), rig.join(&["comments:1"]));
    rig.publish("comments:1", true);
    rig.publish("comments:1", false);
    assert_eq!(told(&area), ["resync gap comments:*"], "the log is being read now");
    rig.publish("comments:1", true);
    rig.publish("comments:1", false);
    assert_eq!(told(&area), ["resync gap comments:*"], "3 was published after they refetched");
    rig.publish("comments:1", false);
    assert_eq!(told(&area), ["comments:1 5"]);
    rig.serve();
    assert_eq!(told(&anna), (1..6).map(|n| format!("comments:1 {n}")).collect::<Vec<_>>());
    rig.publish("comments:1", false);
    assert_eq!(told(&area), ["comments:1 6"]);
}

#[test]
fn a_number_by_hand_for_which_there_is_no_room_hides_nothing() {
    let mut rig = Rig::live();
    let (area, topic) = (rig.join(&["comments:*"]), rig.topic("comments:1"));
    rig.redis.refused.push("comments:1");
    let _anna = rig.connect(&["comments:1"], None, 100_000);
    rig.wait(6);
    for _ in 0..512 {
        rig.publish("comments:1", false);
    }
    let (epoch, _) = rig.redis.logs[&topic];
    rig.arrive("comments:1", Content::Recorded(EntryId { epoch, seq: 9_000 }, event(9_000)));
    assert_eq!(told(&area).len(), 513);
    rig.redis.refused.clear();
    rig.tick();
    while !matches!(rig.questions.front(), Some((_, Question::Look { .. }))) {
        let asked = rig.keep(|_| true);
        rig.answer(asked);
    }
    // The log's end is read before this one is published, and shown after it has come.
    rig.publish("comments:1", false);
    rig.redis.logs.insert(topic.clone(), (epoch, 512));
    let look = rig.keep(|question| matches!(question, Question::Look { .. }));
    rig.answer(look);
    rig.redis.logs.insert(topic, (epoch, 513));
    assert_eq!(told(&area), ["resync gap comments:*"]);
    rig.publish("comments:1", false);
    assert_eq!(told(&area), ["comments:1 514"]);
}

#[test]
fn what_a_read_has_brought_does_not_come_again_because_of_a_number_by_hand() {
    let mut rig = Rig::live();
    let (area, _anna) = (rig.join(&["comments:*"]), rig.join(&["comments:1"]));
    rig.publish("comments:1", true);
    let resume = rig.resume(&[("comments:1", 1), ("comments", 0)], rig.switch.at());
    let _bob = rig.connect(&["comments:1"], Some(resume), 1_000);
    rig.serve();
    assert_eq!(told(&area), ["comments:1 1"], "its message is still on its way");
    let (epoch, seq) = rig.redis.logs[&rig.topic("comments:1")];
    rig.arrive("comments:1", Content::Recorded(EntryId { epoch, seq: 900 }, event(900)));
    rig.serve();
    told(&area);
    rig.arrive("comments:1", Content::Recorded(EntryId { epoch, seq }, event(seq)));
    assert_eq!(told(&area), Told::new());
    rig.publish("comments:1", false);
    assert_eq!(told(&area), ["comments:1 2"]);
}
