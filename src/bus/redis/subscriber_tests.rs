//! What is answered to whom, with a Redis that says what the test wants.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, DuplexStream};

use super::*;
use crate::{
    bus::redis::{
        Target,
        incoming::{self, Incoming, Message},
    },
    shutdown::Tasks,
};

/// A connection, what it sends, and its other end.
fn opened() -> (Subscriber, PushStream, DuplexStream, Tasks) {
    let (wire, redis) = tokio::io::duplex(1 << 16);
    let (tasks, server) = (Tasks::new(), Server::new("redis", 6379));
    let access = Target { url: "redis://anna:secret@redis".into(), ..Target::default() }.access().unwrap();
    let (who, ending) = (&access.redis, &Arc::default());
    let params = ConnectParams { access: &access, server: &server, who, ending, tasks: &tasks };
    let (subscriber, stream) = Subscriber::over(Box::new(wire), params);
    (subscriber, stream, redis, tasks)
}

/// A connection whose messages are taken, and its other end.
fn connected() -> (Subscriber, mpsc::Receiver<Message>, DuplexStream, Tasks) {
    let (subscriber, mut stream, redis, tasks) = opened();
    let (to, messages) = mpsc::channel(64);
    tasks.spawn_until_end(async move {
        while let Some(message) = std::future::poll_fn(|cx| stream.poll_next(cx)).await {
            to.send(message).await.unwrap();
        }
    });
    (subscriber, messages, redis, tasks)
}

