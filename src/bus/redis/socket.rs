//! One connection to one server, made by fred with every default set on purpose.
//!
//! It never reconnects: fred would then subscribe again without telling whether that worked, and send commands a second time. Fred
//! knows nothing of clusters and sentinels either: [`super::connection`] decides where commands go.

use std::{sync::Arc, time::Duration};

use fred::{
    clients::{Client, Pipeline},
    interfaces::{AuthInterface, PubsubInterface},
    prelude::{ClientLike, Error, ErrorKind, EventInterface, Server},
    socket2::TcpKeepalive,
    types::{
        Builder, ClusterHash, CustomCommand, Message, RespVersion, Value,
        config::{Config, ConnectionConfig, Options, PerformanceConfig, TcpConfig},
    },
};
use futures_util::future::join_all;
use tokio::{sync::broadcast, task::AbortHandle};

use super::{ending::Ending, fault::describe, fault::is_trouble};
use crate::shutdown::Tasks;

/// The longest that anything but a long read may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Messages that may wait between fred and the reader of a link (fred allocates the places at once, 5 MiB).
pub(super) const MESSAGES: usize = 8192;

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
pub(super) enum SubscriptionChange {
    Subscribe,
    Unsubscribe,
    SubscribePatterns,
    UnsubscribePatterns,
    UnsubscribeShards,
}

/// A connection, closed when it is dropped.
#[derive(Debug)]
pub(super) struct RedisSocket {
    client: Client,
    server: Server,
    router: AbortHandle,
    ending: Arc<Ending>,
}

impl Drop for RedisSocket {
    fn drop(&mut self) {
        // Fred's router owns the TCP connection.
        self.router.abort();
    }
}

/// A command for whatever server there is.
pub(super) fn custom(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::Random, false)
}

impl RedisSocket {
    /// Switches to RESP3, which pushes need. Fred would do so when it connects, but sends the password in HELLO unquoted, where a
    /// space ends it.
    pub(super) async fn say_hello(&self) -> Result<(), Error> {
        let hello = tokio::time::timeout(PATIENCE, self.client.hello(RespVersion::RESP3, None, None));
        hello.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer"))).map(drop)
    }

    /// Connects to a server, or says why not. `ending` is told when the connection has shown trouble.
    pub(super) async fn connect(
        config: Config,
        server: Server,
        purpose: Purpose,
        ending: Arc<Ending>,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let client = client(config, purpose)?;
        let mut errors = client.error_rx();
        let mut router = client.connect();
        let socket = Self { client, server, router: router.abort_handle(), ending };
        let connected = tokio::time::timeout(PATIENCE * 2, socket.client.wait_for_connect());
        tokio::select! {
            connected = connected => connected.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer")))?,
            // A quick refusal (a wrong password) may come before anybody listens for it: fred tells it only once.
            ended = &mut router => match ended {
                Ok(Err(error)) => return Err(error),
                _ => return Err(Error::new(ErrorKind::IO, "the connection was closed")),
            },
        }
        while errors.try_recv().is_ok() {}
        let ending = socket.ending.clone();
        tasks.spawn_until_end(async move {
            let text = tokio::select! {
                () = ending.token().cancelled() => return,
                Ok((error, _)) = errors.recv() => describe(&error),
                end = router => match end {
                    Ok(Err(error)) => describe(&error),
                    _ => "the connection was closed".into(),
                },
            };
            ending.fail(text);
        });
        Ok(socket)
    }

    /// The server at its other end.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// What arrives of subscriptions from now on.
    pub(super) fn messages(&self) -> broadcast::Receiver<Message> {
        self.client.message_rx()
    }

