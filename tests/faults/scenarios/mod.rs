//! The faults, each with the world it needs and the resyncs it may cost.
//!
//! A fault is a function on a running world: it begins, bites (and proves it), ends, and everybody must be in step again.
//! So the nemesis can use the same ones in any order.

pub(crate) mod clients;
pub(crate) mod cluster;
pub(crate) mod link;
pub(crate) mod nodes;
pub(crate) mod sentinel;
pub(crate) mod sources;
pub(crate) mod store;

use anyhow::Result;
use futures_util::future::BoxFuture;

use crate::{
    record::Reason,
    store::Kind,
    world::{Setup, World},
};

/// What a fault does to a world.
pub(crate) type Body = for<'a> fn(&'a mut World) -> BoxFuture<'a, Result<()>>;

/// A fault that is tried.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Reasons for which sessions may be told to refetch. `live` counts only where live events are published.
    pub(crate) allowed: &'static [Reason],
    pub(crate) setup: fn() -> Setup,
    pub(crate) body: Body,
    /// How often the nemesis picks it; 0: never, because it needs a world of its own or is another one's test on a cluster.
    pub(crate) weight: u32,
}

/// A user for nodes, whose rights can be taken away while publishers go on.
pub(crate) const NODE_USER: &[&str] = &["--user", "node", "on", ">secret-of-nodes", "~*", "&*", "+@all"];
/// How nodes log in as that user.
pub(crate) const NODE_LOGIN: [(&str, &str); 2] =
    [("REDIS__USERNAME", "node"), ("REDIS__PASSWORD", "secret-of-nodes")];

macro_rules! scenario {
    ($name:literal, $body:path, [$($reason:ident),*], $weight:literal, {$($field:ident: $value:expr),*}) => {
        Scenario {
            name: $name,
            allowed: &[$(Reason::$reason),*],
            setup: || Setup { $($field: $value,)* ..Setup::default() },
            body: |world| Box::pin($body(world)),
            weight: $weight,
        }
    };
}

/// Every fault.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all = standalone();
    all.extend(topologies());
    all.extend(around());
    all
}

/// What can happen to a Redis and to the way to it; each is tried on one that stands alone.
fn standalone() -> Vec<Scenario> {
    vec![
        scenario!("redis-kill", store::kill, [RedisChanged], 2, {}),
        scenario!("redis-empty", store::restart_empty, [RedisChanged], 1, {}),
        scenario!("redis-flushall", store::flushall, [LogReplaced, Live], 1, {}),
        scenario!("redis-pause", store::pause, [Live], 2, {}),
        scenario!("redis-maxmemory", store::maxmemory, [Live], 1, {}),
        scenario!("log-trimmed", store::trimmed, [Trimmed, Live], 1, { sessions: 60 }),
        scenario!("log-poison", store::poison, [Invalid, LogReplaced], 1, {}),
        scenario!("link-pubsub-killed", link::pubsub_killed, [Live], 3, { proxied: true }),
        scenario!("link-output-limit", link::output_limit, [Live], 1, { proxied: true }),
        scenario!("link-blackhole-up", link::blackhole_up, [Live], 2, { proxied: true }),
        scenario!("link-blackhole-down", link::blackhole_down, [Live], 2, { proxied: true }),
        scenario!("link-deaf", link::deaf, [Live], 2, { proxied: true }),
        scenario!("link-slow", link::slow, [Live], 1, { proxied: true }),
        scenario!("link-cut", link::cut, [Live], 2, { proxied: true }),
        scenario!("link-messages-lost", link::messages_lost, [], 3, { proxied: true }),
        scenario!("link-last-message-lost", link::last_message_lost, [], 1, { proxied: true, live: 0.0, sessions: 30 }),
        scenario!("link-subscription-lost", link::subscription_lost, [Live], 2, { proxied: true }),
        scenario!("link-subscription-refused", link::subscription_refused, [Live], 1, {
            redis: NODE_USER, env: NODE_LOGIN.into()
        }),
    ]
}

