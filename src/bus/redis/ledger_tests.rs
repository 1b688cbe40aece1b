//! The books of subscriptions, tried with values.

use super::*;
use crate::protocol::Areas;

fn subject(text: &str) -> Subject {
    let areas = Areas::new(["comments", "projects"], [], []).unwrap();
    Subject::parse(text, &areas).unwrap()
}

fn channel(text: &str) -> Channel {
    Channel::Subject(subject(text))
}

fn server(port: u16) -> Server {
    Server::new("h", port)
}

fn place(port: u16) -> SubscriptionServer {
    SubscriptionServer { server: server(port), asking: false }
}

/// Everything lies at one server.
fn at_one(_: &Channel) -> Vec<SubscriptionServer> {
    vec![place(1)]
}

/// Does all the work there is, as Redis would; what was done.
fn settle(ledger: &mut Ledger, places: impl Fn(&Channel) -> Vec<SubscriptionServer> + Copy) -> Vec<Work> {
    let mut all = Vec::new();
    while let Some(work) = ledger.work(places, 100) {
        for channel in &work.channels {
            ledger.done(channel, &work.place.server, work.subscribe);
        }
        all.push(work);
        assert!(all.len() < 100, "the work does not end: {all:?}");
    }
    all
}

#[test]
fn channels_and_patterns_go_in_batches_of_one_kind() {
    let mut ledger = Ledger::default();
    for n in 0..7 {
        ledger.want(channel(&format!("comments:{n}")));
    }
    ledger.want(channel("projects:*"));
    let mut sizes = Vec::new();
    while let Some(work) = ledger.work(at_one, 3) {
        assert!(work.subscribe && work.place == place(1));
        assert!(work.channels.iter().all(|c| c.is_pattern() == work.channels[0].is_pattern()));
        for channel in &work.channels {
            ledger.done(channel, &server(1), true);
        }
        sizes.push(work.channels.len());
    }
    assert_eq!((sizes.iter().sum::<usize>(), sizes.iter().max()), (8, Some(&3)));
    assert_eq!(ledger.count(&server(1)), (7, 1));
    assert_eq!(ledger.count(&server(2)), (0, 0));
}

/// Between the wish and the wire Redis still has it, and a comparison of numbers must say so.
#[test]
fn what_is_given_up_counts_until_its_end_is_confirmed() {
    let mut ledger = Ledger::default();
    ledger.want(channel("comments:1"));
    settle(&mut ledger, at_one);
    ledger.release(&channel("comments:1"));
    assert_eq!(ledger.count(&server(1)), (1, 0));
    let work = ledger.work(at_one, 9).unwrap();
    assert!(!work.subscribe);
    assert_eq!(ledger.count(&server(1)), (1, 0), "said, but not confirmed");
    ledger.done(&channel("comments:1"), &server(1), false);
    assert_eq!(ledger.count(&server(1)), (0, 0));
    assert_eq!(ledger.work(at_one, 9), None);
    assert_eq!(ledger.outcome(&channel("comments:1")), None);
}

#[test]
fn wishes_that_change_while_the_wire_is_busy_end_as_the_last_one() {
    let mut ledger = Ledger::default();
    let one = channel("comments:1");
    ledger.want(one.clone());
    let work = ledger.work(at_one, 9).unwrap();
    assert!(work.subscribe);
    ledger.release(&one);
    ledger.done(&one, &server(1), true);
    assert_eq!(ledger.count(&server(1)), (1, 0));
    assert!(!ledger.work(at_one, 9).unwrap().subscribe);
    ledger.want(one.clone());
    assert_eq!(ledger.work(at_one, 9), None, "it is there still");
    ledger.release(&one);
    ledger.want(one.clone());
    ledger.release(&one);
    assert_eq!(settle(&mut ledger, at_one).len(), 1);
    assert_eq!(ledger.count(&server(1)), (0, 0));
}

#[test]
fn a_refusal_is_told_once_and_can_be_tried_again() {
    let mut ledger = Ledger::default();
    let one = channel("comments:1");
    ledger.want(one.clone());
    assert!(ledger.work(at_one, 9).is_some());
    ledger.refuse(&one, "NOPERM".into());
    assert_eq!(ledger.work(at_one, 9), None, "no second try of its own");
    assert_eq!(ledger.outcome(&one), Some(Err("NOPERM".into())));
    assert_eq!(ledger.outcome(&one), None);
    ledger.want(one.clone());
    assert_eq!(settle(&mut ledger, at_one).len(), 1);
    assert_eq!(ledger.outcome(&one), Some(Ok(())));
}

