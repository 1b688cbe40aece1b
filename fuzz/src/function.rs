//! The publish function as the oracle: the library that nodes load, in a Redis of our own. What it accepts is in the log
//! of every topic, so the node must give the same verdict.
//!
//! A real Redis, because the verdict rests on its JSON reader. The server ends with this process.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use carillon::bus::{Settings, redis::library};
use redis::{Client, Connection, Value};

use crate::{EVENT_BYTES, areas};

/// What the function has published.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent {
    /// The id that the event got.
    pub id: String,
    /// The message on the topic's channel.
    pub message: Vec<u8>,
    /// The length of `source`, a colon, `source` and `id`, where there is an `id`: what duplicates are known by.
    pub name: Option<Vec<u8>>,
}

struct Server {
    commands: Connection,
    messages: Connection,
    channel: Vec<u8>,
}

/// A server that sees to it that it does not outlive us: the shell waits for the end of its input, which is ours.
fn start() -> Connection {
    let dir = std::env::temp_dir().join(format!("carillon-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let script = "redis-server --port 0 --unixsocket socket --save '' --dir . >/dev/null & cat; kill $!; rm -r \"$PWD\"";
    let mut shell = Command::new("sh");
    let child = shell.args(["-c", script]).current_dir(&dir).stdin(Stdio::piped()).spawn().expect("a shell");
    // Held open as long as this process lives.
    std::mem::forget(child);
    connect(&dir.join("socket"))
}

fn connect(socket: &Path) -> Connection {
    let client = Client::open(format!("unix://{}", socket.display())).expect("an address");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match client.get_connection() {
            Ok(connection) => return connection,
            Err(error) if Instant::now() > deadline => panic!("redis-server is needed here: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn load() -> Server {
    let settings = Settings {
        prefix: "carillon".into(),
        node: String::new(),
        areas: areas(),
        generation: 0,
        adopted: carillon::bus::Adopted::default(),
        log_length: 10,
        log_ttl: Duration::from_secs(1),
        event_bytes: EVENT_BYTES,
        probe_interval: Duration::from_secs(1),
        revocations: carillon::protocol::Revocations::default(),
        redis: None,
    };
    let mut commands = start();
    let load = redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(library(&settings)).to_owned();
    load.query::<()>(&mut commands).expect("the library");
    let socket = std::env::temp_dir().join(format!("carillon-fuzz-{}/socket", std::process::id()));
    Server { messages: connect(&socket), commands, channel: Vec::new() }
}

impl Server {
    fn publish(&mut self, channel: &[u8], event: &[u8]) -> Result<Sent, String> {
        if self.channel != channel {
            let mut answer = redis::cmd("UNSUBSCRIBE").query::<Value>(&mut self.messages);
            answer = answer.and_then(|_| redis::cmd("SUBSCRIBE").arg(channel).query(&mut self.messages));
            answer.expect("a subscription");
            self.channel = channel.to_vec();
        }
        let hash = |name: &str| [b"carillon:", name.as_bytes(), b":{", channel, b"}"].concat();
        let published = redis::cmd("FCALL")
            .arg("carillon_publish")
            .arg(1)
            .arg(channel)
            .arg(event)
            .query(&mut self.commands);
        let id: String = match published {
            Ok(id) => id,
            Err(error) => return Err(error.to_string()),
        };
        let Ok(Value::Array(mut push)) = self.messages.recv_response() else { panic!("nothing was sent") };
        let Some(Value::BulkString(message)) = push.pop() else { panic!("no message was sent") };
        let mut after = redis::pipe();
        after.cmd("HKEYS").arg(hash("ids")).cmd("HKEYS").arg(hash("ids-before")).cmd("FLUSHALL").ignore();
        let (one, other): (Vec<Vec<u8>>, Vec<Vec<u8>>) = after.query(&mut self.commands).expect("an answer");
        let name = one.into_iter().chain(other).find(|name| !name.is_empty());
        Ok(Sent { id, message, name })
    }
}

/// A channel and an event.
type Question = (Vec<u8>, Vec<u8>);

/// Publishes on a thread of its own: libFuzzer's timer interrupts what the main thread reads.
fn ask_apart() -> (Sender<Question>, Receiver<Result<Sent, String>>) {
    let (questions, asked) = channel::<Question>();
    let (answer, answers) = channel();
    std::thread::spawn(move || {
        let mut server = load();
        for (channel, event) in asked {
            if answer.send(server.publish(&channel, &event)).is_err() {
                return;
            }
        }
    });
    (questions, answers)
}

/// Publishes to a channel. The error is the function's sentence.
///
/// # Panics
/// Where the function itself fails, which is a finding.
pub fn publish(channel: &[u8], event: &[u8]) -> Result<Sent, String> {
    thread_local!(static FUNCTION: (Sender<Question>, Receiver<Result<Sent, String>>) = ask_apart());
    let sent = FUNCTION.with(|(questions, answers)| {
        questions.send((channel.to_vec(), event.to_vec())).expect("the function's thread");
        answers.recv().expect("the function's thread")
    });
    if let Err(text) = &sent {
        assert!(!text.contains("Script") && !text.contains("script"), "the function fails: {text}");
    }
    sent
}
