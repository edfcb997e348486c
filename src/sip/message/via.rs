//! Via (RFC 3261 20.42) and `rport` (RFC 3581).

use super::params::Params;
use super::{find, lex};

/// The topmost Via of a request: where its response goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via<'a> {
    /// Protocol, version, transport and sent-by as written.
    pub head: &'a [u8],
    /// Host of sent-by, an IPv6 reference with its brackets.
    pub host: &'a [u8],
    /// Port of sent-by, where given.
    pub port: Option<u16>,
    /// The `branch` parameter, where it has a value.
    pub branch: Option<&'a [u8]>,
    /// Whether the peer asks for the response to come back to its source port (RFC 3581 3).
    pub wants_rport: bool,
    /// All parameters.
    pub params: Params<'a>,
    /// What follows the topmost value in the same header field, from its comma on; empty when nothing does.
    pub rest: &'a [u8],
    /// The topmost value as written.
    pub raw: &'a [u8],
}

impl<'a> Via<'a> {
    /// Reads the first value of a Via header field.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let end = lex::find_unquoted(value, b',').unwrap_or(value.len());
        let (raw, rest) = value.split_at(end);
        let raw = lex::trim(raw);
        let head_end = find::any(raw, 0, [b';']);
        let head = lex::trim(&raw[..head_end]);
        let (host, port) = lex::host_port(sent_by(head)?)?;
        let params = Params(&raw[head_end..]);
        let (mut branch, mut wants_rport) = (None, false);
        for param in params.iter() {
            if param.name.eq_ignore_ascii_case(b"branch") {
                branch = branch.or(Some(param.value));
            } else {
                wants_rport |= param.name.eq_ignore_ascii_case(b"rport");
            }
        }
        let branch = branch.flatten().filter(|branch| !branch.is_empty());
        Some(Self { head, host, port, branch, wants_rport, params, rest, raw })
    }

    /// Whether the branch is globally unique (RFC 3261 8.1.1.7), not one of RFC 2543. The cookie alone, with nothing
    /// behind it, tells no transaction from another (RFC 4475 3.2.1).
    #[must_use]
    pub fn has_magic_cookie(&self) -> bool {
        self.branch.and_then(|branch| branch.strip_prefix(b"z9hG4bK")).is_some_and(|unique| !unique.is_empty())
    }

    /// Whether the values behind the topmost one, in the same header field, can be read.
    #[must_use]
    pub fn rest_is_whole(&self) -> bool {
        let mut rest = self.rest;
        while let Some(behind) = rest.strip_prefix(b",") {
            let Some(next) = Via::parse(behind) else { return false };
            rest = next.rest;
        }
        true
    }
}

/// What follows sent-protocol: name / version / transport, white space allowed around each slash.
fn sent_by(head: &[u8]) -> Option<&[u8]> {
    // As nearly all write it.
    if let Some((b"SIP/2.0/UDP " | b"SIP/2.0/TCP ", behind)) = head.split_at_checked(12) {
        return Some(behind);
    }
    let mut parts = head.splitn(3, |&byte| byte == b'/');
    let (name, version) = (lex::trim(parts.next()?), lex::trim(parts.next()?));
    let behind = lex::trim(parts.next()?);
    let transport_end = behind.iter().position(|&byte| lex::is_lws(byte))?;
    let readable = name.eq_ignore_ascii_case(b"SIP")
        && lex::is_token_text(version)
        && lex::is_token_text(&behind[..transport_end]);
    readable.then(|| &behind[transport_end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_and_lists_are_read() {
        let via = Via::parse(b"SIP / 2.0 / UDP  [2001:db8::9]:5070 ;branch=z9hG4bK1;rport, SIP/2.0/UDP b").unwrap();
        assert_eq!((via.host, via.port), (&b"[2001:db8::9]"[..], Some(5070)));
        assert_eq!(via.branch, Some(&b"z9hG4bK1"[..]));
        assert!(via.has_magic_cookie() && via.wants_rport);
        assert_eq!(via.rest, b", SIP/2.0/UDP b");
    }

    #[test]
    fn a_bare_cookie_is_no_branch_of_its_own() {
        assert!(!Via::parse(b"SIP/2.0/UDP a;branch=z9hG4bK").unwrap().has_magic_cookie());
        assert!(Via::parse(b"SIP/2.0/UDP a;branch=z9hG4bK1").unwrap().has_magic_cookie());
    }

    #[test]
    fn values_behind_the_topmost_one_are_looked_at() {
        let whole = |value: &'static [u8]| Via::parse(value).unwrap().rest_is_whole();
        assert!(whole(b"SIP/2.0/UDP a") && whole(b"SIP/2.0/UDP a, SIP/2.0/TCP b;x=\",\" ,SIP/2.0/UDP [::1]"));
        assert!(!whole(b"SIP/2.0/UDP a;;,;,,") && !whole(b"SIP/2.0/UDP a,") && !whole(b"SIP/2.0/UDP a, b"));
    }

    #[test]
    fn broken_values_are_refused() {
        for wrong in [&b""[..], b"SIP/2.0/UDP", b"SIP/2.0 a", b"HTTP/2.0/UDP a", b"SIP/2.0/UDP a:x", b"SIP/2.0/U@P a"] {
            assert_eq!(Via::parse(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
