//! Where Redis is and how to get in: what `redis.*` of the configuration says.
//!
//! The password leaves this module only towards the client.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use fred::types::{
    RespVersion,
    config::{Config, Server, ServerConfig, TlsConfig, TlsConnector},
};
use percent_encoding::percent_decode_str;

use super::{seal::Seal, tls};
use crate::{bus::StartError, config::secret_file};

/// Where Redis is and who we are there.
#[derive(Clone, Default)]
pub struct Target {
    /// `redis://host:port/db`, `rediss://…` (TLS), `redis-sentinel://host:port,host:port/service`,
    /// `redis-cluster://host:port,host:port`. `rediss-sentinel` and `rediss-cluster` are the same over TLS. User and
    /// password may stand in it, percent-encoded.
    pub url: String,
    /// ACL user; `default` where there is only a password. Goes before the one in the URL.
    pub username: Option<String>,
    /// Password. Goes before the one in the URL. Never printed.
    pub password: Option<String>,
    /// PEM file with the authorities that are trusted; without it those of the system.
    pub tls_ca: Option<PathBuf>,
    /// PEM file with our certificate, where Redis wants one.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the key of `tls_cert`.
    pub tls_key: Option<PathBuf>,
    /// The name in the servers' certificates, where they are reached by other names or addresses.
    pub tls_server_name: Option<String>,
    /// File that `password` was read from. Read again with every new link, so that a password can be rotated.
    pub password_file: Option<PathBuf>,
    /// The same of `sentinel_password`.
    pub sentinel_password_file: Option<PathBuf>,
    /// ACL user at the sentinels.
    pub sentinel_username: Option<String>,
    /// Password of the sentinels; not set: none, or the one of Redis where they want one. Never printed.
    pub sentinel_password: Option<String>,
    /// How nodes know each other's words there.
    pub seal: Seal,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("url", &self.shown()).finish_non_exhaustive()
    }
}

/// What a URL says, besides who we are.
#[derive(Debug, PartialEq)]
struct UrlParts<'a> {
    kind: Topology,
    tls: bool,
    user: &'a str,
    hosts: Vec<(String, u16)>,
    path: &'a str,
}

/// How Redis is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topology {
    /// One server.
    Single,
    /// Sentinels say which server it is.
    Sentinel,
    /// Masters that share the slots.
    Cluster,
}

/// Who we are somewhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct RedisCredentials {
    /// ACL user.
    pub(super) username: Option<String>,
    /// Never printed.
    pub(super) password: Option<String>,
}

impl RedisCredentials {
    /// What goes with AUTH; `None` for who is let in without.
    pub(super) fn auth_args(&self) -> Option<Vec<String>> {
        Some(self.username.iter().cloned().chain([self.password()?]).collect())
    }

    /// A user without a password is let in with any, if at all.
    fn password(&self) -> Option<String> {
        self.password.clone().or_else(|| self.username.as_ref().map(|_| String::new()))
    }
}

