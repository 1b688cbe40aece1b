//! A world: Redis, nodes, publishers and auditing sessions, real processes all of them, and what is done to them.
//!
//! Scenarios change it; the audit at its end decides.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::{
    audit::{Evidence, Verdict, audit},
    client::{Doors, Session, Topics},
    door::Door,
    node::Node,
    process::{hold, until},
    proxy::Proxy,
    publisher::{Press, key},
    record::{Clock, Id, Ms, Reason, Told, TopicId},
    redis::{Cluster, Redis, Watched},
    resp::Value,
    store::{Kind, Store},
};

/// What a world is made of.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    pub(crate) nodes: usize,
    pub(crate) sessions: usize,
    /// Topics `comments:1` ... (recorded events) and half as many `content:1` ... (live events as well).
    pub(crate) keys: usize,
    /// Recorded and live events per second, over all publishers.
    pub(crate) recorded: f64,
    pub(crate) live: f64,
    /// A proxy between each node and a Redis that stands alone, or before each server of a cluster.
    pub(crate) proxied: bool,
    /// A proxy between the sessions and each node.
    pub(crate) fronted: bool,
    /// Further settings of every server.
    pub(crate) redis: &'static [&'static str],
    pub(crate) env: Vec<(&'static str, &'static str)>,
    /// Clock of each server under Sentinel, for faketime.
    pub(crate) clocks: &'static [Option<&'static str>],
    pub(crate) seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            kind: Kind::Alone,
            nodes: 2,
            sessions: 100,
            keys: 12,
            recorded: 40.0,
            live: 4.0,
            proxied: false,
            fronted: false,
            redis: &[],
            env: Vec::new(),
            clocks: &[],
            seed: 1,
        }
    }
}

