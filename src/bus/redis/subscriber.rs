//! A connection with subscriptions to one server.
//!
//! It is read by whoever takes the messages, in their own task: a message goes straight from the socket to the reader of the link.
//! What Redis answers to a change of subscriptions must be told apart from what it answers to anything else. SUBSCRIBE has no
//! answer but a refusal, so each change is followed by a ping whose answer says that all before it is done.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fred::{
    prelude::{Error, ErrorKind, Server},
    types::{Value, config::TlsConnector},
};
use futures_util::future::join_all;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    ending::Ending,
    fault::describe,
    push_stream::{Confirmed, Expected, Pending, PushStream},
    reply,
    server_socket::{ConnectParams, KEEPALIVE, PATIENCE, ServerSocket, UNACKNOWLEDGED},
    target::RedisCredentials,
};

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
    requests: mpsc::Sender<Outgoing>,
    ending: Arc<Ending>,
    /// How many pings were sent: each has its number.
    pings: AtomicU64,
}

/// Commands that leave together, and what waits for their answers.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    expected: Vec<Expected>,
}

impl ServerSocket for Subscriber {
    async fn open(params: ConnectParams<'_>) -> Result<(Self, Option<PushStream>), Error> {
        let opened = async {
            let wire = dial(params).await?;
            let (subscriber, mut stream) = Self::over(wire, params);
            subscriber.handshake(&mut stream, params.who).await?;
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
        encode(&mut bytes, name, &args);
        self.request(bytes, vec![Expected::Answer(done)]).await?;
        self.wait(answer, patience).await?
    }
}

impl Subscriber {
    fn over(wire: Wire, params: ConnectParams<'_>) -> (Self, PushStream) {
        let (read, write) = tokio::io::split(wire);
        let (requests, to_send) = mpsc::channel(REQUESTS);
        let (pending, ending) = (Pending::default(), Arc::clone(params.ending));
        params.tasks.spawn_until_end(send_all(write, to_send, pending.clone(), ending.clone()));
        let stream = PushStream::new(read, pending, ending.clone());
        (Self { server: params.server.clone(), requests, ending, pings: AtomicU64::default() }, stream)
    }

    /// Says who we are, in RESP2, and switches to RESP3, which tells pushes and answers apart. What Redis says comes before that it has
    /// hung up.
    async fn handshake(&self, stream: &mut PushStream, who: &RedisCredentials) -> Result<(), Error> {
        let mut answered = pin!(async {
            if let Some(args) = who.auth_args() {
                self.send("AUTH", args.into_iter().map(Value::from).collect(), PATIENCE).await?;
            }
            self.send("HELLO", vec!["3".into()], PATIENCE).await.map(drop)
        });
        tokio::select! {
            biased;
            answered = &mut answered => answered,
            () = stream.ended() => answered.await,
        }
    }

    /// Changes subscriptions and waits until Redis has confirmed them. A refusal is the first one of several.
    pub(super) async fn confirmed(&self, change: SubscriptionChange, names: &[String]) -> Result<(), Error> {
        let mut bytes = Vec::new();
        if change.is_sharded() {
            for name in names {
                encode(&mut bytes, change.command(), &[name]);
            }
        } else {
            encode(&mut bytes, change.command(), names);
        }
        let commands = if change.is_sharded() { names.len() } else { 1 };
        let (expected, done) = self.ping(&mut bytes, commands);
        self.request(bytes, vec![expected]).await?;
        self.wait(done, PATIENCE).await?.map(drop)
    }

    /// Changes each of these by a command of its own, all in one go: what Redis says to each, in order. `asking`: the server is about
    /// to get their slots.
    pub(super) async fn confirmed_each(
        &self,
        change: SubscriptionChange,
        names: &[String],
        asking: bool,
    ) -> Result<Vec<Confirmed>, Error> {
        let (mut bytes, mut expected, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            if asking {
                encode(&mut bytes, "ASKING", &[""; 0]);
            }
            encode(&mut bytes, change.command(), &[name]);
            let (waiting, done) = self.ping(&mut bytes, if asking { 2 } else { 1 });
            expected.push(waiting);
            all.push(done);
        }
        self.request(bytes, expected).await?;
        let said = join_all(all.into_iter().map(|done| self.wait(done, PATIENCE))).await;
        said.into_iter().collect()
    }

    /// Puts a ping behind a change of so many commands.
    fn ping(&self, bytes: &mut Vec<u8>, commands: usize) -> (Expected, oneshot::Receiver<Confirmed>) {
        let (done, confirmed) = oneshot::channel();
        let nonce = self.pings.fetch_add(1, Ordering::Relaxed).to_string();
        encode(bytes, "PING", &[&nonce]);
        (Expected::Confirmation { nonce, commands, refusals: Vec::new(), count: None, done }, confirmed)
    }

    async fn request(&self, bytes: Vec<u8>, expected: Vec<Expected>) -> Result<(), Error> {
        self.requests.send(Outgoing { bytes, expected }).await.map_err(|_| self.gone())
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
fn encode(bytes: &mut Vec<u8>, name: &str, args: &[impl AsRef<[u8]>]) {
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
async fn dial(params: ConnectParams<'_>) -> Result<Wire, Error> {
    let server = params.server;
    let tcp = TcpStream::connect((&*server.host, server.port)).await?;
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(&tcp);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    let Some((connector, name)) = params.access.connector(server) else { return Ok(Box::new(tcp)) };
    let TlsConnector::Rustls(connector) = connector;
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    Ok(Box::new(connector.connect(name, tcp).await?))
}

/// Sends what is to be sent until the connection ends.
async fn send_all(
    mut wire: WriteHalf<Wire>,
    mut requests: mpsc::Receiver<Outgoing>,
    pending: Pending,
    ending: Arc<Ending>,
) {
    let sending = async {
        while let Some(Outgoing { bytes, expected }) = requests.recv().await {
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

#[cfg(test)]
#[path = "subscriber_tests.rs"]
mod tests;
