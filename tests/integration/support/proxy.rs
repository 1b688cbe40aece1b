//! A TCP proxy that can go deaf in one direction or both, or cut: what a network does to a link.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};

/// What a proxy does to its connections.
#[derive(Debug, Default)]
pub(crate) struct Moods {
    /// Bytes of the server vanish.
    pub(crate) swallow_answers: AtomicBool,
    /// Bytes of the client vanish.
    pub(crate) swallow_requests: AtomicBool,
    /// Only connections that have subscribed are touched.
    pub(crate) subscribers_only: AtomicBool,
    /// Only connections that have not subscribed are touched.
    pub(crate) commands_only: AtomicBool,
    /// Only connections that have read a log are touched.
    pub(crate) readers_only: AtomicBool,
    /// So many bytes of answers pass in a second, on each connection; 0 for as many as there are.
    pub(crate) answers_per_second: AtomicU64,
    /// Answers come so many milliseconds later.
    pub(crate) answers_late: AtomicU64,
}

/// A proxy in front of a port of 127.0.0.1.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    moods: Arc<Moods>,
    cut: watch::Sender<u64>,
    insert: watch::Sender<Vec<u8>>,
}

impl Proxy {
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let moods = Arc::new(Moods::default());
        let (cut, cuts) = watch::channel(0);
        let (insert, inserts) = watch::channel(Vec::new());
        let m = moods.clone();
        #[allow(clippy::disallowed_methods)] // a test's own server
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, port, m.clone(), cuts.clone(), inserts.clone()));
            }
        });
        Self { address, moods, cut, insert }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn moods(&self) -> &Moods {
        &self.moods
    }

    /// Closes every connection.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }

    /// Sends bytes to the server on every connection that has subscribed, as if the client had.
    pub(crate) fn insert(&self, bytes: &[u8]) {
        self.insert.send_replace(bytes.to_vec());
    }
}

async fn serve(
    client: TcpStream,
    port: u16,
    moods: Arc<Moods>,
    mut cuts: watch::Receiver<u64>,
    inserts: watch::Receiver<Vec<u8>>,
) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let kind = Kind::default();
    cuts.borrow_and_update();
    tokio::select! {
        // A cut comes first: no answer that has just arrived passes once it is made.
        biased;
        _ = cuts.changed() => {}
        () = requests(client_in, server_out, &moods, &kind, inserts) => {}
        () = answers(server_in, client_out, &moods, &kind) => {}
    }
}

/// What a connection has been used for.
#[derive(Debug, Default)]
struct Kind {
    subscriber: AtomicBool,
    reader: AtomicBool,
}

impl Kind {
    fn learn(&self, request: &[u8]) {
        let says = |word: &[u8]| request.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
        self.subscriber.fetch_or(says(b"SUBSCRIBE"), Ordering::Relaxed);
        self.reader.fetch_or(says(b"carillon_history"), Ordering::Relaxed);
    }
}

fn touched(moods: &Moods, kind: &Kind) -> bool {
    let subscriber = kind.subscriber.load(Ordering::Relaxed);
    let spared = if subscriber { &moods.commands_only } else { &moods.subscribers_only };
    let reader = kind.reader.load(Ordering::Relaxed) || !moods.readers_only.load(Ordering::Relaxed);
    reader && !spared.load(Ordering::Relaxed)
}

async fn requests(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    moods: &Moods,
    kind: &Kind,
    mut inserts: watch::Receiver<Vec<u8>>,
) {
    inserts.borrow_and_update();
    let mut buffer = vec![0; 65536];
    loop {
        tokio::select! {
            read = from.read(&mut buffer) => {
                let Ok(read @ 1..) = read else { return };
                let bytes = &buffer[..read];
                kind.learn(bytes);
                if moods.swallow_requests.load(Ordering::Relaxed) && touched(moods, kind) {
                    continue;
                }
                if to.write_all(bytes).await.is_err() {
                    return;
                }
            }
            Ok(()) = inserts.changed() => {
                let bytes = inserts.borrow_and_update().clone();
                if kind.subscriber.load(Ordering::Relaxed) && to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn answers(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, moods: &Moods, kind: &Kind) {
    let mut buffer = vec![0; 65536];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if moods.swallow_answers.load(Ordering::Relaxed) && touched(moods, kind) {
            continue;
        }
        if let pace @ 1.. = moods.answers_per_second.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_micros(read as u64 * 1_000_000 / pace)).await;
        }
        if let late @ 1.. = moods.answers_late.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(late)).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
