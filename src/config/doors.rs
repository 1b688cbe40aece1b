//! The checked values of the two listeners: the public one for browsers, the internal one for publishers and operators.
//!
//! Must not know what is served behind them.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;

use super::{reader::Reader, secret::Secret};

/// `[http]`
#[derive(Debug, Clone)]
pub struct Http {
    /// The public listener.
    pub listen: SocketAddr,
    /// Path in front of every public route, for example `/realtime`; no slash at the end.
    pub base_path: String,
    /// Origins as browsers send them: lower case, no default port, no slash.
    pub allowed_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificate chain and key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
}

const ADDRESS: &str = "an address and port, for example 0.0.0.0:8080, 127.0.0.1:8080 or [::]:8080";

impl Http {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let origin = "an origin as browsers send it, for example https://cms.example.com or http://localhost:3000 \
                      (no path, no *)";
        Self {
            listen: listen(reader, "http.listen"),
            base_path: reader
                .parsed(
                    "http.base_path",
                    "a path such as /realtime (a-z A-Z 0-9 . _ ~ - and inner slashes)",
                    base_path,
                )
                .unwrap_or_else(|| "/realtime".into()),
            allowed_origins: reader.parsed_list("http.allowed_origins", origin, parse_origin),
            trusted_proxies: reader.parsed_list(
                "http.trusted_proxies",
                "an address or a network, for example 10.1.2.3 or 10.0.0.0/8",
                |text| {
                    text.parse()
                        .ok()
                        .or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.into()))
                },
            ),
            tls: reader.file_pair("http.tls_cert", "http.tls_key"),
        }
    }
}

fn listen(reader: &mut Reader, key: &str) -> SocketAddr {
    reader.parsed(key, ADDRESS, |text| text.parse().ok()).unwrap_or_else(|| ([127, 0, 0, 1], 0).into())
}

fn base_path(text: &str) -> Option<String> {
    let fits = |segment: &str| {
        !segment.is_empty()
            && !matches!(segment, "." | "..")
            && segment.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-'))
    };
    let path = text.strip_suffix('/').unwrap_or(text);
    path.strip_prefix('/')?.split('/').all(fits).then(|| path.to_owned())
}

/// Brings an origin into the form in which browsers send it (RFC 6454, 6.2).
fn parse_origin(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let origin = lower.strip_suffix('/').unwrap_or(&lower);
    let (scheme, host) = origin.split_once("://")?;
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let host = host.strip_suffix(default).unwrap_or(host);
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok());
    (!name.is_empty() && name.chars().all(fits) && port_fits).then(|| format!("{scheme}://{host}"))
}

/// `[internal]`
#[derive(Debug, Clone)]
pub struct Internal {
    /// The listener for operators and publishers.
    pub listen: SocketAddr,
    /// Authorises `/publish` and `/disconnect`.
    pub publish_token: Option<Secret>,
}

/// The shortest publish token that nobody is warned about, bytes.
const PUBLISH_TOKEN_BYTES: usize = 16;

impl Internal {
    /// What an operator should know about these settings.
    pub fn warning(&self) -> Option<String> {
        let bytes = self.publish_token.as_ref()?.expose().len();
        (bytes < PUBLISH_TOKEN_BYTES).then(|| {
            format!(
                "internal.publish_token has {bytes} bytes and may be guessed: take {PUBLISH_TOKEN_BYTES} or more, for \
                 example from `openssl rand -hex 32`"
            )
        })
    }

    pub(super) fn read(reader: &mut Reader) -> Self {
        let publish_token = reader.secret("internal.publish_token");
        Self { listen: listen(reader, "internal.listen"), publish_token }
    }
}
