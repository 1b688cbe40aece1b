//! The soak: what nodes and Redis hold must be the same after an hour as after ten minutes, however many sessions and topics
//! have come and gone, and whatever has gone wrong meanwhile.
//!
//! It goes on beside the nemesis. Visitors open sessions on topics that nobody used before, publish to them, come back to
//! another node, and leave. Every ten seconds the memory and the files of each node and the keys of Redis are noted.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{Socket, upgrade},
    publisher::key,
    resp,
    store::Kind,
    world::World,
};

/// Settings of nodes: logs are gone a minute after their last follower, so that the keys of topics that nobody uses any more
/// come and go within the run.
pub(crate) const SETTINGS: [(&str, &str); 1] = [("LOG__TTL_SECONDS", "60")];
/// Faults that cannot go on beside it, by the beginnings of their names: a node that starts anew holds nothing yet, and a Redis that
/// was emptied has no keys.
pub(crate) const LEFT_OUT: [&str; 3] = ["node-", "redis-empty", "redis-flushall"];
/// How many visitors there are at a time, and how many topics each of them uses.
const VISITORS: u64 = 12;
const TOPICS: u64 = 6;
/// Between two looks.
const PACE: Duration = Duration::from_secs(10);
/// What is compared: the last piece of the run with the second one. In the first, the keys have not yet begun to go (ids are
/// kept for up to ten minutes).
const PIECE: Duration = Duration::from_secs(600);
/// How long a visitor waits for what it published.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was held at one moment.
#[derive(Debug, Clone)]
struct Look {
    /// Since the start of the run.
    at: Duration,
    /// Each in the order of the nodes.
    kib: Vec<u64>,
    files: Vec<u64>,
    keys: u64,
    redis_kib: u64,
    /// Topics that visitors have used by then, each once.
    topics: u64,
}

/// What visitors did.
#[derive(Debug, Default)]
struct Visits {
    whole: AtomicU64,
    cut_short: AtomicU64,
    /// Topics that were used, each once.
    topics: AtomicU64,
}

/// A soak under way.
#[derive(Debug)]
pub(crate) struct Soak {
    looks: Arc<Mutex<Vec<Look>>>,
    visits: Arc<Visits>,
}

impl Soak {
    /// Starts visitors and looks beside a world whose Redis stands alone.
    pub(crate) fn start(world: &mut World) -> Result<Self> {
        ensure!(world.setup.kind == Kind::Alone, "a soak needs a Redis that stands alone");
        let redis = world.store.server(0).port;
        let ports: Vec<u16> = world.nodes.iter().map(|node| node.port).collect();
        let pids =
            world.nodes.iter_mut().map(|node| Ok(node.process()?.id())).collect::<Result<Vec<u32>>>()?;
        let soak = Self { looks: Arc::default(), visits: Arc::default() };
        for n in 0..VISITORS {
            let visitor = Visitor { ports: ports.clone(), redis, visits: Arc::clone(&soak.visits) };
            world.beside(visitor.go_on(StdRng::seed_from_u64(world.setup.seed ^ (n << 32))));
        }
        let (looks, visits) = (Arc::clone(&soak.looks), Arc::clone(&soak.visits));
        world.beside(async move {
            let (began, mut pace) = (Instant::now(), tokio::time::interval(PACE));
            loop {
                pace.tick().await;
                // While Redis is away there is nothing to note.
                let topics = visits.topics.load(Ordering::Relaxed);
                if let Ok(look) = look(&pids, redis, began.elapsed(), topics).await {
                    looks.lock().unwrap_or_else(PoisonError::into_inner).push(look);
                }
            }
        });
        Ok(soak)
    }

