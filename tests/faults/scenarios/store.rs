//! Faults of Redis itself: killed, emptied, paused, full, and logs that somebody has tampered with.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    door::Door,
    process::{hold, until},
    publisher::key,
    record::Reason,
    redis::Redis,
    resp::Value,
    watch::PROMISE,
    world::World,
};

/// Redis is killed and comes back with its data.
pub(crate) async fn kill(world: &mut World) -> Result<()> {
    let kept = restart(world, "Redis is killed (SIGKILL)", |_| Ok(()), |then, now| then == now).await?;
    world.bit("logs that outlived Redis", kept);
    Ok(())
}

/// Redis is killed and comes back empty.
pub(crate) async fn restart_empty(world: &mut World) -> Result<()> {
    let what = "Redis is killed (SIGKILL) and its data removed";
    let anew = restart(world, what, Redis::wipe, |then, now| then != now).await?;
    world.bit("logs that began anew", anew);
    Ok(())
}

/// All masters are killed and come back, so soon that no replica takes over. Every log's epoch must be `as_expected` then;
/// returns how many logs there are.
async fn restart(
    world: &mut World,
    what: &str,
    meanwhile: fn(&Redis) -> Result<()>,
    as_expected: fn(u64, u64) -> bool,
) -> Result<u64> {
    world.store.is_well().await?;
    let (masters, before) = (world.store.masters().await?, world.heads().await);
    world.begin(what);
    for master in &masters {
        world.store.server(*master).kill().await?;
    }
    world.known().await?;
    for master in &masters {
        let redis = world.store.server(*master);
        meanwhile(redis)?;
        redis.run(None).await?;
    }
    world.note("Redis runs again");
    world.recovered_by(Reason::RedisChanged).await?;
    // Where a first replica attaches to the new process, it begins yet another history.
    world.store.is_well().await?;
    world.proven().await?;
    world.in_step_within(PROMISE).await?;
    ensure!(world.store.masters().await? == masters, "a replica has taken over: that is another fault");
    let after = world.heads().await;
    let logs = before.iter().filter_map(|(topic, before)| Some((before, after.get(topic)?)));
    let logs: Vec<_> = logs.collect();
    let right = logs.iter().filter(|(before, after)| as_expected(before.epoch, after.epoch)).count();
    ensure!(right == logs.len(), "of {} logs only {right} are as they should be", logs.len());
    Ok(right as u64)
}

/// Somebody empties a Redis that goes on running.
pub(crate) async fn flushall(world: &mut World) -> Result<()> {
    world.begin("FLUSHALL");
    world.must(&["FLUSHALL"]).await?;
    world.recovered_by(Reason::LogReplaced).await?;
    let told = world.resyncs(Reason::LogReplaced);
    world.bit("resyncs log-replaced", told);
    Ok(())
}

/// Redis stands still for 15 s and goes on as if nothing had been.
pub(crate) async fn pause(world: &mut World) -> Result<()> {
    world.begin("Redis is stopped (SIGSTOP)");
    world.store.server(0).signal("STOP").await?;
    let known = world.known().await;
    if known.is_ok() {
        let left =
            Duration::from_secs(15).saturating_sub(Duration::from_millis(world.clock.now() - world.onset));
        hold(left).await;
    }
    world.store.server(0).signal("CONT").await?;
    known?;
    world.recovered().await?;
    world.bit("pauses of 15 s", 1);
    Ok(())
}

