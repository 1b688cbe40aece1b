//! What this node wants to hear from Redis, and seeing to it that Redis agrees.
//!
//! The wanted set is ours: a link that is built anew subscribes to all of it, and every few seconds the numbers that
//! Redis knows of our connection are compared with it. Subscribing is confirmed by an answer that Redis gives behind it
//! on the same connection. Must not know what arrives.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fred::{
    interfaces::{ClusterInterface, PubsubInterface},
    prelude::Error,
    types::Value,
};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    connection::{Change, Connection, describe, is_trouble},
    reply,
};
use crate::{
    bus::{BusError, keys::Keys},
    protocol::Subject,
};

/// Channels in one SUBSCRIBE: enough to be quick, few enough not to hold up Redis.
const BATCH: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Wanted,
    Confirmed,
    Refused(String),
}

/// The wanted set.
#[derive(Debug)]
pub(super) struct Subscriptions {
    keys: Keys,
    sharded: bool,
    wanted: Mutex<HashMap<Subject, Standing>>,
    /// The link's connection while there is one; held while anything is said over it, because a refusal is known by its
    /// place only.
    wire: AsyncMutex<Option<Wire>>,
}

#[derive(Debug)]
struct Wire {
    connection: Arc<Connection>,
    fixed: Vec<String>,
}

/// What a comparison with Redis brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Agreement {
    /// The numbers agree.
    Agrees,
    /// They did not; everything was subscribed to once more.
    Mended,
    /// This user may not look.
    Unknown(String),
}

impl Subscriptions {
    pub(super) fn new(keys: Keys, sharded: bool) -> Self {
        Self { keys, sharded, wanted: Mutex::default(), wire: AsyncMutex::default() }
    }

    fn wanted(&self) -> MutexGuard<'_, HashMap<Subject, Standing>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`crate::bus::Bus::subscribe`]. Those who wait for the wire are served by whoever has it.
    pub(super) async fn subscribe(&self, subjects: Vec<Subject>) -> Vec<Result<(), BusError>> {
        for subject in &subjects {
            let mut wanted = self.wanted();
            let standing = wanted.entry(subject.clone()).or_insert(Standing::Wanted);
            if matches!(standing, Standing::Refused(_)) {
                *standing = Standing::Wanted;
            }
        }
        let wire = self.wire.lock().await;
        if let Some(Wire { connection, .. }) = &*wire
            && let Err(error) = self.flush(connection).await
        {
            connection.fail(describe(&error));
        }
        drop(wire);
        subjects.into_iter().map(|subject| self.outcome(&subject)).collect()
    }

    fn outcome(&self, subject: &Subject) -> Result<(), BusError> {
        let mut wanted = self.wanted();
        match wanted.get(subject) {
            Some(Standing::Refused(text)) => {
                let text = text.clone();
                wanted.remove(subject);
                Err(BusError::Refused(text))
            }
            Some(_) => Ok(()),
            None => Err(BusError::Refused(format!(
                "{subject} was refused or given up while it was subscribed to"
            ))),
        }
    }

    /// See [`crate::bus::Bus::unsubscribe`].
    pub(super) async fn unsubscribe(&self, subjects: Vec<Subject>) {
        {
            let mut wanted = self.wanted();
            for subject in &subjects {
                wanted.remove(subject);
            }
        }
        let wire = self.wire.lock().await;
        let Some(Wire { connection, .. }) = &*wire else { return };
        // Somebody may want it again by now, or it was never there.
        let gone = subjects.iter().filter(|subject| !self.wanted().contains_key(subject));
        let (topics, areas): (Vec<_>, Vec<_>) =
            gone.partition(|subject| matches!(subject, Subject::Topic(_)));
        let names = |subjects: &[&Subject]| subjects.iter().map(|s| self.keys.subject(s)).collect::<Vec<_>>();
        let done = async {
            for batch in topics.chunks(BATCH) {
                if self.sharded {
                    for name in names(batch) {
                        connection.client().sunsubscribe(name).await?;
                    }
                } else {
                    connection.confirmed(Change::Unsubscribe, names(batch)).await?;
                }
            }
            for batch in areas.chunks(BATCH) {
                connection.confirmed(Change::UnsubscribePatterns, names(batch)).await?;
            }
            Ok(())
        };
        let done: Result<(), Error> = done.await;
        if let Err(error) = done {
            connection.fail(describe(&error));
        }
    }

    /// Takes a new connection into use and subscribes to the fixed channels and everything wanted on it. An error leaves
    /// the subscriptions without a connection.
    pub(super) async fn attach(&self, connection: Arc<Connection>, fixed: Vec<String>) -> Result<(), Error> {
        let mut wire = self.wire.lock().await;
        *wire = None;
        self.subscribe_all(&connection, &fixed).await?;
        *wire = Some(Wire { connection, fixed });
        Ok(())
    }

    /// Gives the connection up. It must have failed, so that nobody holds the wire for long.
    pub(super) async fn detach(&self) {
        *self.wire.lock().await = None;
    }

    async fn subscribe_all(&self, connection: &Connection, fixed: &[String]) -> Result<(), Error> {
        for standing in self.wanted().values_mut() {
            *standing = Standing::Wanted;
        }
        if self.sharded {
            for name in fixed {
                connection.client().ssubscribe(name.as_str()).await?;
            }
        } else {
            connection.confirmed(Change::Subscribe, fixed.to_vec()).await?;
        }
        self.flush(connection).await?;
        let refused = self.wanted().iter().find_map(|(subject, standing)| match standing {
            Standing::Refused(text) => Some(format!("{subject} cannot be followed: {text}")),
            _ => None,
        });
        match refused {
            Some(text) => Err(Error::new(fred::prelude::ErrorKind::Unknown, text)),
            None => Ok(()),
        }
    }

