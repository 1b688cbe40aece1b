//! What connections to one server have in common.

use std::{sync::Arc, time::Duration};

use fred::{
    prelude::{Error, Server},
    types::Value,
};

use super::{
    ending::Ending,
    push_stream::PushStream,
    target::{Access, RedisCredentials},
};
use crate::shutdown::Tasks;

/// The longest that anything but a long read may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Between two keepalives of TCP.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(3);
/// The longest that what was sent may wait for the other end's acknowledgement.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(9);

/// What is needed to connect to a server.
#[derive(Clone, Copy)]
pub(super) struct ConnectParams<'a> {
    pub(super) access: &'a Access,
    pub(super) server: &'a Server,
    /// Who we are there.
    pub(super) who: &'a RedisCredentials,
    /// Told when the connection has shown trouble.
    pub(super) ending: &'a Arc<Ending>,
    pub(super) tasks: &'a Tasks,
}

/// A connection to one server.
pub(super) trait ServerSocket: Sized + Send + Sync + 'static {
    /// Connects, says who we are and switches to RESP3, or says why not. With what the server pushes, where that is asked for.
    fn open(
        params: ConnectParams<'_>,
    ) -> impl Future<Output = Result<(Self, Option<PushStream>), Error>> + Send;

    /// The server at its other end.
    fn server(&self) -> &Server;

    /// Sends a command.
    fn send(
        &self,
        name: &'static str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> impl Future<Output = Result<Value, Error>> + Send;
}