/// How to get in, made from a [`Target`].
#[derive(Clone)]
pub(super) struct Access {
    /// How Redis is set up.
    pub(super) kind: Topology,
    /// Where to begin: servers, or sentinels.
    pub(super) hosts: Vec<Server>,
    /// What sentinels call the master.
    pub(super) service: String,
    /// The target without secrets, for messages.
    pub(super) place: String,
    /// Who we are in Redis.
    pub(super) redis: RedisCredentials,
    /// Who we are at sentinels, where that is said.
    pub(super) sentinel: Option<RedisCredentials>,
    tls: Option<TlsConfig>,
    tls_server_name: Option<String>,
    database: Option<u8>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Access {
    /// Whether connections are made over TLS.
    pub(super) fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// How TLS is spoken with a server, and the name in its certificate; `None` where it is not.
    pub(super) fn connector(&self, server: &Server) -> Option<(&TlsConnector, String)> {
        let name =
            self.tls_server_name.clone().or_else(|| server.tls_server_name.as_ref().map(ToString::to_string));
        Some((&self.tls.as_ref()?.connector, name.unwrap_or_else(|| server.host.to_string())))
    }

    /// The client's configuration for a server, with its database where it is no sentinel.
    ///
    /// RESP2 to begin with: then the password goes as an argument of AUTH, whatever is in it.
    pub(super) fn config(&self, server: &Server, who: &RedisCredentials, sentinel: bool) -> Config {
        let mut server = server.clone();
        if let Some(name) = &self.tls_server_name {
            server.tls_server_name = Some(name.as_str().into());
        }
        let password = who.password();
        // Without a password, fred greets a server in RESP2 by a ping, which one that cannot save refuses. With one it must not say
        // HELLO itself (`RedisSocket`).
        let greets = password.is_none() && !sentinel;
        Config {
            username: who.username.clone(),
            password,
            tls: self.tls.clone(),
            version: if greets { RespVersion::RESP3 } else { RespVersion::RESP2 },
            server: ServerConfig::Centralized { server },
            database: self.database.filter(|_| !sentinel),
            ..Config::default()
        }
    }
}

impl Target {
    /// The URL without user and password, for messages.
    pub fn shown(&self) -> String {
        let Some((scheme, rest)) = self.url.split_once("://") else { return "redis".into() };
        // The last @, because a password may hold one, or a slash.
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        format!("{scheme}://{place}")
    }

    /// Whether the settings or the URL name the ACL user; otherwise it is `default`.
    pub fn names_user(&self) -> bool {
        let by_url =
            || self.place().is_ok_and(|place| !place.user.split_once(':').unwrap_or_default().0.is_empty());
        self.username.is_some() || by_url()
    }

    /// Whether this is a cluster, with sharded pub/sub.
    pub fn is_sharded(&self) -> bool {
        self.url.starts_with("redis-cluster:") || self.url.starts_with("rediss-cluster:")
    }

    /// Whether the URL (and the TLS files) can be read.
    pub fn check(&self) -> Result<(), StartError> {
        self.access().map(drop)
    }

    /// How to get in. Reads the files: TLS, passwords.
    pub(super) fn access(&self) -> Result<Access, StartError> {
        let place = self.place().map_err(|problem| {
            let shown = self.shown();
            StartError(format!(
                "redis.url {shown:?} cannot be used: {problem}. Write redis://host:port, rediss://host:port, \
                 redis-sentinel://host:port,host:port/service or redis-cluster://host:port,host:port"
            ))
        })?;
        let (url_user, url_password) = match place.user.split_once(':') {
            Some((user, password)) => (decoded(user), decoded(password)),
            None => (None, decoded(place.user)),
        };
        let database = match (place.kind, place.path) {
            (Topology::Single | Topology::Cluster, "")
            | (Topology::Sentinel, _)
            | (Topology::Cluster, "0") => None,
            (Topology::Cluster, path) => {
                let text =
                    format!("redis.url names the database {path:?}, and a cluster has only 0: take it away");
                return Err(StartError(text));
            }
            (Topology::Single, path) => Some(path.parse::<u8>().map_err(|_| {
                StartError(format!(
                    "redis.url names the database {path:?}: it must be a number from 0 to 255"
                ))
            })?),
        };
        let own = RedisCredentials {
            username: self.sentinel_username.clone(),
            password: secret(
                self.sentinel_password.as_ref(),
                self.sentinel_password_file.as_deref(),
                "redis.sentinel_password_file",
            )?,
        };
        let password = secret(self.password.as_ref(), self.password_file.as_deref(), "redis.password_file")?;
        Ok(Access {
            kind: place.kind,
            hosts: place.hosts.into_iter().map(server).collect(),
            service: place.path.into(),
            place: self.shown(),
            redis: RedisCredentials {
                username: self.username.clone().or(url_user),
                password: password.or(url_password),
            },
            sentinel: (own != RedisCredentials::default()).then_some(own),
            tls: if place.tls || self.tls_ca.is_some() { Some(self.connector()?.into()) } else { None },
            tls_server_name: self.tls_server_name.clone(),
            database,
        })
    }