/// What was measured.
#[derive(Debug, Default, Clone)]
pub(crate) struct Times {
    /// Slowest time from the onset of a fault until every session knew that its node had lost sight.
    pub(crate) known: Option<Ms>,
    /// Slowest time from the end of the trouble until every session was in step again.
    pub(crate) recovered: Option<Ms>,
}

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    /// Before Redis, one for each node; before a cluster, one for each server.
    pub(crate) proxies: Vec<Proxy>,
    /// Before the nodes.
    pub(crate) fronts: Vec<Proxy>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) doors: Arc<Doors>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) press: Arc<Press>,
    pub(crate) sessions: Vec<Arc<Session>>,
    pub(crate) times: Times,
    pub(crate) onset: Ms,
    /// What was counted as proof that a fault bit.
    pub(crate) bites: BTreeMap<&'static str, u64>,
    /// What else was measured: the worst of each.
    pub(crate) measured: BTreeMap<&'static str, f64>,
    pub(crate) notes: Vec<(Ms, String)>,
    tasks: JoinSet<()>,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    /// Starts everything and waits until all sessions are in step and events of both kinds flow.
    pub(crate) async fn start(setup: Setup) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("carillon-faults-").tempdir()?;
        let clock = Clock::start();
        let mut store = match setup.kind {
            Kind::Alone => Store::Alone(Redis::start(dir.path(), setup.redis).await?),
            Kind::Sentinel(servers) => {
                Store::Watched(Watched::start(dir.path(), servers, setup.redis, setup.clocks).await?)
            }
            Kind::Cluster => Store::Cluster(Cluster::start(dir.path(), setup.redis).await?),
        };
        let mut proxies = Vec::new();
        if let Store::Cluster(cluster) = &mut store
            && setup.proxied
        {
            for server in &cluster.servers {
                proxies.push(Proxy::start(server.port, true).await?);
            }
            cluster.announce(proxies.iter().map(|proxy| proxy.port).collect()).await?;
        }
        let topics = Arc::new(Topics::new(names(setup.keys)));
        let press = Arc::new(Press::new(store.place(), Arc::clone(&topics), clock));
        let mut world = Self {
            clock,
            store,
            proxies,
            fronts: Vec::new(),
            nodes: Vec::new(),
            doors: Arc::default(),
            topics,
            press,
            sessions: Vec::new(),
            times: Times::default(),
            onset: 0,
            bites: BTreeMap::new(),
            measured: BTreeMap::new(),
            notes: Vec::new(),
            tasks: JoinSet::new(),
            dir,
            setup,
        };
        world.start_nodes().await?;
        for n in 0..world.setup.sessions {
            world.add_session(n);
        }
        world.start_publishers();
        let started = world.in_step_within(Duration::from_secs(40)).await;
        started.with_context(|| format!("the start, before any fault\n{}", world.logs()))?;
        let press = Arc::clone(&world.press);
        let wanted = (world.setup.keys, usize::from(world.setup.live > 0.0) * 3);
        until("events flow", Duration::from_secs(20), || async {
            let ledger = press.ledger();
            ledger.acks.len() >= wanted.0 && ledger.shouts.len() >= wanted.1
        })
        .await?;
        Ok(world)
    }

    async fn start_nodes(&mut self) -> Result<()> {
        for n in 0..self.setup.nodes {
            let url = match &self.store {
                Store::Alone(redis) if self.setup.proxied => {
                    let proxy = Proxy::start(redis.port, true).await?;
                    let url = format!("redis://127.0.0.1:{}", proxy.port);
                    self.proxies.push(proxy);
                    url
                }
                store => store.url(),
            };
            let mut env = vec![("HEARTBEAT__SECONDS", "5"), ("DRAIN__WINDOW_SECONDS", "4")];
            env.extend(self.setup.env.iter().copied());
            let name = format!("node-{n}");
            self.nodes.push(Node::start(self.dir.path(), &name, &url, &env).await?);
        }
        let mut ports = Vec::new();
        for node in &self.nodes {
            if self.setup.fronted {
                let front = Proxy::start(node.port, false).await?;
                ports.push(front.port);
                self.fronts.push(front);
            } else {
                ports.push(node.port);
            }
        }
        self.doors = Arc::new(Doors::new(ports));
        Ok(())
    }

    /// One more session. It follows three topics with positions, two of them in the area without live events.
    pub(crate) fn add_session(&mut self, n: usize) {
        let keys = self.setup.keys;
        let name = |area: &str, key: usize| self.topics.id(&format!("{area}:{}", key + 1));
        let follows = [
            name("comments", n % keys),
            name("comments", (n * 7 + 3) % keys),
            name("content", n % (keys / 2)),
        ];
        let mut follows: Vec<TopicId> = follows.into_iter().flatten().collect();
        follows.dedup();
        let session = Session::new(
            format!("s{n}"),
            follows,
            Arc::clone(&self.topics),
            self.clock,
            n % self.setup.nodes,
        );
        let session = Arc::new(session);
        self.tasks.spawn(Arc::clone(&session).live(Arc::clone(&self.doors)));
        self.sessions.push(session);
    }

    fn start_publishers(&mut self) {
        let (all, live): (Vec<TopicId>, Vec<TopicId>) = (
            (0..self.topics.names.len() as TopicId).collect(),
            (0..self.topics.names.len() as TopicId)
                .filter(|t| self.topics.name(*t).starts_with("content"))
                .collect(),
        );
        let seed = self.setup.seed;
        for n in 0..4 {
            let rate = self.setup.recorded / 4.0;
            let press = Arc::clone(&self.press);
            self.tasks.spawn(press.record(all.clone(), rate, seed * 100 + n));
        }
        if self.setup.live > 0.0 {
            self.tasks.spawn(Arc::clone(&self.press).shout(live, self.setup.live, seed * 100 + 50));
        }
    }

    /// Runs something beside the world until its end.
    pub(crate) fn beside(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    pub(crate) fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.notes.push((self.clock.now(), what));
    }

    /// Counts a proof that a fault bit.
    pub(crate) fn bit(&mut self, what: &'static str, count: u64) {
        *self.bites.entry(what).or_default() += count;
    }

    /// Keeps the highest of what was measured.
    pub(crate) fn measured(&mut self, what: &'static str, figure: f64) {
        let most = self.measured.entry(what).or_insert(figure);
        *most = most.max(figure);
    }

    /// Asks every server that takes writes, and takes an error answer for an error.
    pub(crate) async fn must(&self, args: &[&str]) -> Result<Vec<Value>> {
        let mut answers = Vec::new();
        for master in self.store.masters().await? {
            answers.push(self.store.servers()[master].must(args).await?);
        }
        Ok(answers)
    }

    pub(crate) fn watched(&mut self) -> Result<&mut Watched> {
        match &mut self.store {
            Store::Watched(watched) => Ok(watched),
            _ => anyhow::bail!("this needs a Redis under Sentinel"),
        }
    }

    pub(crate) fn cluster(&mut self) -> Result<&mut Cluster> {
        match &mut self.store {
            Store::Cluster(cluster) => Ok(cluster),
            _ => anyhow::bail!("this needs a cluster"),
        }
    }

    /// Where the logs end by now; topics whose log cannot be asked are missing.
    pub(crate) async fn heads(&self) -> HashMap<TopicId, Id> {
        let mut door = Door::new(self.store.place());
        let mut heads = HashMap::new();
        for topic in 0..self.topics.names.len() as TopicId {
            // A server may be down: the next try asks another one.
            for _ in 0..6 {
                if let Ok(id) = door.head(&key(self.topics.name(topic))).await {
                    heads.insert(topic, id);
                    break;
                }
            }
        }
        heads
    }

    /// Lets everything come to rest and audits it.
    pub(crate) async fn finish(&mut self, allowed: &[Reason]) -> Verdict {
        hold(Duration::from_millis(1500)).await;
        self.press.stopped.store(true, std::sync::atomic::Ordering::Relaxed);
        self.note("publishers stop");
        let _ = self.press.idle().await;
        // In vain is no error here: the audit says what is missing.
        let rest = self.in_step_within(Duration::from_secs(15)).await;
        let heads = self.heads().await;
        let told: Vec<Told> = self.sessions.iter().map(|session| session.state().told.clone()).collect();
        let names = &self.topics.names;
        let live: HashSet<TopicId> = (0..names.len() as TopicId)
            .filter(|topic| names[*topic as usize].starts_with("content"))
            .collect();
        let ledger = self.press.ledger();
        let (topics, notes) = (names, &self.notes);
        let mut verdict = audit(&Evidence {
            topics,
            told: &told,
            ledger: &ledger,
            heads: &heads,
            allowed,
            live: &live,
            notes,
        });
        drop(ledger);
        if let Err(error) = rest {
            verdict.violations.push(format!("at the end: {error:#}"));
        }
        for node in &mut self.nodes {
            if node.has_crashed() {
                verdict.violations.push(format!(
                    "{} ended although nobody told it to\n{}",
                    node.name,
                    node.tail()
                ));
            }
        }
        verdict
    }

    /// The ends of all logs of nodes.
    pub(crate) fn logs(&self) -> String {
        self.nodes.iter().map(Node::tail).collect::<Vec<_>>().join("\n")
    }
}

fn names(keys: usize) -> Vec<String> {
    let comments = (1..=keys).map(|key| format!("comments:{key}"));
    let content = (1..=keys / 2).map(|key| format!("content:{key}"));
    ["comments".to_owned(), "content".to_owned()].into_iter().chain(comments).chain(content).collect()
}
