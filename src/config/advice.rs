//! Warnings: settings that are allowed but rarely meant, most of them because they leave a door open. `config check` prints them, and
//! so does a node when it starts.

use ipnet::IpNet;
use url::{Host, Url};

use super::{AuthMode, Config, KeySource, Secret};

/// Bytes in a client's message for its token and what stands around the topics, ...
const TOKEN: usize = 9_216;
/// ... and for a topic of the longest name with its position: it is named twice.
const PER_TOPIC: usize = 544;
/// The largest `limits.message_bytes`.
const MOST_BYTES: usize = 1_048_576;
/// Topics with names of 16 bytes that a cursor of 4 KB has room for (`session/cursor` counts so).
pub(crate) const PER_CURSOR: usize = 91;

impl Config {
    /// A sentence for each setting that leaves a door open: the key, where it was written, what that means, and what to
    /// do. Quotes no secret.
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut warn = |key: &str, what: &str| found.extend(self.complaint(key, what).0);
        if matches!(self.auth.mode, Some(AuthMode::None)) {
            warn(
                "auth.mode",
                "is none: everybody who reaches http.listen is let in. Outside a trusted network use jwt or callback",
            );
        }
        if trusts_everybody(&self.http.trusted_proxies) {
            warn(
                "http.trusted_proxies",
                "has every address in it: anybody can claim another address, host and scheme with X-Forwarded-*. Name the \
                 proxies alone",
            );
        }
        if let Some((key, url)) = self.asked()
            && is_in_the_clear(url.expose())
        {
            warn(
                key,
                "is http:// to another machine: whoever is on the way there can read what is asked and decide who is \
                     let in. Use https://, with auth.tls_ca where the authority is your own",
            );
        }
        if self.demo.enabled {
            warn(
                "demo.enabled",
                "is true: the demo publishes for everybody who reaches http.listen, and with auth.secret it signs tokens for \
                 them. Set it to false where editors work",
            );
        }
        for (keys, what) in self.topics_without_room() {
            warn(self.written(keys), &what);
        }
        for (keys, what) in self.unused() {
            warn(self.written(keys), what);
        }
        for (key, secret) in self.shared_secrets() {
            if is_one_byte(secret) {
                let what = "is one character again and again, which is guessed at once: take another, for example from `openssl \
                            rand -hex 32`";
                warn(self.written(key), what);
            }
        }
        found
    }

    /// Where sessions may follow more topics than they can bring back.
    fn topics_without_room(&self) -> Vec<([&'static str; 2], String)> {
        let (topics, bytes) = (self.limits.topics_per_session, self.limits.message_bytes);
        let mut found = Vec::new();
        let room = bytes.saturating_sub(TOKEN) / PER_TOPIC;
        if topics > room {
            let what = format!(
                "is {topics}, and limits.message_bytes is {bytes}: a client that comes back names each topic with its position, so \
                 one message has room for {room} topics with the longest names. Set {}, or expect clients to be closed with \
                 1009 and to come back with fewer",
                match TOKEN + topics * PER_TOPIC {
                    enough @ ..=MOST_BYTES => format!("limits.message_bytes to {enough}"),
                    _ => format!("limits.topics_per_session to {room} or less"),
                }
            );
            found.push((["limits.topics_per_session", "limits.message_bytes"], what));
        }
        if topics > PER_CURSOR {
            let what = format!(
                "is {topics}, and a cursor in an address has 4 KB: room for {PER_CURSOR} topics with names of 16 characters, for \
                 fewer with longer ones. A client that asks by GET over SSE or long-poll is refused the others (too-many): let it \
                 ask by POST, as realtime.js does, or set limits.topics_per_session to {PER_CURSOR} or less"
            );
            found.push((["limits.topics_per_session"; 2], what));
        }
        found
    }

    /// Settings of `redis` that the address makes useless.
    fn unused(&self) -> Vec<([&'static str; 2], &'static str)> {
        let (redis, mut found) = (&self.redis, Vec::new());
        let Some(url) = redis.url.as_ref().map(Secret::expose) else { return found };
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        if !scheme.ends_with("-sentinel") {
            let what = "is set, and redis.url names no sentinels: it is not used. Write redis-sentinel://host:port/service, or \
                        take it away";
            if redis.sentinel_password.is_some() {
                found.push((["redis.sentinel_password", "redis.sentinel_password_file"], what));
            } else if redis.sentinel_username.is_some() {
                found.push((["redis.sentinel_username"; 2], what));
            }
        }
        if !scheme.starts_with("rediss") && redis.tls_ca.is_none() {
            let what = "is set, and the node speaks no TLS with Redis: it is not used. Write rediss:// in redis.url, or take it \
                        away";
            if redis.tls_server_name.is_some() {
                found.push((["redis.tls_server_name"; 2], what));
            }
            if redis.tls_client.is_some() {
                found.push((["redis.tls_cert"; 2], what));
            }
        }
        let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
        if redis.password.is_some() && !user.split_once(':').map_or(user, |(_, password)| password).is_empty()
        {
            let what = "is set, and redis.url has a password too, which is not used: take that one away";
            found.push((["redis.password", "redis.password_file"], what));
        }
        found
    }

    /// The URLs that decide who is let in.
    fn asked(&self) -> Option<(&'static str, &Secret)> {
        match self.auth.mode.as_ref()? {
            AuthMode::Callback(callback) => Some(("auth.callback_url", &callback.url)),
            AuthMode::Jwt(jwt) => match &jwt.keys {
                KeySource::JwksUrl(url) => Some(("auth.jwks", url)),
                _ => None,
            },
            AuthMode::None => None,
        }
    }

    /// The secrets that open doors of a node, each with its key and that of its file.
    fn shared_secrets(&self) -> Vec<([&'static str; 2], &Secret)> {
        let mut secrets = Vec::new();
        if let Some(AuthMode::Jwt(jwt)) = &self.auth.mode
            && let KeySource::Secret { current, previous } = &jwt.keys
        {
            secrets.push((["auth.secret", "auth.secret_file"], current));
            secrets.extend(
                previous.iter().map(|secret| (["auth.previous_secret", "auth.previous_secret_file"], secret)),
            );
        }
        let token = self.internal.publish_token.iter();
        secrets.extend(token.map(|token| (["internal.publish_token", "internal.publish_token_file"], token)));
        let node = self.redis.node_secret.iter();
        secrets.extend(node.map(|secret| (["redis.node_secret", "redis.node_secret_file"], secret)));
        secrets
    }

    /// The key of the two that was written.
    fn written(&self, [key, file]: [&'static str; 2]) -> &'static str {
        let is_default = self.source(key).is_none_or(|source| *source == super::ValueSource::Default);
        if is_default { file } else { key }
    }
}

/// Whether these networks are all of IPv4 or IPv6 together.
fn trusts_everybody(networks: &[IpNet]) -> bool {
    IpNet::aggregate(&networks.to_vec()).iter().any(|network| network.prefix_len() == 0)
}

/// Whether a URL is without TLS, and not of this machine.
fn is_in_the_clear(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let here = match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => std::net::IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !here
}

fn is_one_byte(secret: &Secret) -> bool {
    let mut bytes = secret.expose().bytes();
    bytes.next().is_some_and(|first| bytes.all(|byte| byte == first))
}

#[cfg(test)]
mod tests {
    use super::super::Layers;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    /// The keys that are warned of.
    fn warned(settings: &[(&str, &str)]) -> Vec<String> {
        let mut layers = Layers::new();
        for (key, value) in settings {
            layers = layers.set(key, *value, "test");
        }
        let warnings = layers.load().unwrap().warnings();
        assert!(warnings.iter().all(|warning| warning.contains("(test)")), "{warnings:?}");
        warnings.iter().map(|warning| warning.split(' ').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn doors_that_stand_open_are_warned_of() {
        let jwt = [("auth.mode", "jwt"), ("auth.secret", SECRET)];
        let with = |key, value| warned(&[jwt[0], jwt[1], (key, value)]);
        assert_eq!(warned(&[("auth.mode", "none")]), ["auth.mode"]);
        for everybody in ["0.0.0.0/0", "::/0", "10.0.0.0/8,0.0.0.0/0", "0.0.0.0/1,128.0.0.0/1"] {
            assert_eq!(with("http.trusted_proxies", everybody), ["http.trusted_proxies"], "{everybody}");
        }
        assert_eq!(with("demo.enabled", "true"), ["demo.enabled"]);
        let same = "a".repeat(32);
        assert_eq!(warned(&[jwt[0], ("auth.secret", &same)]), ["auth.secret"]);
        assert_eq!(with("auth.previous_secret", &same), ["auth.previous_secret"]);
        assert_eq!(with("internal.publish_token", &same), ["internal.publish_token"]);
        for elsewhere in ["http://cms.example.com/who", "http://10.0.0.1/who", "http://[2001:db8::1]:80/"] {
            let callback = [("auth.mode", "callback"), ("auth.callback_url", elsewhere)];
            assert_eq!(warned(&callback), ["auth.callback_url"], "{elsewhere}");
            assert_eq!(warned(&[jwt[0], ("auth.jwks", elsewhere)]), ["auth.jwks"], "{elsewhere}");
        }
    }

    #[test]
    fn more_topics_than_a_message_has_room_for_are_warned_of() {
        let with = |settings: &[(&str, &str)]| {
            warned(&[&[("auth.mode", "jwt"), ("auth.secret", SECRET)], settings].concat())
        };
        let (many, small) = (("limits.topics_per_session", "2000"), ("limits.message_bytes", "32768"));
        let topics = "limits.topics_per_session";
        // What cannot be set is not proposed.
        let mut layers = Layers::new().set("auth.mode", "none", "test").set(topics, "9000", "test");
        layers = layers.set("limits.message_bytes", "1048576", "test");
        let told = layers.load().unwrap().warnings().join("\n");
        assert!(told.contains("Set limits.topics_per_session to 1910 or less"), "{told}");
        assert_eq!(with(&[many]), [topics, topics], "a message and a cursor");
        assert_eq!(with(&[small]), ["limits.message_bytes"]);
        assert_eq!(with(&[(topics, "1900"), ("limits.message_bytes", "1048576")]), [topics], "a cursor");
        assert_eq!(with(&[(topics, "92")]), [topics]);
        assert_eq!(with(&[(topics, "91")]), [""; 0]);
    }

    #[test]
    fn what_the_address_of_redis_makes_useless_is_warned_of() {
        let with = |url: &str, settings: &[(&str, &str)]| {
            let always = [("auth.mode", "jwt"), ("auth.secret", SECRET), ("redis.url", url)];
            warned(&[&always[..], settings].concat())
        };
        let (password, name) = (("redis.sentinel_password", "x"), ("redis.tls_server_name", "redis.example"));
        let files = [("redis.tls_cert", "/etc/hostname"), ("redis.tls_key", "/etc/hostname")];
        assert_eq!(with("redis://a", &[password]), ["redis.sentinel_password"]);
        assert_eq!(
            with("redis-cluster://a", &[("redis.sentinel_username", "x")]),
            ["redis.sentinel_username"]
        );
        assert_eq!(with("redis-sentinel://a/b", &[password]), [""; 0]);
        assert_eq!(with("redis://a", &[name]), ["redis.tls_server_name"]);
        assert_eq!(with("redis-sentinel://a/b", &files), ["redis.tls_cert"]);
        assert_eq!(with("rediss-cluster://a", &[name, files[0], files[1]]), [""; 0]);
        assert_eq!(
            with("redis://a", &[name, ("redis.tls_ca", "/etc/hostname")]),
            [""; 0],
            "the authority switches it on"
        );
        for url in ["redis://:x@a", "redis://anna:x@a", "redis://x@a"] {
            assert_eq!(with(url, &[("redis.password", "y")]), ["redis.password"], "{url}");
        }
        assert_eq!(with("redis://anna:@a", &[("redis.password", "y")]), [""; 0]);
    }

    #[test]
    fn what_is_meant_is_not_warned_of() {
        let jwt = [("auth.mode", "jwt"), ("auth.secret", SECRET)];
        assert_eq!(warned(&jwt), [""; 0]);
        assert_eq!(warned(&[jwt[0], jwt[1], ("http.trusted_proxies", "10.0.0.0/8, ::1")]), [""; 0]);
        let urls = [
            "https://cms.example.com/who",
            "http://localhost:8000/",
            "http://127.1.2.3/",
            "http://[::1]:8000/who",
        ];
        for url in urls {
            assert_eq!(warned(&[("auth.mode", "callback"), ("auth.callback_url", url)]), [""; 0], "{url}");
        }
    }

    #[test]
    fn a_secret_in_a_file_is_named_by_its_key() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, "z".repeat(40).as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(warned(&[("auth.mode", "jwt"), ("auth.secret_file", path)]), ["auth.secret_file"]);
    }
}