    /// Prints what was held, and says what has grown from the second ten minutes of the run to the last ten. A run of less than
    /// half an hour is only printed.
    pub(crate) fn verdict(&self) -> Vec<String> {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let visits = &self.visits;
        println!(
            "soak: {} visits whole, {} cut short, {} topics, {} looks",
            visits.whole.load(Ordering::Relaxed),
            visits.cut_short.load(Ordering::Relaxed),
            visits.topics.load(Ordering::Relaxed),
            looks.len()
        );
        let pieces: Vec<&[Look]> = looks
            .chunk_by(|one, next| one.at.as_secs() / PIECE.as_secs() == next.at.as_secs() / PIECE.as_secs())
            .collect();
        for piece in &pieces {
            println!("soak: {}", row(piece));
        }
        let mut grown = Vec::new();
        if visits.whole.load(Ordering::Relaxed) == 0 {
            grown.push("soak: no visit was whole".into());
        }
        let end = looks.last().map_or(Duration::ZERO, |look| look.at);
        if end + PACE < PIECE * 3 {
            println!("soak: too short to tell what grows");
            return grown;
        }
        let early = pieces[1];
        let late = &looks[looks.partition_point(|look| look.at + PIECE < end)..];
        let mut compare = |what: String, figure: &dyn Fn(&Look) -> u64, slack: u64| {
            let (before, after) = (middle(early, figure), middle(late, figure));
            if after > before + before / 10 + slack {
                grown.push(format!("soak: {what} grew from {before} to {after}"));
            }
        };
        for node in 0..looks[0].kib.len() {
            compare(format!("KiB of node {node}"), &|look| look.kib[node], 4096);
            compare(format!("files of node {node}"), &|look| look.files[node], 20);
        }
        compare("KiB of Redis".into(), &|look| look.redis_kib, 4096);
        // There are more keys while visitors are quicker: each topic that was used has some for about ten minutes.
        let (before, after) = (keys_for_each(early), keys_for_each(late));
        if after > before * 1.2 {
            grown.push(format!("soak: keys for each topic grew from {before:.2} to {after:.2}"));
        }
        grown
    }
}

/// Keys of Redis for each topic that was used in this piece of the run.
fn keys_for_each(looks: &[Look]) -> f64 {
    let used = looks[looks.len() - 1].topics - looks[0].topics;
    middle(looks, &|look| look.keys) as f64 / used.max(1) as f64
}

/// One line: the middle of each figure over a piece of the run.
fn row(looks: &[Look]) -> String {
    let each = |figure: &dyn Fn(&Look, usize) -> u64| {
        let nodes = 0..looks[0].kib.len();
        nodes.map(|n| middle(looks, &|look| figure(look, n)).to_string()).collect::<Vec<_>>().join(" ")
    };
    format!(
        "{} to {} s: KiB of nodes {}; files of nodes {}; keys {}, {:.2} for each topic used; KiB of Redis {}",
        looks[0].at.as_secs(),
        looks[looks.len() - 1].at.as_secs(),
        each(&|look, n| look.kib[n]),
        each(&|look, n| look.files[n]),
        middle(looks, &|look| look.keys),
        keys_for_each(looks),
        middle(looks, &|look| look.redis_kib)
    )
}

/// The median of a figure.
fn middle(looks: &[Look], figure: &dyn Fn(&Look) -> u64) -> u64 {
    let mut figures: Vec<u64> = looks.iter().map(figure).collect();
    figures.sort_unstable();
    figures[figures.len() / 2]
}

