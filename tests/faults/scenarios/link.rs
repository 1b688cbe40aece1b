//! Faults of the way between nodes and a Redis that is well: killed, blackholed, slow, deaf, and single losses.

use std::{slice::SliceIndex, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    door::Door,
    process::{hold, until},
    proxy::{Proxy, Rules, Scope},
    publisher::key,
    redis::Redis,
    resp::Value,
    watch::PROMISE,
    world::World,
};

/// How often the rules of all links have bitten so far.
fn bites(world: &World) -> u64 {
    world.proxies.iter().map(Proxy::bites).sum()
}

/// No rules on any link any more.
fn heal(world: &World) {
    world.proxies.iter().for_each(Proxy::heal);
}

/// Redis closes the connections of all subscribers.
pub(crate) async fn pubsub_killed(world: &mut World) -> Result<()> {
    world.begin("CLIENT KILL TYPE pubsub");
    let before = world.figure("carillon_link_losses_total", "").await;
    let killed = world.redis()?.must(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?.number().unwrap_or(0);
    ensure!(killed > 0, "nobody was subscribed: the fault did not bite");
    until("the nodes notice", PROMISE, || async {
        world.figure("carillon_link_losses_total", "").await >= before + world.nodes.len() as f64
    })
    .await?;
    world.recovered().await?;
    world.bit("links killed", killed as u64);
    Ok(())
}

/// A subscriber reads so slowly that Redis cuts it off.
pub(crate) async fn output_limit(world: &mut World) -> Result<()> {
    let subscribers = |answer: &Value| answer.text().map_or(0, |text| text.lines().count());
    let before = subscribers(&world.redis()?.must(&["CLIENT", "LIST", "TYPE", "pubsub"]).await?);
    ensure!(before >= world.nodes.len(), "not all nodes are subscribed");
    world.begin("a tiny output limit, and nobody reads");
    world.redis()?.must(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 0 0"]).await?;
    for proxy in &world.proxies {
        proxy.rule(|rules| (rules.hold_down, rules.scope) = (true, Scope::Subscriptions));
    }
    let noise = format!("{{\"type\":\"noise.made\",\"data\":\"{}\"}}", "x".repeat(60_000));
    let redis = world.redis()?;
    let cut = until("Redis cuts the subscribers off", PROMISE, || async {
        // To what the nodes listen to besides topics: nobody but their sockets shall feel it.
        for node in 0..before {
            let channel = key(&format!("probe:{{node-{node}}}"));
            for _ in 0..20 {
                let _ = redis.ask(&["PUBLISH", &channel, &noise]).await;
            }
        }
        redis
            .ask(&["CLIENT", "LIST", "TYPE", "pubsub"])
            .await
            .is_ok_and(|answer| subscribers(&answer) < before)
    })
    .await;
    let after = subscribers(&world.redis()?.must(&["CLIENT", "LIST", "TYPE", "pubsub"]).await?);
    world
        .redis()?
        .must(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 33554432 8388608 60"])
        .await?;
    heal(world);
    cut?;
    world.recovered().await?;
    world.bit("subscribers cut off", (before - after) as u64);
    Ok(())
}

/// The links through these proxies are dead for a while, in the way of `rule`.
async fn dead(
    world: &mut World,
    what: impl Into<String>,
    proxies: impl SliceIndex<[Proxy], Output = [Proxy]>,
    rule: fn(&mut Rules),
) -> Result<()> {
    world.begin(what);
    for proxy in &world.proxies[proxies] {
        proxy.rule(rule);
    }
    // Who does not know now must show in the audit: nothing is healed before its time.
    world.known().await?;
    world.not_ready().await?;
    hold(Duration::from_secs(3)).await;
    heal(world);
    world.recovered().await?;
    world.bit("links that were found dead", world.nodes.len() as u64);
    Ok(())
}

/// Nothing gets from the nodes to Redis.
pub(crate) async fn blackhole_up(world: &mut World) -> Result<()> {
    dead(world, "blackhole towards Redis", .., |rules| rules.hold_up = true).await
}

/// Nothing gets from Redis to the nodes.
pub(crate) async fn blackhole_down(world: &mut World) -> Result<()> {
    dead(world, "blackhole towards the nodes", .., |rules| rules.hold_down = true).await
}

/// Commands are answered, but no message comes: only the subscribed connection is dead.
pub(crate) async fn deaf(world: &mut World) -> Result<()> {
    dead(world, "only the subscriptions are deaf", .., be_deaf).await
}

/// The messages of one shard do not come any more; its commands are answered, and the other shards are well.
pub(crate) async fn deaf_to_a_shard(world: &mut World) -> Result<()> {
    let owner = world.cluster()?.owner(&key("comments:1")).await?;
    dead(world, format!("the subscriptions at server {owner} are deaf"), owner..=owner, be_deaf).await
}

fn be_deaf(rules: &mut Rules) {
    (rules.hold_down, rules.scope) = (true, Scope::Subscriptions);
}

/// A slow link: 200 ms each way, and one piece in a hundred stalls for a second.
pub(crate) async fn slow(world: &mut World) -> Result<()> {
    world.begin("a slow link with stalls");
    let before = bites(world);
    for proxy in &world.proxies {
        proxy.rule(|rules| (rules.delay, rules.stall) = (Duration::from_millis(200), Duration::from_secs(1)));
    }
    hold(Duration::from_secs(15)).await;
    world.in_step_within(PROMISE).await.with_context(|| world.logs())?;
    heal(world);
    world.recovered().await?;
    let stalls = bites(world) - before;
    ensure!(stalls > 0, "nothing stalled: the fault did not bite");
    world.bit("stalls", stalls);
    Ok(())
}

/// All connections to Redis are cut (RST), and new ones refused for a while.
pub(crate) async fn cut(world: &mut World) -> Result<()> {
    world.begin("connections to Redis are cut and refused");
    let mut cut = 0;
    for proxy in &world.proxies {
        proxy.rule(|rules| rules.refuse = true);
        cut += proxy.cut();
    }
    let known = world.known().await;
    heal(world);
    known?;
    world.recovered().await?;
    world.bit("connections cut", cut as u64);
    Ok(())
}

/// Single messages are lost on a link that is otherwise well.
pub(crate) async fn messages_lost(world: &mut World) -> Result<()> {
    world.begin("messages of some topics are lost");
    let before = bites(world);
    let topics: Vec<String> =
        world.topics.names.iter().filter(|name| name.starts_with("comments")).cloned().collect();
    for proxy in &world.proxies {
        proxy.rule(|rules| rules.swallow = topics.iter().map(|topic| (key(topic), 2)).collect());
    }
    // A node that has no follower of a topic gets none of its messages.
    let mut wanted = before;
    for topic in topics.iter().filter_map(|name| world.topics.id(name)) {
        wanted += 2 * world.nodes_of(|told| told.follows.contains(&topic)).len() as u64;
    }
    let lost = until("messages are lost", Duration::from_secs(20), || async { bites(world) >= wanted }).await;
    heal(world);
    lost?;
    world.recovered().await?;
    world.bit("messages lost", wanted - before);
    Ok(())
}

/// The last message of a topic is lost, and then it is quiet: only its head can tell.
pub(crate) async fn last_message_lost(world: &mut World) -> Result<()> {
    world.begin("the last message of a topic is lost, then silence");
    let press = std::sync::Arc::clone(&world.press);
    press.paused.store(true, std::sync::atomic::Ordering::Relaxed);
    until("publishers come to rest", PROMISE, || async { press.busy() == 0 }).await?;
    world.in_step_within(PROMISE).await?;
    let before = bites(world);
    for proxy in &world.proxies {
        proxy.rule(|rules| rules.swallow = [(key("comments:1"), 1)].into());
    }
    let topic = world.topics.id("comments:1").context("no such topic")?;
    let nodes = world.nodes_of(|told| told.follows.contains(&topic)).len() as u64;
    let (number, sent) = (press.number(topic), world.clock.now());
    let id = press.try_once(&mut Door::new(world.store.place()), topic, number, 0).await;
    let id = id.map_err(|trouble| anyhow::anyhow!("{trouble}"))?;
    press.ledger().acks.push(crate::record::Ack { topic, number, id, sent });
    until("the message is lost", PROMISE, || async { bites(world) >= before + nodes }).await?;
    // A single loss is found within a minute.
    world.recovered_within(Duration::from_secs(60), None).await?;
    press.paused.store(false, std::sync::atomic::Ordering::Relaxed);
    world.bit("messages lost", nodes);
    Ok(())
}

/// One topic's subscription ends on a live link, without a word to the node.
pub(crate) async fn subscription_lost(world: &mut World) -> Result<()> {
    world.begin("the subscription of one topic is lost");
    let before = bites(world);
    let mut ended = 0;
    for proxy in &world.proxies {
        ended += proxy.unsubscribe(&key("comments:1")).await;
    }
    ensure!(ended >= world.nodes.len(), "only {ended} subscribed links: the fault did not bite");
    until("Redis has ended the subscriptions", PROMISE, || async { bites(world) >= before + ended as u64 })
        .await?;
    // What is published from now on can only come when the subscriptions are back, or from the log.
    let published = world.press.ledger().acks.len();
    let (press, topic) = (std::sync::Arc::clone(&world.press), world.topics.id("comments:1"));
    until("something is published to the topic", PROMISE, || async {
        press.ledger().acks[published..].iter().filter(|ack| Some(ack.topic) == topic).count() >= 2
    })
    .await?;
    world.recovered_within(Duration::from_secs(20), None).await?;
    world.bit("subscriptions ended", ended as u64);
    live_subscription_lost(world).await
}

/// The same with a topic that has only live events: no log can tell that something is missing.
async fn live_subscription_lost(world: &mut World) -> Result<()> {
    let press = std::sync::Arc::clone(&world.press);
    press.paused.store(true, std::sync::atomic::Ordering::Relaxed);
    until("publishers come to rest", PROMISE, || async { press.busy() == 0 }).await?;
    // The area-wide topic, which every node follows: the others receive what this one misses.
    let topic = world.topics.id("content").context("no such topic")?;
    let nodes = world.nodes_of(|told| told.follows.contains(&topic));
    let node = *nodes.first().context("nobody follows the area")?;
    world.begin(format!("node {node} loses the subscription of a topic that has only live events now"));
    let bites = world.proxies[node].bites();
    let ended = world.proxies[node].unsubscribe(&key("content")).await as u64;
    until("Redis has ended the subscription", PROMISE, || async {
        world.proxies[node].bites() >= bites + ended
    })
    .await?;
    let (mut door, since) = (Door::new(world.store.place()), world.clock.now());
    for _ in 0..3 {
        press.shout_once(&mut door, topic).await;
    }
    world.live_doubted(node, topic, since).await?;
    press.paused.store(false, std::sync::atomic::Ordering::Relaxed);
    world.recovered().await?;
    world.bit("subscriptions ended", ended);
    Ok(())
}

/// Redis refuses one topic's subscription: an operator has taken the right away, and gives it back.
pub(crate) async fn subscription_refused(world: &mut World) -> Result<()> {
    // A node that has no follower of the topic has nothing to lose.
    let topic = world.topics.id("comments:1").context("no such topic")?;
    let nodes = world.nodes_of(|told| told.follows.contains(&topic));
    world.begin("the right to subscribe to one topic is taken away");
    let others = world.topics.names.iter().filter(|name| *name != "comments:1");
    let mut rights: Vec<String> = others.map(|name| format!("&{}", key(name))).collect();
    rights.extend(["&carillon:probe:*".to_owned(), "&carillon:control:*".to_owned()]);
    let mut command = vec!["ACL", "SETUSER", "node", "resetchannels"];
    command.extend(rights.iter().map(String::as_str));
    world.redis()?.must(&["ACL", "LOG", "RESET"]).await?;
    world.redis()?.must(&command).await?;
    // Redis has closed the connections that had subscribed; it is when they come back that the topic is refused.
    let known = world.known_by(&nodes).await;
    let redis = world.redis()?;
    let refused = until("the subscription is refused to every node", PROMISE, || async {
        refusals(redis, &key("comments:1")).await.is_ok_and(|count| count >= nodes.len() as u64)
    })
    .await;
    if known.is_ok() {
        hold(Duration::from_secs(2)).await;
    }
    redis.must(&["ACL", "SETUSER", "node", "allchannels"]).await?;
    known?;
    refused?;
    let count = refusals(redis, &key("comments:1")).await?;
    world.recovered().await?;
    world.bit("subscriptions refused", count);
    Ok(())
}

/// How often Redis has refused a channel since its log of refusals was emptied.
async fn refusals(redis: &Redis, channel: &str) -> Result<u64> {
    let log = redis.must(&["ACL", "LOG"]).await?;
    let field = |entry: &Value, name: &str| {
        let at = entry.list().iter().position(|item| item.text() == Some(name))?;
        entry.list().get(at + 1).cloned()
    };
    let about = |entry: &&Value| field(entry, "object").is_some_and(|object| object.text() == Some(channel));
    let count = |entry: &Value| field(entry, "count").and_then(|count| count.number()).unwrap_or(0);
    Ok(log.list().iter().filter(about).map(count).sum::<i64>() as u64)
}
