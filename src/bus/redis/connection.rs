//! A connection to Redis: to its one server, or on a cluster to each master, with every command going to the master that
//! has its key ([`super::routing`]).
//!
//! A connection that has shown any trouble is never mended but replaced, with all others of its link, by
//! [`super::link_supervisor`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fred::{
    prelude::{Error, ErrorKind, Server},
    types::Value,
};
use futures_util::future::{BoxFuture, join_all, try_join_all};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    ending::Ending,
    fault::{ConnectError, describe, is_trouble},
    layout::Layout,
    lineage,
    messages::PushReceiver,
    push_stream::PushStream,
    sentinel,
    server_socket::{ConnectParams, ServerSocket},
    slots::{SLOTS, Slots},
    socket::RedisSocket,
    target::{Access, Topology},
};
pub(super) use super::{
    server_socket::PATIENCE,
    subscriber::{Subscriber, SubscriptionChange},
};
use crate::shutdown::Tasks;

/// The longest that a read of heads or history may take: a slow link needs its time for a long log.
pub(super) const READ_PATIENCE: Duration = Duration::from_secs(10);

/// A connection, closed when it is dropped: for commands, or for subscriptions ([`Subscriber`]).
pub(super) struct Connection<S: ServerSocket = RedisSocket> {
    access: Arc<Access>,
    tasks: Tasks,
    ending: Arc<Ending>,
    layout: Arc<Layout>,
    sockets: Mutex<HashMap<Server, Arc<S>>>,
    /// Lineages of servers that are about to become masters, met while a slot moves to them.
    strangers: Mutex<Vec<String>>,
    /// What servers push: the streams of those that were connected to, until the reader takes them.
    streams: mpsc::Sender<PushStream>,
    opened: Mutex<Option<mpsc::Receiver<PushStream>>>,
}

impl<S: ServerSocket> std::fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("access", &self.access).finish_non_exhaustive()
    }
}

impl<S: ServerSocket> Drop for Connection<S> {
    fn drop(&mut self) {
        self.ending.fail("the connection was closed");
    }
}

impl Connection<Subscriber> {
    /// What arrives of subscriptions; for one taker, who must go on taking it, or nothing is answered.
    pub(super) fn messages(&self) -> PushReceiver {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        PushReceiver::new(opened.unwrap_or_else(|| mpsc::channel(1).1))
    }
}

impl<S: ServerSocket> Connection<S> {
    /// Finds the masters and connects to each of them, or says why not.
    pub(super) async fn open(access: Arc<Access>, tasks: &Tasks) -> Result<Self, ConnectError> {
        let slots = match access.kind {
            Topology::Single => Slots::only(access.hosts[0].clone()),
            Topology::Sentinel => Slots::only(sentinel::master(&access, tasks).await?),
            Topology::Cluster => discover(&access, tasks).await?,
        };
        Self::with(access, Arc::new(Layout::new(slots)), tasks).await
    }

    /// Another connection to the same masters. Both share what they learn of the slots.
    pub(super) async fn another<T: ServerSocket>(&self) -> Result<Connection<T>, ConnectError> {
        Connection::with(self.access.clone(), self.layout.clone(), &self.tasks).await
    }

    async fn with(access: Arc<Access>, layout: Arc<Layout>, tasks: &Tasks) -> Result<Self, ConnectError> {
        // No cluster has more masters than slots.
        let (streams, opened) = mpsc::channel(SLOTS as usize);
        let connection = Self {
            access,
            tasks: tasks.clone(),
            ending: Arc::default(),
            layout,
            sockets: Mutex::default(),
            strangers: Mutex::default(),
            streams,
            opened: Mutex::new(Some(opened)),
        };
        let opening = connection.layout.masters().iter().map(|master| connection.connect(master));
        try_join_all(opening).await?;
        Ok(connection)
    }

    async fn connect(&self, server: &Server) -> Result<Arc<S>, ConnectError> {
        let (access, ending, tasks) = (&self.access, &self.ending, &self.tasks);
        let params = ConnectParams { access, server, who: &access.redis, ending, tasks };
        // In a box: futures that hold it whole are too deep for the compiler.
        let opened: BoxFuture<'_, _> = Box::pin(S::open(params));
        // Who gives the connection up does not wait for a server that does not answer.
        let opened = ending.token().run_until_cancelled(opened).await;
        let opened = opened.unwrap_or_else(|| Err(Error::new(ErrorKind::IO, ending.reason())));
        let (socket, stream) = opened.map_err(|error| connect_error(access, server, &error))?;
        let socket = Arc::new(socket);
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = sockets.get(server) {
            return Ok(other.clone());
        }
        if let Some(stream) = stream {
            // Whoever takes what is pushed is gone only when the connection is given up.
            let _ = self.streams.try_send(stream);
        }
        sockets.insert(server.clone(), socket.clone());
        Ok(socket)
    }

    fn connected(&self, server: &Server) -> Option<Arc<S>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    /// The socket to a server; one that is no master yet is connected to when it is first needed.
    pub(super) async fn socket(&self, server: &Server) -> Result<Arc<S>, Error> {
        if let Some(socket) = self.connected(server) {
            return Ok(socket);
        }
        let connected = self.connect(server).await;
        let socket = connected.map_err(|connect_error| {
            Error::new(ErrorKind::IO, format!("{server}: {}", connect_error.into_text()))
        })?;
        let answer = socket.send("INFO", vec!["replication".into()], PATIENCE).await?;
        if let Some(lineage) = lineage::told(Some(answer)) {
            self.strangers.lock().unwrap_or_else(PoisonError::into_inner).push(lineage);
        }
        Ok(socket)
    }

