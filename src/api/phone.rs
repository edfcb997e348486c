//! The phone of a request: E.164 as written, `+` and digits, a number that its country's plan can hold.
//!
//! Sandbox applications also take the numbers that are reserved for tests and fiction; live ones do not, because nobody
//! can call from them.

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat};

use crate::e164::{E164, NumberError};

/// A number that every message may give as an example.
pub(super) const EXAMPLE: &str = "+966500000123";

/// Reads a phone. The fault is a code and a sentence for the client.
pub(super) fn parse(text: &str, live: bool) -> Result<E164, (&'static str, String)> {
    let number = parse_shape(text)?;
    match (is_reserved(number), live) {
        (true, false) => Ok(number),
        (true, true) => Err((
            "test_number",
            format!("is reserved for tests, which only a sandbox application takes; a real one is {EXAMPLE}"),
        )),
        (false, _) => in_plan(number),
    }
}

/// Reads a number whatever its country's plan says of it.
pub(super) fn parse_shape(text: &str) -> Result<E164, (&'static str, String)> {
    text.parse::<E164>().map_err(|error| shape_fault(text, error))
}

fn shape_fault(text: &str, error: NumberError) -> (&'static str, String) {
    let all_digits = text.strip_prefix('+').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    match error {
        NumberError::NoPlus if all_digits && text.starts_with("00") => {
            ("no_plus", format!("begins with 00; write + in its place, for example {EXAMPLE}"))
        }
        NumberError::NoPlus => (
            "no_plus",
            format!("does not begin with +; write the international form with its country code, for example {EXAMPLE}"),
        ),
        // Separators are told before the length that they bring about.
        _ if !all_digits => {
            ("not_digits", format!("has something other than + and the digits 0 to 9; write it as {EXAMPLE}"))
        }
        NumberError::TooShort => ("too_short", format!("{error}; for example {EXAMPLE}")),
        NumberError::TooLong | NumberError::NotDigits => ("too_long", format!("{error}; for example {EXAMPLE}")),
        NumberError::UnknownCountryCode => ("unknown_country_code", format!("{error}; for example {EXAMPLE}")),
    }
}

fn in_plan(number: E164) -> Result<E164, (&'static str, String)> {
    let text = number.to_string();
    let outside = || ("not_in_numbering_plan", format!("is no number that its country's plan has; one is {EXAMPLE}"));
    let parsed = PHONE_NUMBER_UTIL.parse(&text, None).map_err(|_| outside())?;
    if !parsed.is_valid() {
        return Err(outside());
    }
    let canonical = parsed.format_as(PhoneNumberFormat::E164);
    if canonical != text {
        // The library forgives a national prefix behind the country code; a call would never show it.
        return Err(("national_prefix", format!("has a national prefix behind its country code; write {canonical}")));
    }
    Ok(number)
}

/// The ranges that numbering plans keep for tests and fiction: North American 555-01xx in any area code, area code 555
/// with 01x-xxxx, and the British mobile numbers 07700 900xxx.
fn is_reserved(number: E164) -> bool {
    let digits = number.as_u64();
    match digits {
        447_700_900_000..=447_700_900_999 => true,
        10_000_000_000..=19_999_999_999 => {
            let area = digits / 10_000_000 % 1000;
            let local = digits % 10_000_000;
            (area >= 200 && (5_550_100..=5_550_199).contains(&local)) || (area == 555 && local / 100_000 == 1)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str, live: bool) -> Result<String, &'static str> {
        parse(text, live).map(|number| number.to_string()).map_err(|(code, detail)| {
            assert!(detail.contains('+'), "no example: {detail}");
            code
        })
    }

    #[test]
    fn numbers_that_their_plan_holds_are_taken_in_both_modes() {
        for text in ["+966500000123", "+4930901820", "+14155552671", "+33612345678", "+390669812345", "+18002530000"] {
            for live in [false, true] {
                assert_eq!(code(text, live).as_deref(), Ok(text));
            }
        }
    }

    #[test]
    fn faults_are_told_apart() {
        let cases = [
            ("", "no_plus"),
            ("0500000123", "no_plus"),
            ("00966500000123", "no_plus"),
            ("966500000123", "no_plus"),
            (" +966500000123", "no_plus"),
            ("\u{ff0b}966500000123", "no_plus"),
            ("+966 50 000 0123", "not_digits"),
            ("+966-500000123", "not_digits"),
            ("+(966)500000123", "not_digits"),
            ("+966500000123\n", "not_digits"),
            ("+٩٦٦٥٠٠٠٠٠", "not_digits"),
            ("+966 50 000 0123 456 789", "not_digits"),
            ("+", "too_short"),
            ("+9665", "too_short"),
            ("+9665000001234567", "too_long"),
            ("+0500000123", "unknown_country_code"),
            ("+96650000", "not_in_numbering_plan"),
            ("+9665000001234", "not_in_numbering_plan"),
            ("+12125551", "not_in_numbering_plan"),
            ("+4407911123456", "national_prefix"),
        ];
        for (text, fault) in cases {
            assert_eq!(code(text, false), Err(fault), "{text}");
        }
    }

    #[test]
    fn reserved_numbers_are_for_sandboxes() {
        for text in ["+12025550143", "+15550100000", "+15550199999", "+15555550100", "+447700900123"] {
            assert_eq!(code(text, false).as_deref(), Ok(text));
            assert_eq!(code(text, true), Err("test_number"), "{text}");
        }
        for text in ["+12025550200", "+447700901000", "+447700899999"] {
            assert!(!is_reserved(text.parse().unwrap()), "{text}");
        }
    }
}
