//! The checked values of every room but `auth` and the two doors, and how each is read.
//!
//! The bounds here are the allowed values that messages name; `default.toml` explains the keys.

use std::{path::PathBuf, time::Duration};

use super::{
    auth::{shared, url},
    reader::ValueReader,
    secret::{Secret, shown_url},
};

/// `[node]`
#[derive(Debug, Clone)]
pub struct Node {
    /// Unique among the nodes on one Redis.
    pub name: String,
}

impl Node {
    pub(super) fn read(reader: &mut ValueReader) -> Self {
        let allowed = |text: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            ((1..=64).contains(&text.len()) && text.chars().all(fits)).then(|| text.to_owned())
        };
        let name = reader.parsed("node.name", "1 to 64 of A-Z a-z 0-9 . _ -", allowed);
        Self { name: name.unwrap_or_else(Self::invent) }
    }

    fn invent() -> String {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host
            .trim()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
            .take(50)
            .collect();
        let host = if host.is_empty() { "node" } else { &host };
        format!("{host}-{:06x}", rand::random::<u32>() >> 8)
    }
}

/// `[redis]`
#[derive(Debug, Clone)]
pub struct Redis {
    /// Where Redis is; may hold a password. `None`: the in-memory bus.
    pub url: Option<Secret>,
    /// ACL user; wins over the one in the URL.
    pub username: Option<String>,
    /// ACL password; wins over the one in the URL.
    pub password: Option<Secret>,
    /// Authority of the server's certificate, PEM; `None`: the system's.
    pub tls_ca: Option<PathBuf>,
    /// The name in the servers' certificates, where they are reached by another.
    pub tls_server_name: Option<String>,
    /// ACL user at the sentinels.
    pub sentinel_username: Option<String>,
    /// Password of the sentinels.
    pub sentinel_password: Option<Secret>,
    /// The file that `password` was read from; it is read again whenever the link is built.
    pub password_file: Option<PathBuf>,
    /// The same of `sentinel_password`.
    pub sentinel_password_file: Option<PathBuf>,
    /// Client certificate and key, PEM.
    pub tls_client: Option<(PathBuf, PathBuf)>,
    /// Start of every key and channel.
    pub prefix: String,
    /// What nodes sign with what they tell each other.
    pub node_secret: Option<Secret>,
    /// Another whose signatures count, while the secret is being replaced.
    pub previous_node_secret: Option<Secret>,
    /// Whether what is not signed is refused.
    pub node_secret_required: bool,
}

impl Redis {
    pub(super) fn read(reader: &mut ValueReader) -> Self {
        let url = reader.text("redis.url");
        let scheme = url.as_deref().map(|url| url.split_once("://").map_or("", |(scheme, _)| scheme));
        let base =
            scheme.map(|scheme| scheme.split_once('-').map_or((scheme, ""), |(base, kind)| (base, kind)));
        if let Some((base, kind)) = base
            && !(matches!(base, "redis" | "rediss") && matches!(kind, "" | "sentinel" | "cluster"))
        {
            reader.complain(
                "redis.url",
                "must start with redis://, rediss://, redis-sentinel:// or redis-cluster://",
            );
        }
        let prefix = |text: &str| {
            let mut bytes = text.bytes();
            let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
            let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            (first && rest && text.len() <= 32).then(|| text.to_owned())
        };
        let (node_secret, previous_node_secret) =
            (shared(reader, "redis.node_secret"), shared(reader, "redis.previous_node_secret"));
        let node_secret_required = reader.flag("redis.node_secret_required");
        for (key, is_set) in [
            ("redis.previous_node_secret", previous_node_secret.is_some()),
            ("redis.node_secret_required", node_secret_required),
        ] {
            if is_set && node_secret.is_none() {
                reader.complain(key, "needs redis.node_secret (or redis.node_secret_file)");
            }
        }
        Self {
            url: url.map(Secret::new),
            username: reader.text("redis.username"),
            password: reader.secret("redis.password"),
            password_file: reader.text("redis.password_file").map(PathBuf::from),
            sentinel_username: reader.text("redis.sentinel_username"),
            sentinel_password: reader.secret("redis.sentinel_password"),
            sentinel_password_file: reader.text("redis.sentinel_password_file").map(PathBuf::from),
            tls_server_name: reader.text("redis.tls_server_name"),
            tls_ca: reader.file("redis.tls_ca"),
            tls_client: reader.file_pair("redis.tls_cert", "redis.tls_key"),
            prefix: reader
                .parsed("redis.prefix", "a lower-case letter followed by up to 31 of a-z, 0-9 and _", prefix)
                .unwrap_or_else(|| "carillon".into()),
            node_secret,
            previous_node_secret,
            node_secret_required,
        }
    }

