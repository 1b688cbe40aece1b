//! How publishers and auditors reach Redis: the right master for a key, wherever it is by now.
//!
//! Direct, never through a proxy. Follows MOVED and ASK, and asks the sentinels again after any trouble.

use std::{collections::HashMap, io};

use crate::{
    record::Id,
    redis,
    resp::{Connection, Value},
};

/// Where Redis is to be found.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Alone(u16),
    Sentinels(Vec<u16>),
    /// Each server's port, and the one that the cluster names instead (a proxy's).
    Cluster(Vec<(u16, u16)>),
}

/// A way to Redis for one publisher.
#[derive(Debug)]
pub(crate) struct Door {
    place: Place,
    connections: HashMap<u16, Connection>,
    /// Where keys were last found; under Sentinel the only entry is the master.
    ports: HashMap<String, u16>,
    turn: usize,
}

/// How an attempt ended that was not a success.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Redis said no.
    Refused(String),
    /// No answer: it may have happened.
    Unanswered(io::Error),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(text) => f.write_str(text),
            Self::Unanswered(error) => write!(f, "no answer: {error}"),
        }
    }
}

impl Door {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, connections: HashMap::new(), ports: HashMap::new(), turn: 0 }
    }

    /// Asks the master of `key`.
    pub(crate) async fn ask(&mut self, key: &str, args: &[&str]) -> Result<Value, Trouble> {
        let mut asking = false;
        let mut port = self.port(key).await.map_err(Trouble::Unanswered)?;
        for _ in 0..6 {
            match self.ask_at(port, args, asking).await {
                Err(error) => {
                    self.connections.remove(&port);
                    self.ports.clear();
                    self.turn += 1;
                    return Err(Trouble::Unanswered(error));
                }
                Ok(Value::Error(text)) => {
                    let mut words = text.split(' ');
                    let (word, to) =
                        (words.next(), words.nth(1).and_then(|to| to.rsplit_once(':')?.1.parse().ok()));
                    match (word, to) {
                        (Some("MOVED"), Some(to)) => {
                            (port, asking) = (self.behind(to), false);
                            self.ports.insert(key.to_owned(), port);
                        }
                        (Some("ASK"), Some(to)) => (port, asking) = (self.behind(to), true),
                        _ => {
                            self.ports.clear();
                            self.turn += 1;
                            return Err(Trouble::Refused(text));
                        }
                    }
                }
                Ok(value) => return Ok(value),
            }
        }
        Err(Trouble::Refused("too many redirections".into()))
    }

    async fn port(&mut self, key: &str) -> io::Result<u16> {
        match &self.place {
            Place::Alone(port) => Ok(*port),
            Place::Cluster(ports) => {
                Ok(self.ports.get(key).copied().unwrap_or(ports[self.turn % ports.len()].0))
            }
            Place::Sentinels(sentinels) => {
                if let Some(port) = self.ports.get("") {
                    return Ok(*port);
                }
                let port = redis::master_port(sentinels)
                    .await
                    .ok_or_else(|| io::Error::other("no master is known"))?;
                self.ports.insert(String::new(), port);
                Ok(port)
            }
        }
    }

    /// The server itself, where a redirection names the proxy before it.
    fn behind(&self, named: u16) -> u16 {
        let Place::Cluster(ports) = &self.place else { return named };
        ports.iter().find(|(_, announced)| *announced == named).map_or(named, |(port, _)| *port)
    }

    async fn ask_at(&mut self, port: u16, args: &[&str], asking: bool) -> io::Result<Value> {
        let connection = match self.connections.entry(port) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Connection::open(port).await?),
        };
        if asking {
            connection.ask(&["ASKING"]).await?;
        }
        connection.ask(args).await
    }

    /// Publishes without the function, as live events are: how many subscribers there were at the server.
    pub(crate) async fn publish(&mut self, channel: &str, text: &str) -> Result<Value, Trouble> {
        let word = if matches!(self.place, Place::Cluster(_)) { "SPUBLISH" } else { "PUBLISH" };
        self.ask(channel, &[word, channel, text]).await
    }

    /// The end of a log: the id that was given last.
    pub(crate) async fn head(&mut self, key: &str) -> Result<Id, Trouble> {
        // A log without events is a string that holds its epoch.
        if self.ask(key, &["TYPE", key]).await?.text() == Some("string") {
            let epoch = self.ask(key, &["GET", key]).await?;
            let epoch = epoch.text().and_then(|text| text.parse().ok());
            return epoch
                .map(|epoch| Id { epoch, seq: 0 })
                .ok_or_else(|| Trouble::Refused("no epoch".into()));
        }
        let info = self.ask(key, &["XINFO", "STREAM", key]).await?;
        let items = info.list();
        let at = items.iter().position(|item| item.text() == Some("last-generated-id"));
        let id = at.and_then(|at| Id::parse(items.get(at + 1)?.text()?));
        id.ok_or_else(|| Trouble::Refused(format!("no id in {info:?}")))
    }
}
