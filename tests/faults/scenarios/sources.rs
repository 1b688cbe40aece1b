//! Faults of publishers that vouch for themselves: cut off, killed, behind, rolled; and what is no fault of theirs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    process::{hold, until},
    proxy::Proxy,
    resp::Connection,
    watch::PROMISE,
    world::World,
};

/// How often an instance reports, and for how long it vouches.
const EVERY: Duration = Duration::from_secs(2);
const VOUCHED: &str = "6";
/// In which sessions are told, besides the time that was vouched for.
const TOLD: Duration = Duration::from_secs(6 + 20);

/// An instance of a source; it dies without a word when it is dropped.
struct Instance {
    _task: AbortOnDropHandle<()>,
    ended: CancellationToken,
}

impl Instance {
    /// Reports for the source `cms` to the Redis at this port, whatever becomes of the connection.
    fn start(port: u16) -> Self {
        let ended = CancellationToken::new();
        let dead = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _dead = dead;
            loop {
                let _ = report_on(port).await;
                hold(EVERY / 4).await;
            }
        });
        Self { _task: AbortOnDropHandle::new(task), ended }
    }

    /// SIGKILL.
    async fn kill(self) {
        let ended = self.ended.clone();
        drop(self);
        ended.cancelled().await;
    }
}

async fn report_on(port: u16) -> Result<()> {
    let mut connection = Connection::open(port).await?;
    loop {
        connection.ask(&["FCALL", "carillon_source", "1", "carillon:sources", "cms", VOUCHED]).await?;
        hold(EVERY).await;
    }
}

/// Waits until every session was told that the source is late, or that it is not; the state stays live.
async fn told(world: &World, late: bool, bound: Duration) -> Result<()> {
    let what =
        if late { "every session knows that the source is late" } else { "no session takes it for late" };
    let sessions = &world.sessions;
    until(what, bound, || async {
        sessions.iter().all(|session| session.state().late.iter().any(|name| name == "cms") == late)
    })
    .await?;
    let away = sessions.iter().filter(|session| !session.state().live).count();
    ensure!(away == 0, "{away} sessions are not live: a late source is no trouble of theirs");
    Ok(())
}

async fn known(world: &World) -> Result<()> {
    until("the nodes know the source", PROMISE, || async {
        for node in &world.nodes {
            if !node.knows("carillon_source_late").await {
                return false;
            }
        }
        true
    })
    .await
}

/// A source is cut off without a word, killed, started again, and falls behind; a Redis that lost what it knew changes
/// nothing.
pub(crate) async fn mute(world: &mut World) -> Result<()> {
    let port = world.store.server(0).port;
    let proxy = Proxy::start(port, true).await?;
    let source = Instance::start(proxy.port);
    known(world).await?;
    told(world, false, PROMISE).await?;
    world.begin("the way from a source to Redis is a black hole");
    proxy.rule(|rules| rules.hold_up = true);
    told(world, true, TOLD).await.context("cut off")?;
    world.must(&["DEL", "carillon:sources"]).await?;
    world.note("Redis has lost the sources");
    until("it is put back", PROMISE, || async {
        world
            .must(&["EXISTS", "carillon:sources"])
            .await
            .is_ok_and(|answer| format!("{answer:?}").contains('1'))
    })
    .await?;
    told(world, true, PROMISE).await.context("forgotten by Redis")?;
    proxy.heal();
    told(world, false, PROMISE + EVERY).await.context("there again")?;
    world.note("the source is killed");
    source.kill().await;
    told(world, true, TOLD).await.context("killed")?;
    let source = Instance::start(port);
    told(world, false, PROMISE).await.context("started again")?;
    source.kill().await;
    world.must(&["FCALL", "carillon_source", "1", "carillon:sources", "cms", "300", "11000"]).await?;
    told(world, true, PROMISE).await.context("behind")?;
    world.must(&["FCALL", "carillon_source", "1", "carillon:sources", "cms", "0"]).await?;
    told(world, false, PROMISE).await.context("a good-bye")?;
    world.bit("times that a source was late", 3);
    world.in_step_within(PROMISE).await
}

/// Six instances of one source are replaced one after the other, and one is killed: that is no silence.
pub(crate) async fn rolled(world: &mut World) -> Result<()> {
    let port = world.store.server(0).port;
    let mut instances: Vec<_> = (0..6).map(|_| Instance::start(port)).collect();
    known(world).await?;
    world.begin("six instances of a source are replaced one after the other");
    for instance in &mut instances {
        let old = std::mem::replace(instance, Instance::start(port));
        old.kill().await;
        hold(EVERY).await;
        told(world, false, Duration::ZERO).await?;
    }
    if let Some(killed) = instances.pop() {
        killed.kill().await;
    }
    let bound = Duration::from_secs(6) + EVERY * 2;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < bound {
        told(world, false, Duration::ZERO).await?;
        hold(EVERY / 4).await;
    }
    world.bit("instances replaced or killed", 7);
    world.in_step_within(PROMISE).await
}

/// Redis is away for longer than a source vouches for itself: nobody is late for that.
pub(crate) async fn redis_away(world: &mut World) -> Result<()> {
    let port = world.store.server(0).port;
    let _source = Instance::start(port);
    known(world).await?;
    world.begin("Redis is killed (SIGKILL), and comes back after ten seconds");
    world.store.server(0).kill().await?;
    world.known().await?;
    hold(Duration::from_secs(10)).await;
    world.store.server(0).run(None).await?;
    world.recovered_by(crate::record::Reason::RedisChanged).await?;
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(15) {
        told(world, false, Duration::ZERO).await?;
        hold(EVERY / 4).await;
    }
    world.bit("seconds without Redis", 10);
    Ok(())
}
