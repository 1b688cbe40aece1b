//! Headers as the RFCs say they are read: repeated fields are one list, bytes outside ASCII stay as they came, and a
//! request has one host (RFC 9110, 5.3 and 7.2; RFC 9113, 8.2.3 and 8.3.1).

use axum::http::{HeaderMap, HeaderValue, Request, Version, header, header::HeaderName, uri::Authority};

use crate::protocol::{Problem, ProblemCode};

/// All values of a field as one, in their order, with `separator` between them: a field that was sent in several lines
/// means what it would mean in one. `None`: the field is not there.
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName, separator: &[u8]) -> Option<Vec<u8>> {
    let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    (!values.is_empty()).then(|| values.join(separator))
}

/// The items of a field that is a comma-separated list, without the spaces around them. An item that is not readable
/// text is empty: it keeps its place.
pub(super) fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let items = lines.flat_map(|line| line.split(|byte| *byte == b','));
    items.map(|item| std::str::from_utf8(item).unwrap_or_default().trim()).collect()
}

/// The value of a field that may be sent once only.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_none() {
        return Ok(first);
    }
    let detail =
        format!("The header {name:?} came more than once: a proxy on the way probably adds it again.");
    Err(Problem::new(400, ProblemCode::BadRequest, "Not a request", detail))
}

/// Sees to it that the request has one host, and that it stands in `Host`: HTTP/2 says it in the URI, as a request
/// with a whole URL does in HTTP/1, and then that counts.
pub(super) fn settle_host<B>(request: &mut Request<B>) -> Result<(), Problem> {
    let bad = |detail: &str| Problem::new(400, ProblemCode::BadRequest, "Not a request", detail);
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let said = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("The request has more than one Host header: send one."));
    }
    if said.is_some_and(|said| !is_host(said.as_bytes())) {
        return Err(bad("The Host header is not a host name or address with an optional port."));
    }
    let target = request.uri().authority().map(without_user);
    let Some(target) = target else {
        // HTTP/1.0, which some health checks speak, knows no Host.
        let needed = request.version() != Version::HTTP_10;
        return if said.is_none() && needed {
            Err(bad("The request has no Host header: send one."))
        } else {
            Ok(())
        };
    };
    let differs = said.is_some_and(|said| !said.as_bytes().eq_ignore_ascii_case(target.as_bytes()));
    if differs && request.version() == Version::HTTP_2 {
        return Err(bad("The Host header and :authority name different hosts: send one of them."));
    }
    let host = HeaderValue::from_str(target).ok().filter(|host| is_host(host.as_bytes()));
    let host = host.ok_or_else(|| bad("The request's URL names no usable host."))?;
    request.headers_mut().insert(header::HOST, host);
    Ok(())
}

fn without_user(authority: &Authority) -> &str {
    authority.as_str().rsplit('@').next().unwrap_or_default()
}

/// Whether this is `uri-host [ ":" port ]` (RFC 3986, 3.2.2): a name or an address, in brackets where it is IPv6.
fn is_host(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let address = address.split_once("%25").map_or(address, |(address, _)| address);
            return address.parse::<std::net::Ipv6Addr>().is_ok() && is_port(port);
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    !name.is_empty() && name.bytes().all(fits) && is_port(port)
}

fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| port.is_empty() || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, hosts: &[&[u8]]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(header::HOST, HeaderValue::from_bytes(host).unwrap());
        }
        request
    }

    fn host(version: Version, uri: &str, hosts: &[&[u8]]) -> Option<String> {
        let mut request = request(version, uri, hosts);
        settle_host(&mut request).ok()?;
        Some(request.headers().get(header::HOST)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_request_has_one_host() {
        let one = Version::HTTP_11;
        for good in ["node", "node:8080", "127.0.0.1:1", "[::1]", "[::1]:8080", "a_b.example.com.", "node:"] {
            assert_eq!(host(one, "/x", &[good.as_bytes()]).as_deref(), Some(good));
        }
        for bad in [
            &b""[..],
            b" ",
            b":80",
            b"a b",
            b"a/b",
            b"a@b",
            b"::1",
            b"[::1",
            b"[x]",
            b"node:x",
            b"node:99999",
            b"\xff",
        ] {
            assert_eq!(host(one, "/x", &[bad]), None, "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(host(one, "/x", &[]), None);
        assert!(settle_host(&mut request(Version::HTTP_10, "/x", &[])).is_ok(), "HTTP/1.0 knows no Host");
        assert_eq!(host(one, "/x", &[b"a", b"a"]), None, "one is one");
        assert_eq!(host(one, "http://me@b:1/x", &[b"a"]).as_deref(), Some("b:1"), "RFC 9112, 3.2.2");
        let two = Version::HTTP_2;
        assert_eq!(host(two, "https://a/x", &[]).as_deref(), Some("a"));
        assert_eq!(host(two, "https://a/x", &[b"A"]).as_deref(), Some("a"));
        assert_eq!(host(two, "https://a/x", &[b"b"]), None, "two hosts");
    }

    #[test]
    fn repeated_fields_are_one() {
        let mut headers = HeaderMap::new();
        assert_eq!(joined(&headers, &header::COOKIE, b"; "), None);
        for cookie in [&b"a=1"[..], b"b=\xff", b"c=3; d=4"] {
            headers.append(header::COOKIE, HeaderValue::from_bytes(cookie).unwrap());
        }
        assert_eq!(joined(&headers, &header::COOKIE, b"; ").unwrap(), b"a=1; b=\xff; c=3; d=4");
        assert_eq!(single(&headers, &header::COOKIE).unwrap_err().status, 400);
        headers.append(header::VIA, HeaderValue::from_static("a , b,"));
        headers.append(header::VIA, HeaderValue::from_bytes(b"\xff,c").unwrap());
        assert_eq!(items(&headers, &header::VIA), ["a", "b", "", "", "c"]);
        assert!(single(&headers, &header::HOST).unwrap().is_none());
    }
}
