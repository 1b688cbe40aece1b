//! What this node wants to hear from Redis, and seeing to it that Redis agrees.
//!
//! The wanted set is ours: a link that is built anew subscribes to all of it, and every few seconds the numbers that
//! Redis knows of our connection are compared with the [`Ledger`]. Subscribing is confirmed by an answer that Redis gives
//! behind it on the same connection.

mod compare;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fred::prelude::{Error, ErrorKind};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Duration, Instant, sleep},
};

pub(super) use self::compare::Agreement;
use super::{
    connection::{Connection, PATIENCE, Subscriber, SubscriptionChange},
    fault::{describe, is_trouble},
    ledger::{Channel, Ledger, SubscriptionServer, Work},
    server_socket::ServerSocket,
    slots::{Redirect, redirect},
};
use crate::{
    bus::{BusError, keys::Keys},
    protocol::Subject,
};

/// Channels in one SUBSCRIBE, or SSUBSCRIBEs that leave together: enough to be quick, few enough not to hold up Redis.
const BATCH: usize = 2_000;

/// The wait before channels are subscribed to where Redis has sent us.
const REDIRECTED: Duration = Duration::from_millis(20);

/// What came of subscribing on a master of a cluster.
#[derive(Debug, Default)]
struct Began {
    /// How many channels Redis knew of this connection after each.
    counts: Vec<(Channel, Option<usize>)>,
    /// Some lie elsewhere.
    redirected: bool,
}

/// The wanted set.
#[derive(Debug)]
pub(super) struct Subscriptions {
    keys: Keys,
    sharded: bool,
    ledger: Mutex<Ledger>,
    /// The link's connection while there is one. Locked while a command is under way, so that no two do the same work.
    wire: AsyncMutex<Option<Arc<Connection<Subscriber>>>>,
}

impl Subscriptions {
    /// Wants nothing yet but `fixed`, the channels that every link needs.
    pub(super) fn new(keys: Keys, sharded: bool) -> Self {
        Self { keys, sharded, ledger: Mutex::default(), wire: AsyncMutex::default() }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`crate::bus::Bus::subscribe`]. Those who wait for the wire are served by whoever has it.
    pub(super) async fn subscribe(&self, subjects: Vec<Subject>) -> Vec<Result<(), BusError>> {
        let channels = subjects.into_iter().map(Channel::Subject).collect::<Vec<_>>();
        for channel in &channels {
            self.ledger().want(channel.clone());
        }
        self.settle().await;
        let mut ledger = self.ledger();
        let outcome = |channel: &Channel| {
            let outcome = ledger.outcome(channel).unwrap_or_else(|| {
                Err(format!("{} was refused or given up while it was subscribed to", self.name(channel)))
            });
            outcome.map_err(BusError::Refused)
        };
        channels.iter().map(outcome).collect()
    }

    /// See [`crate::bus::Bus::unsubscribe`].
    pub(super) async fn unsubscribe(&self, subjects: Vec<Subject>) {
        for subject in subjects {
            self.ledger().release(&Channel::Subject(subject));
        }
        self.settle().await;
    }

    /// Does what is due, where there is a connection.
    async fn settle(&self) {
        let wire = self.wire.lock().await;
        if let Some(connection) = &*wire
            && let Err(error) = self.flush(connection).await
        {
            connection.fail(describe(&error));
        }
    }

    /// Takes a new connection into use and subscribes to the `fixed` channels and everything wanted on it. Returns the
    /// subjects that Redis refuses, with its words: they are wanted no longer, and hold up no other. An error leaves the
    /// subscriptions without a connection.
    pub(super) async fn attach(
        &self,
        connection: Arc<Connection<Subscriber>>,
        fixed: Vec<String>,
    ) -> Result<Vec<(Subject, String)>, Error> {
        let mut wire = self.wire.lock().await;
        *wire = None;
        {
            let mut ledger = self.ledger();
            ledger.begin();
            for name in fixed {
                ledger.want(Channel::Fixed(name));
            }
        }
        self.flush(&connection).await?;
        let refused = self.take_refused()?;
        *wire = Some(connection);
        Ok(refused)
    }

    /// See [`Ledger::take_refused`].
    fn take_refused(&self) -> Result<Vec<(Subject, String)>, Error> {
        self.ledger().take_refused().map_err(|text| Error::new(ErrorKind::Unknown, text))
    }

    /// Gives the connection up, with its `fixed` channels. It must have failed, so that nobody holds the wire for long.
    pub(super) async fn detach(&self, fixed: &[String]) {
        let mut wire = self.wire.lock().await;
        *wire = None;
        let mut ledger = self.ledger();
        ledger.begin();
        for name in fixed {
            ledger.release(&Channel::Fixed(name.clone()));
        }
    }

    fn name(&self, channel: &Channel) -> String {
        match channel {
            Channel::Subject(subject) => self.keys.subject(subject),
            Channel::Fixed(name) => name.clone(),
        }
    }

    /// The servers where a channel belongs: the master of its slot, and the one that the slot is being moved to.
    fn places(&self, connection: &Connection<Subscriber>, channel: &Channel) -> Vec<SubscriptionServer> {
        if !self.sharded {
            let server = connection.layout().masters()[0].clone();
            return vec![SubscriptionServer { server, asking: false }];
        }
        let name = self.name(channel);
        let layout = connection.layout();
        let owner = layout.owner(&name).map(|server| SubscriptionServer { server, asking: false });
        let heir = layout.heir(&name).map(|server| SubscriptionServer { server, asking: true });
        owner.into_iter().chain(heir).collect()
    }

