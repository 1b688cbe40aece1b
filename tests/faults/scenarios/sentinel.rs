//! Faults under Sentinel: failovers that are planned, that follow a crash, that lose a tail, that turn the clock back.

use std::{collections::HashMap, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    process::{hold, until},
    record::Reason,
    store::Store,
    watch::PROMISE,
    world::World,
};

/// An operator asks for a failover.
pub(crate) async fn failover(world: &mut World) -> Result<()> {
    let watched = world.watched()?;
    watched.replicas_follow().await?;
    let old = watched.master().await?;
    let sentinel = watched.ports()[0];
    world.begin("SENTINEL FAILOVER");
    // A sentinel may still be busy with the last one.
    until("the sentinels start a failover", Duration::from_secs(30), || async {
        let answer = crate::resp::ask(sentinel, &["SENTINEL", "FAILOVER", crate::redis::MASTER]).await;
        answer.is_ok_and(|answer| answer.text() == Some("OK"))
    })
    .await?;
    let new = world.watched()?.master_other_than(old).await?;
    world.note(format!("server {new} is the master instead of {old}"));
    world.recovered_by(Reason::RedisChanged).await?;
    world.bit("masters changed", 1);
    world.watched()?.replicas_follow().await
}

/// The master is killed; a replica that is in step takes over.
pub(crate) async fn crash(world: &mut World) -> Result<()> {
    world.watched()?.replicas_follow().await?;
    take_over(world).await
}

/// The master is killed after its replica has lost touch: what it acknowledged last is gone, and its numbers are used
/// again.
pub(crate) async fn lost_tail(world: &mut World) -> Result<()> {
    let watched = world.watched()?;
    watched.replicas_follow().await?;
    let master = &watched.servers[watched.master().await?];
    master.must(&["ACL", "SETUSER", "default", "-psync", "-sync"]).await?;
    master.must(&["CLIENT", "KILL", "TYPE", "replica"]).await?;
    world.note("the replica loses touch");
    hold(Duration::from_secs(2)).await;
    take_over(world).await?;
    let mut tail = 0;
    let mut numbers = HashMap::new();
    for ack in &world.press.ledger().acks {
        let first = *numbers.entry((ack.topic, ack.id)).or_insert(ack.number);
        tail += u64::from(first != ack.number);
    }
    ensure!(tail > 0, "no number was used twice: the fault did not bite");
    world.bit("numbers used twice", tail);
    Ok(())
}

async fn take_over(world: &mut World) -> Result<()> {
    let old = world.watched()?.master().await?;
    world.begin(format!("the master, server {old}, is killed"));
    world.watched()?.servers[old].kill().await?;
    world.known().await?;
    let new = world.watched()?.master_other_than(old).await?;
    world.note(format!("server {new} is the master"));
    world.recovered_by(Reason::RedisChanged).await?;
    world.watched()?.servers[old].run(None).await?;
    world.note(format!("server {old} is back, as a replica"));
    world.watched()?.replicas_follow().await?;
    world.in_step_within(PROMISE).await?;
    world.bit("masters changed", 1);
    Ok(())
}

/// The master stands still until it has lost its place, and then goes on, believing that it is the master.
pub(crate) async fn pause(world: &mut World) -> Result<()> {
    let watched = world.watched()?;
    watched.replicas_follow().await?;
    let old = watched.master().await?;
    world.begin(format!("the master, server {old}, is stopped (SIGSTOP)"));
    world.watched()?.servers[old].signal("STOP").await?;
    let known = world.known().await;
    let promoted = until("the sentinels promote another server", Duration::from_secs(40), || async {
        let Store::Watched(watched) = &world.store else { return false };
        watched.master().await.is_ok_and(|new| new != old)
    })
    .await;
    world.watched()?.servers[old].signal("CONT").await?;
    known?;
    promoted?;
    let new = world.watched()?.master_other_than(old).await?;
    world.note(format!("server {new} is the master, {old} goes on"));
    world.recovered_by(Reason::RedisChanged).await?;
    world.watched()?.replicas_follow().await?;
    world.in_step_within(PROMISE).await?;
    world.bit("masters changed", 1);
    Ok(())
}

/// The new master's clock is an hour behind the old one's; and then its logs are lost as well, so that new ones start
/// before the old ones.
pub(crate) async fn clock_behind(world: &mut World) -> Result<()> {
    let old = world.watched()?.master().await?;
    world.begin(format!("the master, server {old}, is killed"));
    world.watched()?.servers[old].kill().await?;
    world.known().await?;
    let new = world.watched()?.master_other_than(old).await?;
    let time = world.watched()?.servers[new].must(&["TIME"]).await?;
    let seconds: u64 = time.list().first().and_then(|s| s.text()?.parse().ok()).unwrap_or(u64::MAX);
    let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    ensure!(seconds + 3000 < here, "the new master's clock is not behind: the fault did not bite");
    world.note(format!("server {new} is the master, its clock is {} s behind", here - seconds));
    world.recovered_by(Reason::RedisChanged).await?;
    world.begin("FLUSHALL on the master with the wrong clock");
    world.watched()?.servers[new].must(&["FLUSHALL"]).await?;
    world.recovered_by(Reason::LogReplaced).await?;
    for session in &world.sessions {
        session.drop_connection();
    }
    world.recovered().await?;
    world.bit("seconds that the clock went back", here - seconds);
    Ok(())
}