    fn connector(&self) -> Result<TlsConnector, StartError> {
        tls::connector(self.tls_ca.as_deref(), self.tls_cert.as_deref(), self.tls_key.as_deref())
    }

    fn place(&self) -> Result<UrlParts<'_>, String> {
        let (scheme, rest) = self.url.split_once("://").ok_or("it has no ://")?;
        let (kind, tls) = match scheme {
            "redis" => (Topology::Single, false),
            "rediss" => (Topology::Single, true),
            "redis-sentinel" => (Topology::Sentinel, false),
            "rediss-sentinel" => (Topology::Sentinel, true),
            "redis-cluster" => (Topology::Cluster, false),
            "rediss-cluster" => (Topology::Cluster, true),
            other => return Err(format!("the scheme {other:?} is unknown")),
        };
        let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let default_port = if kind == Topology::Sentinel { 26379 } else { 6379 };
        let hosts =
            hosts.split(',').map(|host| host_port(host, default_port)).collect::<Result<Vec<_>, _>>()?;
        if kind == Topology::Single && hosts.len() > 1 {
            return Err("it names several hosts".into());
        }
        if kind == Topology::Sentinel && path.is_empty() {
            return Err("the name of the service is missing at its end".into());
        }
        Ok(UrlParts { kind, tls, user, hosts, path: path.trim_end_matches('/') })
    }
}

/// A server as it is written in the URL: its name is the one in its certificate.
fn server((host, port): (String, u16)) -> Server {
    let tls_server_name = host.parse::<std::net::IpAddr>().is_err().then(|| host.as_str().into());
    Server { tls_server_name, ..Server::new(host, port) }
}

/// What the file has now; what was given, where there is no file.
fn secret(given: Option<&String>, file: Option<&Path>, key: &str) -> Result<Option<String>, StartError> {
    let Some(path) = file else { return Ok(given.cloned()) };
    let read = secret_file(path);
    read.map(Some).map_err(|problem| StartError(format!("{key} is {}: {problem}", path.display())))
}

fn decoded(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| percent_decode_str(text).decode_utf8_lossy().into_owned())
}

/// `host`, `host:port` or `[v6]:port`.
fn host_port(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err("it names no host".into());
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| format!("{port:?} is not a port"))?,
        None => default_port,
    };
    Ok((host.into(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target { url: url.into(), ..Target::default() }
    }

    #[test]
    fn every_kind_of_url_is_read() {
        let access = target("redis://anna:p%40ss@host:7000/2").access().unwrap();
        assert_eq!(access.hosts, [Server::new("host", 7000)]);
        let user = (access.redis.username.as_deref(), access.redis.password.as_deref());
        assert_eq!(user, (Some("anna"), Some("p@ss")));
        assert_eq!((access.kind, access.database), (Topology::Single, Some(2)));
        let access = target("redis-sentinel://:pw@a:1,b/mymaster").access().unwrap();
        assert_eq!((access.redis.username, access.redis.password.as_deref()), (None, Some("pw")));
        assert_eq!(access.hosts, [Server::new("a", 1), Server::new("b", 26379)]);
        assert_eq!((access.kind, access.service.as_str()), (Topology::Sentinel, "mymaster"));
        let access = target("redis-cluster://[::1]:7001,b:7002").access().unwrap();
        assert_eq!((access.kind, &access.hosts[0]), (Topology::Cluster, &Server::new("::1", 7001)));
        for bad in [
            "",
            "host:1",
            "http://h",
            "redis://",
            "redis://h:x",
            "redis://a,b",
            "redis-sentinel://a",
            "redis://h/x",
        ] {
            assert!(target(bad).access().is_err(), "{bad:?} passed");
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let mut target = target("redis://anna:se/cr@t@host:7000/2");
        target.password = Some("secret".into());
        assert_eq!(target.shown(), "redis://host:7000/2");
        assert!(!format!("{target:?}").contains("cr@t") && !format!("{target:?}").contains("secret"));
        target.url = "redis://x:secret@host:nan".into();
        assert!(!target.check().unwrap_err().to_string().contains("secret"));
    }
}
