//! The bus over Redis 7 and later, Valkey, Sentinel and Cluster.
//!
//! [`RedisBus`] answers questions over the present link; `link_supervisor` keeps a link up, and says when there is none. Only this
//! folder uses the Redis client (fred), and what reads RESP (redis-protocol).

mod acl;
mod address;
mod built_link;
mod commands;
mod connection;
mod ending;
mod examine;
mod fault;
mod fitness;
mod foreign;
mod heads;
mod health_board;
mod incoming;
mod layout;
mod ledger;
mod library;
mod lineage;
mod lineage_calls;
mod link_supervisor;
mod messages;
mod pages;
mod probe_channels;
mod publisher;
mod push_stream;
mod reader;
mod reply;
mod revoked;
mod rights;
mod routing;
mod seal;
mod sentinel;
mod server_socket;
mod slots;
mod socket;
mod sources;
mod state;
mod subscriber;
mod subscriptions;
mod target;
mod tls;

use std::{
    collections::{BTreeMap, HashSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};

pub use self::{
    acl::acl,
    examine::{Finding, Weight, examine},
    library::library,
    publisher::Publisher,
    seal::Seal,
    target::Target,
};
use self::{
    commands::CommandClient,
    connection::PATIENCE,
    fault::{ConnectError, Fault},
    health_board::HealthBoard,
    link_supervisor::LinkSupervisor,
    subscriptions::Subscriptions,
};
use super::{
    BusError, BusEvent, Head, Health, History, LostSource, Marks, Settings, Sources, StartError,
    arrivals::Arrivals, check, keys::Keys,
};
use crate::{
    metrics::Metrics,
    protocol::{EntryId, Event, Kind, Subject, Topic, Whom},
    shutdown::Tasks,
};

/// The bus over Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisBus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Arc<Settings>,
    sharded: bool,
    metrics: Metrics,
    health_board: Arc<HealthBoard>,
    subscriptions: Arc<Subscriptions>,
    commands: watch::Receiver<Option<Arc<CommandClient>>>,
}

impl RedisBus {
    /// Starts the bus; see [`super::Bus::start`].
    pub async fn start(
        settings: Settings,
        metrics: Metrics,
        tasks: &Tasks,
    ) -> Result<(Self, mpsc::Receiver<BusEvent>), StartError> {
        let target = settings.redis.clone().unwrap_or_default();
        let (access, place, sharded) = (Arc::new(target.access()?), target.shown(), target.is_sharded());
        let (arrivals, events) = Arrivals::new(&settings, metrics.clone());
        let settings = Arc::new(settings);
        let keys = Keys::new(&settings.prefix);
        let health_board = Arc::new(HealthBoard::new(metrics.clone(), place.clone()));
        let subscriptions = Arc::new(Subscriptions::new(keys.clone(), sharded));
        let (sender, commands) = watch::channel(None);
        let mut supervisor = LinkSupervisor {
            settings: settings.clone(),
            access,
            place,
            arrivals,
            health_board: health_board.clone(),
            subscriptions: subscriptions.clone(),
            commands: sender,
            tasks: tasks.clone(),
            known: HashSet::new(),
            addresses: HashSet::new(),
            accepted: false,
            blind: false,
            generation: settings.generation,
            untold: Vec::new(),
        };
        let first = match Box::pin(supervisor.build()).await {
            Ok(link) => Some(link),
            Err(ConnectError::Permanent(text)) => return Err(StartError(text)),
            Err(ConnectError::Transient(text)) => {
                health_board.lost(&text);
                None
            }
        };
        tasks.spawn_until_end(supervisor.run(first));
        let inner = Inner { settings, sharded, metrics, health_board, subscriptions, commands };
        Ok((Self { inner: Arc::new(inner) }, events))
    }

    /// The commands of the present link, or of the next one until `deadline`; not `failed`.
    async fn commands(
        &self,
        deadline: Instant,
        failed: Option<&Arc<CommandClient>>,
    ) -> Result<Arc<CommandClient>, BusError> {
        let mut commands = self.inner.commands.clone();
        let usable = |commands: &Option<Arc<CommandClient>>| {
            commands.as_ref().is_some_and(|commands| {
                !commands.is_lost() && failed.is_none_or(|failed| !Arc::ptr_eq(commands, failed))
            })
        };
        let found = match timeout_at(deadline, commands.wait_for(usable)).await {
            Ok(Ok(commands)) => commands.clone(),
            _ => None,
        };
        found.ok_or_else(|| BusError::Away(self.inner.health_board.trouble()))
    }

