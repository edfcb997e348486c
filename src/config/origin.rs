//! `allowed_origins`: pages that may follow their user's verification, each exactly as browsers send it (RFC 6454 6.2).

use hyper::Uri;

use super::fault::{Fault, Quoted};
use super::section::{Section, Word};

const KEY: &str = "allowed_origins";
/// Most origins of an application.
const MAX_ORIGINS: usize = 64;
/// Longest origin in bytes: scheme, the longest name that the DNS holds, and a port.
const MAX_ORIGIN: usize = 8 + 253 + 6;
/// What is proposed where nothing nearer is known.
const EXAMPLE: &str = "https://shop.example";

/// Reads the list; `None` where a fault was told. Where `live` is not known, that fault is told already.
pub(super) fn read(section: &Section<'_>, live: Option<bool>) -> Option<Vec<String>> {
    let entry = section.words(KEY).and_then(|list, span| {
        let count = list.words.len();
        if count > MAX_ORIGINS {
            section.tell(span, Fault::TooMany { what: KEY, count, max: MAX_ORIGINS });
            return None;
        }
        let mut origins: Vec<String> = Vec::with_capacity(count);
        let mut whole = list.whole;
        for word in &list.words {
            if let Err(fault) = check(word, live, &origins) {
                section.tell(&word.span, fault);
                whole = false;
            }
            origins.push(word.text.to_owned());
        }
        whole.then_some(origins)
    });
    entry.or(Vec::new())
}

fn check(word: &Word<'_>, live: Option<bool>, before: &[String]) -> Result<(), Fault> {
    let text = || Quoted::new(word.text);
    if word.text == "*" {
        return Err(Fault::AnyOrigin);
    }
    let right = canonical(word.text);
    if right.as_deref() != Some(word.text) {
        return Err(Fault::Origin { text: text(), right: Quoted::new(right.as_deref().unwrap_or(EXAMPLE)) });
    }
    if live == Some(true) && word.text.starts_with("http:") {
        return Err(Fault::PlainOrigin { text: text() });
    }
    if before.iter().any(|other| other == word.text) {
        return Err(Fault::Repeated { key: KEY, word: text() });
    }
    Ok(())
}

/// The origin that a text names or nearly names, as browsers send it: scheme and host in lower case, a port only where
/// it is not the scheme's own, and nothing behind.
fn canonical(text: &str) -> Option<String> {
    let bare = !text.contains("://");
    if bare && !text.contains(['.', ':']) {
        // A word such as `null` is no host that somebody has forgotten the scheme of.
        return None;
    }
    let uri: Uri = if bare { format!("https://{text}").parse() } else { text.parse() }.ok()?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
    let host = uri.host().filter(|host| is_host(host))?.to_ascii_lowercase();
    // `Uri` keeps a port that is none.
    let written = uri.authority()?.as_str().rsplit_once('@').map_or(uri.authority()?.as_str(), |(_, host)| host);
    let port = match written.get(host.len()..)?.strip_prefix(':') {
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port > 0)?),
        None => None,
    };
    let own = if scheme == "http" { 80 } else { 443 };
    let port = port.filter(|port| *port != own).map(|port| format!(":{port}")).unwrap_or_default();
    let origin = format!("{scheme}://{host}{port}");
    (origin.len() <= MAX_ORIGIN).then_some(origin)
}

/// A name of letters, digits, `-`, `_` and dots, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok_and(|address| address.to_string() == inner);
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    host.split('.').all(|label| !label.is_empty() && label.bytes().all(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_that_browsers_send_are_taken_as_they_are() {
        for text in [
            "https://shop.example",
            "https://www.shop.example:8443",
            "http://localhost:3000",
            "http://127.0.0.1:3000",
            "http://[::1]:3000",
            "https://xn--hxajbheg2az3al.xn--qxam",
        ] {
            assert_eq!(canonical(text).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_nearly_an_origin_is_put_right() {
        for (text, right) in [
            ("https://shop.example/", "https://shop.example"),
            ("https://shop.example/checkout?x=1", "https://shop.example"),
            ("https://Shop.Example", "https://shop.example"),
            ("HTTPS://shop.example", "https://shop.example"),
            ("https://shop.example:443", "https://shop.example"),
            ("http://shop.example:80", "http://shop.example"),
            ("https://user@shop.example:99", "https://shop.example:99"),
            ("shop.example", "https://shop.example"),
            ("localhost:3000", "https://localhost:3000"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(right), "{text}");
        }
        for text in [
            "",
            "null",
            "ftp://shop.example",
            "https://",
            "https://*.shop.example",
            "https://shop.example:0",
            "https://shop.example:99999",
            "https://shop.example:",
            "https://sh\u{f6}p.example",
            "https://shop..example",
            "https://[::1",
            "https://shop.example https://b.example",
        ] {
            assert_ne!(canonical(text).as_deref(), Some(text), "{text}");
        }
    }
}
