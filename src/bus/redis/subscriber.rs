//! A connection with subscriptions to one server.
//!
//! It is read by whoever takes the messages, in their own task: a message goes straight from the socket to the reader of the link.
//! What Redis answers to a change of subscriptions must be told apart from what it answers to anything else. SUBSCRIBE has no
//! answer but a refusal, so each change is followed by a ping whose answer says that all before it is done.

use std::{
    collections::VecDeque,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use fred::{
    prelude::{Error, ErrorKind, Server},
    types::{Value, config::TlsConnector},
};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    ending::Ending,
    fault::describe,
    incoming::{self, Incoming, Message},
    reply,
    socket::{Opening, PATIENCE, ServerSocket},
};
use crate::shutdown::Tasks;

/// Bytes that are read at once where so many have come.
const READ: usize = 32 << 10;
/// Requests that wait for the socket; who has another waits as well.
const REQUESTS: usize = 64;

/// A change of subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubscriptionChange {
    Subscribe,
    Unsubscribe,
    SubscribePatterns,
    UnsubscribePatterns,
    SubscribeShards,
    UnsubscribeShards,
}

impl SubscriptionChange {
    fn command(self) -> &'static str {
        match self {
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::SubscribePatterns => "PSUBSCRIBE",
            Self::UnsubscribePatterns => "PUNSUBSCRIBE",
            Self::SubscribeShards => "SSUBSCRIBE",
            Self::UnsubscribeShards => "SUNSUBSCRIBE",
        }
    }

    /// Whether each channel needs a command of its own, because it may lie in another slot.
    fn is_sharded(self) -> bool {
        matches!(self, Self::SubscribeShards | Self::UnsubscribeShards)
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Wire = Box<dyn Duplex>;

/// A connection with subscriptions. Its [`PushStream`] must be polled, or nothing is answered.
#[derive(Debug)]
pub(super) struct Subscriber {
    server: Server,
    requests: mpsc::Sender<Request>,
    ending: Arc<Ending>,
}

/// Commands that leave together, and what waits for their answers.
#[derive(Debug)]
struct Request {
    bytes: Vec<u8>,
    expected: Vec<Expected>,
}

/// What waits for an answer.
#[derive(Debug)]
enum Expected {
    /// The next one.
    Answer(oneshot::Sender<Result<Value, Error>>),
    /// That of the ping behind a change; a refusal of the change comes before it.
    Confirmation {
        nonce: String,
        refusal: Option<Error>,
        count: Option<usize>,
        done: oneshot::Sender<Confirmed>,
    },
}

/// What Redis says to a change: how many sharded channels there are then, where it is one of those; or a refusal.
pub(super) type Confirmed = Result<Option<usize>, Error>;

/// What waits for an answer, in the order in which the commands have left.
#[derive(Debug, Clone, Default)]
struct Pending(Arc<Mutex<VecDeque<Expected>>>);

impl Pending {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Expected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sharded channel was subscribed to.
    fn count(&self, now: usize) {
        if let Some(Expected::Confirmation { count, .. }) = self.lock().front_mut() {
            *count = Some(now);
        }
    }

    /// Gives an answer to who waits for it. Whoever has gone does not matter.
    fn answer(&self, answer: Result<Value, Error>) {
        let mut pending = self.lock();
        match (pending.pop_front(), answer) {
            (Some(Expected::Answer(done)), answer) => drop(done.send(answer)),
            (Some(Expected::Confirmation { nonce, refusal, count, done }), Ok(text))
                if reply::text(text.clone()) == nonce =>
            {
                drop(done.send(refusal.map_or(Ok(count), Err)));
            }
            (Some(Expected::Confirmation { nonce, refusal, count, done }), other) => {
                let refusal = refusal.or(other.err());
                pending.push_front(Expected::Confirmation { nonce, refusal, count, done });
            }
            (None, _) => {}
        }
    }
}

impl ServerSocket for Subscriber {
    async fn open(opening: Opening<'_>) -> Result<(Self, Option<PushStream>), Error> {
        let opened = async {
            let wire = dial(&opening).await?;
            let (subscriber, mut stream) =
                Self::over(wire, opening.server.clone(), opening.ending.clone(), opening.tasks);
            tokio::select! {
                introduced = subscriber.introduce(&opening) => introduced?,
                () = stream.ended() => return Err(subscriber.gone()),
            }
            Ok((subscriber, Some(stream)))
        };
        timeout(PATIENCE * 2, opened).await.unwrap_or_else(|_| Err(no_answer()))
    }

    fn server(&self) -> &Server {
        &self.server
    }

    async fn send(&self, name: &'static str, args: Vec<Value>, patience: Duration) -> Result<Value, Error> {
        let (done, answer) = oneshot::channel();
        let args = args.into_iter().filter_map(reply::bytes).collect::<Vec<_>>();
        let mut bytes = Vec::new();
        put(&mut bytes, name, &args);
        self.request(bytes, vec![Expected::Answer(done)]).await?;
        self.wait(answer, patience).await?
    }
}

impl Subscriber {
    fn over(wire: Wire, server: Server, ending: Arc<Ending>, tasks: &Tasks) -> (Self, PushStream) {
        let (read, write) = tokio::io::split(wire);
        let (requests, to_send) = mpsc::channel(REQUESTS);
        let pending = Pending::default();
        tasks.spawn_until_end(send_all(write, to_send, pending.clone(), ending.clone()));
        let stream = PushStream { wire: read, bytes: BytesMut::new(), pending, ending: ending.clone() };
        (Self { server, requests, ending }, stream)
    }

    /// Says who we are, in RESP2, and switches to RESP3, which tells pushes and answers apart.
    async fn introduce(&self, opening: &Opening<'_>) -> Result<(), Error> {
        if let Some(words) = opening.who.words() {
            self.send("AUTH", words.into_iter().map(Value::from).collect(), PATIENCE).await?;
        }
        self.send("HELLO", vec!["3".into()], PATIENCE).await.map(drop)
    }

    /// Changes subscriptions and waits until Redis has confirmed them. A refusal is the first one of several.
    pub(super) async fn confirmed(&self, change: SubscriptionChange, names: &[String]) -> Result<(), Error> {
        let mut bytes = Vec::new();
        if change.is_sharded() {
            for name in names {
                put(&mut bytes, change.command(), &[name]);
            }
        } else {
            put(&mut bytes, change.command(), names);
        }
        let (expected, done) = self.ping(&mut bytes);
        self.request(bytes, vec![expected]).await?;
        self.wait(done, PATIENCE).await?.map(drop)
    }

    /// Changes each of these by a command of its own, all in one go: what Redis says to each, in order. `asking`: the server is about
    /// to get their slots.
    pub(super) async fn confirmed_apart(
        &self,
        change: SubscriptionChange,
        names: &[String],
        asking: bool,
    ) -> Result<Vec<Confirmed>, Error> {
        let (mut bytes, mut expected, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            if asking {
                put(&mut bytes, "ASKING", &[""; 0]);
            }
            put(&mut bytes, change.command(), &[name]);
            let (waiting, done) = self.ping(&mut bytes);
            expected.push(waiting);
            all.push(done);
        }
        self.request(bytes, expected).await?;
        let mut said = Vec::with_capacity(all.len());
        for done in all {
            said.push(self.wait(done, PATIENCE).await?);
        }
        Ok(said)
    }

    /// Puts a ping behind a change.
    fn ping(&self, bytes: &mut Vec<u8>) -> (Expected, oneshot::Receiver<Confirmed>) {
        let (done, confirmed) = oneshot::channel();
        let nonce = self.ending.nonce();
        put(bytes, "PING", &[&nonce]);
        (Expected::Confirmation { nonce, refusal: None, count: None, done }, confirmed)
    }

    async fn request(&self, bytes: Vec<u8>, expected: Vec<Expected>) -> Result<(), Error> {
        self.requests.send(Request { bytes, expected }).await.map_err(|_| self.gone())
    }

    async fn wait<T>(&self, answer: oneshot::Receiver<T>, patience: Duration) -> Result<T, Error> {
        tokio::select! {
            biased;
            answer = timeout(patience, answer) => match answer {
                Ok(answer) => answer.map_err(|_| self.gone()),
                Err(_) => Err(no_answer()),
            },
            () = self.ending.token().cancelled() => Err(self.gone()),
        }
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::IO, self.ending.reason())
    }
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Timeout, "no answer")
}

