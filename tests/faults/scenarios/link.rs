//! Faults of the way between nodes and a Redis that is well: killed, blackholed, slow, deaf, and single losses.

use std::{
    collections::HashMap,
    slice::SliceIndex,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    door::Door,
    node::figures,
    process::{hold, until},
    proxy::{Proxy, Rules, Scope},
    publisher::key,
    resp::Value,
    store::Store,
    watch::PROMISE,
    world::World,
};

/// How many nodes have their links through one proxy: before a cluster there is one for each server, and else one for each
/// node.
fn sharing(world: &World, nodes: usize) -> u32 {
    if world.store.is_sharded() { nodes as u32 } else { 1 }
}

/// How often the rules of all links have bitten so far.
fn bites(world: &World) -> u64 {
    world.proxies.iter().map(Proxy::bites).sum()
}

/// No rules on any link any more.
fn heal(world: &World) {
    world.proxies.iter().for_each(Proxy::heal);
}

/// How many connections nodes have subscribed on. (Sentinels subscribe as well.)
async fn subscribers(world: &World) -> Result<usize> {
    let lists = world.must(&["CLIENT", "LIST", "TYPE", "pubsub"]).await?;
    let lines = lists.iter().filter_map(Value::text).flat_map(str::lines);
    Ok(lines.filter(|line| !is_sentinel(line)).count())
}

/// Whether a line of CLIENT LIST is a sentinel's.
fn is_sentinel(line: &str) -> bool {
    line.contains(" name=sentinel-")
}

