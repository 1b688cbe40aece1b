//! From the configuration to the plain settings of each room.

use std::{sync::Arc, time::Duration};

use crate::{
    auth::{self, Authenticator, token::NewToken},
    bus,
    config::{AuthMode, Config, ConfigError, KeySource, Secret},
    http::{self, demo::Minted},
    metrics,
    protocol::{Areas, Problem, ProblemCode, Revocations},
    relay,
    session::{Budgets, Limits, SessionPolicy},
    shutdown::Tasks,
    telemetry::traces::Traces,
};

/// How long a topic stays subscribed after its last follower left: long enough for a page that is reloaded.
const LINGER: Duration = Duration::from_secs(30);

/// The areas, and how editors are named in the private ones.
pub fn areas(config: &Config) -> Result<Areas, ConfigError> {
    let own = &config.areas;
    let areas = Areas::new(own.names.iter(), own.private.iter(), own.recorded_only.iter());
    let areas =
        areas.map_err(|error| config.complaint("areas.names", format_args!("cannot be used: {error}")))?;
    Ok(areas.with_naming(auth::naming(&config.auth)))
}

/// Who decides who may connect. Fails where nobody has decided how, and where a key or a topic cannot be used.
pub fn authenticator(config: &Config, areas: &Areas) -> Result<Authenticator, ConfigError> {
    let judge = Authenticator::new(config.auth_mode()?, &config.auth, areas);
    judge.map_err(|wrong| config.complaint(wrong.key, wrong.what))
}

/// What the bus is told.
pub fn bus(config: &Config, areas: &Areas) -> bus::Settings {
    let redis = &config.redis;
    let (tls_cert, tls_key) = redis.tls_client.clone().unzip();
    let target = redis.url.as_ref().map(|url| bus::redis::Target {
        url: url.expose().to_owned(),
        username: redis.username.clone(),
        password: redis.password.as_ref().map(|password| password.expose().to_owned()),
        password_file: redis.password_file.clone(),
        sentinel_username: redis.sentinel_username.clone(),
        sentinel_password: redis.sentinel_password.as_ref().map(|password| password.expose().to_owned()),
        sentinel_password_file: redis.sentinel_password_file.clone(),
        tls_server_name: redis.tls_server_name.clone(),
        tls_ca: redis.tls_ca.clone(),
        tls_cert,
        tls_key,
        seal: redis.node_secret.as_ref().map_or_else(bus::redis::Seal::none, |secret| {
            let previous = redis.previous_node_secret.as_ref().map(Secret::expose);
            bus::redis::Seal::new(&redis.prefix, secret.expose(), previous, redis.node_secret_required)
        }),
    });
    bus::Settings {
        prefix: redis.prefix.clone(),
        node: config.node.name.clone(),
        areas: areas.clone(),
        log_length: config.log.length,
        log_ttl: config.log.ttl,
        event_bytes: config.limits.event_bytes,
        probe_interval: config.probe.interval,
        revocations: Revocations::new(config.auth.max_token, areas.naming()),
        generation: config.settings.generation,
        adopted: bus::Adopted::default(),
        redis: target,
    }
}

/// What the relay is told.
pub fn relay(config: &Config, revocations: Revocations, traces: Traces) -> relay::Settings {
    relay::Settings {
        log_length: config.log.length,
        log_ttl: config.log.ttl,
        refetches_per_second: config.resync.refetches_per_second.into(),
        linger: LINGER,
        forget_sources: config.sources.forget,
        revocations,
        traces,
    }
}

/// Whether this build can send traces where the configuration wants them.
pub fn check_traces(config: &Config) -> Result<(), ConfigError> {
    let wrong = |what| config.complaint("telemetry.otlp_endpoint", what);
    let check = |endpoint| Traces::check(endpoint).map_err(wrong);
    config.telemetry.otlp_endpoint.as_ref().map_or(Ok(()), check)
}