    /// Subscribes to and unsubscribes from what is due, until nothing is left.
    async fn flush(&self, connection: &Connection<Subscriber>) -> Result<(), Error> {
        let mut redirected_since = None;
        loop {
            let work = self.ledger().work(|channel| self.places(connection, channel), BATCH);
            let Some(work) = work else { return Ok(()) };
            let socket = match connection.socket(&work.place.server).await {
                // The master of the slot still has its subscription.
                Err(_) if work.place.asking => {
                    connection.layout().loses(&work.place.server);
                    continue;
                }
                socket => socket?,
            };
            match (self.sharded, work.subscribe) {
                (_, false) => self.end(&socket, work).await?,
                (false, true) => self.begin(&socket, work).await?,
                (true, true) => {
                    let began = self.begin_shards(connection, &socket, work).await?;
                    if !began.redirected {
                        redirected_since = None;
                        continue;
                    }
                    // Masters need a moment to agree on who has a slot.
                    let since = *redirected_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE {
                        return Err(Error::new(
                            ErrorKind::IO,
                            "the cluster does not agree on where slots lie",
                        ));
                    }
                    sleep(REDIRECTED).await;
                }
            }
        }
    }

    async fn end(&self, socket: &Subscriber, work: Work) -> Result<(), Error> {
        let names = self.names(&work.channels);
        let ended = if self.sharded {
            // Where the slot is on its way to, only a command behind ASKING is heard; elsewhere that does no harm.
            socket.confirmed_each(SubscriptionChange::UnsubscribeShards, &names, true).await.map(drop)
        } else if work.channels[0].is_pattern() {
            socket.confirmed(SubscriptionChange::UnsubscribePatterns, &names).await
        } else {
            socket.confirmed(SubscriptionChange::Unsubscribe, &names).await
        };
        match ended {
            Err(error) if is_trouble(&error) => return Err(error),
            // A refusal says that the slot is elsewhere: then it has ended by itself.
            _ => {}
        }
        let mut ledger = self.ledger();
        for channel in &work.channels {
            ledger.done(channel, socket.server(), false);
        }
        Ok(())
    }

    /// Subscribes on a plain Redis. It refuses a whole command because of one channel: then each is asked for by itself, all at once,
    /// because the others wait for it and a link may be slow.
    async fn begin(&self, socket: &Subscriber, work: Work) -> Result<(), Error> {
        let channels = &work.channels;
        match self.begin_together(socket, channels).await {
            Err(error) if !is_trouble(&error) => {}
            other => return other,
        }
        let said = socket.confirmed_each(change_for(channels), &self.names(channels), false).await?;
        let mut ledger = self.ledger();
        for (channel, said) in channels.iter().zip(said) {
            match said {
                Ok(_) => ledger.done(channel, socket.server(), true),
                Err(error) => ledger.refuse(channel, describe(&error)),
            }
        }
        Ok(())
    }

    async fn begin_together(&self, socket: &Subscriber, channels: &[Channel]) -> Result<(), Error> {
        socket.confirmed(change_for(channels), &self.names(channels)).await?;
        let mut ledger = self.ledger();
        for channel in channels {
            ledger.done(channel, socket.server(), true);
        }
        Ok(())
    }

    fn names(&self, channels: &[Channel]) -> Vec<String> {
        channels.iter().map(|channel| self.name(channel)).collect()
    }

    /// Subscribes on one master of a cluster, to many channels in one go: each is confirmed, or refused, for
    /// itself.
    async fn begin_shards(
        &self,
        connection: &Connection<Subscriber>,
        socket: &Subscriber,
        work: Work,
    ) -> Result<Began, Error> {
        if work.channels[0].is_pattern() {
            let text = "sharded pub/sub has no patterns: a whole area cannot be followed on a cluster";
            for channel in &work.channels {
                self.ledger().refuse(channel, text.into());
            }
            return Ok(Began::default());
        }
        let (change, names) = (SubscriptionChange::SubscribeShards, self.names(&work.channels));
        let answers = socket.confirmed_each(change, &names, work.place.asking).await?;
        let mut look_around = false;
        let mut began = Began::default();
        for (channel, answer) in work.channels.into_iter().zip(answers) {
            match answer {
                Ok(count) => {
                    self.ledger().done(&channel, socket.server(), true);
                    began.counts.push((channel, count));
                }
                Err(error) => match redirect(&describe(&error), socket.server()) {
                    Some(Redirect::Moved(slot, to)) => {
                        began.redirected = true;
                        look_around |= !connection.layout().moved(slot, &to);
                    }
                    Some(Redirect::Ask(slot, to)) => {
                        began.redirected = true;
                        connection.layout().is_leaving(slot, &to);
                    }
                    None => self.ledger().refuse(&channel, describe(&error)),
                },
            }
        }
        if look_around {
            connection.look_around().await?;
        }
        Ok(began)
    }
}

/// How Redis is told to subscribe to these: channels only, or patterns only.
fn change_for(channels: &[Channel]) -> SubscriptionChange {
    if channels[0].is_pattern() {
        SubscriptionChange::SubscribePatterns
    } else {
        SubscriptionChange::Subscribe
    }
}