/// Appends a command as RESP has it: an array of strings.
fn put(bytes: &mut Vec<u8>, name: &str, args: &[impl AsRef<[u8]>]) {
    bytes.extend_from_slice(format!("*{}\r\n", args.len() + 1).as_bytes());
    let mut string = |text: &[u8]| {
        bytes.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
        bytes.extend_from_slice(text);
        bytes.extend_from_slice(b"\r\n");
    };
    string(name.as_bytes());
    for arg in args {
        string(arg.as_ref());
    }
}

/// Connects, by TLS where that is asked for.
async fn dial(opening: &Opening<'_>) -> Result<Wire, Error> {
    let server = opening.server;
    let tcp = TcpStream::connect((&*server.host, server.port)).await?;
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(&tcp);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PATIENCE).with_interval(PATIENCE))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(PATIENCE * 3))?;
    let Some((TlsConnector::Rustls(connector), name)) = opening.access.connector(server) else {
        return Ok(Box::new(tcp));
    };
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    Ok(Box::new(connector.connect(name, tcp).await?))
}

/// Sends what is to be sent until the connection ends.
async fn send_all(
    mut wire: WriteHalf<Wire>,
    mut requests: mpsc::Receiver<Request>,
    pending: Pending,
    ending: Arc<Ending>,
) {
    let sending = async {
        while let Some(Request { bytes, expected }) = requests.recv().await {
            pending.lock().extend(expected);
            let sent = async {
                wire.write_all(&bytes).await?;
                wire.flush().await
            };
            if let Err(error) = sent.await {
                return ending.fail(describe(&error.into()));
            }
        }
    };
    ending.token().run_until_cancelled(sending).await;
}