/// Looks at the nodes' processes, by their ids, and at Redis.
async fn look(pids: &[u32], redis: u16, at: Duration, topics: u64) -> Result<Look> {
    let (mut kib, mut files) = (Vec::new(), Vec::new());
    for pid in pids {
        kib.push(field(&std::fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:")?);
        files.push(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64);
    }
    let asked = async {
        let keys = resp::ask(redis, &["DBSIZE"]).await?.number().context("no number of keys")?;
        let memory = resp::ask(redis, &["INFO", "memory"]).await?;
        Ok::<_, anyhow::Error>((
            keys.unsigned_abs(),
            field(memory.text().unwrap_or_default(), "used_memory:")?,
        ))
    };
    let (keys, bytes) = tokio::time::timeout(PACE / 2, asked).await??;
    Ok(Look { at, kib, files, keys, redis_kib: bytes / 1024, topics })
}

/// The number that follows a name at the beginning of a line.
fn field(text: &str, name: &str) -> Result<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(rest.split_whitespace().next().unwrap_or_default().parse()?)
}

/// Opens sessions, one after another.
struct Visitor {
    ports: Vec<u16>,
    redis: u16,
    visits: Arc<Visits>,
}

impl Visitor {
    /// Until the world ends. A fault may cut any visit short: the audit says whether that was right, for others.
    async fn go_on(self, mut random: StdRng) {
        loop {
            let whole = tokio::time::timeout(PATIENCE * 2, self.visit(&mut random))
                .await
                .is_ok_and(|visit| visit.is_ok());
            let counted = if whole { &self.visits.whole } else { &self.visits.cut_short };
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(random.random_range(500..3000))).await;
        }
    }

    /// Half of the topics at once, the others later, an event on each; then it comes back to another node for what it missed.
    async fn visit(&self, random: &mut StdRng) -> Result<()> {
        let first = self.visits.topics.fetch_add(TOPICS, Ordering::Relaxed);
        let topics: Vec<String> = (first..first + TOPICS).map(|n| format!("projects:visit-{n}")).collect();
        let (some, others) = topics.split_at(topics.len() / 2);
        let home = random.random_range(0..self.ports.len());
        let mut session =
            Session::open(self.ports[home], &json!({ "type": "connect", "topics": some })).await?;
        let mut resume = session.wait_for("welcome").await?;
        session.say(&json!({ "type": "subscribe", "topics": others })).await?;
        let subscribed = session.wait_for("subscribed").await?;
        for (topic, position) in subscribed["positions"].as_object().into_iter().flatten() {
            resume["positions"][topic] = position.clone();
        }
        self.publish(&topics, "first").await?;
        session.events(topics.len()).await?;
        session.say(&json!({ "type": "unsubscribe", "topics": some })).await?;
        session.wait_for("unsubscribed").await?;
        if random.random_bool(0.5) {
            session.0.close(None).await?;
        }
        drop(session);
        // It names the positions from before the events, so that it is told all of them again, and those of now.
        self.publish(&topics, "second").await?;
        let resume = json!({ "at": resume["at"], "positions": resume["positions"] });
        let connect = json!({ "type": "connect", "topics": topics, "resume": resume });
        let mut session = Session::open(self.ports[(home + 1) % self.ports.len()], &connect).await?;
        session.wait_for("welcome").await?;
        session.events(2 * topics.len()).await
    }

    /// An event on each topic, with an `id` that Redis remembers.
    async fn publish(&self, topics: &[String], id: &str) -> io::Result<()> {
        let mut redis = resp::Connection::open(self.redis).await?;
        for topic in topics {
            let event =
                json!({ "id": id, "type": "project.changed", "source": "visitor", "data": {} }).to_string();
            let answer = redis.ask(&["FCALL", "carillon_publish", "1", &key(topic), &event]).await?;
            if answer.text().is_none() {
                return Err(io::Error::other(format!("{answer:?}")));
            }
        }
        Ok(())
    }
}

/// A visitor's session.
struct Session(Socket);

impl Session {
    async fn open(port: u16, connect: &Value) -> Result<Self> {
        let mut session = Self(upgrade(TcpStream::connect(("127.0.0.1", port)).await?, port).await?);
        session.say(connect).await?;
        Ok(session)
    }

    async fn say(&mut self, message: &Value) -> Result<()> {
        Ok(self.0.send(Message::text(message.to_string())).await?)
    }

    /// The next message of a kind.
    async fn wait_for(&mut self, kind: &str) -> Result<Value> {
        let next = async {
            loop {
                let message = self.0.next().await.context("closed")??;
                let Message::Text(text) = message else { continue };
                let message: Value = serde_json::from_str(&text)?;
                if message["type"] == kind {
                    return Ok(message);
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await?
    }

    /// Waits for so many events.
    async fn events(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.wait_for("event").await?;
        }
        Ok(())
    }
}
