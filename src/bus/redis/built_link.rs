//! A link to Redis while it is kept, and the probes that show that it works.

use std::sync::Arc;

use futures_util::future::{try_join, try_join_all};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    commands::CommandClient,
    connection::{Connection, PATIENCE, Subscriber},
    fault::Fault,
    health_board::HealthBoard,
    reader::ProbeToken,
};

/// A link that works.
pub(super) struct BuiltLink {
    pub(super) commands: Arc<CommandClient>,
    pub(super) subscriber: Arc<Connection<Subscriber>>,
    /// Cancelled when the reader is to end.
    pub(super) given_up: CancellationToken,
    /// The reader; it ends with whether it has begun to say `Up`.
    pub(super) reader: JoinHandle<bool>,
    /// The number of the last round that came back.
    pub(super) returns: watch::Receiver<u64>,
    /// A channel on each master.
    pub(super) probes: Vec<String>,
    /// Its own number: probes of another link prove nothing.
    pub(super) number: u64,
    /// Rounds of probes so far.
    pub(super) round: u64,
}

impl BuiltLink {
    /// One round of probes: published on every master and received back.
    pub(super) async fn probe(&mut self, health_board: &HealthBoard) -> Result<(), Fault> {
        self.round += 1;
        let (link, commands, round, count) = (self.number, &self.commands, self.round, self.probes.len());
        let asked = ProbeToken::moment();
        let token = |index| ProbeToken { link, round, index, count, asked }.text();
        let started = Instant::now();
        let mut accepted = false;
        let returned = timeout(PATIENCE, async {
            // The first one's clock is `at`: what the others prove is later.
            let first = token(0);
            let touched = async { commands.keep_reads_open().await.map_err(Fault::from) };
            let ((), mut refusing) = try_join(touched, commands.probe(&self.probes[0], &first)).await?;
            let others = self.probes.iter().enumerate().skip(1);
            let others = others.map(|(index, channel)| {
                let token = token(index);
                async move { commands.probe(channel, &token).await }
            });
            for other in try_join_all(others).await? {
                refusing = refusing.or(other);
            }
            accepted = true;
            let mut returns = self.returns.clone();
            match returns.wait_for(|returned| *returned >= round).await {
                Ok(_) => Ok(refusing),
                // The reader has ended, because its connection has.
                Err(_) => Err(Fault::Away(self.subscriber.ending().reason())),
            }
        });
        match returned.await {
            Ok(refusing) => {
                health_board.proven(started.elapsed(), refusing?);
                Ok(())
            }
            Err(_) if accepted => {
                Err(Fault::Away("a probe was published but did not come back: the link is deaf".into()))
            }
            Err(_) => Err(Fault::Away("Redis did not answer in time".into())),
        }
    }
}
