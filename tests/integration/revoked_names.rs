//! `POST /disconnect` by the name of a session or of a token, however the name is written and whatever carries the session:
//! a long-poll keeps its name from one poll to the next, and a name that is a number counts as well.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{
    node::{Node, SECRET, request, until},
    redis::RedisServer,
    ways::Way,
};

fn token(user: &str, more: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({"sub": user, "iat": now - 1, "exp": now + 600, "topics": ["*"]});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let key = carillon::config::Secret::new(SECRET);
    carillon::auth::token::sign(&claims, &key, carillon::config::Algorithm::Hs256).unwrap()
}

async fn poll(node: &Node, token: &str, cursor: &str) -> Value {
    let path = format!("/realtime/poll?topics=comments:1&cursor={cursor}&token={token}");
    let answer = request(node.public, "GET", &path, &[], b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn kinds(answer: &Value) -> Vec<&str> {
    answer["messages"].as_array().unwrap().iter().map(|message| text(&message["type"])).collect()
}

#[tokio::test]
async fn a_session_of_polls_ends_by_its_name_parked_or_between_two_polls_on_any_node() {
    let redis = RedisServer::start();
    let url = redis.url();
    let [one, two] = [Node::start(&[("redis.url", &url)]).await, Node::start(&[("redis.url", &url)]).await];
    for parked in [true, false] {
        let anna = token("anna", &json!({}));
        let first = poll(&one, &anna, "").await;
        let cursor = text(&first["cursor"]).to_owned();
        let order = json!({"session": first["messages"][0]["session"]}).to_string();
        let answer = async { poll(&two, &anna, &cursor).await };
        let ordered = async {
            let is_parked =
                async || two.get("/metrics").await.text().contains("carillon_sessions{transport=\"poll\"} 1");
            if parked {
                until("the poll to be parked", is_parked).await;
            }
            assert_eq!(one.post("/disconnect", order.as_bytes()).await.status, 200);
        };
        let last = if parked {
            tokio::join!(answer, ordered).0
        } else {
            ordered.await;
            // A node may hear of it up to two seconds later, and a poll that it parks until then ends with it.
            answer.await
        };
        assert_eq!(kinds(&last), ["closing"], "{last}");
        assert_eq!(last["messages"][0]["code"], 4403);
        assert_eq!(
            poll(&one, &anna, &cursor).await["messages"][0]["code"],
            4403,
            "whoever keeps the old cursor stays out"
        );
        // As over a WebSocket, the editor may come again: with a session of another name.
        publish(&one).await;
        let again = poll(&one, &anna, text(&last["cursor"])).await;
        assert_eq!(kinds(&again), ["event"], "{again}");
    }
}

async fn publish(node: &Node) {
    let body = json!({"topic": "comments:1", "event": {"type": "a.b"}}).to_string();
    assert_eq!(node.post("/publish", body.as_bytes()).await.status, 200);
}

#[tokio::test]
async fn names_of_tokens_and_browsers_may_be_numbers_and_nothing_else_that_is_no_text() {
    let node = Node::start(&[]).await;
    for (claim, order) in [("jti", json!({"jti": "77"})), ("sid", json!({"session": "77"}))] {
        let numbered = token("anna", &json!({ claim: 77 }));
        assert!(Way::Connect.enter(&node, &numbered, &[], &[]).await.is_ok(), "{claim}");
        assert_eq!(node.post("/disconnect", order.to_string().as_bytes()).await.status, 200);
        until("the door to be shut", async || Way::Connect.enter(&node, &numbered, &[], &[]).await.is_err())
            .await;
        for bad in [json!([77]), json!({"name": 77}), json!(true)] {
            let refused = Way::Connect.enter(&node, &token("anna", &json!({ claim: bad })), &[], &[]).await;
            assert_eq!(refused, Err(4401), "a {claim} that nobody could revoke");
        }
        assert!(Way::Connect.enter(&node, &token("anna", &json!({ claim: null })), &[], &[]).await.is_ok());
    }
}
