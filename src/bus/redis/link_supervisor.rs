//! The supervisor of the link to Redis: build it, prove it, notice that it is dead, build it anew.
//!
//! A link is one client for commands (with a second connection for logs), one pub/sub connection and the reader on it. A round of
//! probes, published as events are, must come back every few seconds; a link that shows any trouble is thrown away with all that was
//! queued in it. The relay is told by `Down` and `Up`.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use fred::prelude::{Error, Server};
use futures_util::future::try_join;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tracing::warn;

use super::{
    address::Address,
    built_link::BuiltLink,
    commands::CommandClient,
    connection::{Connection, Subscriber},
    fault::{ConnectError, Fault, describe, is_trouble},
    fitness::{names, unfit},
    foreign,
    health_board::HealthBoard,
    library,
    lineage::LINEAGE_CHANGED,
    probe_channels,
    reader::Reader,
    reply, rights,
    subscriptions::{Agreement, Subscriptions},
    target::{Access, Target},
};
use crate::{
    bus::{BusEvent, LinkChange, Settings, arrivals::Arrivals, keys::Keys},
    mutant,
    protocol::{Heard, Lineage, Subject},
    shutdown::Tasks,
};

/// Waits between tries to build a link: the first is short, because most losses are.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Doubts that are told one by one. With more of them, one look at all topics costs less.
const NAMED: usize = 500;

/// Builds the link, watches it, and builds it anew.
pub(super) struct LinkSupervisor {
    pub(super) settings: Arc<Settings>,
    pub(super) access: Arc<Access>,
    pub(super) place: String,
    pub(super) arrivals: Arrivals,
    pub(super) health_board: Arc<HealthBoard>,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) commands: watch::Sender<Option<Arc<CommandClient>>>,
    pub(super) tasks: Tasks,
    /// The lineages that positions of this node belong to.
    pub(super) known: HashSet<Lineage>,
    /// Where a server of these lineages was found.
    pub(super) addresses: HashSet<IpAddr>,
    /// Whether Redis has worked as configured before. From then on the node tries for ever.
    pub(super) accepted: bool,
    /// Whether it was logged that this user may not see its own connection.
    pub(super) blind: bool,
    /// The generation of settings that was told last.
    pub(super) generation: u64,
    /// What Redis refuses to go on with, until the relay is told: a link may be lost meanwhile, and the next one would not know.
    pub(super) untold: Vec<Subject>,
}

impl LinkSupervisor {
    /// Keeps the link up until the node ends. `built` is the first link, where the start could build one.
    pub(super) async fn run(mut self, mut built: Option<BuiltLink>) {
        let mut wait = FIRST_WAIT;
        loop {
            if let Some(link) = built.take() {
                let reason = self.keep(link).await;
                self.health_board.lost(&reason);
                wait = FIRST_WAIT;
            }
            // Nodes that lost Redis together should not come back in one instant.
            sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            match self.build().await {
                Ok(link) => built = Some(link),
                Err(ConnectError::Permanent(text)) if !self.accepted => {
                    self.health_board.lost(&text);
                    self.arrivals.tell(BusEvent::Fatal(text)).await;
                    return;
                }
                Err(ConnectError::Permanent(text) | ConnectError::Transient(text)) => {
                    self.health_board.lost(&text);
                }
            }
        }
    }

    /// Builds a link up to the probe that proves it, with which the reader has said `Up`.
    pub(super) async fn build(&mut self) -> Result<BuiltLink, ConnectError> {
        self.renew_access();
        let mut address = Address::look(&self.access).await;
        let commands = Connection::open(self.access.clone(), &self.tasks).await?;
        let masters = commands.masters();
        let mut lineages = HashSet::new();
        for master in &masters {
            lineages.insert(self.examine(&commands, master.as_ref()).await?);
            library::load(&commands, master.as_ref(), &self.settings, &self.place, !self.accepted).await?;
        }
        self.arrivals.tell_adopted(&self.settings, &mut self.generation).await;
        let (reads, subscriber) = try_join(commands.another(), commands.another()).await?;
        let probes = probe_channels::choose(&commands, &masters, &self.settings);
        let (commands, reads) = (Arc::new(commands), Arc::new(reads));
        let commands = Arc::new(CommandClient::new(commands, reads, self.settings.clone(), lineages.clone()));
        let subscriber = Arc::new(subscriber);
        let number = rand::random::<u64>() >> 1;
        let (reader, returns) =
            Reader::new(subscriber.messages(), self.settings.clone(), self.arrivals.clone(), number);
        let given_up = self.tasks.ending().child_token();
        let reader = self.tasks.spawn(reader.run(given_up.clone()));
        let mut link =
            BuiltLink { commands, subscriber, given_up, reader, returns, probes, number, round: 0 };
        let proven = match self.check_rights(link.commands.connection(), &link.subscriber).await {
            Ok(()) => {
                self.note_lineages(&lineages, &mut address).await;
                self.prove(&mut link).await
            }
            refused => refused,
        };
        match proven {
            Ok(()) => {
                self.accepted = true;
                address.watch(&link.commands, &self.tasks, self.settings.probe_interval);
                Ok(link)
            }
            Err(connect_error) => {
                // It may have been proven, and fail all the same: no `Up` stays without its `Down`.
                let opened = self.dismantle(link).await;
                let (ConnectError::Transient(text) | ConnectError::Permanent(text)) = &connect_error;
                if opened {
                    self.tell_down(text.clone(), false).await;
                }
                Err(connect_error)
            }
        }
    }

