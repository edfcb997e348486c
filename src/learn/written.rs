//! Numbers as a peer writes them, before anything is known of its dialplan.
//!
//! Owns the telling of numbers from names, and the masking of what is shown. Does not judge: what digits without `+`
//! mean is for `habits`.

use crate::e164::E164;
use crate::sip::message::Uri;
use crate::sip::message::uri::unescape;

/// Longest user part that is looked at.
const MAX_USER: usize = 64;
/// Fewest digits of a number; fewer are an extension.
const MIN_DIGITS: usize = 6;
/// Most digits of a number, a prefix and an international prefix included.
const MAX_DIGITS: usize = 24;
/// Longest prefix with `#` or `*`; a longer one may hold a number itself.
const MAX_PREFIX: usize = 8;
/// Longest text of a header that is shown.
const MAX_SHOWN: usize = 48;

/// A user part, or a display name, that looks like a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// What ends with `#` or `*`, or stands before a `+`.
    pub prefix: String,
    /// Whether the digits follow a `+`.
    pub plus: bool,
    /// The digits.
    pub digits: String,
}

impl Written {
    /// Reads the user of a `sip:` URI or the number of a `tel:` URI.
    pub(super) fn of_uri(uri: &[u8]) -> Option<Self> {
        match Uri::parse(uri)? {
            Uri::Sip(uri) => Self::of_text(uri.user),
            Uri::Tel(uri) => Self::of_text(uri.number),
            Uri::Other => None,
        }
    }

    /// Reads a display name, with or without its quotes.
    pub(super) fn of_display(display: &[u8]) -> Option<Self> {
        let display = display.trim_ascii();
        let inside = display.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(display);
        Self::of_text(inside.trim_ascii())
    }

    fn of_text(text: &[u8]) -> Option<Self> {
        let mut buffer = [0u8; MAX_USER];
        let text = unescape(text, &mut buffer)?;
        let is_separator = |byte: u8| matches!(byte, b'-' | b'.' | b'(' | b')' | b' ');
        let mark = text.iter().rposition(|byte| matches!(byte, b'#' | b'*'));
        let (head, tail) = text.split_at(mark.map_or(0, |mark| mark + 1));
        let (more, plus, tail) = match memchr::memchr(b'+', tail) {
            Some(at) => (&tail[..at], true, &tail[at + 1..]),
            None => (&b""[..], false, tail),
        };
        let prefix: String = head.iter().chain(more).copied().map(char::from).collect();
        let digits: String = tail.iter().copied().filter(|byte| !is_separator(*byte)).map(char::from).collect();
        let is_prefix = |symbol: char| symbol.is_ascii_digit() || matches!(symbol, '#' | '*');
        let readable = digits.chars().all(|digit| digit.is_ascii_digit())
            && (MIN_DIGITS..=MAX_DIGITS).contains(&digits.len())
            && digits.chars().any(|digit| digit != '0')
            && prefix.chars().all(is_prefix)
            && prefix.len() <= MAX_PREFIX;
        readable.then_some(Self { prefix, plus, digits })
    }

    /// The number, where the form is E.164 with its `+`.
    pub(super) fn number(&self) -> Option<E164> {
        if self.plus { E164::from_digits(self.digits.as_bytes()).ok() } else { None }
    }
}

/// Digits as they may be shown: the first two and the last two.
pub(super) fn masked(digits: &str) -> String {
    let length = digits.chars().count();
    let shown = |index: usize| length >= 8 && (index < 2 || index + 2 >= length);
    digits.chars().enumerate().map(|(index, digit)| if shown(index) { digit } else { '*' }).collect()
}

/// Text of a header as a comment may show it: printable, short, and runs of digits that could be a number replaced.
pub(super) fn shown(text: &[u8]) -> String {
    let mut shown: Vec<u8> = text.iter().take(MAX_SHOWN).copied().collect();
    for byte in &mut shown {
        if !byte.is_ascii_graphic() && *byte != b' ' {
            *byte = b'?';
        }
    }
    let mut start = 0;
    while start < shown.len() {
        let run = shown[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if run >= MIN_DIGITS {
            shown[start..start + run].fill(b'*');
        }
        start += run.max(1);
    }
    shown.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str) -> Option<(String, bool, String)> {
        Written::of_uri(uri.as_bytes()).map(|written| (written.prefix, written.plus, written.digits))
    }

    #[test]
    fn numbers_come_apart_into_prefix_plus_and_digits() {
        for (uri, prefix, plus, digits) in [
            ("sip:+447700900123@c", "", true, "447700900123"),
            ("tel:+44-7700-900123", "", true, "447700900123"),
            ("sip:07700900123;npdi@c", "", false, "07700900123"),
            ("sip:1234%23447700900123@c", "1234#", false, "447700900123"),
            ("sip:*31*+447700900123@c", "*31*", true, "447700900123"),
            ("sip:9911+447700900123@c", "9911", true, "447700900123"),
        ] {
            assert_eq!(parts(uri), Some((prefix.to_owned(), plus, digits.to_owned())), "{uri}");
        }
    }

    #[test]
    fn names_and_extensions_are_no_numbers() {
        for uri in [
            "sip:anonymous@c",
            "sip:c",
            "sip:2001@c",
            "sip:00000000@c",
            "sip:trunk447700900123@c",
            "sip:+44+7700900123@c",
            "sip:447700900123#447700900123@c",
            "sip:4477009001234477009001234@c",
            "mailto:a",
        ] {
            assert_eq!(parts(uri), None, "{uri}");
        }
    }

    #[test]
    fn display_names_may_hold_a_number() {
        assert_eq!(
            Written::of_display(br#""+44 7700 900123""#).map(|written| written.digits).as_deref(),
            Some("447700900123")
        );
        assert_eq!(Written::of_display(b"Alice"), None);
    }

    #[test]
    fn nothing_is_shown_whole() {
        assert_eq!(masked("07700900123"), "07*******23");
        assert_eq!(masked("900123"), "******");
        assert_eq!(shown(b"Vendor 7.40A/16.12 \r\n+447700900123"), "Vendor 7.40A/16.12 ??+************");
    }
}