/// The commands that have come, each as its words.
async fn asked(redis: &mut DuplexStream, count: usize) -> Vec<String> {
    let mut bytes = BytesMut::new();
    let mut commands = Vec::new();
    while commands.len() < count {
        redis.read_buf(&mut bytes).await.unwrap();
        while let Some(Incoming::Answer(words)) = incoming::decode(&mut bytes).unwrap() {
            let words = reply::items(words.unwrap()).into_iter().map(reply::text);
            commands.push(words.collect::<Vec<_>>().join(" "));
        }
    }
    commands
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn each_change_gets_its_own_answer_whatever_comes_in_between() {
    let (subscriber, mut messages, mut redis, _tasks) = connected();
    let names = names(&["a", "b", "c"]);
    let changed = subscriber.confirmed_each(SubscriptionChange::SubscribeShards, &names, true);
    let answers = async {
        let commands = asked(&mut redis, 9).await;
        assert_eq!(commands[..3], ["ASKING", "SSUBSCRIBE a", "PING 0"]);
        assert_eq!(commands[6..], ["ASKING", "SSUBSCRIBE c", "PING 2"]);
        let said = b"+OK\r\n>3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n>3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$1\r\n!\r\n$1\r\n0\r\n\
            +OK\r\n-MOVED 7 other:1\r\n$1\r\n1\r\n\
            +OK\r\n>3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:2\r\n$1\r\n2\r\n";
        redis.write_all(said).await.unwrap();
    };
    let (said, ()) = tokio::join!(changed, answers);
    let said = said.unwrap().into_iter().map(|said| said.map_err(|error| describe(&error)));
    assert_eq!(said.collect::<Vec<_>>(), [Ok(Some(1)), Err("MOVED 7 other:1".into()), Ok(Some(2))]);
    assert_eq!(messages.recv().await.unwrap().payload, "!");
}

#[tokio::test]
async fn a_refusal_is_that_of_its_command_and_of_no_other() {
    let (subscriber, _messages, mut redis, _tasks) = connected();
    let both = names(&["a", "b"]);
    let refused = subscriber.confirmed(SubscriptionChange::Subscribe, &both);
    let info = subscriber.send("CLIENT", vec!["INFO".into()], PATIENCE);
    let taken = subscriber.confirmed(SubscriptionChange::UnsubscribePatterns, &both);
    let answers = async {
        let commands = asked(&mut redis, 5).await;
        assert_eq!(commands, ["SUBSCRIBE a b", "PING 0", "CLIENT INFO", "PUNSUBSCRIBE a b", "PING 1"]);
        redis.write_all(b"-NOPERM no\r\n$1\r\n0\r\n=8\r\ntxt:sub=\r\n$1\r\n1\r\n").await.unwrap();
    };
    let (refused, info, taken, ()) = tokio::join!(refused, info, taken, answers);
    assert_eq!(describe(&refused.unwrap_err()), "NOPERM no");
    assert_eq!(reply::text(info.unwrap()), "sub=");
    taken.unwrap();
}

#[tokio::test]
async fn a_redis_that_cannot_save_refuses_pings_and_confirms_all_the_same() {
    let (subscriber, _messages, mut redis, _tasks) = connected();
    let both = names(&["a", "b"]);
    let refused = subscriber.confirmed(SubscriptionChange::Subscribe, &both);
    let each = subscriber.confirmed_each(SubscriptionChange::Subscribe, &both, false);
    let answers = async {
        assert_eq!(asked(&mut redis, 6).await.len(), 6);
        let no_ping = "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.\r\n";
        let said = format!("-NOPERM no\r\n{no_ping}{no_ping}-NOPERM b\r\n{no_ping}");
        redis.write_all(said.as_bytes()).await.unwrap();
    };
    let (refused, each, ()) = tokio::join!(refused, each, answers);
    assert_eq!(describe(&refused.unwrap_err()), "NOPERM no");
    let each = each.unwrap().into_iter().map(|said| said.map_err(|error| describe(&error)));
    assert_eq!(each.collect::<Vec<_>>(), [Ok(None), Err("NOPERM b".into())]);
}

#[tokio::test]
async fn whoever_waits_when_the_connection_ends_is_told() {
    let (subscriber, _messages, mut redis, _tasks) = connected();
    let waiting = subscriber.send("PING", Vec::new(), PATIENCE);
    let ending = async {
        asked(&mut redis, 1).await;
        drop(redis);
    };
    let (waiting, ()) = tokio::join!(waiting, ending);
    assert_eq!(describe(&waiting.unwrap_err()), "the connection was closed");
    let late = subscriber.send("PING", Vec::new(), PATIENCE).await;
    assert_eq!(describe(&late.unwrap_err()), "the connection was closed");
}

#[tokio::test]
async fn what_redis_says_before_it_hangs_up_is_the_reason() {
    // To the first command.
    let (subscriber, mut stream, mut redis, _tasks) = opened();
    redis.write_all(b"-ERR max number of clients reached\r\n").await.unwrap();
    drop(redis);
    let who = RedisCredentials::default();
    let refused = subscriber.handshake(&mut stream, &who).await.unwrap_err();
    assert_eq!(describe(&refused), "ERR max number of clients reached");
    // To none.
    let (subscriber, mut stream, mut redis, _tasks) = opened();
    redis.write_all(b"-ERR max number of clients reached\r\n").await.unwrap();
    drop(redis);
    stream.ended().await;
    let refused = subscriber.handshake(&mut stream, &who).await.unwrap_err();
    assert_eq!(describe(&refused), "ERR max number of clients reached");
}

#[tokio::test]
async fn the_answer_to_who_has_gone_is_taken_by_nobody_else() {
    let (subscriber, _messages, mut redis, _tasks) = connected();
    let gone = subscriber.send("PING", vec!["gone".into()], Duration::from_millis(1)).await;
    assert_eq!(describe(&gone.unwrap_err()), "Redis did not answer in time");
    let asking = subscriber.send("PING", vec!["here".into()], PATIENCE);
    let answers = async {
        assert_eq!(asked(&mut redis, 2).await, ["PING gone", "PING here"]);
        redis.write_all(b"$4\r\ngone\r\n$4\r\nhere\r\n").await.unwrap();
    };
    let (answer, ()) = tokio::join!(asking, answers);
    assert_eq!(reply::text(answer.unwrap()), "here");
}

#[tokio::test]
async fn of_several_refusals_of_a_change_the_first_counts_and_rubbish_ends_the_connection() {
    let (subscriber, _messages, mut redis, _tasks) = connected();
    let both = names(&["a", "b"]);
    let changed = subscriber.confirmed(SubscriptionChange::UnsubscribeShards, &both);
    let answers = async {
        assert_eq!(asked(&mut redis, 3).await, ["SUNSUBSCRIBE a", "SUNSUBSCRIBE b", "PING 0"]);
        redis.write_all(b"-MOVED 1 x:1\r\n-MOVED 2 y:2\r\n$1\r\n0\r\n").await.unwrap();
    };
    let (changed, ()) = tokio::join!(changed, answers);
    assert_eq!(describe(&changed.unwrap_err()), "MOVED 1 x:1");
    let waiting = subscriber.send("PING", Vec::new(), PATIENCE);
    let (waiting, ()) = tokio::join!(waiting, async { redis.write_all(b"rubbish\r\n").await.unwrap() });
    let said = describe(&waiting.unwrap_err());
    assert!(said.starts_with("what Redis sends cannot be read"), "{said}");
}

#[tokio::test]
async fn a_ping_that_is_refused_ends_the_connection_before_answers_are_out_of_step() {
    // The channel was subscribed to, and its ping refused; the next channel is elsewhere, and its ping answered.
    let said =
        b">3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n-LOADING dataset\r\n-MOVED 7 other:1\r\n$1\r\n1\r\n";
    let (subscriber, _messages, mut redis, _tasks) = connected();
    let both = names(&["a", "b"]);
    let changed = subscriber.confirmed_each(SubscriptionChange::SubscribeShards, &both, false);
    let (changed, ()) = tokio::join!(changed, async { redis.write_all(said).await.unwrap() });
    assert_eq!(describe(&changed.unwrap_err()), "LOADING dataset");
    // Of one with another reason, the second refusal is the ping's.
    let (subscriber, _messages, mut redis, _tasks) = connected();
    let changed = subscriber.confirmed(SubscriptionChange::Subscribe, &both);
    let said = b"-NOPERM first\r\n-NOPERM second\r\n";
    let (changed, ()) = tokio::join!(changed, async { redis.write_all(said).await.unwrap() });
    assert_eq!(describe(&changed.unwrap_err()), "NOPERM second");
}