    /// Does something over a link, within [`PATIENCE`] for getting one. `repeatable`: once more over the next link where
    /// the first was lost.
    async fn with_commands<T, F, D>(&self, repeatable: bool, action: F) -> Result<T, BusError>
    where
        F: Fn(Arc<CommandClient>, Duration) -> D,
        D: Future<Output = Result<T, Fault>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut lost: Option<(Arc<CommandClient>, BusError)> = None;
        loop {
            let commands = match self.commands(deadline, lost.as_ref().map(|(commands, _)| commands)).await {
                Ok(commands) => commands,
                Err(error) => return Err(lost.map_or(error, |(_, first)| first)),
            };
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            match action(commands.clone(), left).await {
                Err(fault @ (Fault::Away(_) | Fault::Replica(_))) if repeatable => {
                    lost = Some((commands, fault.into()));
                }
                other => return other.map_err(BusError::from),
            }
        }
    }

    /// See [`super::Bus::subscribe`].
    pub async fn subscribe(&self, subjects: Vec<Subject>) -> Vec<Result<(), BusError>> {
        self.inner.subscriptions.subscribe(subjects).await
    }

    /// See [`super::Bus::unsubscribe`].
    pub async fn unsubscribe(&self, subjects: Vec<Subject>) {
        self.inner.subscriptions.unsubscribe(subjects).await;
    }

    /// See [`super::Bus::heads`].
    pub async fn heads(&self, topics: Vec<Topic>) -> Vec<Result<Head, BusError>> {
        let topics: Arc<[Topic]> = topics.into();
        let heads = self.with_commands(true, |commands, _| {
            let topics = topics.clone();
            async move { commands.heads(&topics).await }
        });
        match heads.await {
            Ok(heads) => heads.into_iter().map(|head| head.map_err(BusError::from)).collect(),
            Err(error) => topics.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// See [`super::Bus::history`].
    pub async fn history(&self, topic: Topic, after: EntryId) -> Result<History, BusError> {
        // Not repeated over the next link: then all heads are compared, and what is missing is asked for anew.
        self.with_commands(false, |commands, _| {
            let topic = topic.clone();
            async move { commands.history(&topic, after).await }
        })
        .await
    }

    /// See [`super::Bus::publish`].
    pub async fn publish(&self, topic: Topic, events: Vec<Event>) -> Result<Vec<EntryId>, BusError> {
        let repeatable = events.iter().all(|event| event.attributes().id.is_some());
        let result = self.with_commands(repeatable, |commands, left| {
            let (topic, events) = (topic.clone(), events.clone());
            async move { commands.publish(&topic, &events, left).await }
        });
        let result = result.await;
        // The canary's events are not counted.
        if !topic.is_canary() {
            check::count_all(&self.inner.metrics, events.len(), &result);
        }
        result
    }

    /// See [`super::Bus::publish_live`].
    pub async fn publish_live(&self, topic: Topic, event: Event) -> Result<(), BusError> {
        let result = self.send_live(topic, event).await;
        check::count(&self.inner.metrics, "live", &result);
        result
    }

    async fn send_live(&self, topic: Topic, event: Event) -> Result<(), BusError> {
        check::live(&self.inner.settings, &topic, &event)?;
        self.with_commands(false, |commands, left| {
            let (topic, event) = (topic.clone(), event.clone());
            async move { commands.publish_live(&topic, &event, left).await }
        })
        .await
    }

    /// See [`super::Bus::marks`].
    pub async fn marks(&self) -> Result<Marks, BusError> {
        self.with_commands(true, |commands, _| async move { commands.marks().await }).await
    }

    /// See [`super::Bus::mark`].
    pub async fn mark(&self, areas: Vec<String>, ahead: Duration) -> Result<Marks, BusError> {
        self.with_commands(true, |commands, _| {
            let areas = areas.clone();
            async move { commands.mark(areas, ahead).await }
        })
        .await
    }

    /// See [`super::Bus::revoke`].
    pub async fn revoke(&self, kind: Kind, whom: Whom) -> Result<u64, BusError> {
        // Twice does no harm.
        self.with_commands(true, |commands, left| {
            let whom = whom.clone();
            async move { commands.revoke(kind, whom, left).await }
        })
        .await
    }

    /// See [`super::Bus::announce`].
    pub async fn announce(&self, state: Bytes) -> Result<(), BusError> {
        self.with_commands(false, |commands, _| {
            let state = state.clone();
            async move { commands.announce(state).await }
        })
        .await
    }

    /// See [`super::Bus::leave`].
    pub async fn leave(&self) -> Result<(), BusError> {
        self.with_commands(false, |commands, _| async move { commands.leave().await }).await
    }

    /// See [`super::Bus::nodes`].
    pub async fn nodes(&self) -> Result<BTreeMap<String, Bytes>, BusError> {
        let nodes = self.with_commands(true, |commands, _| async move { commands.nodes().await }).await?;
        Ok(nodes.into_iter().collect())
    }

    /// See [`super::Bus::sources`].
    pub async fn sources(&self, lost: Vec<LostSource>) -> Result<Sources, BusError> {
        // Not repeated over the next link: the relay treats an interruption in its own way.
        self.with_commands(false, |commands, _| {
            let lost = lost.clone();
            async move { commands.sources(&lost).await }
        })
        .await
    }

    /// See [`super::Bus::renew_settings`].
    pub async fn renew_settings(&self) -> bool {
        self.with_commands(false, |commands, _| async move { commands.renew_settings().await })
            .await
            .unwrap_or(false)
    }

    /// See [`super::Bus::event_bytes`].
    pub fn event_bytes(&self) -> usize {
        self.inner.settings.event_bytes()
    }

    /// See [`super::Bus::health`].
    pub fn health(&self) -> Health {
        self.inner.health_board.health()
    }

    /// See [`super::Bus::is_sharded`].
    pub fn is_sharded(&self) -> bool {
        self.inner.sharded
    }
}