    /// Reads passwords and certificates again: they may have been rotated. What cannot be used is left aside.
    fn renew_access(&mut self) {
        match self.settings.redis.as_ref().map(Target::access) {
            Some(Ok(access)) => self.access = Arc::new(access),
            Some(Err(error)) => warn!("{error}; going on with what was read before"),
            None => {}
        }
    }

    /// Rights that are missing, and what others have put under our names, stop a node that starts; one that has worked goes on
    /// and complains.
    async fn check_rights(
        &self,
        commands: &Connection,
        subscriber: &Connection<Subscriber>,
    ) -> Result<(), ConnectError> {
        let lost = |error: Error| ConnectError::Transient(describe(&error));
        let missing = rights::missing(commands, subscriber, &self.settings);
        let theirs = foreign::keys(commands, &self.settings, &self.place);
        let (missing, theirs) = try_join(missing, theirs).await.map_err(lost)?;
        match missing.connect_error(&self.place).or(theirs.map(ConnectError::Permanent)) {
            Some(trouble) if self.accepted => warn!("{}", trouble.into_text()),
            Some(trouble) => return Err(trouble),
            None => {}
        }
        Ok(())
    }

    async fn prove(&mut self, link: &mut BuiltLink) -> Result<(), ConnectError> {
        let attached = self.subscriptions.attach(link.subscriber.clone(), self.fixed(link)).await;
        let refused = attached.map_err(|error| {
            if is_trouble(&error) {
                ConnectError::Transient(describe(&error))
            } else {
                ConnectError::answered(error.into(), &self.place)
            }
        })?;
        self.tell_refused(refused).await;
        // The control channel is listened to by now, and nothing is delivered yet: no order falls in between.
        self.learn_revocations(&link.commands, true)
            .await
            .map_err(|fault| ConnectError::answered(fault, &self.place))?;
        self.commands.send_replace(Some(link.commands.clone()));
        link.probe(&self.health_board).await.map_err(|fault| ConnectError::answered(fault, &self.place))
    }

    /// Tells of what Redis refuses to go on with: before `Up`, so that nobody relies on it.
    async fn tell_refused(&mut self, refused: Vec<(Subject, String)>) {
        for (subject, text) in refused {
            warn!(topic = %subject, "Redis refuses a topic that was followed before; trying again: {text}");
            self.untold.push(subject);
        }
        while let Some(subject) = self.untold.last().cloned() {
            self.arrivals.tell(BusEvent::Refused(subject)).await;
            self.untold.pop();
        }
    }

    /// Tells of what was revoked while this node did not listen.
    async fn learn_revocations(&self, commands: &CommandClient, all: bool) -> Result<(), Fault> {
        let unknown = commands.compare_revocations(all).await?;
        if !unknown.is_empty() {
            self.arrivals.tell(BusEvent::Revoked { orders: unknown, heard: Heard::Later }).await;
        }
        Ok(())
    }

    /// The channels that a link needs for itself.
    fn fixed(&self, link: &BuiltLink) -> Vec<String> {
        let control = Keys::new(&self.settings.prefix).control();
        link.probes.iter().cloned().chain([control]).collect()
    }

    /// Whether a master can be used, and its lineage.
    async fn examine(&self, commands: &Connection, master: Option<&Server>) -> Result<Lineage, ConnectError> {
        let place = &self.place;
        let answer = commands.command_to(master, "INFO", Vec::new()).await;
        let answer = reply::text(answer.map_err(|e| ConnectError::answered(Fault::from(e), place))?);
        if let Some(connect_error) = unfit(&answer, master.is_some(), place) {
            return Err(connect_error);
        }
        self.health_board.version(match names(&answer) {
            (Some(valkey), _) => format!("valkey {valkey}"),
            (None, version) => version.to_owned(),
        });
        reply::info(&answer, "master_replid").map(Lineage::new).ok_or_else(|| {
            ConnectError::Permanent(format!(
                "INFO of Redis at {place} has no master_replid, without which a failover that loses events cannot be told: \
                 choose a service that has it"
            ))
        })
    }

