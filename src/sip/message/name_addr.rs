//! `name-addr` and `addr-spec` with parameters: From, To and their kin (RFC 3261 20.10, 25.1).

use std::fmt;

use super::params::Params;
use super::{find, lex};

/// A name, an address and the header's parameters, as written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name as written, quotes included; empty when there is none.
    pub display: &'a [u8],
    /// The URI as written.
    pub uri: &'a [u8],
    /// The parameters behind it.
    pub params: Params<'a>,
}

impl fmt::Debug for NameAddr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Name and URI tell who it is.
        f.debug_struct("NameAddr").finish_non_exhaustive()
    }
}

impl<'a> NameAddr<'a> {
    /// Reads one value. `None` where brackets or quotes do not close, or there is no URI.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = lex::trim(value);
        let Some(open) = lex::find_unquoted(value, b'<') else {
            // Without brackets what follows a semicolon belongs to the header (RFC 3261 20).
            let end = find::any(value, 0, [b';']);
            let uri = lex::trim(&value[..end]);
            let plain =
                !uri.is_empty() && !uri.iter().any(|&byte| lex::is_lws(byte) || matches!(byte, b'"' | b'>' | b','));
            return plain.then_some(Self { display: b"", uri, params: Params(&value[end..]) });
        };
        let inside = &value[open + 1..];
        let close = find::first(inside, b'>')?;
        let params = lex::trim(&inside[close + 1..]);
        if !(params.is_empty() || params[0] == b';') {
            return None;
        }
        let uri = lex::trim(&inside[..close]);
        (!uri.is_empty()).then_some(Self { display: lex::trim(&value[..open]), uri, params: Params(params) })
    }

    /// The `tag` parameter (RFC 3261 19.3).
    #[must_use]
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.params.value("tag")
    }
}

/// The values of a comma-separated header, commas in quotes and brackets respected.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let text = rest?;
        let (item, behind) = match lex::find_unbracketed(text, b',') {
            Some(comma) => (&text[..comma], Some(&text[comma + 1..])),
            None => (text, None),
        };
        rest = behind;
        Some(lex::trim(item))
    })
    .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hide_brackets_and_parameters() {
        let value =
            NameAddr::parse(br#""Doe, J <x> ;tag=evil" <sip:+447700900123@c.example;user=phone>;tag=1"#).unwrap();
        assert_eq!(value.uri, b"sip:+447700900123@c.example;user=phone");
        assert_eq!(value.tag(), Some(&b"1"[..]));
    }

    #[test]
    fn parameters_without_brackets_belong_to_the_header() {
        let value = NameAddr::parse(b"sip:+447700900123@c.example;tag=1").unwrap();
        assert_eq!((value.uri, value.tag()), (&b"sip:+447700900123@c.example"[..], Some(&b"1"[..])));
    }

    #[test]
    fn lists_split_outside_quotes_and_brackets() {
        let items: Vec<_> = list(br#""A, B" <sip:alice@c.example;a=b,c>, <tel:+447700900123>,,"#).collect();
        assert_eq!(items, [&br#""A, B" <sip:alice@c.example;a=b,c>"#[..], b"<tel:+447700900123>"]);
    }

    #[test]
    fn broken_values_are_refused() {
        for wrong in [&b""[..], b"<>", b"<sip:a@b", b"\"A <sip:a@b>", b"a b c", b"<sip:a@b> x", b";tag=1"] {
            assert_eq!(NameAddr::parse(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
