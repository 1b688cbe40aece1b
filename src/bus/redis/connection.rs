//! One connection to Redis (on a cluster, one to each master), made by fred with every default set on purpose.
//!
//! It is never mended: what fred does after a lost connection (subscribe again without telling whether it worked, send
//! commands a second time) is not what an honest link needs. A connection that has shown any trouble is closed and a
//! new one is made by [`super::link`]. Must not know what is said over it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fred::{
    interfaces::{ClusterInterface, PubsubInterface},
    prelude::{ClientLike, Error, ErrorKind, EventInterface},
    socket2::TcpKeepalive,
    types::{
        Builder, ClusterHash, CustomCommand, Value,
        config::{Config, ConnectionConfig, Options, PerformanceConfig, ReconnectPolicy, Server, TcpConfig},
    },
};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::shutdown::Tasks;

/// The longest that anything but a long read may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// The longest that a read of heads or history may take: a slow link needs its time for a long log.
pub(super) const READ_PATIENCE: Duration = Duration::from_secs(10);

/// Messages that may wait between fred and the reader of a link (fred allocates the places at once, 5 MiB).
const MESSAGES: usize = 8192;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Commands of all kinds, pipelined.
    Commands,
    /// Subscriptions; nothing else is sent but what confirms them.
    Subscriptions,
}

/// A change of subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Subscribe,
    Unsubscribe,
    SubscribePatterns,
    UnsubscribePatterns,
}

/// A connection, closed when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    client: fred::clients::Client,
    router: AbortHandle,
    closed: CancellationToken,
    reason: std::sync::Arc<Mutex<Option<String>>>,
    nonce: AtomicU64,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Fred's router owns the sockets.
        self.router.abort();
    }
}

impl Connection {
    /// Connects and says hello, or says why not.
    pub(super) async fn open(config: &Config, purpose: Purpose, tasks: &Tasks) -> Result<Self, Error> {
        let client = client(config, purpose)?;
        let mut errors = client.error_rx();
        let router = client.connect();
        let connection = Self {
            client,
            router: router.abort_handle(),
            closed: CancellationToken::new(),
            reason: std::sync::Arc::default(),
            nonce: AtomicU64::new(0),
        };
        let connected = tokio::time::timeout(PATIENCE * 2, connection.client.wait_for_connect()).await;
        connected.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer")))?;
        let (closed, reason) = (connection.closed.clone(), connection.reason.clone());
        // What was wrong with one of several hosts before there was a connection is of no interest.
        while errors.try_recv().is_ok() {}
        tasks.spawn_until_end(async move {
            let text = tokio::select! {
                () = closed.cancelled() => return,
                Ok((error, _)) = errors.recv() => describe(&error),
                end = router => match end {
                    Ok(Err(error)) => describe(&error),
                    _ => "the connection was closed".into(),
                },
            };
            reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
            closed.cancel();
        });
        Ok(connection)
    }

    /// The client, for what is not a plain command.
    pub(super) fn client(&self) -> &fred::clients::Client {
        &self.client
    }

