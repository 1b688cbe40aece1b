//! One connection to one server, made by fred with every default set on purpose.
//!
//! It never reconnects: fred would then send commands a second time. Fred knows nothing of clusters and sentinels either:
//! [`super::connection`] decides where commands go. Subscriptions have connections of their own ([`super::subscriber`]).

use std::{sync::Arc, time::Duration};

use fred::{
    clients::{Client, Pipeline},
    interfaces::AuthInterface,
    prelude::{ClientLike, Error, ErrorKind, EventInterface, Server},
    socket2::TcpKeepalive,
    types::{
        Builder, ClusterHash, CustomCommand, RespVersion, Value,
        config::{Config, ConnectionConfig, Options, PerformanceConfig, TcpConfig},
    },
};
use tokio::task::AbortHandle;

use super::{
    ending::Ending,
    fault::describe,
    push_stream::PushStream,
    server_socket::{ConnectParams, KEEPALIVE, PATIENCE, ServerSocket, UNACKNOWLEDGED},
};

/// A connection for commands of all kinds, pipelined; closed when it is dropped.
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

impl ServerSocket for RedisSocket {
    async fn open(params: ConnectParams<'_>) -> Result<(Self, Option<PushStream>), Error> {
        let socket = Self::connect(params, false).await?;
        socket.say_hello().await?;
        Ok((socket, None))
    }

    fn server(&self) -> &Server {
        &self.server
    }

    async fn send(&self, name: &'static str, args: Vec<Value>, timeout: Duration) -> Result<Value, Error> {
        let options = Options { timeout: Some(timeout), ..Options::default() };
        let client = self.client.with_options(&options);
        tokio::select! {
            biased;
            reply = client.custom(custom(name), args) => reply,
            () = self.ending.token().cancelled() => Err(self.ended()),
        }
    }
}

impl RedisSocket {
    /// Switches to RESP3, as all connections of a link do. Fred would do so when it connects, but sends the password in HELLO unquoted, where a
    /// space ends it.
    async fn say_hello(&self) -> Result<(), Error> {
        let hello = tokio::time::timeout(PATIENCE, self.client.hello(RespVersion::RESP3, None, None));
        hello.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer"))).map(drop)
    }

    /// Connects to a server, or says why not. `sentinel`: whether it is one.
    pub(super) async fn connect(params: ConnectParams<'_>, sentinel: bool) -> Result<Self, Error> {
        let client = client(params.access.config(params.server, params.who, sentinel))?;
        let (server, ending) = (params.server.clone(), Arc::clone(params.ending));
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
        params.tasks.spawn_until_end(async move {
            let text = tokio::select! {
                () = ending.token().cancelled() => return,
                Ok((error, _)) = errors.recv() => describe(&error),
                end = router => match end {
                    Ok(Err(error)) => describe(&error),
                    // It was dropped, perhaps because there is another one to the same server already.
                    Err(error) if error.is_cancelled() => return,
                    _ => "the connection was closed".into(),
                },
            };
            ending.fail(text);
        });
        Ok(socket)
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
}

fn missing_answers() -> Error {
    Error::new(ErrorKind::Protocol, "answers are missing")
}

fn client(config: Config) -> Result<Client, Error> {
    let mut builder = Builder::from_config(config);
    builder.set_performance_config(PerformanceConfig {
        default_command_timeout: PATIENCE,
        max_feed_count: 200,
        broadcast_channel_capacity: 32,
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
            keepalive: Some(TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE)),
            user_timeout: Some(UNACKNOWLEDGED),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    });
    builder.build()
}
