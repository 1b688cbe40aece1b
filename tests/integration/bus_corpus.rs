//! One verdict on every event and topic, at every door of the bus: what Rust reads, the publish function, a bare
//! `PUBLISH`, a log written by hand, and the memory bus.

#[allow(unreachable_pub, reason = "the fuzz targets include this file, too")]
#[path = "../corpus/verdict.rs"]
mod verdict;

use crate::support::{
    bus::{TestBus, areas, settings, topic},
    corpus::{self, Case},
    redis::RedisServer,
};
use carillon::{
    bus::{BusError, Content},
    protocol::{EntryId, Event, EventError, Topic},
};
use fred::{
    prelude::{Builder, Client, ClientLike, Config, Error, Value},
    types::{ClusterHash, CustomCommand},
};

/// The kind of refusal, in the corpus' words.
fn verdict(result: &Result<Event, EventError>) -> &'static str {
    result.as_ref().map_or_else(verdict::of_error, |_| "good")
}

async fn client(redis: &RedisServer) -> Client {
    let client = Builder::from_config(Config::from_url(&redis.url()).unwrap()).build().unwrap();
    client.init().await.unwrap();
    client
}

async fn call(client: &Client, command: &'static str, args: Vec<Value>) -> Result<Value, Error> {
    client.custom(CustomCommand::new_static(command, ClusterHash::Random, false), args).await
}

async fn fcall(client: &Client, channel: Vec<u8>, event: &[u8]) -> Result<Value, Error> {
    let channel = Value::Bytes(channel.into());
    let args = vec!["carillon_publish".into(), 1.into(), channel, Value::Bytes(event.to_vec().into())];
    call(client, "FCALL", args).await
}

#[test]
fn rust_gives_the_verdict() {
    for Case { verdict: expected, what, bytes } in corpus::events() {
        let parsed = Event::parse(bytes.into(), 65536);
        assert_eq!(verdict(&parsed), expected, "{what}: {parsed:?}");
    }
    for Case { verdict: expected, what, bytes } in corpus::topics() {
        let parsed =
            String::from_utf8(bytes).ok().and_then(|text| Topic::parse_published(&text, &areas()).ok());
        assert_eq!(parsed.is_some(), expected == "good", "{what:?}");
    }
}

