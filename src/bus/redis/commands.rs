//! Commands to Redis: our functions, as calls. A client lives as long as the link that it was built with.
//!
//! Logs are read over a connection of their own, in pages, so that a long one never keeps a probe waiting.
//! Which history an answer is from is looked at in `lineage_calls`.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use fred::{prelude::Error, types::Value};
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::{
    connection::{Connection, PATIENCE, READ_PATIENCE},
    fault::Fault,
    library,
    lineage::Lineages,
    pages::{Pages, Step},
    reply,
    seal::Seal,
    state,
};
use crate::{
    bus::{Head, History, Marks, Settings, keys::Keys},
    mutant,
    protocol::{EntryId, Event, EventError, Lineage, Topic},
};

/// Bytes of events in the first page of a log: most of what is missing somewhere is an event or two.
const FIRST_PAGE: usize = 16 << 10;
/// Bytes of events in each further page.
const PAGE: usize = 256 << 10;
/// First pages that are under way at once: together 2 MiB, so that a slow link has room for everything else.
const FIRST_PAGES: usize = 128;
/// Long logs that are read at once; the others wait, so that never more than so many are in memory half read.
const LONG_LOGS: usize = 2;

/// Commands to Redis.
#[derive(Debug)]
pub(super) struct CommandClient {
    connection: Arc<Connection>,
    /// For reads of logs, which may take long.
    reads: Arc<Connection>,
    first_pages: Semaphore,
    long_logs: Semaphore,
    keys: Keys,
    settings: Arc<Settings>,
    pub(super) sharded: bool,
    pub(super) lineages: Lineages,
    /// The `change` of the revocations when this client read them last; 0: never.
    pub(super) revocations_read: AtomicU64,
}