    /// Sends a command.
    pub(super) async fn send(
        &self,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Value, Error> {
        let options = Options { timeout: Some(timeout), ..Options::default() };
        let client = self.client.with_options(&options);
        tokio::select! {
            biased;
            reply = client.custom(custom(name), args) => reply,
            () = self.ending.token().cancelled() => Err(self.ended()),
        }
    }

    /// Sends several commands with nothing in between. One answer for each, in order, or the first error.
    pub(super) async fn send_together(
        &self,
        commands: Vec<(&'static str, Vec<Value>)>,
        timeout: Duration,
    ) -> Result<Vec<Value>, Error> {
        let options = Options { timeout: Some(timeout), ..Options::default() };
        let (pipeline, count) = (self.client.pipeline().with_options(&options), commands.len());
        for (name, args) in commands {
            let _: Value = pipeline.custom(custom(name), args).await?;
        }
        let answers = self.all(&pipeline, timeout).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
        if answers.len() == count { Ok(answers) } else { Err(missing_answers()) }
    }

    /// Sends the same command with each of several arguments, together. One answer for each, in order.
    pub(super) async fn send_each(
        &self,
        name: &'static str,
        args: Vec<String>,
        asking: bool,
    ) -> Result<Vec<Result<Value, Error>>, Error> {
        let (pipeline, count) = (self.client.pipeline(), args.len());
        for arg in args {
            if asking {
                let _: Value = pipeline.custom(custom("ASKING"), Vec::<Value>::new()).await?;
            }
            let _: Value = pipeline.custom(custom(name), vec![arg]).await?;
        }
        let answers = self.all(&pipeline, PATIENCE).await?;
        let step = if asking { 2 } else { 1 };
        let answers = answers.into_iter().skip(step - 1).step_by(step).collect::<Vec<_>>();
        if answers.len() == count {
            return Ok(answers);
        }
        // Fred gives one error for a whole pipeline that was lost.
        let lost = answers.into_iter().find_map(Result::err);
        Err(lost.unwrap_or_else(missing_answers))
    }

    async fn all(
        &self,
        pipeline: &Pipeline<Client>,
        timeout: Duration,
    ) -> Result<Vec<Result<Value, Error>>, Error> {
        tokio::select! {
            biased;
            answers = tokio::time::timeout(timeout, pipeline.try_all()) => {
                answers.map_err(|_| Error::new(ErrorKind::Timeout, "no answer"))
            }
            () = self.ending.token().cancelled() => Err(self.ended()),
        }
    }

    fn ended(&self) -> Error {
        Error::new(ErrorKind::IO, self.ending.reason())
    }

    /// Changes subscriptions and waits until Redis has confirmed them. Nothing else may be under way.
    ///
    /// Fred takes these commands for answered when they are sent. Redis' refusal comes as the answer to the next command,
    /// which therefore is a ping that leaves together with the first (alone, it could leave after the refusal had come
    /// and been dropped). After a refusal the answers are out of place until all have come in.
    pub(super) async fn confirmed(
        &self,
        change: SubscriptionChange,
        names: Vec<String>,
    ) -> Result<(), Error> {
        let (pipeline, nonce) = (self.client.pipeline(), self.ending.nonce());
        put(&pipeline, change, names).await?;
        let _: Value = pipeline.custom(custom("PING"), vec![nonce.clone()]).await?;
        let answer: Result<Value, Error> = tokio::select! {
            biased;
            answer = pipeline.last() => answer,
            () = self.ending.token().cancelled() => Err(self.ended()),
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

    /// Subscribes to each of these by a command of its own, all in one go: what Redis says to each, in order. `None` where the
    /// answers do not tell, which is likely on a quick link.
    ///
    /// Behind each command goes its ping. Fred keeps a place for the answer to each ping, and a refusal takes one too: so there are
    /// as many pings more. They help only if they have left before the first answer comes, because fred drops an answer that
    /// finds no place; a refusal may then go unseen. So whoever is not refused here is to be asked for once more.
    pub(super) async fn confirmed_apart(
        &self,
        change: SubscriptionChange,
        names: Vec<String>,
    ) -> Result<Option<Vec<Result<(), Error>>>, Error> {
        let (mut pipelines, mut nonces) = (Vec::new(), Vec::new());
        let count = names.len();
        for name in names.into_iter().map(Some).chain(std::iter::repeat_n(None, count)) {
            let (pipeline, nonce) = (self.client.pipeline(), self.ending.nonce());
            if let Some(name) = name {
                put(&pipeline, change, vec![name]).await?;
            }
            let _: Value = pipeline.custom(custom("PING"), vec![nonce.clone()]).await?;
            pipelines.push(pipeline);
            nonces.push(nonce);
        }
        let answers: Vec<Result<Value, Error>> = tokio::select! {
            biased;
            answers = join_all(pipelines.iter().map(Pipeline::last)) => answers,
            () = self.ending.token().cancelled() => return Err(self.ended()),
        };
        let (mut said, mut refusal) = (Vec::with_capacity(count), None);
        let mut in_step = true;
        for answer in answers {
            match answer {
                Err(error) if is_trouble(&error) => return Err(error),
                _ if said.len() == count || !in_step => {}
                Ok(text) if text.as_str().as_deref() == Some(nonces[said.len()].as_str()) => {
                    said.push(refusal.take().map_or(Ok(()), Err));
                }
                Err(error) if refusal.is_none() => refusal = Some(error),
                _ => in_step = false,
            }
        }
        self.catch_up().await?;
        Ok((in_step && said.len() == count).then_some(said))
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

    /// Whether the answer is the one to this ping.
    async fn ping(&self) -> Result<bool, Error> {
        let nonce = self.ending.nonce();
        let reply = self.send("PING", vec![nonce.clone().into()], PATIENCE).await?;
        Ok(reply.as_str().is_some_and(|text| *text == nonce))
    }
}

/// Puts a change of subscriptions into a pipeline.
async fn put(
    pipeline: &Pipeline<Client>,
    change: SubscriptionChange,
    names: Vec<String>,
) -> Result<(), Error> {
    match change {
        SubscriptionChange::Subscribe => pipeline.subscribe(names).await,
        SubscriptionChange::Unsubscribe => pipeline.unsubscribe(names).await,
        SubscriptionChange::SubscribePatterns => pipeline.psubscribe(names).await,
        SubscriptionChange::UnsubscribePatterns => pipeline.punsubscribe(names).await,
        // Each channel may lie in another slot.
        SubscriptionChange::UnsubscribeShards => {
            for name in names {
                pipeline.sunsubscribe(name).await?;
            }
            Ok(())
        }
    }
}

fn missing_answers() -> Error {
    Error::new(ErrorKind::Protocol, "answers are missing")
}

fn client(config: Config, purpose: Purpose) -> Result<Client, Error> {
    let mut builder = Builder::from_config(config);
    builder.set_performance_config(PerformanceConfig {
        default_command_timeout: PATIENCE,
        max_feed_count: 200,
        broadcast_channel_capacity: if purpose == Purpose::Subscriptions { MESSAGES } else { 32 },
    });
    builder.set_connection_config(ConnectionConfig {
        connection_timeout: PATIENCE,
        internal_command_timeout: PATIENCE,
        max_command_attempts: 1,
        max_redirections: 0,
        max_command_buffer_len: 100_000,
        auto_client_setname: false,
        reconnect_on_auth_error: false,
        tcp: TcpConfig {
            nodelay: Some(true),
            keepalive: Some(TcpKeepalive::new().with_time(PATIENCE).with_interval(PATIENCE)),
            user_timeout: Some(PATIENCE * 3),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    });
    builder.build()
}