#[test]
fn what_a_new_connection_is_refused_is_wanted_no_longer() {
    let mut ledger = Ledger::default();
    let (one, two) = (channel("comments:1"), channel("comments:2"));
    ledger.want(one.clone());
    ledger.want(two.clone());
    settle(&mut ledger, at_one);
    ledger.begin();
    ledger.refuse(&one, "NOPERM".into());
    assert_eq!(settle(&mut ledger, at_one).len(), 1);
    assert_eq!(ledger.take_refused(), Ok(vec![(subject("comments:1"), "NOPERM".to_owned())]));
    assert_eq!(ledger.take_refused(), Ok(Vec::new()));
    ledger.begin();
    assert_eq!(settle(&mut ledger, at_one).len(), 1, "the other one");
    assert_eq!((ledger.outcome(&one), ledger.outcome(&two)), (None, Some(Ok(()))));
}

#[test]
fn what_is_refused_together_with_the_link_stays_wanted_for_the_next_link() {
    let mut ledger = Ledger::default();
    let (one, two, probe) = (channel("comments:1"), channel("comments:2"), Channel::Fixed("probe".into()));
    for channel in [&one, &two, &probe] {
        ledger.want(channel.clone());
    }
    ledger.refuse(&one, "NOPERM one".into());
    ledger.refuse(&probe, "NOPERM probe".into());
    assert_eq!(ledger.take_refused(), Err("NOPERM probe".into()));
    assert_eq!(ledger.take_refused(), Err("NOPERM probe".into()), "nothing was taken");
    ledger.begin();
    let subscribed: usize = settle(&mut ledger, at_one).iter().map(|work| work.channels.len()).sum();
    assert_eq!(subscribed, 3, "all of them");
    assert_eq!(ledger.take_refused(), Ok(Vec::new()));
}

#[test]
fn a_new_connection_has_nothing() {
    let mut ledger = Ledger::default();
    for text in ["comments:1", "comments:2", "projects:*"] {
        ledger.want(channel(text));
    }
    settle(&mut ledger, at_one);
    ledger.release(&channel("comments:2"));
    ledger.begin();
    assert_eq!(ledger.count(&server(1)), (0, 0));
    assert!(settle(&mut ledger, at_one).iter().all(|work| work.subscribe));
    assert_eq!(ledger.count(&server(1)), (1, 1));
}

#[test]
fn what_moves_is_subscribed_to_at_its_new_place_and_named() {
    let mut ledger = Ledger::default();
    let (one, two) = (channel("comments:1"), channel("comments:2"));
    for c in [&one, &two] {
        ledger.want(c.clone());
    }
    settle(&mut ledger, at_one);
    let moved = |c: &Channel| if *c == channel("comments:1") { vec![place(2)] } else { vec![place(1)] };
    assert_eq!(ledger.moved(moved), std::slice::from_ref(&one));
    assert_eq!(ledger.count(&server(1)), (1, 0), "the old master has ended it by itself");
    let work = settle(&mut ledger, moved);
    assert_eq!(work, [Work { place: place(2), subscribe: true, channels: vec![one] }]);
    assert_eq!((ledger.count(&server(1)), ledger.count(&server(2))), ((1, 0), (1, 0)));
    assert!(ledger.moved(moved).is_empty());
}

#[test]
fn what_is_on_its_way_is_heard_at_both_ends() {
    let mut ledger = Ledger::default();
    let one = channel("comments:1");
    ledger.want(one.clone());
    settle(&mut ledger, at_one);
    let heir = SubscriptionServer { server: server(2), asking: true };
    let both = || vec![place(1), SubscriptionServer { server: server(2), asking: true }];
    assert_eq!(ledger.moved(|_| both()), std::slice::from_ref(&one));
    let work = ledger.work(|_| both(), 9).unwrap();
    assert_eq!(work, Work { place: heir, subscribe: true, channels: vec![one.clone()] });
    ledger.done(&one, &server(2), true);
    assert_eq!((ledger.count(&server(1)), ledger.count(&server(2))), ((1, 0), (1, 0)));
    assert!(ledger.moved(|_| vec![place(2)]).is_empty(), "arrived, and subscribed to already");
    assert_eq!(ledger.count(&server(1)), (0, 0));
}

#[test]
fn what_has_no_place_waits() {
    let mut ledger = Ledger::default();
    ledger.want(channel("comments:1"));
    assert_eq!(ledger.work(|_| Vec::new(), 9), None);
    assert_eq!(ledger.moved(at_one).len(), 1);
    assert_eq!(settle(&mut ledger, at_one).len(), 1);
}
