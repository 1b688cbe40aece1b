//! The checked values of the two listeners: the public one for browsers, the internal one for publishers and operators.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use url::Url;

use super::{reader::ValueReader, secret::Secret};

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
    /// How connections are kept between requests.
    pub keep_alive: KeepAlive,
}

/// How long connections live between requests. A balancer must be the one that ends them: it would else send a request
/// into a connection that the node is just closing.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// An HTTP/1 connection may be idle for so long.
    pub idle: Duration,
    /// A silent HTTP/2 connection is sent a PING after so long.
    pub ping: Duration,
    /// Requests (streams of events, too) that one HTTP/2 connection may carry at once.
    pub streams: u32,
}

const ADDRESS: &str = "an address and port, for example 0.0.0.0:8080, 127.0.0.1:8080 or [::]:8080";

impl Http {
    pub(super) fn read(reader: &mut ValueReader) -> Self {
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
            keep_alive: KeepAlive {
                idle: reader.seconds("http.keep_alive_seconds", 1..=3_600),
                ping: reader.seconds("http.http2_ping_seconds", 1..=3_600),
                // The range keeps it within its type.
                streams: reader.number("http.http2_streams", 1..=100_000).try_into().unwrap_or(u32::MAX),
            },
        }
    }
}

fn listen(reader: &mut ValueReader, key: &str) -> SocketAddr {
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

/// Brings an origin into the form in which browsers send it (RFC 6454, 6.2; WHATWG URL): lower case, punycode, the
/// shortest IPv6, no default port, no zeros before a port. What no page can have as its origin is none.
fn parse_origin(text: &str) -> Option<String> {
    let url = Url::parse(text.trim()).ok()?;
    let host = url.host_str()?;
    let bare = matches!(url.scheme(), "http" | "https")
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && url.port() != Some(0)
        // A pattern would match nothing: every origin is written out.
        && !host.contains('*')
        // The parser mends these, a browser would not send them.
        && !text.contains(['\\', '\t', '\n', '\r'])
        && text.contains("://");
    bare.then(|| url.origin().ascii_serialization())
}

/// `[internal]`
#[derive(Debug, Clone)]
pub struct Internal {
    /// The listener for operators and publishers.
    pub listen: SocketAddr,
    /// Names by which it is reached besides those that no page can have, in lower case, without ports.
    pub hosts: Vec<String>,
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

    pub(super) fn read(reader: &mut ValueReader) -> Self {
        let publish_token = reader.secret("internal.publish_token");
        let hosts = reader.parsed_list(
            "internal.hosts",
            "a host name without scheme and port, for example carillon.example.com",
            |text| Some(text.trim_end_matches('.').to_ascii_lowercase()).filter(|name| is_name(name)),
        );
        Self { listen: listen(reader, "internal.listen"), hosts, publish_token }
    }
}

/// A host name as `Host` has it, without a port.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::parse_origin;

    #[test]
    fn origins_are_brought_into_the_form_that_browsers_send() {
        for (written, sent) in [
            ("https://cms.example.com", "https://cms.example.com"),
            (" https://CMS.Example.com/ ", "https://cms.example.com"),
            ("https://cms.example.com:443", "https://cms.example.com"),
            ("http://cms.example.com:80/", "http://cms.example.com"),
            ("http://cms.example.com:443", "http://cms.example.com:443"),
            ("https://cms.example.com:0443", "https://cms.example.com"),
            ("https://cms.example.com:08443", "https://cms.example.com:8443"),
            ("https://cms.example.com:", "https://cms.example.com"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("https://BÜCHER.example:8443", "https://xn--bcher-kva.example:8443"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("https://例え.テスト", "https://xn--r8jz45g.xn--zckzah"),
            ("http://[2001:0db8:0000:0000:0000:0000:0000:0001]:3000", "http://[2001:db8::1]:3000"),
            ("http://[2001:DB8::1]", "http://[2001:db8::1]"),
            ("http://[::ffff:10.0.0.1]:8080", "http://[::ffff:a00:1]:8080"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://127.1:3000", "http://127.0.0.1:3000"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("https://my_host.local", "https://my_host.local"),
        ] {
            assert_eq!(parse_origin(written).as_deref(), Some(sent), "{written}");
        }
    }

    #[test]
    fn what_no_page_has_as_its_origin_is_refused() {
        for text in [
            "*",
            "null",
            "",
            "cms.example.com",
            "//cms.example.com",
            "https:cms.example.com",
            "https:/cms.example.com",
            "https://*.example.com",
            "https://cms.example.com/cms",
            "https://cms.example.com?x",
            "https://cms.example.com/#",
            "https://anna@cms.example.com",
            "https://cms.example.com:0",
            "https://cms.example.com:65536",
            "https://cms.example.com:https",
            "https://[2001:db8::1",
            "https://2001:db8::1",
            "https://",
            "https://a b.example",
            "https:\\\\cms.example.com",
            "ftp://cms.example.com",
            "file:///cms",
        ] {
            assert_eq!(parse_origin(text), None, "{text}");
        }
    }
}
