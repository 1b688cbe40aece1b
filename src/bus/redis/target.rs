//! Where Redis is and how to get in: what `redis.*` of the configuration says.
//!
//! Must not know connections. The password leaves this module only towards the client.

use std::{fmt, path::PathBuf};

use fred::types::config::{ClusterDiscoveryPolicy, Config, Server, ServerConfig};
use percent_encoding::percent_decode_str;

use super::tls;
use crate::bus::StartError;

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
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("url", &self.shown()).finish_non_exhaustive()
    }
}

/// What a URL says, besides who we are.
#[derive(Debug, PartialEq)]
struct Place<'a> {
    kind: Kind,
    tls: bool,
    user: &'a str,
    hosts: Vec<(String, u16)>,
    path: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Single,
    Sentinel,
    Cluster,
}

impl Target {
    /// The URL without user and password, for messages.
    pub fn shown(&self) -> String {
        let Some((scheme, rest)) = self.url.split_once("://") else { return "redis".into() };
        // The last @, because a password may hold one, or a slash.
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        format!("{scheme}://{place}")
    }

    /// Whether this is a cluster, with sharded pub/sub.
    pub fn is_sharded(&self) -> bool {
        self.url.starts_with("redis-cluster:") || self.url.starts_with("rediss-cluster:")
    }

    /// Whether sentinels say where the master is.
    pub fn is_sentinel(&self) -> bool {
        self.url.starts_with("redis-sentinel:") || self.url.starts_with("rediss-sentinel:")
    }

    /// Whether the URL (and the TLS files) can be read.
    pub fn check(&self) -> Result<(), StartError> {
        self.config().map(drop)
    }

    /// The client's configuration.
    pub(super) fn config(&self) -> Result<Config, StartError> {
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
        let servers =
            place.hosts.iter().map(|(host, port)| Server::new(host.clone(), *port)).collect::<Vec<_>>();
        let database = match (place.kind, place.path) {
            (Kind::Single, "") | (Kind::Sentinel | Kind::Cluster, _) => None,
            (Kind::Single, path) => Some(path.parse::<u8>().map_err(|_| {
                StartError(format!(
                    "redis.url names the database {path:?}: it must be a number from 0 to 255"
                ))
            })?),
        };
        let server = match place.kind {
            Kind::Single => ServerConfig::Centralized { server: servers[0].clone() },
            Kind::Cluster => {
                ServerConfig::Clustered { hosts: servers, policy: ClusterDiscoveryPolicy::default() }
            }
            Kind::Sentinel => ServerConfig::Sentinel {
                hosts: servers,
                service_name: place.path.into(),
                username: None,
                password: None,
            },
        };
        Ok(Config {
            username: self.username.clone().or(url_user),
            password: self.password.clone().or(url_password),
            tls: if place.tls || self.tls_ca.is_some() { Some(tls::connector(self)?.into()) } else { None },
            version: fred::types::RespVersion::RESP3,
            server,
            database,
            ..Config::default()
        })
    }

    fn place(&self) -> Result<Place<'_>, String> {
        let (scheme, rest) = self.url.split_once("://").ok_or("it has no ://")?;
        let (kind, tls) = match scheme {
            "redis" => (Kind::Single, false),
            "rediss" => (Kind::Single, true),
            "redis-sentinel" => (Kind::Sentinel, false),
            "rediss-sentinel" => (Kind::Sentinel, true),
            "redis-cluster" => (Kind::Cluster, false),
            "rediss-cluster" => (Kind::Cluster, true),
            other => return Err(format!("the scheme {other:?} is unknown")),
        };
        let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let default_port = if kind == Kind::Sentinel { 26379 } else { 6379 };
        let hosts =
            hosts.split(',').map(|host| host_port(host, default_port)).collect::<Result<Vec<_>, _>>()?;
        if kind == Kind::Single && hosts.len() > 1 {
            return Err("it names several hosts".into());
        }
        if kind == Kind::Sentinel && path.is_empty() {
            return Err("the name of the service is missing at its end".into());
        }
        Ok(Place { kind, tls, user, hosts, path: path.trim_end_matches('/') })
    }
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
        let config = target("redis://anna:p%40ss@host:7000/2").config().unwrap();
        assert_eq!(config.server, ServerConfig::new_centralized("host", 7000));
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (Some("anna"), Some("p@ss")));
        assert_eq!(config.database, Some(2));
        let config = target("redis-sentinel://:pw@a:1,b/mymaster").config().unwrap();
        assert_eq!((config.username, config.password.as_deref()), (None, Some("pw")));
        assert_eq!(config.server.hosts(), [Server::new("a", 1), Server::new("b", 26379)]);
        assert!(target("redis-cluster://[::1]:7001,b:7002").config().unwrap().server.is_clustered());
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
            assert!(target(bad).config().is_err(), "{bad:?} passed");
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