/// Redis is full: it refuses writes, and says so to publishers. Nothing else breaks.
pub(crate) async fn maxmemory(world: &mut World) -> Result<()> {
    world.begin("maxmemory is reached");
    world.must(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    let refused = world.press.ledger().refused;
    let outcome = while_full(world, refused).await;
    world.must(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    outcome?;
    world.recovered().await?;
    let refused = world.press.ledger().refused - refused;
    world.bit("publishes refused by Redis", refused);
    let lost = world.losses();
    ensure!(lost == 0, "{lost} sessions were closed because Redis was full");
    Ok(())
}

async fn while_full(world: &mut World, refused: u64) -> Result<()> {
    let press = std::sync::Arc::clone(&world.press);
    until("Redis refuses publishers", PROMISE, || async { press.ledger().refused > refused + 3 }).await?;
    let node = &world.nodes[0];
    until("the node says that Redis refuses writes", PROMISE, || async {
        node.readiness()
            .await
            .is_some_and(|(status, text)| status == 503 && text.to_ascii_uppercase().contains("OOM"))
    })
    .await
    .with_context(|| node.tail())?;
    let topic = world.topics.id("comments:1").unwrap_or_default();
    let number = world.press.number(topic);
    let event = crate::publisher::event(number, 0);
    let body = format!(r#"{{"topic":"comments:1","event":{event}}}"#);
    let (status, text) = node.publish(&body).await.context("POST /publish was not answered")?;
    ensure!(status >= 400, "POST /publish said {status} while Redis refused: {text}");
    Ok(())
}

/// Logs are trimmed while sessions come back and read them.
pub(crate) async fn trimmed(world: &mut World) -> Result<()> {
    world.begin("half of the sessions stay away");
    for session in world.sessions.iter().step_by(2) {
        session.away.store(true, Ordering::Relaxed);
        session.drop_connection();
    }
    // So long that no node keeps more than its usual tail, and then more events than that.
    hold(Duration::from_secs(16)).await;
    for name in ["comments:1", "comments:2", "comments:3", "comments:4"] {
        let topic = world.topics.id(name).context("no such topic")?;
        world.press.burst(topic, 60, 0).await?;
    }
    for session in world.sessions.iter().step_by(2) {
        session.away.store(false, Ordering::Relaxed);
    }
    world.note("they come back while logs are trimmed");
    let (place, topics) = (world.store.place(), std::sync::Arc::clone(&world.topics));
    let mut door = Door::new(place);
    for _ in 0..20 {
        for name in &topics.names {
            let _ = door.ask(&key(name), &["XTRIM", &key(name), "MAXLEN", "3"]).await;
        }
        hold(Duration::from_millis(50)).await;
    }
    world.recovered().await?;
    let told = world.resyncs(Reason::Trimmed);
    ensure!(told > 0, "nobody lacked what was trimmed: the fault did not bite");
    world.bit("resyncs trimmed", told);
    Ok(())
}

/// Somebody writes into logs by hand: what is no event, what has no place in the order, and noise on the channel.
pub(crate) async fn poison(world: &mut World) -> Result<()> {
    // A followed log without events is a short string, and poison is an entry of a stream.
    for name in ["comments:1", "comments:2"] {
        let topic = world.topics.id(name).context("no such topic")?;
        world.press.burst(topic, 1, 0).await?;
    }
    world.begin("poison is written into logs");
    let mut door = Door::new(world.store.place());
    let (first, second) = (key("comments:1"), key("comments:2"));
    let mut refused = None;
    for _ in 0..200 {
        let head = door.head(&first).await.map_err(|trouble| anyhow::anyhow!("{trouble}"))?;
        let next = format!("{}-{}", head.epoch, head.seq + 1);
        // A publisher may have been faster: then the id is taken.
        refused = door.ask(&first, &["XADD", &first, &next, "e", "{\"type\":"]).await.err();
        if refused.is_none() {
            break;
        }
    }
    ensure!(refused.is_none(), "the poison could not be written: {refused:?}");
    for noise in ["", "noise", "{}", "1-1", "{\"type\":\"Not A Type\"}"] {
        let _ = door.publish(&second, noise).await;
    }
    let by_hand = door.ask(&second, &["XADD", &second, "*", "a", "b"]).await;
    ensure!(matches!(by_hand, Ok(Value::Text(_))), "an entry by hand: {by_hand:?}");
    until("the poison is told", PROMISE, || async {
        world.resyncs(Reason::Invalid) > 0 && world.resyncs(Reason::LogReplaced) > 0
    })
    .await
    .with_context(|| world.logs())?;
    world.recovered().await?;
    let told = world.resyncs(Reason::Invalid) + world.resyncs(Reason::LogReplaced);
    world.bit("resyncs invalid, log-replaced", told);
    Ok(())
}
