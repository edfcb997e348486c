//! The lexical rules that header values share (RFC 3261 25.1).

/// Linear white space, a folded line end included.
pub(super) const fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A character of `token`.
pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

/// Whether `text` is a non-empty `token`.
pub(super) fn is_token_text(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token(byte))
}

/// `text` without white space at either end.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_lws(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_lws(*last)
    {
        text = rest;
    }
    text
}

/// Index of the first of `wanted` in `text` that stands outside quoted strings, and outside angle brackets where
/// `angles` is set. An unclosed quote or bracket hides the rest.
pub(super) fn find_unquoted(text: &[u8], wanted: &[u8], angles: bool) -> Option<usize> {
    let mut quoted = false;
    let mut bracketed = false;
    let mut index = 0;
    while let Some(&byte) = text.get(index) {
        match byte {
            b'\\' if quoted => index += 1,
            b'"' if !bracketed => quoted = !quoted,
            _ if quoted => {}
            b'<' if angles => bracketed = true,
            b'>' if angles => bracketed = false,
            _ if !bracketed && wanted.contains(&byte) => return Some(index),
            _ => {}
        }
        index += 1;
    }
    None
}

/// A port or other small decimal number, 1 to 5 digits.
pub(super) fn port(text: &[u8]) -> Option<u16> {
    if text.is_empty() || text.len() > 5 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Splits `host[:port]`, IPv6 references in brackets included. The host keeps its brackets.
pub(super) fn host_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let text = trim(text);
    let end = match text.first()? {
        b'[' => memchr::memchr(b']', text)? + 1,
        _ => memchr::memchr(b':', text).unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(end);
    let host = trim(host);
    if host.is_empty()
        || !host.iter().all(|&byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'@'))
    {
        return None;
    }
    match trim(rest) {
        [] => Some((host, None)),
        [b':', number @ ..] => Some((host, Some(port(trim(number))?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_and_brackets_are_not_found() {
        let text = br#""A, \"B" <sip:a,b@c>, <tel:+1>"#;
        assert_eq!(find_unquoted(text, b",", true), Some(20));
        assert_eq!(find_unquoted(br#""never closed, x"#, b",", true), None);
    }

    #[test]
    fn hosts_keep_their_brackets() {
        assert_eq!(host_port(b"[2001:db8::1]:5070"), Some((&b"[2001:db8::1]"[..], Some(5070))));
        assert_eq!(host_port(b" gw.example : 5060 "), Some((&b"gw.example"[..], Some(5060))));
        assert_eq!(host_port(b"[::1]"), Some((&b"[::1]"[..], None)));
        for wrong in [&b""[..], b":5060", b"[::1", b"a b", b"h:99999", b"h:", b"[::1]x"] {
            assert_eq!(host_port(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
