//! Puts a node together: the only place that uses all other modules.
//!
//! [`run`] takes a configuration and two listeners, and comes back when the node is drained. It decides nothing but the order in which
//! things start and stop.

mod rotation;
pub mod wiring;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::Router;
use futures_util::future::BoxFuture;
use tokio::{net::TcpListener, signal::unix::Signal, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{self, Bus},
    config::{Config, ConfigError},
    http::{self, Hosts, HttpServer, InternalState, NodeStatus, PublicState},
    metrics::Metrics,
    relay::Relay,
    session::{Canary, SessionContext, SessionRegistry},
    shutdown::Tasks,
    telemetry::traces::Traces,
};

/// How long what is left over may take to end when everything else has.
const LAST: Duration = Duration::from_secs(1);

/// How long an answer may make no progress; a stream of events makes some with every heartbeat.
const STALLED: Duration = Duration::from_secs(60);

/// How long taking leave of the other nodes may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// Why a node cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The bus cannot start, or found out later that it cannot go on.
    #[error("{0}")]
    Bus(String),
    /// A listener cannot be opened.
    #[error("cannot listen on {address} ({key}): {}", advice(.why))]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Which setting says so.
        key: &'static str,
        /// Why not.
        why: io::Error,
    },
    /// What the demo starts with cannot be read: a fault in Carillon.
    #[error("the seed of the demo: {0}")]
    Demo(#[from] serde_json::Error),
    /// Traces cannot be sent.
    #[error("telemetry.otlp_endpoint {0}")]
    Traces(String),
    /// The certificate cannot be used.
    #[error("{0}")]
    Tls(String),
}

/// Why an address cannot be listened on, and what to do about it.
fn advice(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there already: stop it, or choose another address or port".into()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose one that it has".into(),
        io::ErrorKind::PermissionDenied => {
            "this user may not: choose a port above 1023, or give the right CAP_NET_BIND_SERVICE".into()
        }
        _ => why.to_string(),
    }
}

/// Both listeners, open.
#[derive(Debug)]
pub struct Listeners {
    /// For browsers.
    pub public: TcpListener,
    /// For publishers and operators.
    pub internal: TcpListener,
}

impl Listeners {
    /// Opens both as configured. Port 0 is any free port.
    pub fn bind(config: &Config) -> Result<Self, AppError> {
        let bind = |address, key| http::bind(address).map_err(|why| AppError::Bind { address, key, why });
        Ok(Self {
            public: bind(config.http.listen, "http.listen")?,
            internal: bind(config.internal.listen, "internal.listen")?,
        })
    }
}

/// Runs a node until `shutdown`, and drains it: at most `drain.window_seconds` and `drain.grace_seconds` later no
/// session is left. The future is in a box, so that it is compiled here, and not again with the command line.
pub fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), AppError>> {
    Box::pin(run_node(config, listeners, shutdown))
}

async fn run_node(config: Config, listeners: Listeners, shutdown: CancellationToken) -> Result<(), AppError> {
    if let Some(warning) = config.internal.warning() {
        tracing::warn!("{warning}");
    }
    let hangups = rotation::hangups();
    // On the heap: it is large, and needed once.
    let mut node = Box::pin(RunningNode::start(&config, listeners, hangups)).await?;
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        reason = &mut node.fatal => match reason {
            Ok(reason) => Err(AppError::Bus(reason)),
            // The relay has ended without a reason: nothing is delivered any more.
            Err(_) => Err(AppError::Bus("the relay has stopped".into())),
        },
    };
    node.drain(config.drain.window, config.drain.grace).await;
    outcome
}

struct RunningNode {
    name: String,
    bus: Bus,
    registry: Arc<SessionRegistry>,
    traces: Traces,
    draining: Arc<AtomicBool>,
    fatal: oneshot::Receiver<String>,
    /// Accepting ends.
    stop: CancellationToken,
    /// Connections and sessions.
    connections: Tasks,
    /// Everything that they need.
    background: Tasks,
}

