//! A TCP proxy that behaves as badly as networks do: it holds packets back in either direction, delays, stalls, cuts,
//! and, where it understands what passes (Redis' protocol), loses single messages and subscriptions.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::RngExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::resp;

/// Bytes that there is always room to read.
const PIECE: usize = 16_384;
/// The largest segment that the proxy takes, as on an Ethernet.
const SEGMENT: u32 = 1460;

/// Which connections a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Scope {
    #[default]
    All,
    /// Those on which something was subscribed to.
    Subscriptions,
}

/// What the proxy does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// Nothing gets from the client to the server.
    pub(crate) hold_up: bool,
    /// Nothing gets from the server to the client.
    pub(crate) hold_down: bool,
    pub(crate) scope: Scope,
    /// Every piece is so much later.
    pub(crate) delay: Duration,
    /// One piece in a hundred is so much later still.
    pub(crate) stall: Duration,
    /// Connections on which nothing passes for so long are cut.
    pub(crate) idle: Option<Duration>,
    /// New connections are closed at once.
    pub(crate) refuse: bool,
    /// From the moment at which a client sends this command nothing gets to the clients any more (`hold_down`).
    pub(crate) snap: Option<[&'static str; 2]>,
    /// So many messages of these channels are lost on their way to the client.
    pub(crate) swallow: HashMap<String, u32>,
}

struct Link {
    subscribes: bool,
    /// It is a replica's: what follows on it are no answers, and no rule is for it.
    replicates: bool,
    cut: CancellationToken,
    inject: mpsc::Sender<Vec<u8>>,
}

struct Shared {
    rules: watch::Sender<Rules>,
    target: AtomicU16,
    resp: bool,
    links: Mutex<HashMap<u64, Link>>,
    /// Confirmations of what the proxy itself has asked for, by channel: nobody waits for them.
    unasked: Mutex<HashMap<String, u32>>,
    /// How often rules have bitten: messages lost, connections cut or refused, pieces stalled.
    bites: AtomicU64,
    end: CancellationToken,
    tasks: TaskTracker,
}

