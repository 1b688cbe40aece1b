//! The world of one schedule: virtual time, what happens next, and whoever it happens to. One thread, one order; whatever
//! takes time takes as long as the seed says.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use carillon::{
    auth::{Authenticator, Identity},
    metrics::Metrics,
    protocol::{Kind, Whom, time},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use slab::Slab;

use crate::{
    audit::Audit,
    bus::{Push, Told, Work},
    client::Client,
    cms::Question,
    node::{self, Node},
    people::People,
    plan::Plan,
    redis::{Call, Redis, Reply},
    report::Report,
};

/// Redis' clock when a schedule begins, ms since 1970.
pub(crate) const EPOCH: u64 = 1_763_700_000_000;
/// How long after the last deed everybody must be in step, ms: a head check may take so long to find a loss.
pub(crate) const SETTLING: u64 = 75_000;

/// What can happen.
#[derive(Debug)]
pub(crate) enum Happening {
    Step(usize),
    Mend,
    Build { node: usize, life: u64 },
    AtRedis { node: usize, link: u64, id: u64, work: Work },
    Told { node: usize, link: u64, id: u64, told: Told },
    Pushed { node: usize, link: u64, push: Push },
    Probe { node: usize, link: u64 },
    ProbeDue { node: usize, link: u64, round: u64 },
    Parked { node: usize },
    Tick { node: usize, life: u64 },
    Turn { node: usize, life: u64 },
    Restart { node: usize },
    Drained { node: usize, life: u64, lasts: u64 },
    Session(usize, u64),
    Connect { client: usize, life: u64 },
    Introduce { client: usize, life: u64, by_message: bool },
    Bring { client: usize, life: u64, old: bool },
    Operate { node: usize, kind: Kind, whom: Whom },
    CmsSays(Question),
    Read { client: usize, life: u64 },
    Look,
}

struct Next {
    at: u64,
    order: u64,
    what: Happening,
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Next {}
impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A session's task at a node.
pub(crate) struct Served {
    pub node: usize,
    number: u64,
    future: Pin<Box<dyn Future<Output = ()>>>,
}

impl Served {
    /// A task that serves a client.
    pub(crate) fn new(node: usize, future: Pin<Box<dyn Future<Output = ()>>>) -> Self {
        Self { node, number: 0, future }
    }
}

/// Puts a session on the list of those that have something to do.
struct Woken {
    session: usize,
    number: u64,
    due: AtomicBool,
    list: Arc<Mutex<Vec<(usize, u64)>>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        if !self.due.swap(true, Ordering::Relaxed) {
            self.list.lock().expect("the list").push((self.session, self.number));
        }
    }
}

/// Everything.
pub(crate) struct World {
    pub now: u64,
    pub plan: Arc<Plan>,
    pub redis: Redis,
    pub skew: i64,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    pub audit: Audit,
    pub report: Report,
    pub auth: Authenticator,
    pub identity: Identity,
    pub metrics: Metrics,
    pub people: People,
    pub steps: u64,
    pub ticked: u64,
    /// What happened, for people; kept only when a seed is replayed.
    pub journal: Option<Vec<String>>,
    queue: BinaryHeap<Reverse<Next>>,
    order: u64,
    rng: SmallRng,
    sessions: Slab<(Served, Waker, Arc<Woken>)>,
    served: u64,
    woken: Arc<Mutex<Vec<(usize, u64)>>>,
    ended: bool,
}

impl World {
    /// The world of a schedule before its first moment.
    pub(crate) fn new(plan: Arc<Plan>, auth: &Authenticator, metrics: &Metrics, journal: bool) -> Self {
        let parts = plan.parts.iter().map(Client::new).collect::<Vec<_>>();
        Self {
            now: 0,
            redis: Redis::new(plan.log_length, plan.log_ttl),
            skew: 0,
            nodes: (0..plan.nodes).map(|_| Node::new()).collect(),
            audit: Audit::new(parts.len()),
            clients: parts,
            report: Report::default(),
            identity: node::identity(auth),
            auth: auth.clone(),
            metrics: metrics.clone(),
            people: People::new(plan.proof, plan.parts.len()),
            steps: 0,
            ticked: 0,
            journal: journal.then(Vec::new),
            queue: BinaryHeap::new(),
            order: 0,
            rng: SmallRng::seed_from_u64(plan.seed ^ 0x5EED),
            sessions: Slab::new(),
            served: 0,
            woken: Arc::default(),
            ended: false,
            plan,
        }
    }

    /// Lets the schedule happen. The first thing that was not right is in the audit.
    pub(crate) async fn run(&mut self) {
        time::show(EPOCH);
        for node in 0..self.nodes.len() {
            self.start(node);
        }
        for client in 0..self.clients.len() {
            let at = 200 + self.pick(300);
            self.at(at, Happening::Connect { client, life: 0 });
        }
        let steps: Vec<u64> = self.plan.steps.iter().map(|step| step.at).collect();
        for (index, at) in steps.iter().enumerate() {
            self.at(*at, Happening::Step(index));
        }
        let last = steps.last().copied().unwrap_or(0);
        self.at(last + 1, Happening::Mend);
        self.at(1_000, Happening::Look);
        while let Some(Reverse(next)) = self.queue.pop() {
            if next.at > self.now {
                tokio::time::advance(Duration::from_millis(next.at - self.now)).await;
                self.now = next.at;
                time::show(EPOCH + self.now);
                // What time has woken.
                self.wake();
            }
            self.happen(next.what);
            // Event streams run as tasks of their own.
            tokio::task::yield_now().await;
            self.wake();
            self.rouse();
            self.look_at_doors();
            if self.audit.violation.is_some() || self.ended {
                break;
            }
        }
        for node in 0..self.nodes.len() {
            self.kill(node);
        }
    }

