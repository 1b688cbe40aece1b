//! Which channels the node wants, which Redis has confirmed, and what must be sent because the two differ. Pure values, so that it can
//! be tested without Redis.
//!
//! A subscription counts from its confirmation until the confirmation of its end, whatever was wanted in between. Only so does
//! our count agree with that of Redis at every moment.

use std::collections::{HashMap, HashSet};

use fred::prelude::Server;

use crate::{mutant, protocol::Subject};

/// Something to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    /// What sessions follow.
    Subject(Subject),
    /// What every link needs: probes, orders.
    Fixed(String),
}

impl Channel {
    /// Whether it is a pattern and not the name of a channel.
    pub(super) fn is_pattern(&self) -> bool {
        matches!(self, Self::Subject(Subject::Every(_)))
    }
}

/// Where something is to be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubscriptionServer {
    /// The server.
    pub(super) server: Server,
    /// Whether the server is only about to get the slot and must be told that we know (ASKING).
    pub(super) asking: bool,
}

/// One command's worth of work.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// Where.
    pub(super) place: SubscriptionServer,
    /// To subscribe, or to unsubscribe.
    pub(super) subscribe: bool,
    /// What: channels only, or patterns only.
    pub(super) channels: Vec<Channel>,
}

#[derive(Debug, Default)]
struct LedgerEntry {
    wanted: bool,
    /// The servers that have confirmed the subscription.
    on: Vec<Server>,
    refused: Option<String>,
}

/// The channels that are wanted, subscribed to or refused.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: HashMap<Channel, LedgerEntry>,
    /// Channels for which what is wanted and what is subscribed to may differ.
    unsettled: HashSet<Channel>,
}

impl Ledger {
    /// Wants a channel from now on; an earlier refusal is forgotten.
    pub(super) fn want(&mut self, channel: Channel) {
        let entry = self.entries.entry(channel.clone()).or_default();
        entry.wanted = true;
        entry.refused = None;
        self.unsettled.insert(channel);
    }

    /// Wants a channel no longer.
    pub(super) fn release(&mut self, channel: &Channel) {
        let Some(entry) = self.entries.get_mut(channel) else { return };
        entry.wanted = false;
        self.unsettled.insert(channel.clone());
    }

    /// Whether a channel is wanted, or why Redis refuses it (told once; then it is forgotten).
    pub(super) fn outcome(&mut self, channel: &Channel) -> Option<Result<(), String>> {
        let entry = self.entries.get_mut(channel).filter(|entry| entry.wanted)?;
        match entry.refused.take() {
            None => Some(Ok(())),
            Some(text) => {
                self.release(channel);
                Some(Err(text))
            }
        }
    }

    /// The subjects that Redis refuses, with its words; none of them is wanted any longer. An error, with its words, where it is a
    /// channel without which there is no link: then all stay wanted, for the next link.
    pub(super) fn take_refused(&mut self) -> Result<Vec<(Subject, String)>, String> {
        let mut refused = Vec::new();
        for (channel, entry) in self.entries.iter().filter(|(_, entry)| entry.wanted) {
            match (channel, &entry.refused) {
                (_, None) => {}
                (Channel::Fixed(_), Some(text)) => return Err(text.clone()),
                (Channel::Subject(subject), Some(text)) => refused.push((subject.clone(), text.clone())),
            }
        }
        for (subject, _) in &refused {
            let channel = Channel::Subject(subject.clone());
            self.release(&channel);
            if let Some(entry) = self.entries.get_mut(&channel) {
                entry.refused = None;
            }
        }
        Ok(refused)
    }

    /// The next piece of work, of at most `size` channels; `None` when everything is settled that can be. `places`: where
    /// a channel belongs by now.
    pub(super) fn work(
        &mut self,
        places: impl Fn(&Channel) -> Vec<SubscriptionServer>,
        size: usize,
    ) -> Option<Work> {
        let mut work: Option<Work> = None;
        let mut settled = Vec::new();
        for channel in &self.unsettled {
            let Some(entry) = self.entries.get_mut(channel) else {
                settled.push(channel.clone());
                continue;
            };
            let Some((place, subscribe)) = entry.due(|| places(channel)) else {
                settled.push(channel.clone());
                continue;
            };
            match &mut work {
                None => work = Some(Work { place, subscribe, channels: vec![channel.clone()] }),
                Some(work) => {
                    let same = work.place == place && work.subscribe == subscribe;
                    if same && work.channels[0].is_pattern() == channel.is_pattern() {
                        work.channels.push(channel.clone());
                    }
                }
            }
            if work.as_ref().is_some_and(|work| work.channels.len() >= size) {
                break;
            }
        }
        for channel in settled {
            self.unsettled.remove(&channel);
            if self.entries.get(&channel).is_some_and(|entry| !entry.wanted && entry.on.is_empty()) {
                self.entries.remove(&channel);
            }
        }
        work
    }

    /// Redis has confirmed this for a channel.
    pub(super) fn done(&mut self, channel: &Channel, server: &Server, subscribed: bool) {
        let entry = self.entries.entry(channel.clone()).or_default();
        entry.on.retain(|on| on != server);
        if subscribed {
            entry.on.push(server.clone());
        }
        self.unsettled.insert(channel.clone());
    }

    /// Redis refuses to subscribe to a channel.
    pub(super) fn refuse(&mut self, channel: &Channel, text: String) {
        if let Some(entry) = self.entries.get_mut(channel) {
            entry.refused = Some(text);
        }
    }

    /// A new connection: nothing is subscribed to.
    pub(super) fn begin(&mut self) {
        for (channel, entry) in &mut self.entries {
            entry.on.clear();
            entry.refused = None;
            self.unsettled.insert(channel.clone());
        }
    }

    /// Slots have moved. Channels that are subscribed to at a wrong server become unsettled, and are returned.
    pub(super) fn moved(&mut self, places: impl Fn(&Channel) -> Vec<SubscriptionServer>) -> Vec<Channel> {
        let mut moved = Vec::new();
        for (channel, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.wanted) {
            let places = places(channel);
            // A master that has given a slot away has ended its subscriptions itself.
            entry.on.retain(|on| places.iter().any(|place| place.server == *on));
            if places.iter().any(|place| !entry.on.contains(&place.server)) {
                self.unsettled.insert(channel.clone());
                moved.push(channel.clone());
            }
        }
        moved
    }

    /// How many channels and patterns a server must know of us.
    pub(super) fn count(&self, server: &Server) -> (usize, usize) {
        let on = self.entries.iter().filter(|(_, entry)| entry.on.contains(server));
        let on = on.filter(|(_, entry)| entry.wanted || !mutant::is("unsubscribe"));
        on.fold((0, 0), |(channels, patterns), (channel, _)| {
            if channel.is_pattern() { (channels, patterns + 1) } else { (channels + 1, patterns) }
        })
    }

    /// What is subscribed to at a server.
    pub(super) fn at(&self, server: &Server) -> Vec<Channel> {
        let on = self.entries.iter().filter(|(_, entry)| entry.on.contains(server));
        on.map(|(channel, _)| channel.clone()).collect()
    }
}

impl LedgerEntry {
    /// What is to be done next, and whether that is to subscribe.
    fn due(&self, places: impl Fn() -> Vec<SubscriptionServer>) -> Option<(SubscriptionServer, bool)> {
        if !self.wanted {
            let server = self.on.first()?.clone();
            return Some((SubscriptionServer { server, asking: false }, false));
        }
        if self.refused.is_some() {
            return None;
        }
        let missing = places().into_iter().find(|place| !self.on.contains(&place.server))?;
        Some((missing, true))
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
