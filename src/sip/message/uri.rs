//! `sip:`, `sips:` and `tel:` URIs (RFC 3261 19.1, RFC 3966).

use std::fmt;

use super::params::Params;
use super::{find, lex};

/// What ends the user of a SIP URI: its parameters, its password, the host.
const USER_ENDS: [u8; 3] = *b";:@";

/// A URI, cut into its parts; nothing is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uri<'a> {
    /// `sip:` or `sips:`.
    Sip(SipUri<'a>),
    /// `tel:`.
    Tel(TelUri<'a>),
    /// A scheme that is not known here.
    Other,
}

/// RFC 3261 19.1.1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SipUri<'a> {
    /// The user without password and parameters; empty where the URI has none.
    pub user: &'a [u8],
    /// Parameters inside the user part, as telephone numbers have them (RFC 3261 19.1.6).
    pub user_params: Params<'a>,
    /// The host, an IPv6 reference with its brackets.
    pub host: &'a [u8],
    /// The port, where given.
    pub port: Option<u16>,
    /// Parameters of the URI.
    pub params: Params<'a>,
    /// What stands behind `?`.
    pub headers: &'a [u8],
}

/// RFC 3966 3.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TelUri<'a> {
    /// The number with its visual separators.
    pub number: &'a [u8],
    /// Its parameters.
    pub params: Params<'a>,
}

impl fmt::Debug for SipUri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The user is a number or a name.
        f.debug_struct("SipUri").field("port", &self.port).finish_non_exhaustive()
    }
}

impl fmt::Debug for TelUri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelUri").finish_non_exhaustive()
    }
}

impl<'a> Uri<'a> {
    /// Cuts a URI. `None` where it has no scheme or its parts do not fit the scheme.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        if let Some((b"sip:", rest)) = text.split_at_checked(4) {
            return SipUri::parse(rest).map(Self::Sip);
        }
        let colon = find::first(text, b':')?;
        let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
        if scheme.is_empty()
            || !scheme.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
        {
            return None;
        }
        if scheme.eq_ignore_ascii_case(b"sip") || scheme.eq_ignore_ascii_case(b"sips") {
            return SipUri::parse(rest).map(Self::Sip);
        }
        if scheme.eq_ignore_ascii_case(b"tel") {
            let end = find::any(rest, 0, [b';']);
            let number = &rest[..end];
            return (!number.is_empty()).then_some(Self::Tel(TelUri { number, params: Params(&rest[end..]) }));
        }
        Some(Self::Other)
    }

    /// Whom it names: the user or the number.
    #[must_use]
    pub const fn user(&self) -> Option<&'a [u8]> {
        match self {
            Self::Sip(uri) => Some(uri.user),
            Self::Tel(uri) => Some(uri.number),
            Self::Other => None,
        }
    }

    /// Whom a URI names, where nothing else of it is of interest: its host need not be one.
    #[must_use]
    pub fn user_of(text: &'a [u8]) -> Option<&'a [u8]> {
        if let Some((b"sip:", rest)) = text.split_at_checked(4)
            && let (user, [b'@', ..]) = rest.split_at(find::any(rest, 0, USER_ENDS))
        {
            return Some(user);
        }
        Self::parse(text)?.user()
    }
}

impl<'a> SipUri<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        // A user may hold `;` and `?`, the host part no `@`: the first `@` ends the user.
        let user_end = find::any(text, 0, USER_ENDS);
        let at = if text.get(user_end) == Some(&b'@') { Some(user_end) } else { find::first(text, b'@') };
        let (user, user_params, behind) = match at {
            Some(at) => {
                let (user, rest) = text[..at].split_at(user_end);
                // What stands between the colon and the at sign is a password.
                let params_end = find::any(rest, 0, [b':']);
                (user, &rest[..params_end], &text[at + 1..])
            }
            None => (&b""[..], &b""[..], text),
        };
        let host_end = find::any(behind, 0, [b';', b'?']);
        let (before, rest) = behind.split_at(host_end);
        let (params, headers) = rest.split_at(find::any(rest, 0, [b'?']));
        let (host, port) = lex::host_port(before)?;
        let headers = headers.get(1..).unwrap_or(b"");
        Some(Self { user, user_params: Params(user_params), host, port, params: Params(params), headers })
    }
}

/// Decodes `%41` to `A` into `buffer`. `None` where the result does not fit; a `%` that begins no escape stays.
pub fn unescape<'b>(text: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut length = 0;
    let mut index = 0;
    while let Some(&byte) = text.get(index) {
        let escaped = (byte == b'%').then(|| text.get(index + 1..index + 3)).flatten().and_then(hex_pair);
        *buffer.get_mut(length)? = escaped.unwrap_or(byte);
        length += 1;
        index += if escaped.is_some() { 3 } else { 1 };
    }
    Some(&buffer[..length])
}

fn hex_pair(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(value(digits[0])? * 16 + value(digits[1])?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sip(text: &[u8]) -> SipUri<'_> {
        match Uri::parse(text) {
            Some(Uri::Sip(uri)) => uri,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn user_password_and_parameters_come_apart() {
        let uri =
            sip(b"sip:+447700900123;npdi;rn=+447700900000:secret@c.example:5070;user=phone?Reason=SIP%3Bcause%3D302");
        assert_eq!(uri.user, b"+447700900123");
        assert_eq!(uri.user_params.value("rn"), Some(&b"+447700900000"[..]));
        assert_eq!((uri.host, uri.port), (&b"c.example"[..], Some(5070)));
        assert_eq!(uri.params.value("user"), Some(&b"phone"[..]));
        assert_eq!(uri.headers, b"Reason=SIP%3Bcause%3D302");
    }

    #[test]
    fn hosts_alone_and_ipv6_are_read() {
        assert_eq!(sip(b"sips:[2001:db8::9]:5061").host, b"[2001:db8::9]");
        assert_eq!(sip(b"SIP:gw.example").user, b"");
    }

    #[test]
    fn other_schemes_are_told_apart_from_broken_uris() {
        assert_eq!(Uri::parse(b"http://a/"), Some(Uri::Other));
        for wrong in [&b"nothing"[..], b":x", b"sip:", b"sip:a@", b"tel:", b"s p:a@b"] {
            assert_eq!(Uri::parse(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn escapes_are_decoded_within_the_buffer() {
        let mut buffer = [0u8; 8];
        assert_eq!(unescape(b"%2B4%zz", &mut buffer), Some(&b"+4%zz"[..]));
        assert_eq!(unescape(b"%", &mut buffer), Some(&b"%"[..]));
        assert_eq!(unescape(b"123456789", &mut buffer), None);
    }
}