/// A proxy; it ends when it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.end.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// A proxy before `target`. `resp`: it understands Redis' protocol.
    pub(crate) async fn start(target: u16, resp: bool) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            rules: watch::Sender::new(Rules::default()),
            target: AtomicU16::new(target),
            resp,
            links: Mutex::default(),
            unasked: Mutex::default(),
            bites: AtomicU64::new(0),
            end: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let accepting = Arc::clone(&shared);
        shared.tasks.spawn(async move {
            accepting.end.clone().run_until_cancelled(accept(listener, accepting)).await
        });
        Ok(Self { port, shared })
    }

    /// Changes the rules.
    pub(crate) fn rule(&self, change: impl FnOnce(&mut Rules)) {
        self.shared.rules.send_modify(change);
    }

    /// No rules any more.
    pub(crate) fn heal(&self) {
        self.shared.rules.send_replace(Rules::default());
    }

    /// Cuts all connections but replicas' (RST).
    pub(crate) fn cut(&self) -> usize {
        let links = lock(&self.shared.links);
        let clients = links.values().filter(|link| !link.replicates);
        let cut = clients.map(|link| link.cut.cancel()).count();
        self.shared.bites.fetch_add(cut as u64, Ordering::Relaxed);
        cut
    }

    /// Ends a subscription behind the client's back: Redis is asked to, and its confirmation does not get through. `word`:
    /// UNSUBSCRIBE, or SUNSUBSCRIBE at the server that has the channel's slot.
    pub(crate) async fn unsubscribe(&self, word: &str, channel: &str) -> usize {
        let inject: Vec<_> = lock(&self.shared.links)
            .values()
            .filter(|link| link.subscribes)
            .map(|link| link.inject.clone())
            .collect();
        *lock(&self.shared.unasked).entry(channel.to_owned()).or_default() += inject.len() as u32;
        for line in &inject {
            let _ = line.send(resp::encode(&[word, channel])).await;
        }
        inject.len()
    }

    /// Whether the command that was waited for has come, so that nothing gets through any more.
    pub(crate) fn has_snapped(&self) -> bool {
        let rules = self.shared.rules.borrow();
        rules.snap.is_none() && rules.hold_down
    }

    /// How often a rule has bitten.
    pub(crate) fn bites(&self) -> u64 {
        self.shared.bites.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut number = 0;
    while let Ok((client, _)) = listener.accept().await {
        number += 1;
        if shared.rules.borrow().refuse {
            shared.bites.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let (id, serving) = (number, Arc::clone(&shared));
        shared
            .tasks
            .spawn(async move { serving.end.clone().run_until_cancelled(serve(client, id, serving)).await });
    }
}

async fn serve(client: TcpStream, id: u64, shared: Arc<Shared>) {
    let Ok(server) = connect(shared.target.load(Ordering::Relaxed)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Closing without lingering sends a RST: nobody is told politely.
    for stream in [&client, &server] {
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
    let (inject, injected) = mpsc::channel(8);
    let (_silent, silence) = mpsc::channel(1);
    let cut = CancellationToken::new();
    lock(&shared.links).insert(id, Link { subscribes: false, replicates: false, cut: cut.clone(), inject });
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let last = Arc::new(Mutex::new(Instant::now()));
    let way = |up| Way { shared: Arc::clone(&shared), id, up, last: Arc::clone(&last) };
    let both = way(true);
    tokio::select! {
        () = way(true).carry(from_client, to_server, injected) => {}
        () = way(false).carry(from_server, to_client, silence) => {}
        () = both.watch_idle() => { shared.bites.fetch_add(1, Ordering::Relaxed); }
        () = cut.cancelled() => {}
    }
    lock(&shared.links).remove(&id);
}

/// Connects with a small window: a server that sends to somebody who does not read shall feel it soon.
///
/// The segments must be small as well. On loopback they may be 64 KiB long, and Linux then sends by halves of the largest
/// window that it was ever offered. When the receiver's kernel makes the window smaller than that, which it does after
/// drops and many small segments, a sliver leaves at every zero-window probe, 0.2 s and more apart, and somebody who reads all
/// the time is many seconds behind.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16_384)?;
    socket2::SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
    socket.connect(([127, 0, 0, 1], port).into()).await
}

/// One direction of one connection.
struct Way {
    shared: Arc<Shared>,
    id: u64,
    up: bool,
    last: Arc<Mutex<Instant>>,
}

impl Way {
    async fn carry(self, mut from: OwnedReadHalf, to: OwnedWriteHalf, mut injected: mpsc::Receiver<Vec<u8>>) {
        let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
        let reading = async {
            let mut buffer = Vec::new();
            let mut rules = self.shared.rules.subscribe();
            loop {
                // Nothing is read while nothing may pass, so that the sender feels it.
                if rules.wait_for(|rules| !self.held(rules)).await.is_err() {
                    return;
                }
                // What was passed on took its room with it.
                buffer.reserve(PIECE);
                let piece = tokio::select! {
                    read = from.read_buf(&mut buffer) => match read {
                        Ok(0) | Err(_) => return,
                        Ok(_) => self.filter(&mut buffer),
                    },
                    Some(piece) = injected.recv(), if buffer.is_empty() => piece,
                };
                *lock(&self.last) = Instant::now();
                if !piece.is_empty() && sender.send((self.due(), piece)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! { () = reading => {}, () = self.write(to, receiver) => {} }
    }

    async fn write(&self, mut to: OwnedWriteHalf, mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>) {
        let mut rules = self.shared.rules.subscribe();
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            // A held packet is not lost for TCP: it arrives when the way is free again.
            if rules.wait_for(|rules| !self.held(rules)).await.is_err() || to.write_all(&piece).await.is_err()
            {
                return;
            }
        }
    }

    fn held(&self, rules: &Rules) -> bool {
        let direction = if self.up { rules.hold_up } else { rules.hold_down };
        let mine = |link: &Link| !link.replicates && (rules.scope == Scope::All || link.subscribes);
        direction && lock(&self.shared.links).get(&self.id).is_none_or(mine)
    }

    fn replicates(&self) -> bool {
        lock(&self.shared.links).get(&self.id).is_some_and(|link| link.replicates)
    }

    fn due(&self) -> Instant {
        if self.replicates() {
            return Instant::now();
        }
        let rules = self.shared.rules.borrow();
        let mut due = Instant::now() + rules.delay;
        if !rules.stall.is_zero() && rand::rng().random_ratio(1, 100) {
            self.shared.bites.fetch_add(1, Ordering::Relaxed);
            due += rules.stall;
        }
        due
    }

    /// Takes what may pass out of the buffer; what is not a whole frame stays in it.
    fn filter(&self, buffer: &mut Vec<u8>) -> Vec<u8> {
        if !self.shared.resp || self.replicates() {
            return std::mem::take(buffer);
        }
        let (mut passing, mut taken) = (Vec::with_capacity(buffer.len()), 0);
        while taken < buffer.len() {
            match resp::parse(&buffer[taken..]) {
                Ok(Some((value, size))) => {
                    if self.passes(&value) {
                        passing.extend_from_slice(&buffer[taken..taken + size]);
                    }
                    taken += size;
                }
                Ok(None) => break,
                Err(_) => {
                    // Not ours to judge: let it through as it is.
                    passing.extend_from_slice(&buffer[taken..]);
                    taken = buffer.len();
                }
            }
        }
        buffer.drain(..taken);
        passing
    }

    fn passes(&self, value: &resp::Value) -> bool {
        let items = value.list();
        let word = |at: usize| items.get(at).and_then(resp::Value::text).unwrap_or_default();
        if self.up {
            if let Some(link) = lock(&self.shared.links).get_mut(&self.id) {
                let command = word(0).to_ascii_uppercase();
                link.subscribes |= command.ends_with("SUBSCRIBE");
                link.replicates |= command == "PSYNC";
            }
            self.snap([word(0), word(1)]);
            return true;
        }
        match word(0) {
            "message" | "smessage" => !self.count_down(word(1)),
            "unsubscribe" | "sunsubscribe" => {
                let mut unasked = lock(&self.shared.unasked);
                match unasked.get_mut(word(1)).filter(|left| **left > 0) {
                    Some(left) => {
                        *left -= 1;
                        self.shared.bites.fetch_add(1, Ordering::Relaxed);
                        false
                    }
                    None => true,
                }
            }
            _ => true,
        }
    }

    fn snap(&self, words: [&str; 2]) {
        self.shared.rules.send_if_modified(|rules| {
            let now = rules.snap.is_some_and(|wanted| words.map(str::to_ascii_uppercase) == wanted);
            if now {
                (rules.snap, rules.hold_down) = (None, true);
            }
            now
        });
    }

    /// Whether a message of this channel is to be lost.
    fn count_down(&self, channel: &str) -> bool {
        if !self.shared.rules.borrow().swallow.contains_key(channel) {
            return false;
        }
        let mut lost = false;
        self.shared.rules.send_if_modified(|rules| {
            if let Some(left) = rules.swallow.get_mut(channel).filter(|left| **left > 0) {
                *left -= 1;
                lost = true;
            }
            false
        });
        if lost {
            self.shared.bites.fetch_add(1, Ordering::Relaxed);
        }
        lost
    }

    /// Comes back when nothing has passed in either direction for as long as the rules allow.
    async fn watch_idle(&self) {
        let mut rules = self.shared.rules.subscribe();
        loop {
            let idle = rules.borrow_and_update().idle;
            let due = idle.map(|idle| *lock(&self.last) + idle);
            if due.is_some_and(|due| Instant::now() >= due) {
                return;
            }
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                changed = rules.changed() => if changed.is_err() { return },
            }
        }
    }
}
