//! Who stands between, as far as its answers tell, and which of its settings to change.
//!
//! The words are those of the files under `deploy/proxy`, which are tested with the real programs.

use hyper::{HeaderMap, header};

/// A middle tier.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Hop {
    Nginx(String),
    Apache(String),
    Iis(String),
    Caddy,
    Other(String),
    /// Answers do not name it. Nodes do not name themselves, and neither does HAProxy.
    #[default]
    Unnamed,
}

impl Hop {
    /// Reads `Server` and `Via` (RFC 9110, 10.2.4 and 7.6.3).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text =
            |name| headers.get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
        let Some(named) = text(header::SERVER).or_else(|| text(header::VIA)) else { return Self::Unnamed };
        let named: String = named.chars().filter(|c| !c.is_control()).take(60).collect();
        let lower = named.to_ascii_lowercase();
        if lower.contains("nginx") || lower.contains("openresty") {
            Self::Nginx(named)
        } else if lower.contains("apache") {
            Self::Apache(named)
        } else if lower.contains("microsoft") || lower.contains("iis") || lower.contains("arr/") {
            Self::Iis(named)
        } else if lower.contains("caddy") {
            Self::Caddy
        } else {
            Self::Other(named)
        }
    }

    /// For the middle of a sentence.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Nginx(name) | Self::Apache(name) | Self::Iis(name) | Self::Other(name) => name,
            Self::Caddy => "Caddy",
            Self::Unnamed => "a middle tier (proxy, load balancer, firewall)",
        }
    }

    /// How to let handshakes through.
    pub(super) fn let_upgrade_pass(&self) -> String {
        const NGINX: &str = "In the nginx location of this path set: proxy_http_version 1.1; proxy_set_header Upgrade \
                             $http_upgrade; proxy_set_header Connection \"upgrade\";";
        match self {
            Self::Nginx(_) => format!("{NGINX} (all of it: deploy/proxy/nginx)."),
            Self::Apache(_) => {
                "In Apache load mod_proxy_http (2.4.47 or later) and write: ProxyPass … upgrade=websocket."
                    .into()
            }
            Self::Iis(_) => "In IIS install the WebSocket Protocol feature, and see deploy/proxy/iis.".into(),
            _ => format!(
                "Let the middle tier pass on \"Connection: Upgrade\" and \"Upgrade: websocket\" over HTTP/1.1 (examples: \
                 deploy/proxy). {NGINX}"
            ),
        }
    }

    /// How to let quiet connections live for `seconds`.
    pub(super) fn allow_silence(&self, seconds: u64) -> String {
        match self {
            Self::Nginx(_) => {
                format!(
                    "In the nginx location of this path raise proxy_read_timeout and proxy_send_timeout to {seconds}s or more."
                )
            }
            Self::Apache(_) => {
                format!("In Apache raise ProxyTimeout (or timeout= of ProxyPass) to {seconds} or more.")
            }
            _ => format!(
                "Raise the idle timeout of what stands between to {seconds} s or more: HAProxy: timeout tunnel (and timeout \
                 client, timeout server); nginx: proxy_read_timeout; cloud load balancers: idle timeout."
            ),
        }
    }

    /// How to let bytes through as they come.
    pub(super) fn stop_buffering(&self) -> String {
        match self {
            Self::Nginx(_) => "In the nginx location of this path set: proxy_buffering off; proxy_http_version 1.1; take \
                               X-Accel-Buffering out of proxy_ignore_headers (the node sends \"X-Accel-Buffering: no\"), \
                               and text/event-stream out of gzip_types."
                .into(),
            Self::Iis(_) => "In IIS/ARR set the response buffer threshold to 0 (deploy/proxy/iis).".into(),
            _ => "Switch off buffering and compression of text/event-stream in what stands between: nginx: proxy_buffering \
                  off; Apache: flushpackets=on; virus scanners and web application firewalls: except this path."
                .into(),
        }
    }
}
