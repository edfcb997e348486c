//! Header fields that the user adds to a call: reading `--header`.

/// Longest header field taken, in bytes of the whole text.
pub const MAX_HEADER: usize = 1_024;

/// Fields that the command writes itself, with their compact forms (RFC 3261 7.3.3): the call would not be one with a
/// second of them.
const OWN: [(&str, &str); 6] =
    [("Via", "v"), ("Call-ID", "i"), ("CSeq", ""), ("Max-Forwards", ""), ("Content-Length", "l"), ("To", "t")];

/// Fields that the command writes where the user gives none.
const DEFAULT: [(&str, &str); 4] =
    [("From", "f"), ("P-Asserted-Identity", ""), ("Contact", "m"), ("Content-Type", "c")];

/// Why a text is not a header field that can be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// There is no colon.
    #[error("has no colon; write 'Name: value'")]
    NoColon,
    /// The name is not a token (RFC 3261 25.1).
    #[error("has a name that is not a SIP token")]
    Name,
    /// The value holds CR, LF or NUL, which could end the field or the message.
    #[error("has a CR, LF or NUL")]
    ForbiddenCharacter,
    /// The whole text is too long.
    #[error("has {length} bytes; {MAX_HEADER} are the most")]
    TooLong {
        /// Bytes given.
        length: usize,
    },
    /// The command writes this field itself.
    #[error("{name} is written by the command")]
    Own {
        /// The field's long name.
        name: &'static str,
    },
}

/// Reads `Name: value` into its two parts, blanks around them removed.
///
/// `From`, `P-Asserted-Identity`, `Contact` and `Content-Type` replace what the command would write; with an empty
/// value they leave it out.
///
/// # Errors
/// A [`HeaderError`]: wrong use of the command.
pub fn parse_header(text: &str) -> Result<(String, String), HeaderError> {
    if text.len() > MAX_HEADER {
        return Err(HeaderError::TooLong { length: text.len() });
    }
    if text.contains(['\r', '\n', '\0']) {
        return Err(HeaderError::ForbiddenCharacter);
    }
    let (name, value) = text.split_once(':').ok_or(HeaderError::NoColon)?;
    let name = name.trim_matches([' ', '\t']);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(HeaderError::Name);
    }
    if let Some((name, _)) = OWN.iter().find(|own| is_named(name, own)) {
        return Err(HeaderError::Own { name });
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// The long name of the default field that `name` stands for, if it is one.
pub(super) fn default_name(name: &str) -> Option<&'static str> {
    DEFAULT.iter().find(|field| is_named(name, field)).map(|(name, _)| *name)
}

fn is_named(name: &str, (long, compact): &(&str, &str)) -> bool {
    name.eq_ignore_ascii_case(long) || name.eq_ignore_ascii_case(compact)
}

/// `token` of RFC 3261 25.1.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn name_and_value_are_split_at_the_first_colon() {
        let field = parse_header("Diversion : <sip:+966500000777@a.example>;reason=unconditional ").unwrap();
        let value = "<sip:+966500000777@a.example>;reason=unconditional";
        assert_eq!(field, ("Diversion".to_owned(), value.to_owned()));
        assert_eq!(parse_header("P-Asserted-Identity:").unwrap().1, "");
    }

    #[test]
    fn faults_are_told_apart() {
        let cases = [
            ("Privacy id", HeaderError::NoColon),
            (": id", HeaderError::Name),
            ("Pri vacy: id", HeaderError::Name),
            ("Privé: id", HeaderError::Name),
            ("Privacy: id\r\nVia: x", HeaderError::ForbiddenCharacter),
            ("Privacy: \0", HeaderError::ForbiddenCharacter),
            ("via: SIP/2.0/UDP a.example", HeaderError::Own { name: "Via" }),
            ("L: 0", HeaderError::Own { name: "Content-Length" }),
            ("T: <sip:a@b.example>", HeaderError::Own { name: "To" }),
            ("call-id: x", HeaderError::Own { name: "Call-ID" }),
            ("CSEQ: 1 INVITE", HeaderError::Own { name: "CSeq" }),
            ("Max-Forwards: 0", HeaderError::Own { name: "Max-Forwards" }),
        ];
        for (text, fault) in cases {
            assert_eq!(parse_header(text), Err(fault), "{text:?}");
        }
        let long = format!("X: {}", "y".repeat(MAX_HEADER));
        assert_eq!(parse_header(&long), Err(HeaderError::TooLong { length: MAX_HEADER + 3 }));
    }

    #[test]
    fn compact_names_stand_for_the_default_fields() {
        assert_eq!(
            ["f", "FROM", "m", "Diversion"].map(default_name),
            [Some("From"), Some("From"), Some("Contact"), None]
        );
    }

    proptest! {
        #[test]
        fn what_is_taken_is_one_line(text in ".{0,40}:.{0,40}") {
            if let Ok((name, value)) = parse_header(&text) {
                prop_assert!(!name.is_empty());
                prop_assert!(![name, value].concat().contains(['\r', '\n', '\0']));
            }
        }
    }
}