    fn happen(&mut self, what: Happening) {
        let alive = |world: &Self, node: usize, life: u64| {
            world.nodes[node].life == life && world.nodes[node].running.is_some()
        };
        match what {
            Happening::Step(index) => self.step(index),
            Happening::Mend => self.mend(),
            Happening::Build { node, life } if alive(self, node, life) => self.build(node),
            Happening::AtRedis { node, link, id, work } => match self.is_deaf(node) {
                Some(until) => self.at(until, Happening::AtRedis { node, link, id, work }),
                None => self.at_redis(node, link, id, &work),
            },
            Happening::Told { node, link, id, told } => match self.is_deaf(node) {
                Some(until) => self.at(until, Happening::Told { node, link, id, told }),
                None => self.told(node, link, id, told),
            },
            Happening::Pushed { node, link, push } => match self.is_deaf(node) {
                Some(until) => self.at(until, Happening::Pushed { node, link, push }),
                None => self.pushed(node, link, push),
            },
            Happening::Probe { node, link } => self.probe(node, link),
            Happening::ProbeDue { node, link, round } => self.probe_due(node, link, round),
            Happening::Parked { node } => self.give_up_parked(node),
            Happening::Tick { node, life } if alive(self, node, life) => self.tick(node),
            Happening::Turn { node, life } if alive(self, node, life) => self.turn(node),
            Happening::Drained { node, life, lasts } if alive(self, node, life) => self.stop(node, lasts),
            Happening::Restart { node } => self.start(node),
            Happening::Session(session, number) => self.poll(session, number),
            Happening::Connect { client, life } if self.clients[client].life == life => self.connect(client),
            Happening::Introduce { client, life, by_message } if self.clients[client].life == life => {
                self.introduce(client, by_message);
            }
            Happening::Bring { client, life, old } if self.clients[client].life == life => {
                self.bring(client, old);
            }
            Happening::Operate { node, kind, whom } => self.operate(node, kind, whom),
            Happening::CmsSays(question) => self.cms_says(question),
            Happening::Read { client, life } if self.clients[client].life == life => self.read(client),
            Happening::Look => {
                self.look();
                self.at(self.now + 1_000, Happening::Look);
            }
            _ => {}
        }
    }

    /// Nothing more is checked after this.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Something is to happen then.
    pub(crate) fn at(&mut self, at: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Next { at: at.max(self.now), order: self.order, what }));
    }

    /// A number below `end`, or 0.
    pub(crate) fn pick(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.rng.random_range(0..end) }
    }

    /// Whether something of this probability happens.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    /// A number from 0 to 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.rng.random()
    }

    /// How long something takes: mostly little, now and then as long as may be.
    pub(crate) fn delay(&mut self) -> u64 {
        let pace = self.plan.pace;
        if self.chance(0.05) { self.pick(pace * 20 + 1) } else { self.pick(pace + 1) }
    }

    /// What the clock of Redis' machine shows, ms.
    pub(crate) fn redis_clock(&self) -> u64 {
        EPOCH.saturating_add_signed(self.skew) + self.now
    }

    /// A function is called in Redis.
    pub(crate) fn redis_call(&mut self, call: &Call) -> Result<Reply, String> {
        self.redis.pass(self.redis_clock());
        self.steps += 1;
        let reply = self.redis.call(call);
        self.audit_expired();
        reply
    }

    /// A session begins.
    pub(crate) fn serve(&mut self, mut served: Served) {
        self.served += 1;
        served.number = self.served;
        let number = served.number;
        let entry = self.sessions.vacant_entry();
        let session = entry.key();
        let woken =
            Arc::new(Woken { session, number, due: AtomicBool::new(true), list: Arc::clone(&self.woken) });
        entry.insert((served, Waker::from(Arc::clone(&woken)), woken));
        self.at(self.now, Happening::Session(session, number));
    }

    fn poll(&mut self, session: usize, number: u64) {
        let Some((served, waker, woken)) = self.sessions.get_mut(session) else { return };
        if served.number != number {
            return;
        }
        let node = served.node;
        let frozen = self.nodes[node].frozen;
        if frozen > self.now {
            return self.at(frozen, Happening::Session(session, number));
        }
        woken.due.store(false, Ordering::Relaxed);
        self.steps += 1;
        let done = served.future.as_mut().poll(&mut Context::from_waker(waker)).is_ready();
        if done {
            self.sessions.remove(session);
        }
        self.stir(node);
    }

    /// Whoever was woken gets its turn a little later.
    fn wake(&mut self) {
        let woken = std::mem::take(&mut *self.woken.lock().expect("the list"));
        for (session, number) in woken {
            let at = self.now + self.pick(3);
            self.at(at, Happening::Session(session, number));
        }
        for node in 0..self.nodes.len() {
            self.stir(node);
        }
    }

    /// The sessions of a node that is gone end with it.
    pub(crate) fn end_sessions(&mut self, node: usize) {
        let gone: Vec<usize> = self
            .sessions
            .iter()
            .filter(|(_, (served, ..))| served.node == node)
            .map(|(key, _)| key)
            .collect();
        for key in gone {
            self.sessions.remove(key);
        }
        for client in 0..self.clients.len() {
            self.lose_client(client, node);
        }
    }

    /// Writes into the journal.
    pub(crate) fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.journal.is_some() {
            let line = format!("{:>7} ms  {}", self.now, text(self));
            if let Some(journal) = &mut self.journal {
                journal.push(line);
            }
        }
    }
}