/// What can happen under Sentinel and on a cluster.
fn topologies() -> Vec<Scenario> {
    vec![
        scenario!("sentinel-failover", sentinel::failover, [RedisChanged], 2, { kind: Kind::Sentinel(2) }),
        scenario!("sentinel-crash", sentinel::crash, [RedisChanged], 2, { kind: Kind::Sentinel(2) }),
        scenario!("sentinel-lost-tail", sentinel::lost_tail, [RedisChanged], 2, { kind: Kind::Sentinel(2) }),
        scenario!("sentinel-pause", sentinel::pause, [RedisChanged], 1, { kind: Kind::Sentinel(2) }),
        scenario!("sentinel-clock-behind", sentinel::clock_behind, [RedisChanged, LogReplaced, Live], 0, {
            kind: Kind::Sentinel(2), clocks: &[None, Some("-3600s")]
        }),
        scenario!("cluster-failover", cluster::failover, [RedisChanged, Live], 2, { kind: Kind::Cluster }),
        scenario!("cluster-crash", cluster::crash, [RedisChanged, Live], 2, { kind: Kind::Cluster }),
        // When it goes on, the old master may carry out what publishers had sent before: by then such an event is in no log.
        scenario!("cluster-pause", cluster::pause, [RedisChanged, Live, Invalid], 1, { kind: Kind::Cluster }),
        scenario!("cluster-slot-moved", cluster::slot_moved, [RedisChanged, Live], 2, { kind: Kind::Cluster }),
        scenario!("cluster-pubsub-killed", link::pubsub_killed, [Live], 0, { kind: Kind::Cluster }),
        scenario!("cluster-link-deaf", link::deaf_to_a_shard, [Live], 1, { kind: Kind::Cluster, proxied: true }),
        scenario!("cluster-link-blackhole", link::blackhole_at_slots, [Live], 1, {
            kind: Kind::Cluster, proxied: true
        }),
        scenario!("cluster-subscription-lost", link::subscription_lost, [Live], 0, {
            kind: Kind::Cluster, proxied: true
        }),
        scenario!("cluster-subscription-refused", link::subscription_refused, [Live], 0, {
            kind: Kind::Cluster, redis: NODE_USER, env: NODE_LOGIN.into()
        }),
    ]
}

/// What can happen to nodes, to sessions and to the network before the nodes.
fn around() -> Vec<Scenario> {
    vec![
        scenario!("node-killed", nodes::killed, [Live], 2, { nodes: 3, sessions: 150 }),
        scenario!("node-killed-6000", nodes::killed_many, [Live], 0, {
            nodes: 3, sessions: 6000, keys: 60, recorded: 20.0, live: 0.0
        }),
        scenario!("node-sigterm", nodes::sigterm, [Live], 2, { nodes: 3, sessions: 150 }),
        scenario!("node-rolling-restart", nodes::rolling, [Live], 1, { nodes: 3, sessions: 600 }),
        scenario!("node-stands-still", nodes::stands_still, [Live], 0, {
            sessions: 40, env: vec![("HEARTBEAT__SECONDS", "5")]
        }),
        scenario!("node-out-of-files", nodes::out_of_files, [Live], 1, { sessions: 60 }),
        scenario!("session-never-reads", clients::never_reads, [], 1, {
            sessions: 60, env: vec![("HEARTBEAT__SECONDS", "60")]
        }),
        scenario!("session-garbage", clients::garbage, [], 1, { sessions: 60 }),
        scenario!("session-storm", clients::storm, [Live], 1, {
            nodes: 2, sessions: 5000, keys: 60, recorded: 20.0, live: 0.0
        }),
        scenario!("client-vanishes", clients::vanishes, [Live], 1, { fronted: true, nodes: 2 }),
        scenario!("client-idle-cut", clients::idle_cut, [Live], 0, {
            fronted: true, sessions: 40, live: 0.0, env: vec![("HEARTBEAT__SECONDS", "25")]
        }),
        scenario!("client-cut", clients::cut, [Live], 2, { fronted: true }),
        scenario!("source-mute", sources::mute, [], 0, { sessions: 60 }),
        scenario!("source-rolled", sources::rolled, [], 0, { sessions: 60 }),
        scenario!("source-redis-away", sources::redis_away, [RedisChanged], 0, { sessions: 60 }),
        scenario!("publish-twice", clients::publish_twice, [], 1, {}),
    ]
}
