//! `reject`: the final response with which a trunk's calls are refused (RFC 3261 21, RFC 3326, ITU-T Q.850).

use crate::call::trunk::Reject;

use super::fault::{Fault, Quoted};
use super::section::{Entry, Section, Shape};

/// Longest reason phrase in bytes.
const MAX_PHRASE: usize = 64;
/// Codes with a meaning of their own: a challenge, a transaction's or a request's fate.
const TAKEN: [u16; 8] = [401, 407, 408, 481, 482, 487, 491, 494];

const REJECT: Shape =
    Shape { title: "[trunk.reject]", keys: &[("code", "486"), ("phrase", r#""Busy Here""#), ("q850", "17")] };

/// Reads `reject` of a trunk: a code, or a table with code, phrase and cause.
pub(super) fn read(trunk: &Section<'_>) -> Entry<Reject> {
    trunk.integer_or_table("reject", &REJECT).and_then(|value, span| match value {
        Ok(code) => {
            let parsed = parse_code(&code);
            if parsed.is_none() {
                trunk.tell(span, Fault::RejectCode { code: Quoted::new(code) });
            }
            parsed.map(usual)
        }
        Err(section) => table(&section),
    })
}

fn table(section: &Section<'_>) -> Option<Reject> {
    // Any integer is taken here, so that a code out of range is told as what it is.
    let code = section.integer("code", 0..=u32::MAX).and_then(|code, span| {
        let code = code.to_string();
        let parsed = parse_code(&code);
        if parsed.is_none() {
            section.tell(span, Fault::RejectCode { code: Quoted::new(&code) });
        }
        parsed
    });
    let phrase = section.text("phrase").and_then(|text, span| {
        if text.is_empty() || text.len() > MAX_PHRASE || text.chars().any(char::is_control) {
            section.tell(span, Fault::RejectPhrase { max: MAX_PHRASE });
            return None;
        }
        Some(text)
    });
    let cause = section.integer("q850", 0..=127);
    let usual = usual(section.required("code", code)?);
    Some(Reject {
        phrase: phrase.or(&usual.phrase)?.to_owned(),
        q850: cause.or(usual.q850.map_or(0, u32::from)).map(|cause| u8::try_from(cause).ok().filter(|c| *c != 0))?,
        ..usual
    })
}

fn parse_code(text: &str) -> Option<u16> {
    let code = text.parse().ok()?;
    (matches!(code, 400..=499 | 600..=699) && !TAKEN.contains(&code)).then_some(code)
}

/// The refusal with `code` as its standard words it, with the cause that gateways map to it (RFC 3398).
pub(super) fn usual(code: u16) -> Reject {
    let (phrase, q850) = match code {
        400 => ("Bad Request", None),
        402 => ("Payment Required", None),
        403 => ("Forbidden", Some(21)),
        404 => ("Not Found", Some(1)),
        405 => ("Method Not Allowed", None),
        406 | 606 => ("Not Acceptable", None),
        410 => ("Gone", None),
        413 => ("Request Entity Too Large", None),
        414 => ("Request-URI Too Long", None),
        415 => ("Unsupported Media Type", None),
        416 => ("Unsupported URI Scheme", None),
        420 => ("Bad Extension", None),
        421 => ("Extension Required", None),
        423 => ("Interval Too Brief", None),
        433 => ("Anonymity Disallowed", None),
        480 => ("Temporarily Unavailable", Some(18)),
        483 => ("Too Many Hops", None),
        484 => ("Address Incomplete", None),
        485 => ("Ambiguous", None),
        486 => ("Busy Here", Some(17)),
        488 => ("Not Acceptable Here", None),
        493 => ("Undecipherable", None),
        600 => ("Busy Everywhere", Some(17)),
        603 => ("Decline", Some(21)),
        604 => ("Does Not Exist Anywhere", None),
        607 => ("Unwanted", None),
        608 => ("Rejected", None),
        _ => ("Call Refused", None),
    };
    Reject { code, phrase: phrase.to_owned(), q850 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r08_r09_codes_that_mean_something_else_are_refused() {
        for code in ["200", "302", "399", "401", "407", "408", "481", "482", "487", "491", "494", "503", "700", "-486"]
        {
            assert_eq!(parse_code(code), None, "{code}");
        }
        for code in ["400", "486", "499", "600", "603", "699"] {
            assert!(parse_code(code).is_some(), "{code}");
        }
    }
}