    /// Whether this is the lineage of a server that is about to become a master.
    pub(super) fn is_strangers(&self, lineage: &str) -> bool {
        let strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.iter().any(|stranger| stranger.starts_with(lineage))
    }

    /// Which master has which slot.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The sockets to all servers.
    pub(super) fn sockets(&self) -> Vec<Arc<S>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How it ends.
    pub(super) fn ending(&self) -> &Arc<Ending> {
        &self.ending
    }

    /// Cancelled when the connection has shown trouble.
    pub(super) fn closed(&self) -> &CancellationToken {
        self.ending.token()
    }

    /// Gives the connection up.
    pub(super) fn fail(&self, why: impl Into<String>) {
        self.ending.fail(why);
    }

    /// Sends a command to one master of a cluster, or to the only one.
    pub(super) async fn command_to(
        &self,
        master: Option<&Server>,
        name: &'static str,
        args: Vec<Value>,
    ) -> Result<Value, Error> {
        let server = master.unwrap_or(&self.layout.masters()[0]);
        self.socket(server).await?.send(name, args, PATIENCE).await
    }

    /// The masters of a cluster, with those that are about to become some; one `None` where there is none.
    pub(super) fn masters(&self) -> Vec<Option<Server>> {
        if self.access.kind != Topology::Cluster {
            return vec![None];
        }
        let mut masters = self.layout.masters().to_vec();
        let others = self.sockets().into_iter().map(|socket| socket.server().clone());
        masters.extend(others.filter(|server| !self.layout.masters().contains(server)));
        masters.into_iter().map(Some).collect()
    }

    /// Asks a cluster where slots lie by now. A master that was not there before ends the connection: the next one knows
    /// it, and sees to it that it has the functions.
    pub(super) async fn look_around(&self) -> Result<(), Error> {
        if self.access.kind != Topology::Cluster {
            return Ok(());
        }
        let mut last = Error::new(ErrorKind::IO, "no server tells where slots lie");
        let sockets = self.sockets();
        let asked = sockets.iter().map(|socket| socket.send("CLUSTER", vec!["SLOTS".into()], PATIENCE));
        // All at once: one after the other, a whole cluster that does not answer would cost this wait for each of its masters.
        for (socket, answer) in sockets.iter().zip(join_all(asked).await) {
            let Ok(answer) = answer.map_err(|error| last = error) else { continue };
            let slots = Slots::parse(answer, socket.server()).filter(Slots::is_complete);
            let Some(slots) = slots else { continue };
            let new = self.layout.renew(slots);
            if let Some(master) = new.first() {
                self.fail(format!("the cluster has another master, {master}"));
            }
            return Ok(());
        }
        Err(last)
    }
}

impl Connection {
    /// Sends something to each server, so that none of them takes the connection for a forgotten one.
    pub(super) async fn touch(&self) -> Result<(), Error> {
        let sockets = self.sockets();
        let pings = sockets.iter().map(|socket| socket.send("PING", Vec::new(), PATIENCE));
        // A Redis that cannot save refuses pings (`MISCONF`), and serves reads all the same.
        let trouble = join_all(pings).await.into_iter().filter_map(Result::err).find(is_trouble);
        trouble.map_or(Ok(()), Err)
    }
}

/// Where a server is, for messages.
fn place(access: &Access, server: &Server) -> String {
    match access.kind {
        Topology::Single => access.place.clone(),
        Topology::Sentinel | Topology::Cluster => format!("{server} ({})", access.place),
    }
}

/// Why a server cannot be connected to; with its name where there are several.
fn connect_error(access: &Access, server: &Server, error: &Error) -> ConnectError {
    let hint = match (access.speaks_tls(), error.kind()) {
        (true, ErrorKind::Timeout) if access.place.starts_with("rediss") => {
            "; if it does not speak TLS, write redis:// instead of rediss://"
        }
        (true, ErrorKind::Timeout) => {
            "; if it does not speak TLS, take redis.tls_ca away, which switches it on"
        }
        (false, ErrorKind::IO) if describe(error).contains("reset") => {
            "; if it speaks TLS only, write rediss:// instead of redis://"
        }
        _ => "",
    };
    match ConnectError::connecting(error, &place(access, server)) {
        ConnectError::Transient(text) if access.kind != Topology::Single => {
            ConnectError::Transient(format!("{server}: {text}{hint}"))
        }
        ConnectError::Transient(text) => ConnectError::Transient(format!("{text}{hint}")),
        lasting @ ConnectError::Permanent(_) => lasting,
    }
}

/// Where slots lie, from the first server of a cluster that tells.
async fn discover(access: &Access, tasks: &Tasks) -> Result<Slots, ConnectError> {
    let mut first = None;
    for server in &access.hosts {
        match ask(access, server, tasks).await {
            Ok(slots) => return Ok(slots),
            // An error that only an operator can mend comes first.
            Err(connect_error @ ConnectError::Permanent(_)) => return Err(connect_error),
            Err(connect_error) => first = first.or(Some(connect_error)),
        }
    }
    Err(first.unwrap_or_else(|| ConnectError::Transient("redis.url names no server".into())))
}

async fn ask(access: &Access, server: &Server, tasks: &Tasks) -> Result<Slots, ConnectError> {
    let (who, ending) = (&access.redis, &Arc::default());
    let asked = async {
        let socket =
            RedisSocket::connect(ConnectParams { access, server, who, ending, tasks }, false).await?;
        socket.send("CLUSTER", vec!["SLOTS".into()], PATIENCE).await
    };
    let answer = asked.await.map_err(|error| connect_error(access, server, &error))?;
    let slots = Slots::parse(answer, server).filter(Slots::is_complete);
    slots.ok_or_else(|| {
        ConnectError::Transient(format!("not all slots of the cluster have a master, says {server}"))
    })
}
