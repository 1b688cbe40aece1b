//! Where a request comes from: the page's origin, the client's address, and what proxies say about both.
//!
//! A proxy's word counts only where the proxy is trusted (`http.trusted_proxies`).

use std::net::IpAddr;

use axum::http::{HeaderMap, header};
use ipnet::IpNet;

use super::listener::Peer;
use crate::protocol::Problem;

/// Who is let in from where.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// Origins of pages that may connect, besides the node's own.
    pub allowed: Vec<String>,
    /// Proxies whose `X-Forwarded-*` is believed.
    pub trusted: Vec<IpNet>,
}

impl Origins {
    /// Whether answers may be read by a page of this origin (CORS): the configured ones to the letter.
    pub fn is_listed(&self, origin: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed == origin)
    }

    /// Checks the page's origin, where the browser names one.
    pub(crate) fn check(&self, headers: &HeaderMap, peer: Peer) -> Result<(), Problem> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or("(unreadable)").to_ascii_lowercase();
        let (scheme, host) = self.own(headers, peer);
        if self.is_listed(&origin) || is_own(&origin, scheme.as_deref(), &host) {
            return Ok(());
        }
        let own = format!("{}{host}", scheme.map(|scheme| scheme + "://").unwrap_or_default());
        let detail = format!(
            "The page's origin {origin:?} is neither this host ({own:?}) nor in http.allowed_origins ({}). If a proxy \
             changes the host, name it in http.trusted_proxies and let it send X-Forwarded-Host and -Proto.",
            if self.allowed.is_empty() { "empty".into() } else { self.allowed.join(", ") }
        );
        Err(Problem::new(403, "origin", "Origin not allowed", detail)
            .with("origin", origin)
            .with("host", own)
            .with("allowed_origins", self.allowed.clone()))
    }

    /// The scheme (where it is certain) and host under which the client sees this node.
    fn own(&self, headers: &HeaderMap, peer: Peer) -> (Option<String>, String) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let first = |name: &str| Some(text(name)?.split(',').next()?.trim().to_ascii_lowercase());
        let secure = peer.secure.then(|| "https".to_owned());
        let host = text("host").unwrap_or_default().to_ascii_lowercase();
        if !self.is_trusted(peer.address.ip()) {
            return (secure, host);
        }
        (first("x-forwarded-proto").or(secure), first("x-forwarded-host").unwrap_or(host))
    }

    /// The client's address: the last one in `X-Forwarded-For` that is not a trusted proxy's.
    pub(crate) fn client(&self, headers: &HeaderMap, peer: Peer) -> IpAddr {
        let mut address = peer.address.ip().to_canonical();
        let values: Vec<_> =
            headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
        for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
            if !self.is_trusted(address) {
                break;
            }
            let Some(next) = read_address(hop.trim()) else { break };
            address = next;
        }
        address
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// Some proxies write a port behind the address.
fn read_address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().ok().map(|address: std::net::SocketAddr| address.ip());
    text.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

/// Whether a page of this origin was served by this host. Where the scheme is not certain (a proxy may have taken the
/// TLS off), only the host is compared.
fn is_own(origin: &str, scheme: Option<&str>, host: &str) -> bool {
    let Some((of_page, page)) = origin.split_once("://") else { return false };
    let default = match of_page {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |host: &str| host.strip_suffix(default).unwrap_or(host).to_owned();
    !page.is_empty() && bare(page) == bare(host) && scheme.is_none_or(|scheme| scheme == of_page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer { address: (address.parse::<IpAddr>().unwrap(), 4711).into(), secure: false }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn origins() -> Origins {
        Origins {
            allowed: vec!["https://cms.example.com".into()],
            trusted: vec!["10.0.0.0/8".parse().unwrap()],
        }
    }

    #[test]
    fn only_listed_and_own_origins_pass() {
        let passes = |pairs: &[_], from| origins().check(&headers(pairs), peer(from)).is_ok();
        assert!(passes(&[("host", "node:8080")], "1.2.3.4"), "no browser");
        assert!(passes(&[("host", "node:8080"), ("origin", "https://cms.example.com")], "1.2.3.4"));
        assert!(passes(&[("host", "node:8080"), ("origin", "http://node:8080")], "1.2.3.4"));
        assert!(passes(&[("host", "Node"), ("origin", "https://node:443")], "1.2.3.4"));
        for foreign in [
            "http://node",
            "https://cms.example.com.evil.example",
            "https://cms.example.com:8443",
            "null",
            "",
        ] {
            assert!(!passes(&[("host", "node:8080"), ("origin", foreign)], "1.2.3.4"), "{foreign}");
        }
        let forwarded = [
            ("host", "node:8080"),
            ("origin", "https://shop.example.com"),
            ("x-forwarded-host", "shop.example.com"),
            ("x-forwarded-proto", "https"),
        ];
        assert!(passes(&forwarded, "10.1.2.3"), "a trusted proxy is believed");
        assert!(!passes(&forwarded, "11.1.2.3"), "another is not");
        let downgraded = [("host", "shop"), ("origin", "http://shop"), ("x-forwarded-proto", "https")];
        assert!(!passes(&downgraded, "10.1.2.3"), "the scheme counts where it is known");
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_not_ours() {
        let client = |from, hops: &[&str]| {
            let pairs: Vec<_> = hops.iter().map(|hop| ("x-forwarded-for", *hop)).collect();
            origins().client(&headers(&pairs), peer(from)).to_string()
        };
        assert_eq!(client("1.2.3.4", &["5.6.7.8"]), "1.2.3.4", "said by a stranger");
        assert_eq!(client("10.0.0.1", &["5.6.7.8"]), "5.6.7.8");
        assert_eq!(
            client("10.0.0.1", &["9.9.9.9, 5.6.7.8, 10.0.0.2"]),
            "5.6.7.8",
            "9.9.9.9 is what the client claims"
        );
        assert_eq!(client("10.0.0.1", &["9.9.9.9", "5.6.7.8"]), "5.6.7.8");
        assert_eq!(client("10.0.0.1", &["5.6.7.8:1234"]), "5.6.7.8");
        assert_eq!(client("10.0.0.1", &["unknown"]), "10.0.0.1");
        assert_eq!(client("::ffff:10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    }
}
