//! Private keys: every name in docs/private-keys.json has one key, the same at every door and in the function, and no
//! spelling of it opens somebody else's topic.

use std::collections::HashSet;

use crate::support::{
    bus::{TestBus, areas, settings},
    node::{Node, SECRET, Ws, publish_token, request, token, until},
    redis::RedisServer,
    ways::{ALL, COOKIE, Way},
};
use carillon::{
    bus::redis,
    protocol::{Naming, Topic},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// The file of vectors.
struct Vectors(Value);

/// An editor, and their key by one way of naming.
struct Editor<'a> {
    name: &'a str,
    /// As everybody writes it who knows nothing of case.
    written: &'a str,
    key: &'a str,
}

impl Vectors {
    fn read() -> Self {
        Self(serde_json::from_str(include_str!("../../docs/private-keys.json")).unwrap())
    }

    fn editors(&self, naming: Naming) -> Vec<Editor<'_>> {
        let key = if naming == Naming::Exact { "key" } else { "folded" };
        self.each("editors", |e| Editor { name: text(e, "name"), written: text(e, "key"), key: text(e, key) })
    }

    fn each<'a, T>(&'a self, list: &str, read: impl FnMut(&'a Value) -> T) -> Vec<T> {
        let items = self.0[list].as_array().unwrap();
        assert!(items.len() >= 5, "{list}");
        items.iter().map(read).collect()
    }
}

fn text<'a>(item: &'a Value, name: &str) -> &'a str {
    item[name].as_str().unwrap()
}

fn own(key: &str) -> String {
    format!("notifications:{key}")
}

const BOTH: [Naming; 2] = [Naming::Exact, Naming::Folded];

async fn node(naming: Naming, more: &[(&str, &str)]) -> Node {
    let fold = if naming == Naming::Folded { "true" } else { "false" };
    let usual =
        [("auth.fold_subject", fold), ("auth.cookie", COOKIE), ("limits.editor_topics_per_second", "1000")];
    Node::start(&[&usual, more].concat()).await
}

/// How the right topic is quoted.
fn right_in(naming: Naming, right: &str) -> String {
    let right =
        if naming == Naming::Exact { right.to_owned() } else { carillon::protocol::naming::folded(right) };
    // Escapes keep their capital letters.
    format!("{:?}", own(&right.replace("%2a", "%2A")))
}

#[test]
fn one_function_makes_the_key_of_every_name() {
    let vectors = Vectors::read();
    for naming in BOTH {
        for editor in vectors.editors(naming) {
            assert_eq!(naming.key(editor.name).as_deref(), Ok(editor.key), "{:?}", editor.name);
            let areas = areas().with_naming(naming);
            let topic = Topic::parse_named(&own(editor.written), &areas).unwrap();
            assert_eq!(topic.as_str(), own(editor.key));
        }
        for name in vectors.each("nobody", |nobody| text(nobody, "name")) {
            assert!(naming.key(name).is_err(), "{name:?}");
        }
    }
}

#[tokio::test]
async fn every_editor_gets_their_own_notifications_and_nobody_elses() {
    let vectors = Vectors::read();
    for naming in BOTH {
        let node = node(naming, &[]).await;
        let editors = vectors.editors(naming);
        let all: Vec<_> = editors.iter().map(|editor| own(editor.key)).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        for (number, editor) in editors.iter().enumerate() {
            let mine = own(editor.key);
            let (mut ws, welcome) = node.session(editor.name, &all).await;
            assert_eq!(welcome["user"], editor.name);
            let refused = welcome["refused"].as_array().unwrap();
            let named: HashSet<_> = refused.iter().map(|refused| text(refused, "topic")).collect();
            assert_eq!(named, all.iter().copied().filter(|topic| *topic != mine).collect());
            assert!(refused.iter().all(|refused| refused["code"] == "forbidden"));
            node.publish(&own(editor.written), &json!({"type": "a.b", "data": number})).await;
            let event = ws.message_of("event").await;
            assert_eq!((&event["topic"], &event["event"]["data"]), (&json!(mine), &json!(number)));
            let asked = utf8_percent_encode(&own(editor.written), NON_ALPHANUMERIC).to_string();
            let bearer = [("Authorization", "Bearer the publish token of the tests")];
            let positions =
                request(node.internal, "GET", &format!("/positions?topics={asked}"), &bearer, b"").await;
            assert_eq!(positions.json()["positions"][&mine], event["position"], "{positions:?}");
        }
    }
}

