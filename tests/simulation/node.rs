//! A node: the real switch, hub and outboxes, driven by one scheduler, and around them the sessions of the real transports.
//!
//! A turn takes one input of one queue, whichever the schedule likes: events in the order of their link, commands in the
//! order in which sessions gave them, answers (each after the events that had arrived before it), ticks.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use carillon::{
    app::wiring,
    auth::{Authenticator, Credentials},
    bus::{BusEvent, LinkChange},
    config::Layers,
    hub::Hub,
    protocol::{Areas, time},
    relay::{self, Answer, Command, Now, Relay, Settings, Stamp, Switch, SwitchInput},
    session::{Caller, Limits, SessionContext, SessionPolicy, SessionRegistry, SessionSlot},
    shutdown::Tasks,
    telemetry::traces::Traces,
};
use tokio::sync::mpsc;

use crate::{
    bus::Bus,
    world::{Happening, World},
};

/// What runs while a node lives.
pub(crate) struct Running {
    switch: Switch,
    commands: mpsc::Receiver<Command>,
    /// What its sessions share.
    pub context: Arc<SessionContext>,
    /// Its tasks.
    pub tasks: Tasks,
    events: VecDeque<BusEvent>,
    /// How many events were taken.
    taken: u64,
    /// With the events that had arrived before each, which come before it.
    answers: VecDeque<(Stamp, Answer, u64)>,
    ticks: u8,
}

/// A node, alive or not.
pub(crate) struct Node {
    /// Counts its lives.
    pub life: u64,
    /// `None` while it is dead.
    pub running: Option<Running>,
    /// Its bus.
    pub bus: Bus,
    /// It stands still until then.
    pub frozen: u64,
    /// When its link came up, while it is up.
    pub up_since: Option<u64>,
    /// When the links before came up, and went down.
    pub past: Vec<(u64, u64)>,
    /// When it took the news that a link had come up, by when that was.
    pub heard: BTreeMap<u64, u64>,
    turn_due: bool,
}

impl Node {
    /// A node that has not started.
    pub(crate) fn new() -> Self {
        Self {
            life: 0,
            running: None,
            bus: Bus::default(),
            frozen: 0,
            up_since: None,
            past: Vec::new(),
            heard: BTreeMap::new(),
            turn_due: false,
        }
    }

    /// When its links came up: those before, and the present one.
    pub(crate) fn links(&self) -> impl Iterator<Item = u64> {
        self.past.iter().map(|(up, _)| *up).chain(self.up_since)
    }
}

/// The areas of all schedules.
pub(crate) fn areas() -> Areas {
    Areas::new(["comments", "projects", "content"], [], []).expect("areas")
}

/// Who may follow everything: who may follow what is not what this is about.
pub(crate) fn authenticator() -> Authenticator {
    let layers =
        Layers::new().set("auth.mode", "none", "simulation").set("auth.default_topics", "*", "simulation");
    let config = layers.load().expect("a configuration");
    wiring::authenticator(&config, &areas()).expect("an authenticator")
}

impl World {
    /// A node starts.
    pub(crate) fn start(&mut self, node: usize) {
        let auth = self.people.authenticator().unwrap_or_else(|| self.auth.clone());
        let settings = Settings {
            log_length: self.plan.log_length,
            log_ttl: Duration::from_millis(self.plan.log_ttl),
            refetches_per_second: 200,
            linger: Duration::from_millis(self.plan.linger),
            forget_sources: Duration::from_secs(3600),
            revocations: auth.revocations().clone(),
            traces: Traces::off(),
        };
        let metrics = self.metrics.clone();
        let switch = Switch::new(settings, Hub::new(None), metrics.clone(), Self::clock());
        let (relay, commands) = Relay::of(&switch);
        let registry = SessionRegistry::new(Limits::default(), Duration::from_secs(25), metrics.clone());
        let context = Arc::new(SessionContext {
            auth: auth.clone(),
            relay,
            registry: Arc::clone(&registry),
            metrics,
            policy: Arc::new(policy(node)),
            outbox_bytes: self.plan.outbox_bytes,
            message_bytes: 65_536,
        });
        let tasks = Tasks::new();
        tasks.spawn_until_end(registry.sweep(auth.revocations().clone()));
        let place = &mut self.nodes[node];
        place.life += 1;
        place.bus = place.bus.anew();
        place.frozen = 0;
        place.up_since = None;
        place.heard = place.links().map(|up| (up, self.now)).collect();
        place.turn_due = false;
        let (events, answers) = (VecDeque::new(), VecDeque::new());
        place.running =
            Some(Running { switch, commands, context, tasks, events, answers, ticks: 0, taken: 0 });
        let life = place.life;
        self.at(self.now + 1, Happening::Build { node, life });
        self.at(self.now + 1_000, Happening::Tick { node, life });
    }

    /// A node is gone, with all that was in it.
    pub(crate) fn kill(&mut self, node: usize) {
        let place = &mut self.nodes[node];
        if let Some(running) = place.running.take() {
            running.tasks.ending().cancel();
        }
        place.bus.link = None;
        place.bus.parked.clear();
        place.up_since = None;
        self.end_sessions(node);
    }