impl RunningNode {
    async fn start(config: &Config, listeners: Listeners, hangups: Option<Signal>) -> Result<Self, AppError> {
        let areas = wiring::areas(config)?;
        let auth = wiring::authenticator(config, &areas)?;
        let tls = config.http.tls.clone().map(http::Certificates::load).transpose().map_err(AppError::Tls)?;
        let (background, connections, metrics) = (Tasks::new(), Tasks::new(), Metrics::new());
        let traces = wiring::traces(config, &background).map_err(AppError::Traces)?;
        let revocations = auth.revocations().clone();
        let place = bus::Settings { revocations: revocations.clone(), ..wiring::bus(config, &areas) };
        let seal = place.redis.as_ref().map(|target| target.seal.clone()).unwrap_or_default();
        let started = Bus::start(place, metrics.clone(), &background).await;
        let (bus, events) = started.map_err(|e: bus::StartError| AppError::Bus(e.to_string()))?;
        let settings = wiring::relay(config, revocations.clone(), traces.clone());
        let (relay, fatal) = Relay::start(settings, bus.clone(), events, metrics.clone(), &background);
        let registry =
            SessionRegistry::new(wiring::limits(config), config.heartbeat.interval, metrics.clone());
        background.spawn_until_end(Arc::clone(&registry).sweep(revocations));
        let sessions = Arc::new(SessionContext {
            auth: auth.clone(),
            relay: relay.clone(),
            registry: Arc::clone(&registry),
            metrics: metrics.clone(),
            policy: Arc::new(wiring::policy(config, &areas, bus.is_sharded())),
            outbox_bytes: config.limits.outbox_bytes,
            message_bytes: config.limits.message_bytes,
        });
        start_canary(config, &bus, &relay, &metrics, &background);
        let draining = Arc::new(AtomicBool::new(false));
        let public = Arc::new(PublicState {
            settings: wiring::public(config),
            sessions,
            tasks: connections.clone(),
            draining: Arc::clone(&draining),
        });
        let internal_address = listeners.internal.local_addr().unwrap_or(config.internal.listen).ip();
        let internal = Arc::new(InternalState {
            bus: bus.clone(),
            relay,
            registry: Arc::clone(&registry),
            metrics: metrics.clone(),
            traces: traces.clone(),
            auth,
            publish_token: config.internal.publish_token.clone().map(Arc::new).into(),
            address: internal_address,
            hosts: Hosts::new(internal_address, &config.internal.hosts),
            areas: areas.clone(),
            connections: wiring::connections(config),
            draining: Arc::clone(&draining),
            status: NodeStatus::new(config.node.name.clone()),
        });
        background.spawn_until_end(rotation::watch(config.clone(), seal, Arc::clone(&internal), hangups));
        background.spawn_until_end(http::history::remember(metrics.clone()));
        background.spawn_until_end(announce(Arc::clone(&internal), config.probe.interval));
        let router = match wiring::demo(config, &areas, &bus) {
            Some(demo) => http::routes::public(&public).merge(http::demo::routes(demo)?),
            None => http::routes::public(&public),
        };
        let stop = open(config, listeners, router, tls, &internal, (&background, &connections));
        let name = config.node.name.clone();
        Ok(Self { name, bus, registry, traces, draining, fatal, stop, connections, background })
    }

    /// Unready, then `closing` to every session, spread over the window, then the end of everything.
    async fn drain(self, window: Duration, grace: Duration) {
        let begun = Instant::now();
        self.draining.store(true, Ordering::Release);
        tracing::info!(node = self.name, sessions = self.registry.len(), "draining");
        self.registry.drain(window).await;
        let left = || (window + grace).saturating_sub(begun.elapsed());
        let _ = tokio::time::timeout(left(), self.registry.emptied()).await;
        self.stop.cancel();
        let stayed = self.connections.end(left().clamp(Duration::from_millis(100), LAST)).await;
        // A courtesy: what is not taken back ends by itself.
        if self.bus.health().live {
            let _ = tokio::time::timeout(left().min(GOODBYE), self.bus.leave()).await;
        }
        self.traces.end(&self.background, left()).await;
        self.background.end(LAST).await;
        tracing::info!(node = self.name, stayed, "the node has stopped");
    }
}

/// Accepts at both listeners until what it returns is cancelled. Connections are tasks of `connections`.
fn open(
    config: &Config,
    listeners: Listeners,
    routes: Router,
    tls: Option<Arc<http::Certificates>>,
    internal: &Arc<InternalState>,
    tasks: (&Tasks, &Tasks),
) -> CancellationToken {
    let (background, connections) = tasks;
    let operators = HttpServer {
        router: http::routes::internal(internal),
        tls: None,
        header_time: config.limits.header_time,
        keep_alive: config.http.keep_alive,
        connections: http::Connections::new(0, 0),
        stalled: STALLED.max(config.heartbeat.interval * 2),
        metrics: internal.metrics.clone(),
        tasks: connections.clone(),
    };
    let tls = tls.map(|tls| {
        background.spawn_until_end(Arc::clone(&tls).watch());
        tls.server_config()
    });
    let editors = HttpServer {
        router: routes,
        tls,
        connections: Arc::clone(&internal.connections),
        ..operators.clone()
    };
    say_where(config, &listeners);
    let stop = CancellationToken::new();
    background.spawn(editors.serve(listeners.public, stop.clone()));
    background.spawn(operators.serve(listeners.internal, stop.clone()));
    stop
}

/// For whoever looks for the node, perhaps at a port that the system has chosen.
fn say_where(config: &Config, listeners: &Listeners) {
    let address = |listener: &TcpListener, configured| listener.local_addr().unwrap_or(configured);
    let public = address(&listeners.public, config.http.listen);
    let internal = address(&listeners.internal, config.internal.listen);
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(node = config.node.name, version, %public, %internal, "the node is up");
}

/// Sends canaries, where they are wanted. Without Redis there is no way that could fail.
fn start_canary(config: &Config, bus: &Bus, relay: &Relay, metrics: &Metrics, background: &Tasks) {
    let Some(interval) = config.telemetry.canary.filter(|_| config.redis.url.is_some()) else { return };
    let (bus, relay, metrics) = (bus.clone(), relay.clone(), metrics.clone());
    let canary = Canary { bus, relay, metrics, node: config.node.name.clone(), interval };
    background.spawn_until_end(canary.run());
}

/// Tells the other nodes about this one.
async fn announce(internal: Arc<InternalState>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(e) = internal.bus.announce(internal.state().to_string().into()).await {
            tracing::debug!("this node could not announce itself: {e}");
        }
    }
}