/// What one server sends.
pub(super) struct PushStream {
    wire: ReadHalf<Wire>,
    bytes: BytesMut,
    pending: Pending,
    ending: Arc<Ending>,
}

impl PushStream {
    /// The next message; `None` once the connection has ended.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            if let Some(message) = self.buffered() {
                return Poll::Ready(Some(message));
            }
            if self.ending.token().is_cancelled() {
                return Poll::Ready(None);
            }
            if self.bytes.capacity() - self.bytes.len() < READ / 4 {
                self.bytes.reserve(READ);
            }
            let read = std::task::ready!(pin!(self.wire.read_buf(&mut self.bytes)).poll(cx));
            match read {
                Ok(0) => self.ending.fail("the connection was closed"),
                Ok(_) => {}
                Err(error) => self.ending.fail(describe(&error.into())),
            }
        }
    }

    /// The next message that has come whole already. Answers before it are given to who waits for them.
    pub(super) fn buffered(&mut self) -> Option<Message> {
        loop {
            match incoming::decode(&mut self.bytes) {
                Ok(Some(Incoming::Message(message))) => return Some(message),
                Ok(Some(Incoming::Answer(answer))) => self.pending.answer(answer),
                Ok(Some(Incoming::Subscribed(count))) => self.pending.count(count),
                Ok(Some(Incoming::Other)) => {}
                Ok(None) => return None,
                Err(error) => {
                    self.bytes.clear();
                    self.ending.fail(describe(&error));
                }
            }
        }
    }

    /// Takes in answers until the connection ends. What is pushed meanwhile is dropped.
    async fn ended(&mut self) {
        while std::future::poll_fn(|cx| self.poll_next(cx)).await.is_some() {}
    }
}

#[cfg(test)]
#[path = "subscriber_tests.rs"]
mod tests;