    /// The URL without passwords.
    pub fn shown_url(&self) -> Option<String> {
        self.url.as_ref().map(|url| shown_url(url.expose()))
    }
}

/// `[areas]`
#[derive(Debug, Clone)]
pub struct Areas {
    /// Every area.
    pub names: Vec<String>,
    /// Areas whose keys are editors' names.
    pub private: Vec<String>,
    /// Areas in which a bare `PUBLISH` is refused.
    pub recorded_only: Vec<String>,
}

impl Areas {
    pub(super) fn read(reader: &mut ValueReader) -> Self {
        let area = |text: &str| {
            let mut bytes = text.bytes();
            let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
            let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            (first && rest && text.len() <= 32).then(|| text.to_owned())
        };
        let allowed = "an area: a lower-case letter followed by up to 31 of a-z, 0-9 and -";
        let names = reader.parsed_list("areas.names", allowed, area);
        if names.is_empty() && reader.list("areas.names").is_empty() {
            reader.complain("areas.names", "is empty: it must name at least one area");
        }
        // The log of a topic of this name would take the place of what publishers write there.
        if names.iter().any(|name| name == "sources") {
            let what = "names an area \"sources\": publishers that vouch for themselves are kept in Redis under that name. Choose another";
            reader.complain("areas.names", what);
        }
        let listed = format!("one of areas.names ({})", names.join(", "));
        let known = |text: &str| names.iter().find(|name| *name == text).cloned();
        let private = if reader.is_default("areas.private") {
            // Whoever names other areas need not say that none of them is the private one of the defaults.
            reader.list("areas.private").into_iter().filter(|name| names.contains(name)).collect()
        } else {
            reader.parsed_list("areas.private", &listed, known)
        };
        let recorded_only = reader.parsed_list("areas.recorded_only", &listed, known);
        Self { names, private, recorded_only }
    }
}

/// `[websocket]`, `[sse]`, `[poll]`
#[derive(Debug, Clone, Copy)]
pub struct Transports {
    /// WebSocket.
    pub websocket: bool,
    /// Server-sent events.
    pub sse: bool,
    /// Long-poll.
    pub poll: bool,
}

impl Transports {
    pub(super) fn read(reader: &mut ValueReader) -> Self {
        // All three may be off: pages then say that they have to be refreshed by hand, and open nothing.
        Self {
            websocket: reader.flag("websocket.enabled"),
            sse: reader.flag("sse.enabled"),
            poll: reader.flag("poll.enabled"),
        }
    }
}