    /// Subscribes to what is wanted and not yet confirmed, until nothing is left.
    async fn flush(&self, connection: &Connection) -> Result<(), Error> {
        loop {
            let batch = self.pending();
            if batch.is_empty() {
                return Ok(());
            }
            let refused = match self.subscribe_to(connection, &batch).await {
                Ok(()) => None,
                Err(error) if is_trouble(&error) => return Err(error),
                // Redis refuses a whole command; find out for whom.
                Err(_) if batch.len() > 1 => {
                    for subject in batch {
                        let refused = self.subscribe_to(connection, std::slice::from_ref(&subject)).await;
                        match refused {
                            Err(error) if is_trouble(&error) => return Err(error),
                            other => self.settle(&[subject], other.err().as_ref()),
                        }
                    }
                    continue;
                }
                Err(error) => Some(error),
            };
            self.settle(&batch, refused.as_ref());
        }
    }

    /// The next subjects of one kind that wait for Redis.
    fn pending(&self) -> Vec<Subject> {
        let wanted = self.wanted();
        let waiting = || {
            wanted.iter().filter(|(_, standing)| **standing == Standing::Wanted).map(|(subject, _)| subject)
        };
        let size = if self.sharded { 1 } else { BATCH };
        let topics =
            waiting().filter(|s| matches!(s, Subject::Topic(_))).take(size).cloned().collect::<Vec<_>>();
        if topics.is_empty() { waiting().take(BATCH).cloned().collect() } else { topics }
    }

    fn settle(&self, subjects: &[Subject], refused: Option<&Error>) {
        let mut wanted = self.wanted();
        for subject in subjects {
            // Given up meanwhile: the unsubscription waits for the wire.
            if let Some(standing) = wanted.get_mut(subject) {
                *standing = match refused {
                    None => Standing::Confirmed,
                    Some(error) => Standing::Refused(describe(error)),
                };
            }
        }
    }

    /// Subscribes to subjects of one kind and waits for the confirmation.
    async fn subscribe_to(&self, connection: &Connection, subjects: &[Subject]) -> Result<(), Error> {
        let names = subjects.iter().map(|subject| self.keys.subject(subject)).collect::<Vec<_>>();
        match subjects {
            [Subject::Every(_), ..] if self.sharded => {
                let text = "sharded pub/sub has no patterns: a whole area cannot be followed on a cluster";
                Err(Error::new(fred::prelude::ErrorKind::InvalidCommand, text))
            }
            [Subject::Every(_), ..] => connection.confirmed(Change::SubscribePatterns, names).await,
            _ if self.sharded => {
                for name in names {
                    connection.client().ssubscribe(name).await?;
                }
                Ok(())
            }
            _ => connection.confirmed(Change::Subscribe, names).await,
        }
    }

    /// Compares what Redis says about the connection with the wanted set, and subscribes to everything once more where
    /// they differ.
    pub(super) async fn reconcile(&self) -> Result<Agreement, Error> {
        let wire = self.wire.lock().await;
        let Some(Wire { connection, fixed }) = &*wire else { return Ok(Agreement::Agrees) };
        if self.sharded {
            return self.reconcile_shards(connection, fixed).await;
        }
        let answer = match connection.command_to(None, "CLIENT", vec!["INFO".into()]).await {
            Err(error) if !is_trouble(&error) => return Ok(Agreement::Unknown(describe(&error))),
            answer => reply::text(answer?),
        };
        let confirmed = self.confirmed();
        let areas = confirmed.iter().filter(|subject| matches!(subject, Subject::Every(_))).count();
        let expected = (confirmed.len() - areas + fixed.len(), areas);
        if (number(&answer, "sub"), number(&answer, "psub")) == (Some(expected.0), Some(expected.1)) {
            return Ok(Agreement::Agrees);
        }
        // What Redis has too much is not ours to know; a fresh start is.
        self.subscribe_all(connection, fixed).await?;
        Ok(Agreement::Mended)
    }

    /// What is known of the slots may be old, but hides nothing: Redis ends the subscriptions of a slot that it gives away,
    /// so that its old master has fewer than it should.
    async fn reconcile_shards(&self, connection: &Connection, fixed: &[String]) -> Result<Agreement, Error> {
        let Some(slots) = connection.client().cached_cluster_state() else { return Ok(Agreement::Agrees) };
        let mut expected: HashMap<_, usize> = HashMap::new();
        let confirmed = self.confirmed();
        let names = confirmed.iter().map(|subject| self.keys.subject(subject));
        for name in names.chain(fixed.iter().cloned()) {
            let master = slots.get_server(fred::util::redis_keyslot(name.as_bytes()));
            *expected.entry(master.cloned()).or_default() += 1;
        }
        for (master, count) in expected {
            let args: Vec<Value> = vec!["INFO".into()];
            let answer = match connection.command_to(master.as_ref(), "CLIENT", args).await {
                Err(error) if !is_trouble(&error) => return Ok(Agreement::Unknown(describe(&error))),
                answer => reply::text(answer?),
            };
            if number(&answer, "ssub").is_some_and(|subscribed| subscribed != count) {
                connection.sync_slots().await?;
                self.subscribe_all(connection, fixed).await?;
                return Ok(Agreement::Mended);
            }
        }
        Ok(Agreement::Agrees)
    }

    fn confirmed(&self) -> Vec<Subject> {
        let wanted = self.wanted();
        let confirmed = wanted.iter().filter(|(_, standing)| **standing == Standing::Confirmed);
        confirmed.map(|(subject, _)| subject.clone()).collect()
    }
}

/// A number in the line that CLIENT INFO answers.
fn number(line: &str, name: &str) -> Option<usize> {
    line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
