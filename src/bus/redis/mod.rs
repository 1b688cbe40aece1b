//! The bus over Redis (being built: it refuses to start).

pub mod target;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;

pub use self::target::Target;
use super::{BusError, BusEvent, Head, Health, History, Marks, Settings, StartError};
use crate::{
    metrics::Metrics,
    protocol::{EntryId, Event, Subject, Topic},
    shutdown::Tasks,
};

/// The bus over Redis.
#[derive(Debug, Clone)]
pub enum RedisBus {}

#[allow(clippy::unused_async, missing_docs)]
impl RedisBus {
    pub async fn start(
        _: Settings,
        _: Metrics,
        _: &Tasks,
    ) -> Result<(Self, mpsc::Receiver<BusEvent>), StartError> {
        Err(StartError("the Redis bus is being built".into()))
    }
    pub async fn subscribe(&self, _: Vec<Subject>) -> Vec<Result<(), BusError>> {
        match *self {}
    }
    pub async fn unsubscribe(&self, _: Vec<Subject>) {
        match *self {}
    }
    pub async fn heads(&self, _: Vec<Topic>) -> Result<Vec<Head>, BusError> {
        match *self {}
    }
    pub async fn history(&self, _: Topic, _: EntryId) -> Result<History, BusError> {
        match *self {}
    }
    pub async fn publish(&self, _: Topic, _: Event) -> Result<EntryId, BusError> {
        match *self {}
    }
    pub async fn publish_live(&self, _: Topic, _: Event) -> Result<(), BusError> {
        match *self {}
    }
    pub async fn marks(&self) -> Result<Marks, BusError> {
        match *self {}
    }
    pub async fn mark(&self, _: Vec<String>, _: Duration) -> Result<Marks, BusError> {
        match *self {}
    }
    pub async fn disconnect(&self, _: String) -> Result<(), BusError> {
        match *self {}
    }
    pub async fn announce(&self, _: Bytes) -> Result<(), BusError> {
        match *self {}
    }
    pub async fn nodes(&self) -> Result<BTreeMap<String, Bytes>, BusError> {
        match *self {}
    }
    pub fn health(&self) -> Health {
        match *self {}
    }
    pub fn is_sharded(&self) -> bool {
        match *self {}
    }
}