impl CommandClient {
    /// `connection` for all commands but reads of logs, which have `reads`.
    pub(super) fn new(
        connection: Arc<Connection>,
        reads: Arc<Connection>,
        settings: Arc<Settings>,
        lineages: HashSet<Lineage>,
    ) -> Self {
        let keys = Keys::new(&settings.prefix);
        let sharded = settings.redis.as_ref().is_some_and(super::Target::is_sharded);
        let (first_pages, long_logs) = (Semaphore::new(FIRST_PAGES), Semaphore::new(LONG_LOGS));
        let lineages = Lineages::new(lineages);
        let revocations_read = AtomicU64::new(0);
        Self {
            connection,
            reads,
            first_pages,
            long_logs,
            keys,
            settings,
            sharded,
            lineages,
            revocations_read,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The connection that logs are read over.
    pub(super) fn reads(&self) -> &Connection {
        &self.reads
    }

    /// Nobody may read a log for hours, and a Redis with a `timeout` closes what is quiet.
    pub(super) async fn keep_reads_open(&self) -> Result<(), Error> {
        let free = (self.first_pages.available_permits(), self.long_logs.available_permits());
        // Behind a long page a ping would wait for longer than it may.
        if free == (FIRST_PAGES, LONG_LOGS) { self.reads.touch().await } else { Ok(()) }
    }

    /// Whether one of its connections is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.connection.closed().is_cancelled() || self.reads.closed().is_cancelled()
    }

    fn place(&self) -> String {
        self.settings.redis.as_ref().map(super::Target::shown).unwrap_or_default()
    }

    /// Loads the library again, on every master.
    async fn reload(&self) -> Result<(), Fault> {
        for master in self.connection.masters() {
            let loaded =
                library::load(&self.connection, master.as_ref(), &self.settings, &self.place(), false).await;
            loaded.map_err(|connect_error| match connect_error {
                super::fault::ConnectError::Transient(text) | super::fault::ConnectError::Permanent(text) => {
                    Fault::Refused(text)
                }
            })?;
        }
        Ok(())
    }

    /// See [`crate::bus::Bus::renew_settings`].
    pub(super) async fn renew_settings(&self) -> Result<bool, Fault> {
        let before = self.settings.generation();
        self.reload().await?;
        Ok(self.settings.generation() != before)
    }

    /// Calls a function; a library that is gone is loaded again. All keys lie in one slot.
    pub(super) async fn call(
        &self,
        function: &str,
        keys: &[String],
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Vec<Value>, Fault> {
        let call = self.arguments(function, keys, args);
        self.call_over(&self.connection, &keys[0], call, timeout).await
    }

    /// What FCALL takes.
    pub(super) fn arguments(&self, function: &str, keys: &[String], args: Vec<Value>) -> Vec<Value> {
        let mut list: Vec<Value> = vec![self.keys.function(function).into(), (keys.len() as i64).into()];
        list.extend(keys.iter().map(|key| key.as_str().into()));
        list.extend(args);
        list
    }

    /// In a box, or the futures around it would be too deep for the compiler.
    pub(super) fn call_over<'a>(
        &'a self,
        connection: &'a Connection,
        key: &'a str,
        call: Vec<Value>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Vec<Value>, Fault>> {
        Box::pin(async move {
            let answer = self.retried(|| connection.command("FCALL", key, call.clone(), timeout)).await?;
            Ok(match answer {
                Value::Array(items) => items,
                single => vec![single],
            })
        })
    }

    /// Calls a function; once more where the library was gone, which is loaded again.
    pub(super) async fn retried<T, D>(&self, call: impl Fn() -> D) -> Result<T, Fault>
    where
        D: Future<Output = Result<T, Error>>,
    {
        let mut reloaded = false;
        loop {
            match call().await.map_err(Fault::from) {
                Err(Fault::NoFunction) if !reloaded => {
                    self.reload().await?;
                    reloaded = true;
                }
                Err(Fault::Replica(text)) => {
                    self.connection.fail(format!("connected to a replica ({text})"));
                    return Err(Fault::Replica(text));
                }
                answered => return answered,
            }
        }
    }

    /// Publishes a recorded event.
    pub(super) async fn publish(
        &self,
        topic: &Topic,
        events: &[Event],
        timeout: Duration,
    ) -> Result<Vec<EntryId>, Fault> {
        let args = events.iter().map(|event| Value::Bytes(event.json().clone())).collect();
        let answer = self.call("publish", &[self.keys.channel(topic)], args, timeout).await?;
        let mut answers = answer.into_iter();
        events.iter().map(|_| id(answers.next())).collect()
    }

    /// Erases a log; how many events it had, `None` where there was nothing.
    pub(super) async fn forget(&self, topic: &Topic) -> Result<Option<u64>, Fault> {
        let answer = self.call("forget", &[self.keys.channel(topic)], Vec::new(), PATIENCE).await?;
        let erased = answer.into_iter().next().unwrap_or(Value::Null);
        if erased.is_null() {
            return Ok(None);
        }
        reply::text(erased).parse().map(Some).map_err(|_| unreadable())
    }

    /// Publishes without recording, to any channel.
    pub(super) async fn send(&self, channel: &str, message: Bytes, timeout: Duration) -> Result<(), Fault> {
        let name = if self.sharded { "SPUBLISH" } else { "PUBLISH" };
        self.connection.command(name, channel, vec![channel.into(), Value::Bytes(message)], timeout).await?;
        Ok(())
    }

    /// Publishes a live event.
    pub(super) async fn publish_live(
        &self,
        topic: &Topic,
        event: &Event,
        timeout: Duration,
    ) -> Result<(), Fault> {
        self.send(&self.keys.channel(topic), event.json().clone(), timeout).await
    }

    /// Publishes a probe on `channel`. `Some`: Redis refuses writes, for this reason, and the probe went as a plain message.
    pub(super) async fn probe(&self, channel: &str, token: &str) -> Result<Option<String>, Fault> {
        let keys = [channel.to_owned()];
        match self.call_told(&self.connection, "probe", &keys, vec![token.into()], PATIENCE).await {
            Ok((_, mut answer)) => {
                let mut number =
                    |skip| answer.nth(skip).map(reply::text).and_then(|text| text.parse::<u64>().ok());
                let (version, generation) = (number(1), number(0).unwrap_or(0));
                if version.is_none_or(|version| version < library::version())
                    || generation != self.settings.generation()
                {
                    // The library is another one now: a node of an earlier release has loaded its own, which cannot read what
                    // this one writes, or a node with other settings has come.
                    self.reload().await?;
                }
                Ok(None)
            }
            Err(Fault::NoWrites(text)) => {
                let now = self.call("clock", &keys, Vec::new(), PATIENCE).await?;
                let now = now.into_iter().next().map(reply::text).unwrap_or_default();
                let message = format!("{now} {token}");
                self.send(channel, Bytes::from(message), PATIENCE).await?;
                Ok(Some(text))
            }
            Err(fault) => Err(fault),
        }
    }

    /// The entries of a log after `after`, read in pages that are put together to one answer.
    pub(super) async fn history(&self, topic: &Topic, after: EntryId) -> Result<History, Fault> {
        // This semaphore is never closed.
        let first = self.first_pages.acquire().await.map_err(|_| given_up())?;
        // Boxed, and made after the wait: thousands may wait, and each of them should be small.
        let page = Box::pin(self.page(topic, after, FIRST_PAGE)).await?;
        drop(first);
        let (mut pages, mut next) = match Pages::default().take(page) {
            Step::Whole(history) => return Ok(history),
            Step::More(pages, next) => (pages, next),
        };
        // Whoever must wait drops the page that they have read: it is read again with the rest.
        let free = self.long_logs.try_acquire();
        let _turn = if let Ok(turn) = free {
            turn
        } else {
            (pages, next) = (Pages::default(), after);
            self.long_logs.acquire().await.map_err(|_| given_up())?
        };
        loop {
            match pages.take(Box::pin(self.page(topic, next, PAGE)).await?) {
                Step::Whole(history) => return Ok(history),
                Step::More(so_far, last) => (pages, next) = (so_far, last),
            }
        }
    }

    /// Entries of a log after `after`, as many as `bytes` have room for, at least one.
    async fn page(&self, topic: &Topic, after: EntryId, bytes: usize) -> Result<History, Fault> {
        let keys = [self.keys.channel(topic)];
        let apart = (&self.reads, bytes);
        let (reads, bytes) = if mutant::is("reads-apart") { (&self.connection, usize::MAX) } else { apart };
        let args: Vec<Value> = vec![after.to_string().into(), bytes.to_string().into()];
        let answer = self.call_told(reads, "history", &keys, args, READ_PATIENCE).await;
        if let Err(Fault::Away(text)) = &answer {
            // No probe runs over this connection, so this is where a dead one is noticed.
            self.reads.fail(format!("a page of a log did not come: {text}"));
        }
        let (lineage, mut answer) = answer?;
        let top = match answer.nth(1) {
            // The log is gone: it begins anew, unless Redis is full.
            Some(Value::Null) => {
                let head = self.some_heads(std::slice::from_ref(topic)).await?.pop();
                let head = head.unwrap_or_else(|| Err(unreadable()))?;
                return Ok(History { head, entries: Vec::new() });
            }
            top => id(top)?,
        };
        let mut entries = Vec::with_capacity(answer.len() / 2);
        while let (Some(entry), Some(event)) = (answer.next(), answer.next()) {
            let event = match reply::bytes(event) {
                Some(json) => Event::parse(json, self.settings.event_bytes()),
                None => Err(EventError::Json("the entry has no field \"event\"".into())),
            };
            entries.push((id(Some(entry))?, event));
        }
        Ok(History { head: Head { lineage, top }, entries })
    }

    /// The marks of all areas.
    pub(super) async fn marks(&self) -> Result<Marks, Fault> {
        let answer = self.call("marks", &[self.keys.marks()], Vec::new(), PATIENCE).await?;
        Ok(reply::marks(answer))
    }

    /// Sets marks.
    pub(super) async fn mark(&self, areas: Vec<String>, ahead: Duration) -> Result<Marks, Fault> {
        let mut args: Vec<Value> = vec![(ahead.as_millis() as i64).into()];
        args.extend(areas.into_iter().map(Value::from));
        let answer = self.call("mark", &[self.keys.marks()], args, PATIENCE).await?;
        Ok(reply::marks(answer))
    }

    /// Signs what nodes tell each other, and checks it.
    pub(super) fn seal(&self) -> &Seal {
        self.settings.seal()
    }

    /// Leaves this node's state for the others.
    pub(super) async fn announce(&self, state: Bytes) -> Result<(), Fault> {
        let lasting = (self.settings.probe_interval * 3).as_millis() as i64;
        let state = state::sealed(self.seal(), &self.settings.node, state);
        let args = vec![self.settings.node.as_str().into(), lasting.into(), Value::Bytes(state)];
        self.call("announce", &[self.keys.nodes()], args, PATIENCE).await.map(drop)
    }

    /// Takes this node's state back.
    pub(super) async fn leave(&self) -> Result<(), Fault> {
        let args = vec![self.settings.node.as_str().into(), 0.into(), "".into()];
        self.call("announce", &[self.keys.nodes()], args, PATIENCE).await.map(drop)
    }

    /// The states of all nodes.
    pub(super) async fn nodes(&self) -> Result<Vec<(String, Bytes)>, Fault> {
        let answer = self.call("nodes", &[self.keys.nodes()], Vec::new(), PATIENCE).await?;
        let mut answer = answer.into_iter();
        let mut nodes = Vec::new();
        while let (Some(node), Some(state)) = (answer.next(), answer.next()) {
            let (node, state) = (reply::text(node), reply::bytes(state).unwrap_or_default());
            let life = (self.settings.probe_interval * 3).as_millis() as u64;
            match state::opened(self.seal(), &node, &state, life) {
                Ok(state) => nodes.push((node, state)),
                Err(broken) => tracing::debug!(node, "a node's state is not shown: {broken}"),
            }
        }
        Ok(nodes)
    }
}

fn given_up() -> Fault {
    Fault::Away("the link was given up".into())
}

pub(super) fn unreadable() -> Fault {
    Fault::Refused("the function library answers in a way that this version does not understand".into())
}

pub(super) fn id(value: Option<Value>) -> Result<EntryId, Fault> {
    value.map(reply::text).and_then(|text| text.parse().ok()).ok_or_else(unreadable)
}