    /// Tells the relay if the lineages have changed, so that nobody compares positions of two.
    async fn note_lineages(&mut self, lineages: &HashSet<Lineage>, address: &mut Address) {
        if !lineages.is_subset(&self.known) {
            self.addresses.clear();
            if !self.known.is_empty() {
                self.tell_down(LINEAGE_CHANGED.into(), true).await;
            }
        }
        self.addresses = address.with(&self.addresses);
        self.known.clone_from(lineages);
    }

    /// Keeps a link until it shows trouble, and takes it down. Returns the reason.
    async fn keep(&mut self, mut link: BuiltLink) -> String {
        let endings =
            [link.commands.connection().ending(), link.commands.reads().ending(), link.subscriber.ending()]
                .map(Arc::clone);
        let [commands, reads, subscriber] = endings.each_ref().map(|ending| ending.token());
        let trouble = tokio::select! {
            biased;
            () = commands.cancelled() => None,
            () = reads.cancelled() => None,
            () = subscriber.cancelled() => None,
            reason = self.rounds(&mut link) => Some(reason),
        };
        let ended = endings.iter().find(|ending| ending.token().is_cancelled());
        let reason = ended.map(|ending| ending.reason()).or(trouble).unwrap_or_default();
        let lineage_changed = link.commands.has_other_lineage();
        if lineage_changed {
            // The change is told with this `Down`; the next link's lineages are the new ones.
            self.known.clear();
        }
        self.dismantle(link).await;
        self.tell_down(reason.clone(), lineage_changed).await;
        reason
    }

    async fn tell_down(&self, reason: String, lineage_changed: bool) {
        self.arrivals.tell(BusEvent::Link(LinkChange::Down { reason, lineage_changed })).await;
    }

    /// Closes a link. Nothing of it is delivered after this. Returns whether its reader has begun to say `Up`.
    async fn dismantle(&self, link: BuiltLink) -> bool {
        self.commands.send_replace(None);
        let fixed = self.fixed(&link);
        link.given_up.cancel();
        link.subscriber.fail("the link was given up");
        // The reader has no reason to fail; if it did, it is gone all the same.
        let opened = link.reader.await.unwrap_or(true);
        self.subscriptions.detach(&fixed).await;
        opened
    }

    /// Tells of subjects whose events may be lost.
    fn doubt(&self, subjects: Vec<Subject>) {
        let count = subjects.len();
        if count == 0 {
            return;
        }
        warn!(count, "Redis had lost subscriptions of this node, or slots have moved; subscribed again");
        if count > NAMED {
            return self.arrivals.push(BusEvent::Doubt(None));
        }
        for subject in subjects {
            self.arrivals.push(BusEvent::Doubt(Some(subject)));
        }
    }

    /// Probes and compares subscriptions until something is wrong.
    async fn rounds(&mut self, link: &mut BuiltLink) -> String {
        let interval = self.settings.probe_interval;
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Both at once, so that a link that is cut off is noticed after one wait and not two.
            let commands = link.commands.clone();
            let (looked, proven) =
                tokio::join!(commands.connection().look_around(), link.probe(&self.health_board));
            if let Err(error) = looked {
                return format!("the cluster cannot be asked where slots lie: {}", describe(&error));
            }
            if let Err(fault) = proven {
                if mutant::is("probe") {
                    continue;
                }
                return fault.text().to_owned();
            }
            self.arrivals.tell_adopted(&self.settings, &mut self.generation).await;
            if let Err(fault) = self.learn_revocations(&link.commands, false).await {
                warn!("what was revoked cannot be compared with Redis: {}", fault.text());
            }
            if mutant::is("reconcile") {
                continue;
            }
            match self.subscriptions.reconcile().await {
                Ok(Agreement::Agrees) => {}
                Ok(Agreement::Mended { doubtful, refused }) => {
                    self.tell_refused(refused).await;
                    self.doubt(doubtful);
                }
                Ok(Agreement::Unknown(text)) => {
                    if !std::mem::replace(&mut self.blind, true) {
                        warn!(
                            "lost subscriptions are noticed late, and those of live events never, because this user may not \
                             use CLIENT INFO: {text}. Allow it with ACL SETUSER <user> +client|info"
                        );
                    }
                }
                Err(error) => return format!("subscribing again failed: {}", describe(&error)),
            }
        }
    }
}