    /// A node lets nobody in any more, and closes its sessions one after another.
    pub(crate) fn drain(&mut self, node: usize) {
        if let Some(running) = &self.nodes[node].running {
            let registry = Arc::clone(&running.context.registry);
            running.tasks.spawn_until_end(async move { registry.drain(Duration::from_secs(2)).await });
        }
    }

    /// What the clocks of a node show.
    pub(crate) fn clock() -> Now {
        Now { instant: tokio::time::Instant::now().into_std(), wall_ms: time::now_ms() }
    }

    /// Something arrives from the bus.
    pub(crate) fn event(&mut self, node: usize, event: BusEvent) {
        self.audit_arrival(node, &event);
        if let Some(running) = &mut self.nodes[node].running {
            running.events.push_back(event);
            self.stir(node);
        }
    }

    /// A question is answered.
    pub(crate) fn answered(&mut self, node: usize, stamp: Stamp, answer: Answer) {
        if let Some(running) = &mut self.nodes[node].running {
            let before = running.taken + running.events.len() as u64;
            running.answers.push_back((stamp, answer, before));
            self.stir(node);
        }
    }

    /// A second has passed.
    pub(crate) fn tick(&mut self, node: usize) {
        let life = self.nodes[node].life;
        if let Some(running) = &mut self.nodes[node].running {
            running.ticks = (running.ticks + 1).min(1);
            self.stir(node);
            self.check_patience(node);
            self.at(self.now + 1_000, Happening::Tick { node, life });
        }
    }

    /// Sees to it that a node that has something to do gets its turn.
    pub(crate) fn stir(&mut self, node: usize) {
        let place = &self.nodes[node];
        let Some(running) = &place.running else { return };
        let idle = running.events.is_empty()
            && running.answers.is_empty()
            && running.ticks == 0
            && running.commands.is_empty();
        if idle || place.turn_due {
            return;
        }
        let (frozen, life) = (place.frozen, place.life);
        self.nodes[node].turn_due = true;
        let at = (self.now + self.pick(2)).max(frozen);
        self.at(at, Happening::Turn { node, life });
    }

    /// A node takes one input.
    pub(crate) fn turn(&mut self, node: usize) {
        self.nodes[node].turn_due = false;
        if self.nodes[node].frozen > self.now {
            return self.stir(node);
        }
        let (now, chance, mut choice) = (Self::clock(), self.fraction(), self.pick(4));
        let most = 1 + self.pick(relay::BATCH as u64 - 1) as usize;
        let Some(running) = &mut self.nodes[node].running else { return };
        let (mut comes, mut ups) = (false, 0);
        for _ in 0..4 {
            match choice {
                0 if !running.events.is_empty() => {
                    let count = most.min(running.events.len());
                    running.taken += count as u64;
                    let mut batch: Vec<_> = running.events.drain(..count).collect();
                    ups =
                        batch.iter().filter(|event| matches!(event, BusEvent::Link(LinkChange::Up))).count();
                    running.switch.take(SwitchInput::Events(&mut batch), now);
                    break;
                }
                1 if running.answers.front().is_some_and(|(.., before)| *before <= running.taken) => {
                    if let Some((stamp, answer, _)) = running.answers.pop_front() {
                        running.switch.take(SwitchInput::Answer(stamp, answer), now);
                    }
                    break;
                }
                2 if running.ticks > 0 => {
                    running.ticks -= 1;
                    running.switch.take(SwitchInput::Tick { chance }, now);
                    self.ticked += 1;
                    break;
                }
                3 => {
                    if let Ok(command) = running.commands.try_recv() {
                        comes = matches!(command, Command::Connect { .. });
                        running.switch.take(SwitchInput::Command(command), now);
                        break;
                    }
                }
                _ => {}
            }
            choice = (choice + 1) % 4;
        }
        self.steps += 1;
        let out = running.switch.end_turn(now);
        running.context.relay.show(&running.switch);
        for (stamp, question) in out.questions {
            self.ask(node, stamp, question);
        }
        if comes {
            self.excuse_who_comes(node);
        }
        let place = &mut self.nodes[node];
        let unheard: Vec<_> = place.links().filter(|up| !place.heard.contains_key(up)).take(ups).collect();
        place.heard.extend(unheard.into_iter().map(|up| (up, self.now)));
        self.stir(node);
    }

    /// Takes a place for a session at a node.
    pub(crate) fn enter(&self, node: usize) -> Option<(Arc<SessionContext>, SessionSlot, Caller, Tasks)> {
        let running = self.nodes[node].running.as_ref()?;
        let place = running.context.registry.enter(IpAddr::from([127, 0, 0, 1])).ok()?;
        let caller = Caller { identity: Some(Box::new(self.identity.clone())), ..Caller::default() };
        Some((Arc::clone(&running.context), place, caller, running.tasks.clone()))
    }
}

/// Whom everybody is.
pub(crate) fn identity(auth: &Authenticator) -> carillon::auth::Identity {
    futures_util::FutureExt::now_or_never(auth.authenticate(&Credentials::default()))
        .expect("no waiting")
        .expect("an identity")
}

fn policy(node: usize) -> SessionPolicy {
    SessionPolicy {
        node: format!("node-{node}"),
        areas: areas(),
        heartbeat: 25,
        topics: 64,
        messages_per_second: 0,
        subscriptions_per_second: 0,
        sharded: false,
    }
}