/// Redis closes the connections of all subscribers, on a cluster every master does. Returns how many.
async fn kill_subscribers(world: &World) -> Result<u64> {
    let mut answers = Vec::new();
    if let Store::Watched(watched) = &world.store {
        // Sentinels keep theirs: one that loses its subscription again and again takes a master that is well for dead, and then
        // there are two for a while.
        let master = &watched.servers[watched.master().await?];
        let list = master.must(&["CLIENT", "LIST", "TYPE", "pubsub"]).await?;
        let lines = list.text().unwrap_or_default().lines().filter(|line| !is_sentinel(line));
        for id in lines.filter_map(|line| line.split(' ').next()?.strip_prefix("id=")) {
            answers.push(master.ask(&["CLIENT", "KILL", "ID", id]).await?);
        }
    } else {
        answers = world.must(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?;
    }
    Ok(answers.iter().filter_map(Value::number).sum::<i64>() as u64)
}

/// The subscribers are killed.
pub(crate) async fn pubsub_killed(world: &mut World) -> Result<()> {
    world.begin("CLIENT KILL TYPE pubsub");
    let losses = || figures(&world.nodes, "carillon_link_losses_total", "");
    let before = losses().await;
    let killed = kill_subscribers(world).await?;
    ensure!(killed > 0, "nobody was subscribed: the fault did not bite");
    until("every node notices", PROMISE, || async {
        losses().await.iter().all(|(node, losses)| *losses > before[node])
    })
    .await?;
    world.recovered().await?;
    world.bit("links killed", killed);
    Ok(())
}

/// A subscriber reads so slowly that Redis cuts it off.
pub(crate) async fn output_limit(world: &mut World) -> Result<()> {
    let before = subscribers(world).await?;
    ensure!(before >= world.nodes.len(), "not all nodes are subscribed");
    let fewest = AtomicUsize::new(before);
    world.begin("a tiny output limit, and nobody reads");
    // Without proxies nobody can be made to read slowly: then one message must be too much.
    let limit = if world.proxies.is_empty() { 16_384 } else { 65_536 };
    limit_output(world, &format!("{limit} 0 0")).await?;
    for proxy in &world.proxies {
        proxy.rule(|rules| (rules.hold_down, rules.scope) = (true, Scope::Subscriptions));
    }
    let noise = format!("{{\"type\":\"noise.made\",\"data\":\"{}\"}}", "x".repeat(60_000));
    let cut = until("Redis cuts the subscribers off", PROMISE, || async {
        // To what the nodes listen to besides topics: nobody but their sockets shall feel it.
        let _ = drown(world, &noise).await;
        let now = subscribers(world).await.unwrap_or(before);
        fewest.fetch_min(now, Ordering::Relaxed).min(now) < before
    })
    .await;
    let restored = limit_output(world, "33554432 8388608 60").await;
    heal(world);
    cut?;
    restored?;
    world.recovered().await?;
    world.bit("subscribers cut off", (before - fewest.into_inner()) as u64);
    Ok(())
}

async fn limit_output(world: &World, limit: &str) -> Result<()> {
    world.must(&["CONFIG", "SET", "client-output-buffer-limit", &format!("pubsub {limit}")]).await?;
    Ok(())
}

/// Sends the nodes more than they read, on the channels of their probes.
async fn drown(world: &World, noise: &str) -> Result<()> {
    let list = if world.store.is_sharded() { "SHARDCHANNELS" } else { "CHANNELS" };
    let channels = world.must(&["PUBSUB", list, &key("probe:*")]).await?;
    let mut door = Door::new(world.store.place());
    for channel in channels.iter().flat_map(Value::list).filter_map(Value::text) {
        for _ in 0..20 {
            let _ = door.publish(channel, noise).await;
        }
    }
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

/// Nothing gets from Redis to the nodes any more, from the moment at which one of them asks where slots lie, because it lacks
/// a subscription: its last probe has come back, and what waits for the answer must not wait for ever.
pub(crate) async fn blackhole_at_slots(world: &mut World) -> Result<()> {
    for proxy in &world.proxies {
        proxy.rule(|rules| rules.snap = Some(["CLUSTER", "SLOTS"]));
    }
    let asked = async {
        end_subscription(world, "comments:1").await?;
        until("a node asks where slots lie", PROMISE, || async {
            world.proxies.iter().any(Proxy::has_snapped)
        })
        .await
    };
    if let Err(error) = asked.await {
        heal(world);
        return Err(error);
    }
    blackhole_down(world).await
}

/// Ends a topic's subscription on every link without a word to the nodes. Returns on how many.
async fn end_subscription(world: &World, topic: &str) -> Result<usize> {
    let channel = key(topic);
    if let Store::Cluster(cluster) = &world.store {
        let owner = cluster.owner(&channel).await?;
        return Ok(world.proxies[owner].unsubscribe("SUNSUBSCRIBE", &channel).await);
    }
    let mut ended = 0;
    for proxy in &world.proxies {
        ended += proxy.unsubscribe("UNSUBSCRIBE", &channel).await;
    }
    Ok(ended)
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
    // A node that has no follower of a topic gets none of its messages.
    let (mut wanted, mut swallow) = (before, HashMap::new());
    for (name, topic) in topics.iter().filter_map(|name| Some((name, world.topics.id(name)?))) {
        let nodes = world.nodes_of(|told| told.follows.contains(&topic)).len();
        wanted += 2 * nodes as u64;
        swallow.insert(key(name), 2 * sharing(world, nodes));
    }
    for proxy in &world.proxies {
        proxy.rule(|rules| rules.swallow.clone_from(&swallow));
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
    press.rest().await?;
    world.in_step_within(PROMISE).await?;
    let before = bites(world);
    let topic = world.topics.id("comments:1").context("no such topic")?;
    let nodes = world.nodes_of(|told| told.follows.contains(&topic)).len();
    for proxy in &world.proxies {
        proxy.rule(|rules| rules.swallow = [(key("comments:1"), sharing(world, nodes))].into());
    }
    let nodes = nodes as u64;
    let (number, sent) = (press.number(topic), world.clock.now());
    let id = press.try_once(&mut Door::new(world.store.place()), topic, number, 0).await;
    let id = id.map_err(|trouble| anyhow::anyhow!("{trouble}"))?;
    press.ledger().acks.push(crate::record::Ack { topic, number, id, sent });
    until("the message is lost", PROMISE, || async { bites(world) >= before + nodes }).await?;
    // A single loss is found within a minute.
    world.recovered_within(Duration::from_secs(60), None).await?;
    press.go_on();
    world.bit("messages lost", nodes);
    Ok(())
}

/// One topic's subscription ends on a live link, without a word to the node.
pub(crate) async fn subscription_lost(world: &mut World) -> Result<()> {
    world.begin("the subscription of one topic is lost");
    let before = bites(world);
    let ended = end_subscription(world, "comments:1").await?;
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
    // What follows needs a node that loses a live event which another receives, and so a proxy for each node.
    if world.store.is_sharded() { Ok(()) } else { live_subscription_lost(world).await }
}

/// The same with a topic that has only live events: no log can tell that something is missing.
async fn live_subscription_lost(world: &mut World) -> Result<()> {
    let press = std::sync::Arc::clone(&world.press);
    press.rest().await?;
    // The area-wide topic, which every node follows: the others receive what this one misses.
    let topic = world.topics.id("content").context("no such topic")?;
    let nodes = world.nodes_of(|told| told.follows.contains(&topic));
    let node = *nodes.first().context("nobody follows the area")?;
    world.begin(format!("node {node} loses the subscription of a topic that has only live events now"));
    let bites = world.proxies[node].bites();
    let ended = world.proxies[node].unsubscribe("UNSUBSCRIBE", &key("content")).await as u64;
    until("Redis has ended the subscription", PROMISE, || async {
        world.proxies[node].bites() >= bites + ended
    })
    .await?;
    let (mut door, since) = (Door::new(world.store.place()), world.clock.now());
    for _ in 0..3 {
        press.shout_once(&mut door, topic).await;
    }
    world.live_doubted(node, topic, since).await?;
    press.go_on();
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
    // The last are the topics of the soak's visitors.
    rights.extend(["&carillon:probe:*", "&carillon:control:*", "&carillon:projects*"].map(str::to_owned));
    let mut command = vec!["ACL", "SETUSER", "node", "resetchannels"];
    command.extend(rights.iter().map(String::as_str));
    world.must(&["ACL", "LOG", "RESET"]).await?;
    world.must(&command).await?;
    // Redis has closed the connections that had subscribed; it is when they come back that the topic is refused.
    let known = world.known_by(&nodes).await;
    let refused = until("the subscription is refused to every node", PROMISE, || async {
        refusals(world, &key("comments:1")).await.is_ok_and(|count| count >= nodes.len() as u64)
    })
    .await;
    if known.is_ok() {
        hold(Duration::from_secs(2)).await;
    }
    world.must(&["ACL", "SETUSER", "node", "allchannels"]).await?;
    known?;
    refused?;
    let count = refusals(world, &key("comments:1")).await?;
    world.recovered().await?;
    world.bit("subscriptions refused", count);
    Ok(())
}

/// How often Redis has refused a channel since its log of refusals was emptied.
async fn refusals(world: &World, channel: &str) -> Result<u64> {
    let logs = world.must(&["ACL", "LOG"]).await?;
    let field = |entry: &Value, name: &str| {
        let at = entry.list().iter().position(|item| item.text() == Some(name))?;
        entry.list().get(at + 1).cloned()
    };
    let about = |entry: &&Value| field(entry, "object").is_some_and(|object| object.text() == Some(channel));
    let count = |entry: &Value| field(entry, "count").and_then(|count| count.number()).unwrap_or(0);
    Ok(logs.iter().flat_map(Value::list).filter(about).map(count).sum::<i64>() as u64)
}
