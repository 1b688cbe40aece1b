//! What is answered to whom, with a Redis that says what the test wants.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// A connection whose messages are taken, and its other end.
fn connected() -> (Subscriber, mpsc::Receiver<Message>, DuplexStream, Tasks) {
    let (wire, redis) = tokio::io::duplex(1 << 16);
    let tasks = Tasks::new();
    let server = Server::new("redis", 6379);
    let (subscriber, mut stream) = Subscriber::over(Box::new(wire), server, Arc::default(), &tasks);
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
    let changed = subscriber.confirmed_apart(SubscriptionChange::SubscribeShards, &names, true);
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