macro_rules! room {
    ($(#[$about:meta])+ $name:ident { $($(#[$doc:meta])+ $field:ident: $kind:ty = $read:ident($key:literal, $range:expr),)+ }) => {
        $(#[$about])+
        #[derive(Debug, Clone, Copy)]
        pub struct $name { $($(#[$doc])+ pub $field: $kind,)+ }

        impl $name {
            pub(super) fn read(reader: &mut ValueReader) -> Self {
                // The ranges keep every number within its type.
                Self { $($field: reader.$read($key, $range).try_into().unwrap_or_default(),)+ }
            }
        }
    };
}

room! {
    /// `[heartbeat]`
    Heartbeat {
        /// Silence after which a client is sent a Ping; after twice as much it is closed.
        interval: Duration = seconds("heartbeat.seconds", 1..=300),
    }
}

room! {
    /// `[log]`
    Log {
        /// Events that a log keeps at least.
        length: usize = number("log.length", 1..=1_000_000),
        /// How long a log lives after its last event or follower.
        ttl: Duration = seconds("log.ttl_seconds", 1..=31_536_000),
    }
}

room! {
    /// `[settings]`
    Settings {
        /// Which settings count for all nodes where they differ: those of the higher one.
        generation: u64 = number("settings.generation", 0..=1_000_000_000),
    }
}

room! {
    /// `[resync]`
    Resync {
        /// Refetches that the CMS can take in a second.
        refetches_per_second: u32 = number("resync.refetches_per_second", 1..=1_000_000),
    }
}

room! {
    /// `[limits]`
    Limits {
        /// Sessions of this node.
        sessions: usize = number("limits.sessions", 1..=10_000_000),
        /// Connections of the public listener; 0: twice `sessions`. Never more than the limit of files allows.
        connections: usize = number("limits.connections", 0..=20_000_000),
        /// Connections of one address; 0: no limit.
        connections_per_address: usize = number("limits.connections_per_address", 0..=20_000_000),
        /// Sessions of one editor on this node; 0: no limit.
        sessions_per_editor: usize = number("limits.sessions_per_editor", 0..=10_000_000),
        /// Sessions of one client address on this node; 0: no limit.
        sessions_per_address: usize = number("limits.sessions_per_address", 0..=10_000_000),
        /// Topics that one session may follow.
        topics_per_session: usize = number("limits.topics_per_session", 1..=10_000),
        /// Bytes of one event.
        event_bytes: usize = number("limits.event_bytes", 256..=65_536),
        /// Bytes of one message from a client.
        message_bytes: usize = number("limits.message_bytes", 1_024..=1_048_576),
        /// Bytes that may wait for one session.
        outbox_bytes: usize = number("limits.outbox_bytes", 4_096..=67_108_864),
        /// New sessions in a second.
        accepts_per_second: u32 = number("limits.accepts_per_second", 1..=1_000_000),
        /// Handshakes in a second of those who have not proven who they are, and refusals; 0: as `accepts_per_second`.
        strangers_per_second: u32 = number("limits.strangers_per_second", 0..=1_000_000),
        /// Sessions, polls and tokens of one editor that begin in a second; 0: no limit.
        editor_requests_per_second: u32 = number("limits.editor_requests_per_second", 0..=1_000_000),
        /// Topics of one editor in a second that they did not follow in this hour; 0: no limit.
        editor_topics_per_second: u32 = number("limits.editor_topics_per_second", 0..=1_000_000),
        /// Different topics of one editor in an hour; 0: no limit.
        editor_topics_per_hour: usize = number("limits.editor_topics_per_hour", 0..=10_000_000),
        /// Messages of one session in a second.
        messages_per_second: u32 = number("limits.messages_per_second", 1..=100_000),
        /// Topics that one session subscribes to or leaves in a second.
        subscriptions_per_second: u32 = number("limits.subscriptions_per_second", 1..=100_000),
        /// Time that a client has for the headers of its request.
        header_time: Duration = seconds("limits.header_seconds", 1..=300),
    }
}

room! {
    /// `[drain]`
    Drain {
        /// Time over which sessions are closed.
        window: Duration = seconds("drain.window_seconds", 0..=3_600),
        /// Time for the rest after that.
        grace: Duration = seconds("drain.grace_seconds", 0..=3_600),
    }
}

room! {
    /// `[probe]`
    Probe {
        /// Time between probes.
        interval: Duration = seconds("probe.seconds", 1..=10),
    }
}

room! {
    /// `[sources]`
    Sources {
        /// How long a source that fell silent is late before it is forgotten.
        forget: Duration = seconds("sources.forget_seconds", 1..=86_400),
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the usual five")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How a line of log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For log collectors.
    Json,
}

/// `[telemetry]`
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// How much is logged.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// The OpenTelemetry collector that traces go to; `None`: no traces.
    pub otlp_endpoint: Option<Secret>,
    /// How often the node sends itself an event; `None`: never.
    pub canary: Option<Duration>,
}

impl Telemetry {
    pub(super) fn read(reader: &mut ValueReader) -> Self {
        use LogLevel::{Debug, Error, Info, Trace, Warn};
        let levels = [("error", Error), ("warn", Warn), ("info", Info), ("debug", Debug), ("trace", Trace)];
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Self {
            level: reader.choice("telemetry.level", &levels).unwrap_or(Info),
            format: reader.choice("telemetry.format", &formats).unwrap_or(LogFormat::Text),
            otlp_endpoint: url(reader, "telemetry.otlp_endpoint"),
            canary: Some(reader.seconds("telemetry.canary_seconds", 0..=60)).filter(|every| !every.is_zero()),
        }
    }
}

/// `[demo]`
#[derive(Debug, Clone, Copy)]
pub struct Demo {
    /// Whether the demo is served and its tokens are handed out.
    pub enabled: bool,
}

impl Demo {
    pub(super) fn read(reader: &mut ValueReader) -> Self {
        Self { enabled: reader.flag("demo.enabled") }
    }
}
