//! Compares the ledger with what Redis knows of this connection, and subscribes once more to what was lost.

use fred::prelude::{Error, ErrorKind};

use super::{Subscriptions, Work};
use crate::{
    bus::redis::{
        connection::{Connection, PATIENCE, Subscriber},
        fault::{Fault, is_trouble},
        ledger::{Channel, SubscriptionServer},
        reply,
        server_socket::ServerSocket,
    },
    protocol::Subject,
};

/// Channels in one SUBSCRIBE while we look for those that Redis has lost. Where one was lost, all of its batch are doubted.
const MENDED: usize = 100;

/// What a comparison with Redis brought.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::bus::redis) enum Agreement {
    /// The numbers agree.
    Agrees,
    /// They did not, or slots have moved; what was missing was subscribed to once more.
    Mended {
        /// Events of these may be lost.
        doubtful: Vec<Subject>,
        /// These Redis refuses now, with its words; they are wanted no longer.
        refused: Vec<(Subject, String)>,
    },
    /// This user may not look.
    Unknown(String),
}

impl Subscriptions {
    /// Compares what Redis says about the connection with the ledger, and subscribes once more to what is missing.
    pub(in crate::bus::redis) async fn reconcile(&self) -> Result<Agreement, Error> {
        let wire = self.wire.lock().await;
        let Some(connection) = &*wire else { return Ok(Agreement::Agrees) };
        let mut doubtful = if self.sharded { self.follow(connection).await? } else { Vec::new() };
        let mut unknown = None;
        for socket in connection.sockets() {
            let counted = match self.counted(&socket).await {
                Err(error) if !is_trouble(&error) => {
                    // What passes (`BUSY`) is left to the next look.
                    match Fault::from(error) {
                        Fault::Away(_) => {}
                        fault => unknown = Some(fault.text().to_owned()),
                    }
                    continue;
                }
                counted => counted?,
            };
            let expected = self.ledger().count(socket.server());
            if counted.is_some_and(|counted| counted != expected) {
                doubtful.extend(self.mend(connection, &socket, expected).await?);
            }
        }
        let refused = self.take_refused()?;
        let subjects = doubtful.into_iter().filter_map(|channel| match channel {
            Channel::Subject(subject) => Some(subject),
            Channel::Fixed(_) => None,
        });
        let is_refused = |subject: &Subject| refused.iter().any(|(refused, _)| refused == subject);
        let doubtful = subjects.filter(|subject| !is_refused(subject)).collect::<Vec<_>>();
        if doubtful.is_empty() && refused.is_empty() {
            return Ok(unknown.map_or(Agreement::Agrees, Agreement::Unknown));
        }
        Ok(Agreement::Mended { doubtful, refused })
    }

    /// Follows slots to where they lie by now; what has moved.
    async fn follow(&self, connection: &Connection<Subscriber>) -> Result<Vec<Channel>, Error> {
        let moved = self.ledger().moved(|channel| self.places(connection, channel));
        self.flush(connection).await?;
        Ok(moved)
    }

    /// Channels and patterns that Redis knows of this connection; `None` where it does not say (sharded ones, before 7).
    async fn counted(&self, socket: &Subscriber) -> Result<Option<(usize, usize)>, Error> {
        let answer = reply::text(socket.send("CLIENT", vec!["INFO".into()], PATIENCE).await?);
        let number = |name: &str| {
            answer.split_whitespace().find_map(|field| field.strip_prefix(name)?.parse::<usize>().ok())
        };
        let counted = if self.sharded {
            number("ssub=").map(|channels| (channels, 0))
        } else {
            number("sub=").zip(number("psub="))
        };
        Ok(counted)
    }

    /// Subscribes to everything at a server once more, and finds out what of it was missing.
    async fn mend(
        &self,
        connection: &Connection<Subscriber>,
        socket: &Subscriber,
        expected: (usize, usize),
    ) -> Result<Vec<Channel>, Error> {
        let mut missing = Vec::new();
        let mut before = self.counted(socket).await?;
        let (patterns, channels): (Vec<_>, Vec<_>) =
            self.ledger().at(socket.server()).into_iter().partition(Channel::is_pattern);
        let batches = channels.chunks(MENDED).chain(patterns.chunks(MENDED));
        for batch in batches {
            if self.sharded {
                // Slots that are on their way here are served to those only who ask for that.
                let owner = |channel| connection.layout().owner(&self.name(channel));
                let asking = batch.iter().any(|channel| owner(channel).as_ref() != Some(socket.server()));
                let place = SubscriptionServer { server: socket.server().clone(), asking };
                let work = Work { place, subscribe: true, channels: batch.to_vec() };
                let mut known = before.map(|(channels, _)| channels);
                for (channel, count) in self.begin_shards(connection, socket, work).await?.counts {
                    // The number goes up where the channel was not there.
                    if count != known {
                        missing.push(channel);
                    }
                    known = count;
                }
                before = known.map(|channels| (channels, 0));
            } else {
                self.begin_together(socket, batch).await?;
                let now = self.counted(socket).await?;
                if now != before {
                    missing.extend_from_slice(batch);
                }
                before = now;
            }
        }
        if before.is_some_and(|counted| counted != expected) {
            // We cannot tell which are too many, so the connection is replaced.
            return Err(Error::new(
                ErrorKind::Protocol,
                "Redis has other subscriptions than this node wants",
            ));
        }
        Ok(missing)
    }
}