    /// Cancelled when the connection has shown trouble.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Gives the connection up.
    pub(super) fn fail(&self, why: impl Into<String>) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why.into());
        self.closed.cancel();
    }

    /// Why it was given up or lost.
    pub(super) fn reason(&self) -> String {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        reason.clone().unwrap_or_else(|| "the connection was closed".into())
    }

    /// Sends a command by the slot of its key (ignored without a cluster).
    pub(super) async fn command(
        &self,
        name: &'static str,
        key: &str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Value, Error> {
        let slot = ClusterHash::Custom(fred::util::redis_keyslot(key.as_bytes()));
        let options = Options { timeout: Some(timeout), ..Options::default() };
        self.send(CustomCommand::new_static(name, slot, false), args, &options).await
    }

    /// Sends a command to one master of a cluster, or to the only one.
    pub(super) async fn command_to(
        &self,
        master: Option<&Server>,
        name: &'static str,
        args: Vec<Value>,
    ) -> Result<Value, Error> {
        let options =
            Options { timeout: Some(PATIENCE), cluster_node: master.cloned(), ..Options::default() };
        self.send(CustomCommand::new_static(name, ClusterHash::Random, false), args, &options).await
    }

    async fn send(
        &self,
        command: CustomCommand,
        args: Vec<Value>,
        options: &Options,
    ) -> Result<Value, Error> {
        let client = self.client.with_options(options);
        tokio::select! {
            biased;
            reply = client.custom(command, args) => reply,
            () = self.closed.cancelled() => Err(Error::new(ErrorKind::IO, self.reason())),
        }
    }

    /// Asks a cluster where slots lie by now. Nothing else comes through meanwhile, and fred sets no bound to it: while
    /// nothing is answered it asks one server after the other, again and again, for minutes.
    pub(super) async fn sync_slots(&self) -> Result<(), Error> {
        // Two of its tries: a slow link may need the second.
        let synced = tokio::time::timeout(PATIENCE * 2, self.client.sync_cluster());
        tokio::select! {
            biased;
            synced = synced => synced.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer"))),
            () = self.closed.cancelled() => Err(Error::new(ErrorKind::IO, self.reason())),
        }
    }

    /// The masters of a cluster; one `None` where there is none.
    pub(super) fn masters(&self) -> Vec<Option<Server>> {
        match self.client.cached_cluster_state() {
            Some(state) => state.unique_primary_nodes().into_iter().map(Some).collect(),
            None => vec![None],
        }
    }

    /// Changes subscriptions and waits until Redis has confirmed them. Nothing else may be under way.
    ///
    /// Fred takes these commands for answered when they are sent. Redis' refusal comes as the answer to the next command,
    /// which therefore is a ping that leaves together with the first (alone, it could leave after the refusal had come
    /// and been dropped). After a refusal the answers are one place behind until all have come in.
    pub(super) async fn confirmed(&self, change: Change, names: Vec<String>) -> Result<(), Error> {
        let (pipeline, nonce) = (self.client.pipeline(), self.nonce());
        match change {
            Change::Subscribe => pipeline.subscribe(names).await?,
            Change::Unsubscribe => pipeline.unsubscribe(names).await?,
            Change::SubscribePatterns => pipeline.psubscribe(names).await?,
            Change::UnsubscribePatterns => pipeline.punsubscribe(names).await?,
        }
        let ping = CustomCommand::new_static("PING", ClusterHash::Random, false);
        let _: Value = pipeline.custom(ping, vec![nonce.clone()]).await?;
        let answer: Result<Value, Error> = tokio::select! {
            biased;
            answer = pipeline.last() => answer,
            () = self.closed.cancelled() => Err(Error::new(ErrorKind::IO, self.reason())),
        };
        match answer {
            Ok(answer) if answer.as_str().is_some_and(|text| *text == nonce) => Ok(()),
            Err(error) if is_trouble(&error) => Err(error),
            other => {
                self.catch_up().await?;
                other.map(|_| ())
            }
        }
    }

    /// Waits until the answers are in step again.
    async fn catch_up(&self) -> Result<(), Error> {
        for attempt in 1..=10 {
            match self.ping().await {
                Ok(true) => return Ok(()),
                Err(error) if is_trouble(&error) => return Err(error),
                _ => tokio::time::sleep(Duration::from_millis(20 * attempt)).await,
            }
        }
        Err(Error::new(ErrorKind::Protocol, "the answers on the link are out of step"))
    }

    fn nonce(&self) -> String {
        self.nonce.fetch_add(1, Ordering::Relaxed).to_string()
    }

    /// Whether the answer is the one to this ping.
    async fn ping(&self) -> Result<bool, Error> {
        let nonce = self.nonce();
        let reply = self.command_to(None, "PING", vec![nonce.clone().into()]).await?;
        Ok(reply.as_str().is_some_and(|text| *text == nonce))
    }
}

/// Whether the error comes from the connection and not from Redis.
pub(super) fn is_trouble(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Unknown
            | ErrorKind::InvalidArgument
            | ErrorKind::InvalidCommand
            | ErrorKind::Auth
            | ErrorKind::NotFound
            | ErrorKind::Parse
    )
}

/// An error of fred in words for operators.
pub(super) fn describe(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Timeout => "Redis did not answer in time".into(),
        ErrorKind::Canceled => "the connection was closed".into(),
        _ => {
            // Fred writes the system's errors as Rust does for programmers.
            let text = error.details().trim();
            let message =
                text.strip_prefix("Os { ").and_then(|rest| rest.split_once("message: \"")?.1.split_once('"'));
            message.map_or(text, |(message, _)| message).to_owned()
        }
    }
}

fn client(config: &Config, purpose: Purpose) -> Result<fred::clients::Client, Error> {
    let mut builder = Builder::from_config(config.clone());
    builder.set_performance_config(PerformanceConfig {
        default_command_timeout: PATIENCE,
        max_feed_count: 200,
        broadcast_channel_capacity: if purpose == Purpose::Subscriptions { MESSAGES } else { 32 },
    });
    builder.set_connection_config(ConnectionConfig {
        connection_timeout: PATIENCE,
        internal_command_timeout: PATIENCE,
        cluster_cache_update_delay: Duration::from_millis(50),
        max_command_attempts: 1,
        max_redirections: 5,
        max_command_buffer_len: 100_000,
        auto_client_setname: false,
        reconnect_on_auth_error: false,
        reconnect_errors: Vec::new(),
        tcp: TcpConfig {
            nodelay: Some(true),
            keepalive: Some(TcpKeepalive::new().with_time(PATIENCE).with_interval(PATIENCE)),
            user_timeout: Some(PATIENCE * 3),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    });
    if config.server.is_clustered() {
        // Following a MOVED needs one; any lost connection ends ours all the same.
        builder.set_policy(ReconnectPolicy::new_constant(5, 200));
    }
    builder.build()
}
