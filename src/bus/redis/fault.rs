//! What went wrong between us and Redis, sorted by what to do about it.

use fred::prelude::{Error, ErrorKind};

use crate::bus::BusError;

/// Why a command did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// No answer, or one that says "later".
    Away(String),
    /// Answered by a replica: there is another master now.
    Replica(String),
    /// The library is gone (an empty restart, `FUNCTION FLUSH`).
    NoFunction,
    /// Redis accepts no writes for now (`OOM`, `NOREPLICAS`, `MISCONF`).
    NoWrites(String),
    /// Missing rights, a key of another type, and the like.
    Refused(String),
    /// The function's own verdict on an event or a topic.
    Event(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = describe(&error);
        if is_trouble(&error) {
            return Self::Away(text);
        }
        let (code, rest) = text.split_once(' ').unwrap_or((&text, ""));
        match code {
            "EVENT" | "TOPIC" => Self::Event(rest.to_owned()),
            "OOM" | "NOREPLICAS" | "MISCONF" => Self::NoWrites(text),
            "READONLY" => Self::Replica(text),
            "LOADING" | "MASTERDOWN" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "MOVED" | "ASK" => {
                Self::Away(text)
            }
            "ERR" if rest.starts_with("Function not found") => Self::NoFunction,
            _ => Self::Refused(text),
        }
    }
}

impl Fault {
    /// In words, for logs and reasons.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::NoFunction => "the function library is not loaded",
            Self::Away(text)
            | Self::Replica(text)
            | Self::NoWrites(text)
            | Self::Refused(text)
            | Self::Event(text) => text,
        }
    }
}

impl From<Fault> for BusError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Away(text) | Fault::Replica(text) => Self::Away(text),
            Fault::NoFunction => Self::Refused(fault.text().into()),
            Fault::NoWrites(text) | Fault::Refused(text) => Self::Refused(text),
            Fault::Event(text) => Self::Event(text),
        }
    }
}

/// Why a link cannot be built.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// It may work later.
    Transient(String),
    /// An operator must mend it. A sentence that says what to do.
    Permanent(String),
}

impl ConnectError {
    /// Sorts an error that came while connecting to `place`.
    pub(super) fn connecting(error: &Error, place: &str) -> Self {
        let text = describe(error);
        let code = text.split(' ').next().unwrap_or_default();
        match code {
            "WRONGPASS" => Self::Permanent(format!(
                "Redis at {place} does not accept the user name or password: correct redis.username and redis.password"
            )),
            "NOAUTH" => Self::Permanent(format!(
                "Redis at {place} wants a password: set redis.password (and redis.username for an ACL user)"
            )),
            // HELLO came with Redis 6.
            "ERR" if text.contains("unknown command") && text.contains("HELLO") => {
                Self::Permanent(too_old(place, "older than 6, or hides HELLO"))
            }
            "ERR" if text.contains("unknown command") => Self::missing_command(&text, place),
            "ERR" if text.contains("max number of clients") => Self::Transient(
                "it has no connection left (maxclients): raise maxclients in redis.conf, or close connections that nobody needs"
                    .into(),
            ),
            "ERR" if text.contains("DB index") => Self::Permanent(format!(
                "Redis at {place} has no database of that number: correct the one at the end of redis.url, or raise databases \
                 in redis.conf"
            )),
            "ERR" if text.contains("cluster support disabled") => {
                Self::Permanent(format!("Redis at {place} is not a cluster: write redis://… in redis.url"))
            }
            "NOPERM" => Self::missing_right(&text, place),
            _ => Self::Transient(text),
        }
    }