#[tokio::test]
async fn other_spellings_are_refused_at_every_door_and_told_the_right_one() {
    let vectors = Vectors::read();
    for naming in BOTH {
        let node = node(naming, &[]).await;
        let misspelt =
            vectors.each("misspelt", |item| (text(item, "key"), right_in(naming, text(item, "right"))));
        let nobodys =
            vectors.each("nobodys_keys", |item| (text(item, "key"), "no editor is called so".to_owned()));
        for (key, why) in misspelt.iter().chain(&nobodys) {
            let event = json!({"topic": own(key), "event": {"type": "a.b"}}).to_string();
            for path in ["/publish", "/publish?live=1"] {
                let answer = node.post(path, event.as_bytes()).await;
                assert_eq!(answer.problem(), (400, "bad-topic".into()));
                assert!(
                    answer.json()["detail"].as_str().unwrap().contains(why),
                    "{}, not {why}",
                    answer.text()
                );
            }
            let asked = utf8_percent_encode(&own(key), NON_ALPHANUMERIC).to_string();
            let answer = request(
                node.internal,
                "GET",
                &format!("/positions?topics={asked}"),
                &[("Authorization", "Bearer the publish token of the tests")],
                b"",
            )
            .await;
            assert_eq!(answer.problem(), (400, "bad-topic".into()));
            assert!(answer.json()["detail"].as_str().unwrap().contains(why), "{}", answer.text());
        }
        let topics: Vec<_> = misspelt.iter().chain(&nobodys).map(|(key, _)| own(key)).collect();
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        for way in ALL {
            let welcome = way.enter(&node, &token("Anna", &["*"]), &topics, &[]).await.unwrap();
            let refused = welcome["refused"].as_array().unwrap();
            assert_eq!(refused.len(), topics.len(), "{way:?} {welcome}");
            assert!(refused.iter().all(|refused| refused["code"] == "bad-topic"), "{welcome}");
        }
    }
}

#[tokio::test]
async fn nobody_can_be_called_by_a_name_with_control_characters_or_too_long_a_one() {
    let vectors = Vectors::read();
    for naming in BOTH {
        let node = node(naming, &[]).await;
        for name in vectors.each("nobody", |nobody| text(nobody, "name")) {
            let token = token(name, &["*"]);
            for way in ALL {
                let expected = if way == Way::Connect { 4401 } else { 401 };
                assert_eq!(way.enter(&node, &token, &[], &[]).await, Err(expected), "{name:?} {way:?}");
            }
            for door in ["/disconnect", "/refresh"] {
                let answer = node.post(door, json!({ "user": name }).to_string().as_bytes()).await;
                assert_eq!(answer.problem(), (400, "bad-request".into()), "{name:?}");
            }
        }
        let (poll, header) =
            ("/realtime/poll?topics=projects", format!("Bearer {}", token("anna\n", &["*"])));
        let answer = node.public_get(poll, &[("Authorization", &header)]).await;
        assert!(answer.text().contains("control character"), "{}", answer.text());
    }
}

