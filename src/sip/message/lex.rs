//! The lexical rules that header values share (RFC 3261 25.1).

use super::find;

/// Linear white space, a folded line end included.
pub(super) const LWS: [u8; 4] = *b" \t\r\n";

/// Whether a byte is of [`LWS`].
pub(super) const fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A set of bytes. A look into a table is the cheapest test of a byte that there is.
struct ByteSet([bool; 256]);

impl ByteSet {
    const fn of(bytes: &[u8]) -> Self {
        let mut table = [false; 256];
        let mut index = 0;
        while index < bytes.len() {
            table[bytes[index] as usize] = true;
            index += 1;
        }
        Self(table)
    }

    const fn has(&self, byte: u8) -> bool {
        self.0[byte as usize]
    }

    /// Index of the first byte of the set in `text`, or the length of `text`.
    fn find(&self, text: &[u8]) -> usize {
        text.iter().position(|&byte| self.has(byte)).unwrap_or(text.len())
    }
}

/// The characters of `token`.
const TOKEN: ByteSet = ByteSet::of(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.!%*_+`'~");

/// The characters that a host cannot have, and the colon behind it. Names are not looked at closer.
const NOT_IN_HOST: ByteSet = {
    let mut table = [true; 256];
    let mut code: u8 = b'!';
    while code <= b'~' {
        table[code as usize] = matches!(code, b'<' | b'>' | b'"' | b'@' | b':');
        code += 1;
    }
    ByteSet(table)
};

/// Whether `text` is a non-empty `token`.
pub(super) fn is_token_text(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| TOKEN.has(byte))
}

/// `text` without white space at either end.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

/// `text` without white space before it.
pub(super) fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_lws(*first)
    {
        text = rest;
    }
    text
}

/// `text` without white space behind it.
pub(super) fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., last] = text
        && is_lws(*last)
    {
        text = rest;
    }
    text
}

/// Index of the first `wanted` in `text` that stands outside quoted strings. An unclosed quote hides the rest.
pub(super) fn find_unquoted(text: &[u8], wanted: u8) -> Option<usize> {
    let mut index = 0;
    loop {
        index = find::any(text, index, [wanted, b'"']);
        if *text.get(index)? == wanted {
            return Some(index);
        }
        index = closing_quote(text, index)? + 1;
    }
}

/// As [`find_unquoted`], outside angle brackets as well. An unclosed bracket hides the rest.
pub(super) fn find_unbracketed(text: &[u8], wanted: u8) -> Option<usize> {
    let mut index = 0;
    loop {
        index = find::any(text, index, [wanted, b'"', b'<']);
        index = match *text.get(index)? {
            byte if byte == wanted => return Some(index),
            b'"' => closing_quote(text, index)?,
            _ => find::any(text, index, [b'>']),
        } + 1;
    }
}

/// Index of the quote that ends the string which begins at `open`.
pub(super) fn closing_quote(text: &[u8], open: usize) -> Option<usize> {
    let mut index = open + 1;
    loop {
        index = find::any(text, index, [b'"', b'\\']);
        if *text.get(index)? == b'"' {
            return Some(index);
        }
        index += 2;
    }
}

/// A port or other small decimal number, 1 to 5 digits.
pub(super) fn port(text: &[u8]) -> Option<u16> {
    if text.len() > 5 {
        return None;
    }
    u16::try_from(number(text)?).ok()
}

/// A decimal number of 1 to 10 digits.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

/// Splits `host[:port]`, IPv6 references in brackets included. The host keeps its brackets.
pub(super) fn host_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let text = trim(text);
    let end = match text.first()? {
        b'[' => {
            let close = find::first(text, b']')?;
            let has_other = text[1..close].iter().any(|&byte| byte != b':' && NOT_IN_HOST.has(byte));
            if has_other {
                return None;
            }
            close + 1
        }
        _ => NOT_IN_HOST.find(text),
    };
    let (host, rest) = text.split_at(end);
    if host.is_empty() {
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
        assert_eq!(find_unbracketed(text, b','), Some(20));
        assert_eq!(find_unquoted(text, b','), Some(15));
        for hidden in [&br#""never closed, x"#[..], br#""ends in \"#, b"<never closed, x", br#"<a"b>"c, d"#] {
            assert_eq!(find_unbracketed(hidden, b','), None, "{}", hidden.escape_ascii());
        }
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