    /// In words.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Transient(text) | Self::Permanent(text) => text,
        }
    }

    /// Sorts what a command was answered during the first exchange.
    pub(super) fn answered(fault: Fault, place: &str) -> Self {
        match fault {
            Fault::Refused(text) if text.starts_with("NOPERM") => Self::missing_right(&text, place),
            Fault::Refused(text) if text.contains("unknown command") => Self::missing_command(&text, place),
            Fault::Refused(text) if text.contains("called from script") || text.contains("from scripts") => {
                Self::Permanent(format!(
                    "Redis at {place} does not let functions use a command that Carillon's need ({text}): choose a service or a \
                     plan that does"
                ))
            }
            fault => Self::Transient(fault.text().into()),
        }
    }

    fn missing_right(text: &str, place: &str) -> Self {
        let said = text.strip_prefix("NOPERM").unwrap_or(text).trim();
        let command = said.split('\'').nth(1).map_or(String::new(), |command| format!(" +{command}"));
        Self::Permanent(format!(
            "Redis at {place} refuses this node a right that it needs ({said}): allow it with ACL SETUSER <user>{command}; \
             all that a node needs is printed by: carillon redis-function --acl"
        ))
    }

    /// `rights`: what is missing, as `ACL SETUSER` takes it.
    pub(super) fn missing_rights(rights: &str, place: &str) -> Self {
        Self::Permanent(format!(
            "Redis at {place} refuses this node rights that it needs: allow them with ACL SETUSER <user> {rights}; all that \
             a node needs is printed by: carillon redis-function --acl"
        ))
    }

    /// The server knows no such command: a service that leaves it out, or `rename-command`.
    pub(super) fn missing_command(text: &str, place: &str) -> Self {
        let command = text.split('\'').nth(1).unwrap_or("?").to_uppercase();
        Self::Permanent(format!(
            "Redis at {place} has no command {command}, without which Carillon cannot keep its promise: choose a service or a \
             plan that has it, or take rename-command out of redis.conf"
        ))
    }
}

/// A sentence about a server that is too old.
pub(super) fn too_old(place: &str, version: &str) -> String {
    format!("Redis at {place} is {version}: Carillon needs Redis 7.0 or later, or Valkey, for its functions")
}

/// Whether the error comes from the connection and not from Redis.
pub(super) fn is_trouble(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Unknown
            | ErrorKind::InvalidArgument
            | ErrorKind::InvalidCommand
            | ErrorKind::Auth
            | ErrorKind::NotFound
            | ErrorKind::Parse
            | ErrorKind::Cluster
    )
}

/// An error of fred in words for operators.
pub(super) fn describe(error: &Error) -> String {
    match error.kind() {
        ErrorKind::Timeout => "Redis did not answer in time".into(),
        ErrorKind::Canceled => "the connection was closed".into(),
        _ => in_words(error.details().trim()),
    }
}

/// What fred took over from the system or from TLS, as Rust writes it for programmers.
fn in_words(text: &str) -> String {
    let message = |text: &str| Some(text.split_once("message: \"")?.1.split_once('"')?.0.to_owned());
    if text.starts_with("Os { ") {
        return message(text).unwrap_or_else(|| text.to_owned());
    }
    if text.contains("failed to lookup address information") || text.contains("No address associated") {
        return "its name cannot be resolved: correct the host in redis.url, or this machine's DNS".into();
    }
    let certificate = [
        (
            "NotValidForName",
            "its certificate is made for another name: write that name in redis.url, or in redis.tls_server_name",
        ),
        (
            "not valid for name",
            "its certificate is made for another name: write that name in redis.url, or in redis.tls_server_name",
        ),
        (
            "UnknownIssuer",
            "its certificate is signed by an authority that is not trusted: name it in redis.tls_ca",
        ),
        ("Expired", "its certificate has expired"),
        ("NotValidYet", "its certificate is not valid yet: look at the clocks"),
        ("CaUsedAsEndEntity", "its certificate is an authority's own: give the server one of its own"),
        ("BadSignature", "its certificate is not signed by the authority in redis.tls_ca"),
        ("CertificateRequired", "it wants a client certificate: set redis.tls_cert and redis.tls_key"),
        ("InvalidContentType", "it does not speak TLS: write redis:// instead of rediss://"),
    ];
    let known = certificate.iter().find(|(sign, _)| text.contains(sign));
    known.map_or_else(|| text.to_owned(), |(_, words)| (*words).to_owned())
}
