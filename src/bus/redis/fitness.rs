//! Whether a server is one that a node can work with, by what it says of itself in INFO.
//!
//! Used when a link is built, and by `carillon doctor`.

use super::{
    fault::{ConnectError, too_old},
    reply,
};

/// What keeps a node from working with the server at `place`. `sharded`: the URL says that it is a cluster.
pub(super) fn unfit(info: &str, sharded: bool, place: &str) -> Option<ConnectError> {
    let field = |name| reply::info(info, name).unwrap_or_default();
    // Valkey calls it `server_mode`.
    if field("redis_mode") == "sentinel" || field("server_mode") == "sentinel" {
        return Some(ConnectError::Permanent(format!(
            "the server at {place} is a sentinel: write redis-sentinel://host:port/service in redis.url"
        )));
    }
    let version = field("redis_version");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 7) {
        return Some(ConnectError::Permanent(too_old(place, &format!("version {version}"))));
    }
    if field("cluster_enabled") == "1" && !sharded {
        return Some(ConnectError::Permanent(format!(
            "Redis at {place} is part of a cluster: write redis-cluster://host:port in redis.url"
        )));
    }
    // It may be made a master any moment.
    (field("role") != "master").then(|| {
        let text = "this is a replica, which accepts no writes: name the master in redis.url, or sentinels with \
                    redis-sentinel://";
        ConnectError::Transient(text.into())
    })
}

/// The server's name and version. Valkey's `redis_version` is that of the Redis that it is compatible with.
pub(super) fn names(info: &str) -> (Option<&str>, &str) {
    (reply::info(info, "valkey_version"), reply::info(info, "redis_version").unwrap_or_default())
}
