//! An address that is examined, taken apart.

use hyper::Uri;

use super::super::Usage;

/// Where sessions are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// https.
    pub(super) secure: bool,
    /// Name or address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `host` or `host:port` as it is written.
    pub(super) authority: String,
    /// Path in front of every route, without a slash at the end.
    pub(super) base: String,
}

impl Place {
    /// Reads an address; without a path the one of `default_base` is meant.
    pub(super) fn parse(url: &str, default_base: &str) -> Result<Self, Usage> {
        let wrong = |what: &str| {
            Usage(format!(
                "{url:?} is not an address of a node ({what}): write one like https://cms.example.com/realtime"
            ))
        };
        let uri: Uri = url.parse().map_err(|_| wrong("it cannot be read"))?;
        let secure = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(wrong("it begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(wrong("it has more than scheme, host, port and path"));
        }
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            secure,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            base: if path.is_empty() { default_base.to_owned() } else { path.to_owned() },
        })
    }

    /// The origin of a page from there, as browsers send it.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.authority)
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        self.origin() + &self.base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let place = Place::parse("wss://cms.example.com/live/", "/realtime").unwrap();
        assert_eq!(
            (place.secure, &*place.host, place.port, &*place.base),
            (true, "cms.example.com", 443, "/live")
        );
        let place = Place::parse("http://[::1]:8080", "/realtime").unwrap();
        assert_eq!((&*place.host, place.port, &*place.base), ("::1", 8080, "/realtime"));
        assert_eq!(place.shown(), "http://[::1]:8080/realtime");
        for wrong in ["cms.example.com", "/realtime", "ftp://x/", "http://x/?y", "https://a:b@x/", ""] {
            assert!(Place::parse(wrong, "/").is_err(), "{wrong}");
        }
    }
}
