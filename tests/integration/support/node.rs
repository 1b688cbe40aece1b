//! Nodes in the test's own process, and clients that know nothing of the product's code: a raw socket, the few lines
//! of HTTP and RFC 6455 that are needed, and deadlines.

use std::{future::Future, net::SocketAddr, time::Duration};

use carillon::{
    app::{self, AppError, Listeners},
    auth::NewToken,
    config::{Algorithm, Config, Layers, Secret},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

#[allow(unused_imports, reason = "each test uses a part of it")]
pub(crate) use super::frames::{Frame, Ws, client_frame, close_code};

pub(crate) const SECRET: &str = "a secret of the tests, 32 bytes or more";
/// Long enough for a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let Ok(output) = tokio::time::timeout(PATIENCE, future).await else {
        panic!("waited in vain for {what}")
    };
    output
}

/// Asks until the answer is yes.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    within(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A running node.
pub(crate) struct Node {
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), AppError>>,
}

/// The configuration of a test: memory bus, tokens signed with [`SECRET`], quick probes; `settings` win.
pub(crate) fn config(settings: &[(&str, &str)]) -> Config {
    let mut layers = Layers::new();
    let defaults = [
        ("http.listen", "127.0.0.1:0"),
        ("internal.listen", "127.0.0.1:0"),
        ("auth.mode", "jwt"),
        ("auth.secret", SECRET),
        ("internal.publish_token", "the publish token of the tests"),
        ("probe.seconds", "1"),
        ("drain.window_seconds", "1"),
        ("drain.grace_seconds", "2"),
    ];
    for (key, value) in defaults.iter().chain(settings) {
        layers = layers.set(key, *value, "test");
    }
    layers.load().unwrap()
}

impl Node {
    /// A node that is ready.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let node = Self::launch(config(settings));
        until("the node to be ready", || async { node.get("/readyz").await.status == 200 }).await;
        node
    }

    /// A node that may not be ready yet.
    pub(crate) fn launch(config: Config) -> Self {
        let listeners = Listeners::bind(&config).unwrap();
        let (public, internal) =
            (listeners.public.local_addr().unwrap(), listeners.internal.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        #[allow(clippy::disallowed_methods, reason = "tests own their nodes")]
        let task = tokio::spawn(app::run(config, listeners, shutdown.clone()));
        Self { public, internal, shutdown, task }
    }

    /// SIGTERM.
    pub(crate) fn stop(&self) {
        self.shutdown.cancel();
    }

    /// Comes back when the node has stopped.
    pub(crate) async fn stopped(mut self) -> Result<(), AppError> {
        within("the node to stop", &mut self.task).await.unwrap()
    }

    /// GET on the internal listener.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        request(self.internal, "GET", path, &[], b"").await
    }

    /// POST on the internal listener with the publish token.
    pub(crate) async fn post(&self, path: &str, body: &[u8]) -> Answer {
        let token = [("Authorization", "Bearer the publish token of the tests")];
        request(self.internal, "POST", path, &token, body).await
    }

    /// Publishes a recorded event and returns its position.
    pub(crate) async fn publish(&self, topic: &str, event: &Value) -> String {
        let body = json!({"topic": topic, "event": event}).to_string();
        let answer = self.post("/publish", body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["positions"][0].as_str().unwrap().to_owned()
    }

    /// Publishes a live event.
    pub(crate) async fn publish_live(&self, topic: &str, event: &Value) {
        let body = json!({"topic": topic, "event": event}).to_string();
        let answer = self.post("/publish?live=1", body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// GET on the public listener.
    pub(crate) async fn public_get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        request(self.public, "GET", path, headers, b"").await
    }

    /// A WebSocket whose handshake succeeded.
    pub(crate) async fn socket(&self) -> Ws<TcpStream> {
        Ws::open(TcpStream::connect(self.public).await.unwrap(), "/realtime", &[]).await.unwrap()
    }

    /// A welcomed session of `user`, who may follow everything; and its welcome.
    pub(crate) async fn session(&self, user: &str, topics: &[&str]) -> (Ws<TcpStream>, Value) {
        let mut ws = self.socket().await;
        ws.send(&json!({"type": "connect", "token": token(user, &["*"]), "topics": topics})).await;
        let welcome = ws.message().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        (ws, welcome)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A token for ten minutes.
pub(crate) fn token(user: &str, topics: &[&str]) -> String {
    token_for(user, topics, Duration::from_secs(600))
}

pub(crate) fn token_for(user: &str, topics: &[&str], ttl: Duration) -> String {
    let topics = Some(topics.iter().map(ToString::to_string).collect());
    let token = NewToken { sub: user.into(), ttl, topics, ..NewToken::default() };
    token.sign(&Secret::new(SECRET), Algorithm::Hs256).unwrap()
}

/// A token to publish with.
pub(crate) fn publish_token(patterns: &[&str]) -> String {
    let publish = Some(patterns.iter().map(ToString::to_string).collect());
    let token = NewToken { sub: "cms".into(), ttl: Duration::from_secs(60), publish, ..NewToken::default() };
    token.sign(&Secret::new(SECRET), Algorithm::Hs256).unwrap()
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The status and the `code` of a problem.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// One request on a connection of its own.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += &format!("Host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    within("an answer", async {
        socket.write_all(&[head.as_bytes(), b"\r\n", body].concat()).await.unwrap();
        let (mut answer, rest) = read_head(&mut socket).await.expect("an answer");
        answer.body = rest;
        socket.read_to_end(&mut answer.body).await.unwrap();
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunk(&answer.body);
        }
        answer
    })
    .await
}

/// Reads status line and headers; `None`: the connection ended before that. Also what came behind them.
pub(crate) async fn read_head<S: AsyncRead + Unpin>(socket: &mut S) -> Option<(Answer, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(':').unwrap());
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    Some((Answer { status, headers, body: Vec::new() }, bytes[end + 4..].to_vec()))
}

/// The content of a complete chunked body (RFC 9112, 7.1).
pub(crate) fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap().trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
    body
}
