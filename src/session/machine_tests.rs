//! The machine by values: what a session says and does, without sockets and clocks.

use std::sync::Arc;

use super::*;
use crate::auth::Patterns;

const NOW: u64 = 1_763_700_000_000;

fn policy() -> Arc<SessionPolicy> {
    Arc::new(SessionPolicy {
        node: "n1".into(),
        areas: Areas::new(["comments", "projects", "notifications"], ["notifications"], []).unwrap(),
        heartbeat: 25,
        topics: 2,
        messages_per_second: 5,
        subscriptions_per_second: 100,
        sharded: false,
    })
}

fn identity(user: &str, patterns: &[&str]) -> Box<Identity> {
    let grant = Grant::new(user, patterns);
    Box::new(Identity {
        user: user.into(),
        grant,
        publish: Patterns::default(),
        expires: Some(NOW / 1000 + 600),
        proof: Arc::new(Proof::lasting(user)),
    })
}

fn say(text: &str) -> Input {
    Input::Message(ClientMessage::parse(text).unwrap())
}

/// A machine behind `connect`.
fn open(patterns: &[&str], topics: &str) -> (Machine, Vec<Output>) {
    let mut machine = Machine::new(policy(), Transport::WebSocket, Some(identity("anna", patterns)));
    let connect = format!(r#"{{"type":"connect","topics":{topics}}}"#);
    let outputs = machine.take(say(&connect), NOW);
    assert!(matches!(&outputs[..], [Output::Admit { user }] if user == "anna"), "{outputs:?}");
    let outputs = machine.take(Input::Admitted(true), NOW);
    (machine, outputs)
}

fn end(outputs: &[Output]) -> CloseCode {
    let [Output::End(closing)] = outputs else { panic!("{outputs:?}") };
    closing.code
}

fn texts(subjects: &[Subject]) -> Vec<String> {
    subjects.iter().map(ToString::to_string).collect()
}

#[test]
fn connect_leads_to_a_welcome_with_what_is_allowed() {
    let (_, outputs) =
        open(&["comments:*"], r#"["comments:1","projects","comments:*","nothing","comments:2"]"#);
    let [Output::Until(Some(until)), Output::Connect(welcome, _, request)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(*until, NOW + 600_000);
    assert_eq!((&*welcome.user, welcome.expires_in, welcome.heartbeat), ("anna", Some(600), 25));
    assert_eq!(texts(&request.subjects), ["comments:1", "comments:*"]);
    let refused: Vec<_> = request.refused.iter().map(|refused| (&*refused.topic, refused.code)).collect();
    let right = [
        ("projects", RefusedCode::Forbidden),
        ("nothing", RefusedCode::BadTopic),
        ("comments:2", RefusedCode::TooMany),
    ];
    assert_eq!(refused, right);
}

#[test]
fn whole_areas_cannot_be_followed_on_sharded_pub_sub() {
    let mut shared = SessionPolicy::clone(&policy());
    shared.sharded = true;
    let mut machine = Machine::new(Arc::new(shared), Transport::WebSocket, Some(identity("anna", &["*"])));
    machine.take(say(r#"{"type":"connect","topics":["comments:*"]}"#), NOW);
    let outputs = machine.take(Input::Admitted(true), NOW);
    let [_, Output::Connect(_, _, request)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(request.refused[0].code, RefusedCode::BadTopic);
}

#[test]
fn a_poll_follows_no_whole_areas_and_no_more_than_its_cursor_holds() {
    let mut many = SessionPolicy::clone(&policy());
    many.topics = 1000;
    let mut machine = Machine::new(Arc::new(many), Transport::Poll, Some(identity("anna", &["*"])));
    let mut topics: Vec<_> = (0..100).map(|n| format!("comments:{n:0>100}")).collect();
    topics.push("comments:*".into());
    machine.take(Input::Message(ClientMessage::Connect(Connect { topics, ..Connect::default() })), NOW);
    let outputs = machine.take(Input::Admitted(true), NOW);
    let [_, Output::Connect(_, _, request)] = &outputs[..] else { panic!("{outputs:?}") };
    assert!((20..25).contains(&request.subjects.len()), "{}", request.subjects.len());
    assert!(request.refused.iter().rev().skip(1).all(|refused| refused.code == RefusedCode::TooMany));
    assert_eq!(request.refused.last().unwrap().code, RefusedCode::BadTopic);
}

#[test]
fn the_token_in_connect_is_checked_before_anything_is_followed() {
    let mut machine = Machine::new(policy(), Transport::WebSocket, Some(identity("cookie", &["*"])));
    let outputs = machine.take(say(r#"{"type":"connect","token":"t","topics":["comments:1"]}"#), NOW);
    assert!(matches!(&outputs[..], [Output::Check(token)] if token == "t"), "{outputs:?}");
    let outputs = machine.take(Input::Checked(Ok(identity("anna", &["*"]))), NOW);
    assert!(
        matches!(&outputs[..], [Output::Admit { user }] if user == "anna"),
        "it wins over the handshake's"
    );
    assert_eq!(end(&machine.take(Input::Admitted(false), NOW)), CloseCode::TryLater);

    let mut machine = Machine::new(policy(), Transport::WebSocket, None);
    machine.take(say(r#"{"type":"connect","token":"t"}"#), NOW);
    assert_eq!(end(&machine.take(Input::Checked(Err("bad".into())), NOW)), CloseCode::Unauthenticated);
    assert!(machine.take(say(r#"{"type":"ping"}"#), NOW).is_empty(), "nothing is said after the end");

    let mut machine = Machine::new(policy(), Transport::WebSocket, None);
    assert_eq!(end(&machine.take(say(r#"{"type":"connect"}"#), NOW)), CloseCode::Unauthenticated);
}

#[test]
fn the_order_of_messages_is_kept() {
    let mut machine = Machine::new(policy(), Transport::WebSocket, None);
    assert_eq!(end(&machine.take(say(r#"{"type":"ping"}"#), NOW)), CloseCode::BadMessage);
    let (mut machine, _) = open(&["*"], "[]");
    assert_eq!(end(&machine.take(say(r#"{"type":"connect"}"#), NOW)), CloseCode::BadMessage);
    let (mut machine, _) = open(&["*"], "[]");
    assert_eq!(end(&machine.take(Input::Malformed("x".into()), NOW)), CloseCode::BadMessage);
}

#[test]
fn the_limit_counts_what_is_followed_now() {
    let (mut machine, _) = open(&["*"], r#"["comments:1","comments:2"]"#);
    let subscribe = |machine: &mut Machine, topics: &str| {
        let outputs = machine.take(say(&format!(r#"{{"type":"subscribe","topics":{topics}}}"#)), NOW);
        let [Output::Subscribe(request)] = &outputs[..] else { panic!("{outputs:?}") };
        (texts(&request.subjects), request.refused.len())
    };
    assert_eq!(subscribe(&mut machine, r#"["comments:3"]"#), (vec![], 1));
    assert_eq!(
        subscribe(&mut machine, r#"["comments:1"]"#),
        (vec!["comments:1".into()], 0),
        "again is not more"
    );
    let outputs = machine.take(say(r#"{"type":"unsubscribe","topics":["comments:1","nothing"]}"#), NOW);
    assert!(matches!(&outputs[..], [Output::Unsubscribe(subjects)] if texts(subjects) == ["comments:1"]));
    assert_eq!(subscribe(&mut machine, r#"["comments:3"]"#), (vec!["comments:3".into()], 0));
}

#[test]
fn a_new_token_that_allows_less_takes_topics_back() {
    let (mut machine, _) = open(&["*"], r#"["comments:1","projects"]"#);
    let outputs = machine.take(say(r#"{"type":"token","token":"t2"}"#), NOW);
    assert!(matches!(&outputs[..], [Output::Check(_)]));
    let outputs = machine.take(Input::Checked(Ok(identity("anna", &["comments:1"]))), NOW);
    let [
        Output::Until(_),
        Output::Renew(_),
        Output::Say(NodeMessage::TokenAccepted { expires_in: 600 }),
        Output::Unsubscribe(lost),
    ] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(texts(lost), ["projects"]);
    let outputs = machine.take(say(r#"{"type":"subscribe","topics":["projects"]}"#), NOW);
    assert!(
        matches!(&outputs[..], [Output::Subscribe(request)] if request.refused[0].code == RefusedCode::Forbidden)
    );
}

#[test]
fn a_bad_new_token_changes_nothing() {
    for verdict in [Err("expired".into()), Ok(identity("bo", &["*"]))] {
        let (mut machine, _) = open(&["comments:*"], r#"["comments:1"]"#);
        machine.take(say(r#"{"type":"token","token":"t2"}"#), NOW);
        let outputs = machine.take(Input::Checked(verdict), NOW);
        assert!(
            matches!(&outputs[..], [Output::Say(NodeMessage::Error { code: ErrorCode::BadToken, .. })]),
            "{outputs:?}"
        );
        let outputs = machine.take(say(r#"{"type":"subscribe","topics":["comments:2"]}"#), NOW);
        assert!(matches!(&outputs[..], [Output::Subscribe(request)] if request.refused.is_empty()));
    }
}

#[test]
fn the_cms_may_take_back_what_it_vouched_for() {
    let (mut machine, _) = open(&["*"], r#"["projects"]"#);
    let outputs = machine.take(Input::Renewed(Ok(identity("anna", &[]))), NOW);
    assert!(
        matches!(&outputs[..], [Output::Until(_), Output::Renew(_), Output::Unsubscribe(_)]),
        "nobody asked for token-accepted"
    );
    assert_eq!(end(&machine.take(Input::Renewed(Err("signed out".into())), NOW)), CloseCode::Unauthenticated);
    let (mut machine, _) = open(&["*"], "[]");
    let outputs = machine.take(Input::Renewed(Ok(identity("bo", &["*"]))), NOW);
    assert_eq!(end(&outputs), CloseCode::Unauthenticated, "a session never changes hands");
}

#[test]
fn floods_are_cut_off() {
    let (mut machine, _) = open(&["*"], "[]");
    for _ in 0..9 {
        assert!(matches!(machine.take(say(r#"{"type":"ping"}"#), NOW)[..], [Output::Ping]));
    }
    assert_eq!(end(&machine.take(say(r#"{"type":"ping"}"#), NOW)), CloseCode::TryLater);
    let (mut machine, _) = open(&["*"], "[]");
    let topics: Vec<_> = (0..201).map(|n| format!("comments:{n}")).collect();
    let subscribe = Input::Message(ClientMessage::Unsubscribe { topics });
    assert_eq!(end(&machine.take(subscribe, NOW)), CloseCode::TryLater);
}

#[test]
fn a_token_that_has_just_ended_lasts_as_long_as_clocks_may_differ() {
    let mut late = identity("anna", &["*"]);
    late.expires = Some(NOW / 1000 - 5);
    let mut machine = Machine::new(policy(), Transport::WebSocket, Some(late));
    machine.take(say(r#"{"type":"connect"}"#), NOW);
    let outputs = machine.take(Input::Admitted(true), NOW);
    assert!(matches!(outputs[0], Output::Until(Some(until)) if until == NOW + 25_000), "{outputs:?}");
}
