//! Faults of a cluster: a shard fails over as planned, after a crash or a pause, a slot moves under load.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{process::until, publisher::key, record::Reason, watch::PROMISE, world::World};

/// The busy topic whose shard is hit.
const TOPIC: &str = "comments:1";

/// The master of the busy topic's shard and its replica, once the cluster is well.
async fn pair(world: &mut World) -> Result<(usize, usize)> {
    let cluster = world.cluster()?;
    cluster.is_well().await?;
    let master = cluster.owner(&key(TOPIC)).await?;
    Ok((master, cluster.replica_of(master).await?))
}

/// A replica is asked to take over.
pub(crate) async fn failover(world: &mut World) -> Result<()> {
    let (old, new) = pair(world).await?;
    world.begin(format!("CLUSTER FAILOVER: server {new} shall take over from {old}"));
    // Redis gives a planned failover up after five seconds (a busy machine, a vote that is missing) and tells nobody.
    let mut taken_over = Ok(());
    for _ in 0..4 {
        // Refused only where it has happened meanwhile.
        let answer = world.cluster()?.servers[new].ask(&["CLUSTER", "FAILOVER"]).await?;
        world.note(format!("CLUSTER FAILOVER: {answer:?}"));
        taken_over = promoted(world, new, Duration::from_secs(8)).await;
        if taken_over.is_ok() {
            break;
        }
    }
    taken_over?;
    world.recovered_by_some(Reason::RedisChanged).await?;
    let told = world.resyncs(Reason::RedisChanged);
    world.bit("resyncs redis-changed", told);
    world.cluster()?.is_well().await
}

/// A master is killed; its replica takes over; the old one comes back as a replica.
pub(crate) async fn crash(world: &mut World) -> Result<()> {
    let (old, new) = pair(world).await?;
    world.begin(format!("the master of a shard, server {old}, is killed"));
    world.cluster()?.servers[old].kill().await?;
    world.known().await?;
    promoted(world, new, Duration::from_secs(30)).await?;
    world.recovered_by_some(Reason::RedisChanged).await?;
    world.cluster()?.servers[old].run(None).await?;
    world.note(format!("server {old} is back, as a replica"));
    world.cluster()?.is_well().await?;
    world.in_step_within(PROMISE).await?;
    let told = world.resyncs(Reason::RedisChanged);
    world.bit("resyncs redis-changed", told);
    Ok(())
}

/// A master stands still until its replica has taken over, and then goes on, believing that it is the master.
pub(crate) async fn pause(world: &mut World) -> Result<()> {
    let (old, new) = pair(world).await?;
    world.begin(format!("the master of a shard, server {old}, is stopped (SIGSTOP)"));
    world.cluster()?.servers[old].signal("STOP").await?;
    let known = world.known().await;
    let promoted = promoted(world, new, Duration::from_secs(30)).await;
    // Who still waits for the old master would be answered by it before it knows that it is one no more.
    let resting = world.press.rest().await;
    world.cluster()?.servers[old].signal("CONT").await?;
    known?;
    promoted?;
    resting?;
    world.recovered_by_some(Reason::RedisChanged).await?;
    world.cluster()?.is_well().await?;
    world.press.go_on();
    world.in_step_within(PROMISE).await?;
    world.bit("masters paused", 1);
    Ok(())
}

async fn promoted(world: &mut World, new: usize, patience: Duration) -> Result<()> {
    let cluster = world.cluster()?;
    until("the replica is the master", patience, || async {
        cluster.owner(&key(TOPIC)).await.is_ok_and(|owner| owner == new)
    })
    .await?;
    world.note(format!("server {new} is the master of the shard"));
    Ok(())
}

/// The slot of a busy topic moves to another shard.
pub(crate) async fn slot_moved(world: &mut World) -> Result<()> {
    let cluster = world.cluster()?;
    cluster.is_well().await?;
    let from = cluster.owner(&key(TOPIC)).await?;
    let mut to = from;
    for topic in ["comments:2", "comments:3", "comments:4", "comments:5", "comments:6"] {
        to = cluster.owner(&key(topic)).await?;
        if to != from {
            break;
        }
    }
    ensure!(to != from, "no other shard was found");
    world.begin(format!("the slot of {TOPIC} moves from server {from} to {to}"));
    world.cluster()?.move_slot(&key(TOPIC), from, to).await?;
    // Another master, another history: the lineage belongs to it.
    world.recovered_by_some(Reason::RedisChanged).await?;
    world.bit("slots moved", 1);
    Ok(())
}
