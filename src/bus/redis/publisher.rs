//! Publishing without a node: for `carillon publish --redis`, with the rights of a publisher and no more.
//!
//! No subscriptions, no probes, nothing is announced.

use std::{collections::HashSet, sync::Arc};

use futures_util::future::BoxFuture;

use super::{
    commands::CommandClient,
    connection::{Connection, PATIENCE},
    fault::ConnectError,
};
use crate::{
    bus::{BusError, Settings, Sources, StartError, check},
    protocol::{EntryId, Event, Topic},
    shutdown::Tasks,
};

/// A connection for publishing. Its futures are in boxes, so that they are compiled here, and not again with the command line.
#[derive(Debug)]
pub struct Publisher {
    /// Or why Redis is out of reach.
    commands: Result<CommandClient, String>,
    settings: Arc<Settings>,
}

impl Publisher {
    /// Connects. With Redis out of reach it comes back all the same, and every event is refused; what only an operator
    /// can mend is an error.
    pub fn open(settings: Settings, tasks: &Tasks) -> BoxFuture<'_, Result<Self, StartError>> {
        Box::pin(async move {
            let target = settings.redis.clone().unwrap_or_default();
            let (access, place, settings) = (target.access()?, target.shown(), Arc::new(settings));
            let commands = match Connection::open(Arc::new(access), tasks).await {
                Ok(connection) => {
                    // No log is read here.
                    let connection = Arc::new(connection);
                    Ok(CommandClient::new(
                        Arc::clone(&connection),
                        connection,
                        Arc::clone(&settings),
                        HashSet::new(),
                    ))
                }
                Err(ConnectError::Permanent(text)) => return Err(StartError(text)),
                Err(ConnectError::Transient(text)) => {
                    Err(format!("{place}: {text}: start it, or correct redis.url"))
                }
            };
            Ok(Self { commands, settings })
        })
    }

    /// Publishes a recorded event.
    pub fn publish<'a>(
        &'a self,
        topic: &'a Topic,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<EntryId, BusError>> {
        Box::pin(async move {
            check::recorded(&self.settings, topic, event)?;
            let ids = self.commands()?.publish(topic, std::slice::from_ref(event), PATIENCE).await?;
            ids.first().copied().ok_or_else(|| BusError::Refused("Redis gave no position".into()))
        })
    }

    /// Publishes a live event.
    pub fn publish_live<'a>(
        &'a self,
        topic: &'a Topic,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move {
            check::live(&self.settings, topic, event)?;
            Ok(self.commands()?.publish_live(topic, event, PATIENCE).await?)
        })
    }

    /// Erases a topic's log; how many events it had, `None` where there was nothing.
    pub fn forget<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<u64>, BusError>> {
        Box::pin(async move { Ok(self.commands()?.forget(topic).await?) })
    }

    /// All sources.
    pub fn sources(&self) -> BoxFuture<'_, Result<Sources, BusError>> {
        Box::pin(async move { Ok(self.commands()?.sources(&[]).await?) })
    }

    /// Says good-bye for a source: nodes forget it.
    pub fn forget_source<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(async move { Ok(self.commands()?.forget_source(name).await?) })
    }

    fn commands(&self) -> Result<&CommandClient, BusError> {
        self.commands.as_ref().map_err(|why| BusError::Away(why.clone()))
    }
}