#[tokio::test]
async fn the_function_gives_the_verdict() {
    let redis = RedisServer::start();
    let bus = TestBus::over(&redis.url()).await;
    let client = client(&redis).await;
    let mut good = 0;
    for Case { verdict: expected, what, bytes } in corpus::events() {
        let answer = fcall(&client, b"carillon:comments:1".to_vec(), &bytes).await;
        let given = match &answer {
            Ok(_) => "good",
            Err(error) => verdict::of_sentence(error.details()),
        };
        assert_eq!(given, expected, "{what}: {answer:?}");
        good += u64::from(given == "good" && what != "the last of two ids counts");
    }
    assert!(bus.bus.heads(vec![topic("comments:1")]).await.remove(0).unwrap().top.seq >= good - 4);
    for Case { verdict: expected, what, bytes } in corpus::topics() {
        let channel = [b"carillon:".as_slice(), &bytes].concat();
        let answer = fcall(&client, channel, br#"{"type":"a.b"}"#).await;
        assert_eq!(answer.is_ok(), expected == "good", "{what:?}: {answer:?}");
    }
    // Rust's own sentence names the right spelling, and so does the function's.
    let error = fcall(&client, b"carillon:notifications:An%2aNA".to_vec(), b"{}").await.unwrap_err();
    assert!(error.details().contains("\"notifications:An%2ANA\""), "{error}");
    bus.end().await;
}

/// Writes an entry into the log of `comments:2` and tells its followers, as whoever bypasses the function would.
async fn write_by_hand(client: &Client, id: &str, bytes: &[u8]) {
    let entry =
        vec!["carillon:comments:2".into(), id.into(), "event".into(), Value::Bytes(bytes.to_vec().into())];
    call(client, "XADD", entry).await.unwrap();
    let message = [id.as_bytes(), b" ", bytes].concat();
    call(client, "PUBLISH", vec!["carillon:comments:2".into(), Value::Bytes(message.into())]).await.unwrap();
}

#[tokio::test]
async fn a_bare_publish_and_a_log_written_by_hand_get_the_verdict() {
    let redis = RedisServer::start();
    let mut settings = settings(Some(&redis.url()));
    settings.log_length = 1000;
    let mut bus = TestBus::start(settings).await;
    let client = client(&redis).await;
    bus.follow(&["comments:1", "comments:2"]).await;
    let epoch = bus.bus.heads(vec![topic("comments:2")]).await.remove(0).unwrap().top.epoch;
    // The log of a followed topic without events is no stream yet.
    call(&client, "DEL", vec!["carillon:comments:2".into()]).await.unwrap();
    let (mut good, mut seq) = (Vec::new(), 0);
    let cases = corpus::events();
    for Case { verdict, bytes, .. } in &cases {
        let event = Value::Bytes(bytes.clone().into());
        call(&client, "PUBLISH", vec!["carillon:comments:1".into(), event.clone()]).await.unwrap();
        if !bytes.is_empty() {
            seq += 1;
            write_by_hand(&client, &format!("{epoch}-{seq}"), bytes).await;
        }
        if verdict == "good" {
            good.push(Event::parse(bytes.clone().into(), 65536).unwrap());
        }
    }
    let id = format!("{epoch}-{}", seq + 1);
    call(&client, "XADD", vec!["carillon:comments:2".into(), id.into(), "other".into(), "{}".into()])
        .await
        .unwrap();

    let (mut live, mut recorded, mut invalid) = (Vec::new(), Vec::new(), Vec::new());
    for delivery in bus.deliveries_so_far().await {
        match delivery.content {
            Content::Live(event) => live.push(event),
            Content::Recorded(_, event) => recorded.push(event),
            Content::Invalid(id) | Content::Erased(id) => invalid.push(id),
        }
    }
    assert!(
        live == good && recorded == good,
        "{} live, {} recorded of {}",
        live.len(),
        recorded.len(),
        good.len()
    );
    assert_eq!(invalid.len() as u64 + good.len() as u64, seq);

    let history = bus.bus.history(topic("comments:2"), EntryId { epoch, seq: 0 }).await.unwrap();
    let read = history.entries.iter().map(|(_, event)| verdict(event)).collect::<Vec<_>>();
    let mut expected =
        cases.iter().filter(|c| !c.bytes.is_empty()).map(|c| c.verdict.as_str()).collect::<Vec<_>>();
    expected.push("json");
    assert_eq!(read, expected);
    let text = bus.metrics.text();
    let counted = |reason: &str| {
        let line = format!("carillon_events_invalid_total{{reason=\"{reason}\"}} ");
        text.lines().find_map(|l| l.strip_prefix(&line)?.parse::<usize>().ok()).unwrap_or(0)
    };
    assert_eq!((counted("live"), counted("recorded")), (cases.len() - good.len(), invalid.len()), "{text}");
    bus.end().await;
}

#[tokio::test]
async fn what_nobody_may_publish_harms_nothing() {
    let redis = RedisServer::start();
    let mut bus = TestBus::over(&redis.url()).await;
    bus.follow(&["comments:*", "content:*", "content"]).await;
    let client = client(&redis).await;
    let publish = async |channel: &str, message: &str| {
        call(&client, "PUBLISH", vec![channel.into(), message.into()]).await.unwrap();
    };
    publish("carillon:comments:a b", r#"{"type":"a.b"}"#).await;
    publish("carillon:comments:", r#"{"type":"a.b"}"#).await;
    publish("carillon:content:1", r#"{"type":"a.b"}"#).await;
    publish("carillon:content", r#"{"type":"a.b"}"#).await;
    publish("carillon:comments:1", "99999999999999999999999-1 {}").await;
    publish("carillon:comments:1", "1-1{}").await;
    publish("carillon:control:{carillon}", "nonsense").await;
    publish(&format!("carillon:probe:{{{}}}", bus.settings.node), "nonsense").await;
    publish(&format!("carillon:probe:{{{}}}", bus.settings.node), "1 2 3 4 5").await;
    assert!(bus.deliveries_so_far().await.is_empty());
    let text = bus.metrics.text();
    for counted in ["bad-topic\"} 2", "recorded-only\"} 2", "live\"} 2", "bad-order\"} 1"] {
        assert!(
            text.contains(&format!("carillon_events_invalid_total{{reason=\"{counted}\n")),
            "{counted}: {text}"
        );
    }
    bus.end().await;
}

#[tokio::test]
async fn the_memory_bus_gives_the_verdict_on_topics() {
    let bus = TestBus::start(settings(None)).await;
    for Case { verdict: expected, what, bytes } in corpus::topics() {
        // What does not parse at all cannot reach the bus.
        let Some(topic) = String::from_utf8(bytes).ok().and_then(|text| Topic::parse(&text, &areas()).ok())
        else {
            assert_eq!(expected, "bad", "{what:?}");
            continue;
        };
        let answer = bus.bus.publish(topic, crate::support::bus::numbered(1)).await;
        match answer {
            Ok(_) => assert_eq!(expected, "good", "{what:?}"),
            Err(BusError::Event(_)) => assert_eq!(expected, "bad", "{what:?}"),
            Err(other) => panic!("{other}"),
        }
    }
    bus.end().await;
}
