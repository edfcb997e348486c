//! Where a request comes from: the peer of its connection, or whom a trusted proxy names.
//!
//! A proxy appends what it saw to `X-Forwarded-For`, or to `Forwarded` (RFC 7239 4). What stands further left may be
//! the client's own invention, so the list is read from the right, and the first address that is no trusted proxy
//! counts. Invariant: a header counts only on a connection from a trusted proxy.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::FORWARDED;
use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Most proxies in a row.
const MAX_HOPS: usize = 16;

/// The other end of a connection; the server puts it into each of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remote(pub(super) IpAddr);

impl Remote {
    /// An IPv4 peer of an IPv6 listener is known by its IPv4 address.
    pub(super) fn of(peer: SocketAddr) -> Self {
        Self(peer.ip().to_canonical())
    }
}

/// The address that a request comes from; `None` where a trusted proxy does not say it clearly.
pub(super) fn client(remote: Remote, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(&remote.0) {
        return Some(remote.0);
    }
    let named = |name: HeaderName, read: fn(&str) -> Option<IpAddr>| {
        headers.contains_key(&name).then(|| rightmost(headers, &name, read, is_trusted))
    };
    match (named(X_FORWARDED_FOR, address), named(FORWARDED, forwarded_for)) {
        (None, None) => Some(remote.0),
        (Some(client), None) | (None, Some(client)) => client,
        // A proxy that writes one of them may pass on what a client invents in the other.
        (Some(one), Some(other)) => one.filter(|_| one == other),
    }
}

/// The first address from the right that is not trusted; where all are, the leftmost.
fn rightmost(
    headers: &HeaderMap,
    name: &HeaderName,
    read: fn(&str) -> Option<IpAddr>,
    is_trusted: impl Fn(&IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut last = None;
    let mut hops = 0;
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    for line in lines.into_iter().rev() {
        for element in line.to_str().ok()?.rsplit(',') {
            let address = read(element.trim())?;
            hops += 1;
            if !is_trusted(&address) {
                return Some(address);
            }
            if hops == MAX_HOPS {
                return None;
            }
            last = Some(address);
        }
    }
    last
}

/// The `for` parameter of one element of `Forwarded`. Neither an obfuscated node nor `unknown` is an address.
///
/// Other parameters hold a client's text, `host` above all, in quotes: a comma or semicolon there must not part what
/// follows it off as a parameter. So every parameter is to be whole, and `for` is to be there once.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut client = None;
    for pair in element.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        if inner.contains(['"', '\\']) {
            return None;
        }
        if name.eq_ignore_ascii_case("for") && client.replace(address(inner)?).is_some() {
            return None;
        }
    }
    client
}

/// An address, with a port or not: some proxies add it.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(bracketed).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn from(peer: &str, lines: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let trusted = ["127.0.0.1/32", "10.0.0.0/8"].map(|network| network.parse().unwrap());
        client(Remote::of(SocketAddr::new(peer.parse().unwrap(), 1)), &headers, &trusted)
            .map(|address| address.to_string())
    }

    #[test]
    fn a_header_counts_only_from_a_trusted_proxy() {
        let lie = [("x-forwarded-for", "192.0.2.9"), ("forwarded", "for=192.0.2.9")];
        assert_eq!(from("198.51.100.1", &lie).as_deref(), Some("198.51.100.1"));
        assert_eq!(from("::ffff:198.51.100.1", &lie).as_deref(), Some("198.51.100.1"));
        assert_eq!(from("127.0.0.1", &[]).as_deref(), Some("127.0.0.1"));
        assert_eq!(from("127.0.0.1", &lie).as_deref(), Some("192.0.2.9"));
    }

    #[test]
    fn the_rightmost_untrusted_address_counts() {
        for (name, list, client) in [
            ("x-forwarded-for", "192.0.2.9, 198.51.100.7", Some("198.51.100.7")),
            ("x-forwarded-for", "192.0.2.9,198.51.100.7 , 10.1.1.1", Some("198.51.100.7")),
            ("x-forwarded-for", "10.2.2.2, 10.1.1.1", Some("10.2.2.2")),
            ("x-forwarded-for", "198.51.100.7:4711", Some("198.51.100.7")),
            ("x-forwarded-for", "[2001:db8::7]:4711", Some("2001:db8::7")),
            ("x-forwarded-for", "2001:db8::7", Some("2001:db8::7")),
            ("x-forwarded-for", "::ffff:198.51.100.7", Some("198.51.100.7")),
            ("x-forwarded-for", "192.0.2.9, unknown", None),
            ("x-forwarded-for", "unknown, 192.0.2.9", Some("192.0.2.9")),
            ("x-forwarded-for", "", None),
            ("forwarded", "for=192.0.2.9, for=198.51.100.7;proto=https;by=10.0.0.1", Some("198.51.100.7")),
            ("forwarded", "proto=https; For=\"[2001:db8::7]:4711\"", Some("2001:db8::7")),
            ("forwarded", "for=\"x, for=198.51.100.7", Some("198.51.100.7")),
            ("forwarded", "for=_hidden", None),
            ("forwarded", "proto=http;host=\"shop.example:8080\";by=10.0.0.1;for=198.51.100.7", Some("198.51.100.7")),
            ("forwarded", "for=198.51.100.7;", Some("198.51.100.7")),
            ("forwarded", "proto=http;host=\"a,for=192.0.2.9\";for=198.51.100.7", None),
            ("forwarded", "proto=http;host=\"a;for=192.0.2.9\";for=198.51.100.7", None),
            ("forwarded", "for=198.51.100.7;host=\"a,for=192.0.2.9\"", None),
            ("forwarded", "for=198.51.100.7;host=\"a\\\",for=192.0.2.9;x=\\\"\"", None),
            ("forwarded", "host=\"a;for=192.0.2.9;b\"", None),
            ("forwarded", "for=192.0.2.9;for=198.51.100.7", None),
            ("forwarded", "proto=https", None),
        ] {
            assert_eq!(from("127.0.0.1", &[(name, list)]).as_deref(), client, "{list}");
        }
        let lines = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2, 10.0.0.3")];
        assert_eq!(from("10.0.0.1", &lines).as_deref(), Some("192.0.2.2"));
        let contradiction = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.2")];
        assert_eq!(from("10.0.0.1", &contradiction), None);
        assert_eq!(from("10.0.0.1", &[("x-forwarded-for", &"10.0.0.2,".repeat(1000))]), None);
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_further_left_changes_nothing(lie in "[ -~]{0,60}") {
            let list = format!("{lie}, 198.51.100.7");
            let found = from("127.0.0.1", &[("x-forwarded-for", &list)]);
            prop_assert_eq!(found.as_deref(), Some("198.51.100.7"));
            let list = format!("{lie}, for=198.51.100.7");
            let found = from("127.0.0.1", &[("forwarded", &list)]);
            prop_assert_eq!(found.as_deref(), Some("198.51.100.7"));
        }
    }
}
