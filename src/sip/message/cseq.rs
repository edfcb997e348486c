//! CSeq (RFC 3261 20.16): a sequence number below 2**31 and a method.

use super::lex;
use super::method::Method;

/// The sequence number and method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Below 2**31 (RFC 3261 8.1.1.5).
    pub number: u32,
    /// The method.
    pub method: Method,
    /// The method as written.
    pub method_name: &'a [u8],
}

impl<'a> CSeq<'a> {
    /// Reads the value of the header.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = value.split_at(digits);
        let method_name = lex::trim(rest);
        if rest.len() == method_name.len() || !lex::is_token_text(method_name) {
            return None;
        }
        let number = u32::try_from(lex::number(number)?).ok().filter(|&number| number < 1 << 31)?;
        Some(Self { number, method: Method::of(method_name), method_name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_method_are_read_and_nonsense_refused() {
        let cseq = CSeq::parse(b"0009\t INVITE").unwrap();
        assert_eq!((cseq.number, cseq.method), (9, Method::Invite));
        for wrong in [
            &b""[..],
            b"1",
            b"INVITE",
            b"1INVITE",
            b"-1 INVITE",
            b"2147483648 INVITE",
            b"99999999999 INVITE",
            b"1 INV ITE",
        ] {
            assert_eq!(CSeq::parse(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
