//! Where a request comes from: the page's origin, the client's address, and what proxies say about both.
//!
//! A proxy's word counts only where the proxy is trusted (`http.trusted_proxies`).

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use super::{
    headers::{items, joined},
    listener::Peer,
};
use crate::protocol::{Problem, ProblemCode};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A request as the client sent it, by the word of trusted proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forwarded {
    /// Whose request it is.
    pub(crate) client: IpAddr,
    /// `http` or `https`, where a proxy says so.
    pub(crate) scheme: Option<String>,
    /// The host, lower case, where a proxy says so.
    pub(crate) host: Option<String>,
}

/// Which pages may connect, and which proxies are trusted.
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
        // Two `Origin` fields come from no page: joined, they match nothing, and the refusal names both.
        let Some(origin) = joined(headers, &header::ORIGIN, b", ") else { return check_site(headers) };
        let origin = String::from_utf8(origin).unwrap_or_else(|_| "(unreadable)".into()).to_ascii_lowercase();
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
        Err(Problem::new(403, ProblemCode::Origin, "Origin not allowed", detail)
            .with("origin", origin)
            .with("host", own)
            .with("allowed_origins", self.allowed.clone()))
    }

    /// The scheme (where it is certain) and host under which the client sees this node.
    pub(crate) fn own(&self, headers: &HeaderMap, peer: Peer) -> (Option<String>, String) {
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let forwarded = self.forwarded(headers, peer);
        let secure = peer.secure.then(|| "https".to_owned());
        (forwarded.scheme.or(secure), forwarded.host.unwrap_or_else(|| host.to_ascii_lowercase()))
    }

    /// What trusted proxies say about the request as the client sent it. Each proxy appends to the lists, so they are
    /// read from the end that is ours, as many entries as there are trusted proxies; what stands before was written by
    /// whoever came to the first of them.
    pub(crate) fn forwarded(&self, headers: &HeaderMap, peer: Peer) -> Forwarded {
        let mut client = peer.address.ip().to_canonical();
        let mut proxies = 0;
        let mut hops = items(headers, &FOR).into_iter().rev();
        while self.is_trusted(client) {
            proxies += 1;
            let Some(next) = hops.next().and_then(read_address) else { break };
            client = next;
        }
        let said = |name: &HeaderName| {
            let items = items(headers, name);
            // A proxy that writes the list anew leaves one entry.
            let at = items.len().saturating_sub(proxies);
            let item = items.get(at).filter(|item| proxies > 0 && !item.is_empty())?;
            Some(item.to_ascii_lowercase())
        };
        let scheme = said(&PROTO).and_then(|scheme| match &*scheme {
            "http" | "ws" => Some("http".into()),
            "https" | "wss" => Some("https".into()),
            _ => None,
        });
        Forwarded { client, scheme, host: said(&HOST) }
    }

    /// The client's address: the last one in `X-Forwarded-For` that is not a trusted proxy's.
    pub(crate) fn client(&self, headers: &HeaderMap, peer: Peer) -> IpAddr {
        self.forwarded(headers, peer).client
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// A page of another site can have a browser ask without saying where from (an image, a script), and the browser sends
/// the cookie along: it says in `Sec-Fetch-Site` that the page is another's.
fn check_site(headers: &HeaderMap) -> Result<(), Problem> {
    let site = headers.get("sec-fetch-site").map_or(&b""[..], HeaderValue::as_bytes);
    let foreign = site.eq_ignore_ascii_case(b"cross-site") || site.eq_ignore_ascii_case(b"same-site");
    if !foreign || !headers.contains_key(header::COOKIE) {
        return Ok(());
    }
    let detail = "A page of another site asked with this site's cookie and without an Origin: use fetch, EventSource or \
                  WebSocket from a page whose origin is this host or in http.allowed_origins.";
    Err(Problem::new(403, ProblemCode::Origin, "Origin not allowed", detail))
}

/// An address as proxies write it: bare, in brackets, or with a port behind it; perhaps in quotation marks.
fn read_address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse().ok().map(|address: std::net::SocketAddr| address.ip());
    text.parse().ok().or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
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
        assert_eq!(
            client("10.0.0.1", &["5.6.7.8, 10.0.0.3", "10.0.0.2"]),
            "5.6.7.8",
            "two lines are one list"
        );
        for hop in ["[2001:db8::1]", "[2001:db8::1]:4711", "2001:db8::1", "\"[2001:db8::1]:4711\""] {
            assert_eq!(client("10.0.0.1", &[hop]), "2001:db8::1");
        }
        assert_eq!(client("10.0.0.1", &["::ffff:5.6.7.8"]), "5.6.7.8");
        assert_eq!(
            client("10.0.0.1", &["9.9.9.9, unknown"]),
            "10.0.0.1",
            "what is left of the unreadable is hearsay"
        );
        assert_eq!(client("10.0.0.1", &["unknown"]), "10.0.0.1");
        assert_eq!(client("::ffff:10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    }

    #[test]
    fn lists_are_read_from_the_end_that_is_ours() {
        let read = |pairs: &[(&'static str, &str)]| {
            let forwarded = origins().forwarded(&headers(pairs), peer("10.0.0.1"));
            (forwarded.scheme.unwrap_or_default(), forwarded.host.unwrap_or_default())
        };
        let (of, host, proto) = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto");
        let is = |scheme: &str, host: &str| (scheme.to_owned(), host.to_owned());
        assert_eq!(read(&[(host, "CMS:8443"), (proto, "https")]), is("https", "cms:8443"));
        assert_eq!(read(&[(host, "evil, cms"), (proto, "http, https")]), is("https", "cms"));
        assert_eq!(read(&[(host, "evil"), (host, "cms")]), is("", "cms"), "two lines are one list");
        assert_eq!(
            read(&[(of, "5.6.7.8, 10.0.0.2"), (host, "evil, cms, inner"), (proto, "ftp, https, http")]),
            is("https", "cms")
        );
        assert_eq!(
            read(&[(of, "5.6.7.8, 10.0.0.2"), (host, "cms"), (proto, "https")]),
            is("https", "cms"),
            "written anew by the last"
        );
        assert_eq!(
            read(&[(of, "10.9.9.9, 5.6.7.8"), (host, "evil, cms")]),
            is("", "cms"),
            "what a client claims about proxies"
        );
        for (said, meant) in [("ws", "http"), ("WSS", "https"), ("https", "https"), ("quic", ""), ("", "")] {
            assert_eq!(read(&[(proto, said)]), is(meant, ""));
        }
        let stranger = origins().forwarded(&headers(&[(host, "evil"), (proto, "https")]), peer("1.2.3.4"));
        assert_eq!((stranger.scheme, stranger.host), (None, None));
    }

    #[test]
    fn two_origins_are_none() {
        let pairs =
            [("host", "node"), ("origin", "https://cms.example.com"), ("origin", "https://cms.example.com")];
        assert_eq!(origins().check(&headers(&pairs), peer("1.2.3.4")).unwrap_err().status, 403);
    }
}
