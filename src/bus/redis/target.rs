//! Where Redis is and how to get in: what `redis.*` of the configuration says.
//!
//! Must not know connections. The password leaves this module only towards the client.

use std::{fmt, path::PathBuf};

/// Where Redis is and who we are there.
#[derive(Clone, Default)]
pub struct Target {
    /// `redis://host:port/db`, `rediss://…` (TLS), `redis-sentinel://host:port,host:port/service`,
    /// `redis-cluster://host:port,host:port`. User and password may stand in it.
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

impl Target {
    /// The URL without user and password, for messages.
    pub fn shown(&self) -> String {
        let Some((scheme, rest)) = self.url.split_once("://") else { return "redis".into() };
        // The last @, because a password may hold one, or a slash.
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        format!("{scheme}://{place}")
    }
}
