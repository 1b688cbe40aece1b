//! From the configuration to the plain settings of each room.

use std::time::Duration;

use crate::{
    bus,
    config::Config,
    http,
    protocol::Areas,
    relay,
    session::{Limits, Terms},
};

/// How long a topic stays subscribed after its last follower left: long enough for a page that is reloaded.
const LINGER: Duration = Duration::from_secs(30);

pub(super) fn bus(config: &Config, areas: &Areas) -> bus::Settings {
    let redis = &config.redis;
    let (tls_cert, tls_key) = redis.tls_client.clone().unzip();
    let target = redis.url.as_ref().map(|url| bus::redis::Target {
        url: url.expose().to_owned(),
        username: redis.username.clone(),
        password: redis.password.as_ref().map(|password| password.expose().to_owned()),
        tls_ca: redis.tls_ca.clone(),
        tls_cert,
        tls_key,
    });
    bus::Settings {
        prefix: redis.prefix.clone(),
        node: config.node.name.clone(),
        areas: areas.clone(),
        log_length: config.log.length,
        log_ttl: config.log.ttl,
        event_bytes: config.limits.event_bytes,
        probe_interval: config.probe.interval,
        redis: target,
    }
}

pub(super) fn relay(config: &Config) -> relay::Settings {
    relay::Settings {
        log_length: config.log.length,
        log_ttl: config.log.ttl,
        refetches_per_second: config.resync.refetches_per_second.into(),
        linger: LINGER,
    }
}

pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        sessions: config.limits.sessions,
        per_editor: config.limits.sessions_per_editor,
        per_address: config.limits.sessions_per_address,
        per_second: config.limits.accepts_per_second,
    }
}

pub(super) fn terms(config: &Config, areas: &Areas, sharded: bool) -> Terms {
    Terms {
        node: config.node.name.clone(),
        areas: areas.clone(),
        heartbeat: config.heartbeat.interval.as_secs(),
        topics: config.limits.topics_per_session,
        messages_per_second: config.limits.messages_per_second,
        subscriptions_per_second: config.limits.subscriptions_per_second,
        sharded,
    }
}

pub(super) fn public(config: &Config) -> http::Settings {
    http::Settings {
        base_path: config.http.base_path.clone(),
        origins: http::Origins {
            allowed: config.http.allowed_origins.clone(),
            trusted: config.http.trusted_proxies.clone(),
        },
        cookie: config.auth.cookie.clone(),
        websocket: config.transports.websocket,
        sse: config.transports.sse,
        poll: config.transports.poll,
    }
}