#[tokio::test]
async fn the_function_takes_the_key_that_nodes_make_and_names_it_otherwise() {
    let vectors = Vectors::read();
    for naming in BOTH {
        let server = RedisServer::start();
        let mut site = settings(Some(&server.url()));
        site.areas = areas().with_naming(naming);
        let bus = TestBus::start(site.clone()).await;
        assert!(redis::library(&site).contains(&format!("FOLD_SUBJECT = {}", naming == Naming::Folded)));
        let publish = |key: &str| {
            let channel = format!("carillon:notifications:{key}");
            server.command(&["FCALL", "carillon_publish", "1", &channel, r#"{"type":"a.b"}"#])
        };
        for editor in vectors.editors(naming) {
            assert!(!publish(editor.key).contains("TOPIC"), "{:?}", editor.name);
            // Capital letters outside ASCII are beyond the function: nodes fold them.
            let capitals = editor.name.bytes().any(|byte| byte.is_ascii_uppercase());
            if naming == Naming::Folded && capitals {
                let answer = publish(editor.written);
                assert!(answer.contains("TOPIC") && answer.contains("in lower case"), "{answer}");
            }
        }
        for (key, right) in vectors.each("misspelt", |item| (text(item, "key"), text(item, "right"))) {
            let answer = publish(key);
            assert!(answer.contains("one spelling"), "{key}: {answer}");
            if naming == Naming::Exact && right.is_ascii() && !right.contains('\\') {
                assert!(answer.contains(&own(right)), "{key}: {answer}");
            }
        }
        for key in vectors.each("nobodys_keys", |item| text(item, "key")) {
            assert!(publish(key).contains("no editor is called so"), "{key}");
        }
        bus.end().await;
    }
}

/// Opens a session for each name, none of which is closed.
async fn sessions<const N: usize>(node: &Node, names: [&str; N]) -> [Ws<TcpStream>; N] {
    let mut sessions = Vec::new();
    for name in names {
        sessions.push(node.session(name, &[]).await.0);
    }
    sessions.try_into().map_err(|_| ()).unwrap()
}

#[tokio::test]
async fn siblings_are_disconnected_and_refreshed_apart_where_case_counts_and_together_where_not() {
    for naming in BOTH {
        let node = node(naming, &[]).await;
        let together = naming == Naming::Folded;
        let [mut kelvin, mut large, mut small, mut other] =
            sessions(&node, ["\u{212A}ai", "Kai", "kai", "kai%20"]).await;
        let order = json!({"user": "Kai"}).to_string();
        assert_eq!(node.post("/refresh", order.as_bytes()).await.status, 200);
        assert_eq!(large.message_of("token-expiring").await["expires_in"], 0);
        for sibling in [&mut kelvin, &mut small] {
            sibling.send(&json!({"type": "ping"})).await;
            let expected = if together { "token-expiring" } else { "pong" };
            assert_eq!(sibling.message().await["type"], expected);
        }
        assert_eq!(node.post("/disconnect", order.as_bytes()).await.status, 200);
        assert_eq!(large.closed().await.0, 4403);
        for sibling in [&mut kelvin, &mut small] {
            if together {
                assert_eq!(sibling.closed().await.0, 4403);
            } else {
                sibling.send(&json!({"type": "ping"})).await;
                assert_eq!(sibling.message().await["type"], "pong");
            }
        }
        other.send(&json!({"type": "ping"})).await;
        assert_eq!(other.message().await["type"], "pong", "another name altogether");
        for (name, shut) in [("Kai", true), ("kai", together), ("\u{212A}AI", together), ("kaj", false)] {
            until("the doors to agree", || async {
                Way::Connect.enter(&node, &token(name, &[]), &[], &[]).await.is_err() == shut
            })
            .await;
        }
    }
}

#[tokio::test]
async fn siblings_renew_and_count_apart_where_case_counts_and_together_where_not() {
    for naming in BOTH {
        let together = naming == Naming::Folded;
        let node = node(naming, &[("limits.sessions_per_editor", "2")]).await;
        let (mut ws, _) = node.session("Anna", &[]).await;
        for (name, accepted) in [("Anna", true), ("ANNA", together), ("anna", together), ("bo", false)] {
            ws.send(&json!({"type": "token", "token": token(name, &["*"])})).await;
            let answer = ws.message().await;
            assert_eq!(answer["type"], if accepted { "token-accepted" } else { "error" }, "{name}: {answer}");
        }
        let (_second, _) = node.session("ANNA", &[]).await;
        let third = Way::Connect.enter(&node, &token("anna", &[]), &[], &[]).await;
        assert_eq!(third.is_err(), together, "{third:?}");
    }
}

#[tokio::test]
async fn a_publish_claim_names_editors_as_tokens_do() {
    for naming in BOTH {
        let together = naming == Naming::Folded;
        let node = node(naming, &[]).await;
        let bearer = format!("Bearer {}", publish_token(&["notifications:Anna%20\u{212A}"]));
        let headers = [("Authorization", bearer.as_str())];
        for (key, allowed) in [
            ("Anna%20\u{212A}", true),
            ("anna%20k", together),
            ("ANNA%20K", together),
            ("anna%20", false),
            ("bo", false),
        ] {
            let body = json!({"topic": own(key), "event": {"type": "a.b"}}).to_string();
            let answer = request(node.internal, "POST", "/publish", &headers, body.as_bytes()).await;
            assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{key}: {answer:?}");
        }
        // Whoever may notify an editor may shut them out, and nobody else.
        for (name, allowed) in [("Anna \u{212A}", true), ("anna k", together), ("anna", false)] {
            let body = json!({ "user": name }).to_string();
            let answer = request(node.internal, "POST", "/disconnect", &headers, body.as_bytes()).await;
            assert_eq!(answer.status, if allowed { 200 } else { 403 }, "{name}: {answer:?}");
        }
        assert!(bearer.len() > SECRET.len());
    }
}
