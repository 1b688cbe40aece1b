//! Publishing without a node: for `carillon publish --redis`, with the rights of a publisher and no more.
//!
//! No subscriptions, no probes, nothing is announced.

use std::{collections::HashSet, sync::Arc};

use super::{
    commands::CommandClient,
    connection::{Connection, PATIENCE, Purpose},
    fault::ConnectError,
};
use crate::{
    bus::{BusError, Settings, Sources, StartError, check},
    protocol::{EntryId, Event, Topic},
    shutdown::Tasks,
};

/// A connection for publishing.
#[derive(Debug)]
pub struct Publisher {
    /// Or why Redis is out of reach.
    commands: Result<CommandClient, String>,
    settings: Arc<Settings>,
}

impl Publisher {
    /// Connects. With Redis out of reach it comes back all the same, and every event is refused; what only an operator
    /// can mend is an error.
    pub async fn open(settings: Settings, tasks: &Tasks) -> Result<Self, StartError> {
        let target = settings.redis.clone().unwrap_or_default();
        let (access, place, settings) = (target.access()?, target.shown(), Arc::new(settings));
        let commands = match Connection::open(Arc::new(access), Purpose::Commands, tasks).await {
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
    }

    /// Publishes a recorded event.
    pub async fn publish(&self, topic: &Topic, event: &Event) -> Result<EntryId, BusError> {
        check::recorded(&self.settings, topic, event)?;
        let ids = self.commands()?.publish(topic, std::slice::from_ref(event), PATIENCE).await?;
        ids.first().copied().ok_or_else(|| BusError::Refused("Redis gave no position".into()))
    }

    /// Publishes a live event.
    pub async fn publish_live(&self, topic: &Topic, event: &Event) -> Result<(), BusError> {
        check::live(&self.settings, topic, event)?;
        Ok(self.commands()?.publish_live(topic, event, PATIENCE).await?)
    }

    /// Erases a topic's log; how many events it had, `None` where there was nothing.
    pub async fn forget(&self, topic: &Topic) -> Result<Option<u64>, BusError> {
        Ok(self.commands()?.forget(topic).await?)
    }

    /// All sources.
    pub async fn sources(&self) -> Result<Sources, BusError> {
        Ok(self.commands()?.sources(&[]).await?)
    }

    /// Says good-bye for a source: nodes forget it.
    pub async fn forget_source(&self, name: &str) -> Result<(), BusError> {
        Ok(self.commands()?.forget_source(name).await?)
    }

    fn commands(&self) -> Result<&CommandClient, BusError> {
        self.commands.as_ref().map_err(|why| BusError::Away(why.clone()))
    }
}