pub(crate) fn traces(config: &Config, tasks: &Tasks) -> Result<Traces, String> {
    let start = |endpoint| Traces::start(endpoint, &config.node.name, tasks);
    config.telemetry.otlp_endpoint.as_ref().map_or_else(|| Ok(Traces::off()), start)
}

pub(crate) fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    let strangers = limits.strangers_per_second;
    Limits {
        sessions: limits.sessions,
        per_address: limits.sessions_per_address,
        per_second: limits.accepts_per_second,
        strangers_per_second: if strangers == 0 { limits.accepts_per_second } else { strangers },
        editor: Budgets {
            sessions: limits.sessions_per_editor,
            requests_per_second: limits.editor_requests_per_second,
            topics_per_second: limits.editor_topics_per_second,
            topics_per_hour: limits.editor_topics_per_hour,
        },
        by_address: matches!(config.auth.mode, Some(AuthMode::None)),
    }
}

/// File descriptors that a node needs besides those of its connections.
const OWN_FILES: usize = 64;

pub(crate) fn connections(config: &Config) -> Arc<http::Connections> {
    let limits = &config.limits;
    let connections = if limits.connections > 0 { limits.connections } else { limits.sessions * 2 };
    // Below the limit of files, so that newcomers can be told no and everything else goes on.
    let files = metrics::process::file_limit().map(|files| files.saturating_sub(OWN_FILES).max(1));
    http::Connections::new(
        files.map_or(connections, |files| connections.min(files)),
        limits.connections_per_address,
    )
}

pub(crate) fn policy(config: &Config, areas: &Areas, sharded: bool) -> SessionPolicy {
    SessionPolicy {
        node: config.node.name.clone(),
        areas: areas.clone(),
        heartbeat: config.heartbeat.interval.as_secs(),
        topics: config.limits.topics_per_session,
        messages_per_second: config.limits.messages_per_second,
        subscriptions_per_second: config.limits.subscriptions_per_second,
        sharded,
    }
}

pub(crate) fn public(config: &Config) -> http::Settings {
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

/// The demo, where it is switched on.
pub fn demo(config: &Config, areas: &Areas, bus: &bus::Bus) -> Option<http::demo::Settings> {
    config.demo.enabled.then(|| http::demo::Settings {
        bus: bus.clone(),
        areas: areas.clone(),
        event_bytes: config.limits.event_bytes,
        node: config.node.name.clone(),
        base_path: config.http.base_path.clone(),
        origins: http::Origins { allowed: Vec::new(), trusted: config.http.trusted_proxies.clone() },
        mint: mint(config),
    })
}

/// How the demo's editors get their tokens.
fn mint(config: &Config) -> http::demo::Mint {
    let signing = match &config.auth.mode {
        Some(AuthMode::Jwt(jwt)) => match &jwt.keys {
            KeySource::Secret { current, .. } => Some((jwt.clone(), current.clone())),
            _ => None,
        },
        _ => None,
    };
    let open = matches!(config.auth.mode, Some(AuthMode::None));
    Arc::new(move |editor, ttl| {
        if open {
            return Ok(Minted { token: None, expires_in: None, sub: "anonymous".into() });
        }
        let detail =
            "This node has no secret to sign with: the demo needs auth.secret, or auth.mode = \"none\".";
        let missing = || Problem::new(404, ProblemCode::NoTokens, "No tokens here", detail);
        let (jwt, secret) = signing.as_ref().ok_or_else(missing)?;
        let token = NewToken {
            sub: editor.to_owned(),
            ttl: Duration::from_secs(ttl),
            topics: Some(["comments:*", "project-items:*", "projects", "content:*"].map(Into::into).to_vec()),
            ..NewToken::default()
        };
        let token = token.sign_for(jwt, secret).map_err(|_| missing())?;
        Ok(Minted { token: Some(token), expires_in: Some(ttl), sub: editor.to_owned() })
    })
}
