//! The names by which the internal listener is reached. A page can let a name of its own point to this listener (DNS rebinding), and
//! the browser then lets it read the answers. But the browser sends that name in `Host`, so unknown names are refused.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

/// Endings of names that nobody can register (RFC 6761, 6762, 8375; `.internal`: ICANN 2024; `.svc`: Kubernetes), so that no
/// page of the internet has one.
const PRIVATE: [&str; 6] = [".localhost", ".local", ".internal", ".home.arpa", ".lan", ".svc"];

/// The names and addresses under which this listener answers.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// Whether only names of this machine are known, because the listener is on loopback.
    local_only: bool,
    /// Others, in lower case (`internal.hosts`).
    names: Vec<String>,
}

impl Hosts {
    /// Of a listener on `address` that is reached by these names too.
    pub fn new(address: IpAddr, names: &[String]) -> Self {
        Self { local_only: address.to_canonical().is_loopback(), names: names.to_vec() }
    }

    /// Whether a request was sent to one of them. HTTP/1.0, which some health checks speak, says none.
    pub(super) fn know(&self, headers: &HeaderMap) -> bool {
        let Some(name) = name(headers) else { return !headers.contains_key(header::HOST) };
        if is_local_name(&name) || self.names.contains(&name) {
            return true;
        }
        let private = || !name.contains('.') || PRIVATE.iter().any(|ending| name.ends_with(ending));
        !self.local_only && (name.parse::<IpAddr>().is_ok() || private())
    }
}

/// Whether the request was sent to this machine by a name that only it can have.
pub(super) fn is_local(headers: &HeaderMap) -> bool {
    name(headers).is_some_and(|name| is_local_name(&name))
}

fn is_local_name(name: &str) -> bool {
    let loopback = name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    loopback || name == "localhost" || name.ends_with(".localhost")
}

/// The name or address in `Host`, without port, brackets and the root's dot, in lower case.
fn name(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    Some(name.trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(hosts: &Hosts, host: &str) -> bool {
        let headers = HeaderMap::from_iter([(header::HOST, host.parse().unwrap())]);
        hosts.know(&headers)
    }

    #[test]
    fn a_door_answers_to_names_that_no_page_can_have() {
        let names = ["node.example.com".to_owned()];
        let here = Hosts::new([127, 0, 0, 1].into(), &names);
        let everywhere = Hosts::new([0, 0, 0, 0].into(), &names);
        for host in
            ["localhost:9090", "a.localhost", "127.0.0.1:9090", "[::1]:9090", "NODE.example.com.:9090"]
        {
            assert!(knows(&here, host) && knows(&everywhere, host), "{host}");
        }
        for host in [
            "10.1.2.3:9090",
            "[fd00::1]:9090",
            "carillon",
            "n1:9090",
            "carillon.prod.svc",
            "a.b.svc.cluster.local",
        ] {
            assert!(!knows(&here, host) && knows(&everywhere, host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "xlocalhost.com",
        ] {
            assert!(!knows(&here, host) && !knows(&everywhere, host), "{host}");
        }
        assert!(here.know(&HeaderMap::new()), "HTTP/1.0 knows no Host");
    }
}
