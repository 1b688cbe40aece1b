//! Events that are published while something happens to Redis, and a follower who must be in step afterwards.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use carillon::{
    bus::{BusError, redis::Publisher},
    protocol::{EntryId, Event},
    shutdown::Tasks,
};
use serde_json::Value;
use tokio::net::TcpStream;

use super::{
    bus::{event, settings, topic},
    node::{Ws, within},
};

/// What was accepted: the position of each topic's nth event.
pub(crate) type Published = BTreeMap<(String, u64), EntryId>;

/// An event with an id.
pub(crate) fn named(id: &str) -> Event {
    event(&format!(r#"{{"type":"a.b","id":"{id}"}}"#))
}

/// A CMS with an outbox: it sends each event until Redis accepts it, over a new connection after each trouble.
pub(crate) struct Cms {
    url: String,
    publisher: Publisher,
}

impl Cms {
    pub(crate) async fn open(url: &str) -> Self {
        Self { url: url.to_owned(), publisher: Self::connect(url).await }
    }

    async fn connect(url: &str) -> Publisher {
        Publisher::open(settings(Some(url)), &Tasks::new()).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Publishes an event once.
    pub(crate) async fn try_once(&self, name: &str, event: &Event) -> Result<EntryId, BusError> {
        self.publisher.publish(&topic(name), event).await
    }

    /// Publishes an event until it is accepted.
    pub(crate) async fn insist(&mut self, name: &str, event: &Event) -> EntryId {
        let accepted = async {
            loop {
                match self.try_once(name, event).await {
                    Ok(id) => return id,
                    Err(BusError::Away(_)) => self.publisher = Self::connect(&self.url).await,
                    // The word of a master that has lost its replicas: there may be another master by now.
                    Err(BusError::Refused(text)) if text.starts_with("NOREPLICAS") => {
                        self.publisher = Self::connect(&self.url).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        within("an event to be accepted", Box::pin(accepted)).await
    }

    /// Publishes event after event to each topic, until `enough`.
    pub(crate) async fn publish(&mut self, names: &[String], enough: &AtomicBool) -> Published {
        let mut published = BTreeMap::new();
        let mut n = 0;
        while !enough.load(Ordering::Relaxed) || n < 5 {
            n += 1;
            // A busy site, no flood.
            tokio::time::sleep(Duration::from_millis(10)).await;
            for name in names {
                let id = self.insist(name, &named(&format!("{name}-{n}"))).await;
                published.insert((name.clone(), n), id);
            }
        }
        published
    }
}

/// Reads until the follower stands at the last event of each topic; the reasons of all that they were told to read again.
/// Each event must be the next one after where they stood.
pub(crate) async fn in_step(
    follower: &mut Ws<TcpStream>,
    welcome: &Value,
    published: &Published,
) -> Vec<String> {
    let mut last = BTreeMap::new();
    for ((name, _), id) in published {
        last.insert(name.clone(), id.to_string());
    }
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut stands = BTreeMap::new();
    let place = |stands: &mut BTreeMap<String, String>, positions: &Value| {
        for (at, position) in positions.as_object().expect("positions") {
            stands.insert(at.clone(), text(position));
        }
    };
    place(&mut stands, &welcome["positions"]);
    let mut reasons = Vec::new();
    let is_last = |stands: &BTreeMap<String, String>, (name, id): (&String, &String)| {
        stands.get(name).is_some_and(|position| position.rsplit('.').next() == Some(id))
    };
    while !last.iter().all(|entry| is_last(&stands, entry)) {
        let message = within("the follower to be in step", follower.message()).await;
        match message["type"].as_str().expect("a type") {
            "event" => {
                let (at, position) = (text(&message["topic"]), text(&message["position"]));
                let before = stands.insert(at.clone(), position.clone()).expect("a position before");
                assert_eq!(next(&before), position, "{at}: after {before}");
            }
            "resync" => {
                reasons.push(text(&message["reason"]));
                place(&mut stands, &message["positions"]);
            }
            _ => {}
        }
    }
    reasons
}

/// The position after this one in the same log.
fn next(position: &str) -> String {
    let (log, seq) = position.rsplit_once('-').expect("a position");
    format!("{log}-{}", seq.parse::<u64>().expect("a number") + 1)
}
