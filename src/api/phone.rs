//! The phone of a request: E.164 as written, `+` and digits, a number that its country's plan can hold. Where the
//! request names a country, also as people there write it, in whatever digits.
//!
//! Sandbox applications also take the numbers that are reserved for tests and fiction; live ones do not, because nobody
//! can call from them.

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat, Region};

use crate::e164::{E164, NumberError};

/// A number that every message may give as an example.
pub(super) const EXAMPLE: &str = "+966500000123";

/// Most bytes of a phone as people write it.
const MAX_WRITTEN: usize = 64;

/// A code and a sentence for the client.
type PhoneFault = (&'static str, String);

/// Reads a phone in E.164.
pub(super) fn parse(text: &str, live: bool) -> Result<E164, PhoneFault> {
    let number = parse_shape(text)?;
    if is_reserved(number) { reserved(number, live) } else { in_plan(number) }
}

/// Reads a number whatever its country's plan says of it.
pub(super) fn parse_shape(text: &str) -> Result<E164, PhoneFault> {
    text.parse::<E164>().map_err(|error| shape_fault(text, error))
}

/// Reads an ISO 3166 code whose numbering plan is known.
pub(super) fn country(text: &str) -> Option<Region> {
    let shaped = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    let region: Region = shaped.then(|| text.parse().ok()).flatten()?;
    PHONE_NUMBER_UTIL.get_country_code_for_region(region).map(|_| region)
}

/// Reads a phone as people of `country` write it: national or international, with separators, in the digits of any
/// script.
pub(super) fn parse_written(text: &str, country: Region, live: bool) -> Result<E164, PhoneFault> {
    if text.len() > MAX_WRITTEN {
        return Err(("too_long", format!("has more than {MAX_WRITTEN} bytes; for example {EXAMPLE}")));
    }
    if text.is_empty() {
        return Err(("too_short", format!("is empty; for example {EXAMPLE}")));
    }
    let mut written = String::new();
    for character in text.chars() {
        let Some(plain) = plain(character) else {
            let shown = character.escape_debug();
            let detail = format!("has the character `{shown}`, which no number has; for example {EXAMPLE}");
            return Err(("not_digits", detail));
        };
        written.push(plain);
    }
    let outside = || {
        ("not_in_numbering_plan", format!("is no number of that country or, with +, of another; for example {EXAMPLE}"))
    };
    let parsed = PHONE_NUMBER_UTIL.parse(&written, Some(country)).map_err(|_| outside())?;
    let number = parsed.format_as(PhoneNumberFormat::E164).parse::<E164>().map_err(|_| outside())?;
    match (is_reserved(number), parsed.is_valid()) {
        (true, _) => reserved(number, live),
        (false, true) => Ok(number),
        (false, false) => Err(outside()),
    }
}

/// A digit of any script, a plus or a separator in ASCII; `None` for what is none of them. The library would take
/// letters for digits or an extension, and pass over what it does not know.
fn plain(character: char) -> Option<char> {
    match character {
        '0'..='9' | '+' | '-' | '.' | '/' | '(' | ')' | ' ' => Some(character),
        '\u{ff0b}' => Some('+'),
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ff0d}' => Some('-'),
        // Marks that turn the direction of writing stand around numbers in Arabic and Hebrew texts.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202c}' | '\u{2066}'..='\u{2069}' => Some(' '),
        space if space.is_whitespace() && !space.is_control() => Some(' '),
        other => ZEROS.into_iter().find_map(|zero| {
            let digit = u32::from(other).checked_sub(u32::from(zero)).filter(|digit| *digit < 10)?;
            char::from_digit(digit, 10)
        }),
    }
}

/// The zero of each script whose speakers may type their own digits; the other nine follow it.
const ZEROS: [char; 20] = [
    '\u{660}', '\u{6f0}', '\u{7c0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}', '\u{be6}', '\u{c66}',
    '\u{ce6}', '\u{d66}', '\u{e50}', '\u{ed0}', '\u{f20}', '\u{1040}', '\u{17e0}', '\u{1810}', '\u{1946}', '\u{ff10}',
];

fn reserved(number: E164, live: bool) -> Result<E164, PhoneFault> {
    if !live {
        return Ok(number);
    }
    Err((
        "test_number",
        format!("is reserved for tests, which only a sandbox application takes; a real one is {EXAMPLE}"),
    ))
}

fn shape_fault(text: &str, error: NumberError) -> PhoneFault {
    let all_digits = text.strip_prefix('+').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    match error {
        NumberError::NoPlus if all_digits && text.starts_with("00") => {
            ("no_plus", format!("begins with 00; write + in its place, for example {EXAMPLE}"))
        }
        NumberError::NoPlus => (
            "no_plus",
            format!(
                "does not begin with +; write the international form with its country code, for example {EXAMPLE}, or \
                 give \"country\":\"SA\" beside it"
            ),
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

fn in_plan(number: E164) -> Result<E164, PhoneFault> {
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
    use proptest::prelude::*;

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

    fn written(text: &str, of: &str, live: bool) -> Result<String, &'static str> {
        parse_written(text, country(of).unwrap(), live).map(|number| number.to_string()).map_err(|(code, detail)| {
            assert!(detail.contains(EXAMPLE), "no example: {detail}");
            code
        })
    }

    #[test]
    fn f46_a_country_lets_its_own_ways_of_writing_be_read() {
        for text in [
            "0500000123",
            "500000123",
            "050 000 0123",
            "(050) 000-0123",
            "+966500000123",
            "+966 50 000 0123",
            "00966500000123",
            "\u{0660}\u{0665}\u{0660}\u{0660}\u{0660}\u{0660}\u{0660}\u{0661}\u{0662}\u{0663}",
            "\u{06f0}\u{06f5}\u{06f0}\u{06f0}\u{06f0}\u{06f0}\u{06f0}\u{06f1}\u{06f2}\u{06f3}",
            "\u{ff10}\u{ff15}\u{ff10}\u{ff10}\u{ff10}\u{ff10}\u{ff10}\u{ff11}\u{ff12}\u{ff13}",
            "\u{ff0b}\u{ff19}\u{ff16}\u{ff16}\u{ff15}\u{ff10}\u{ff10}\u{ff10}\u{ff10}\u{ff10}\u{ff11}\u{ff12}\u{ff13}",
            "\u{200e}+966 50 000 0123\u{200f}",
            "\u{966}\u{96b}\u{966}\u{a0}000\u{2013}0123",
        ] {
            assert_eq!(written(text, "SA", true).as_deref(), Ok("+966500000123"), "{text}");
        }
        for (text, of, number) in [
            ("+44 7911 123456", "SA", "+447911123456"),
            ("07911 123456", "GB", "+447911123456"),
            ("+44 (0)7911 123456", "SA", "+447911123456"),
            ("06 698 12345", "IT", "+390669812345"),
            ("(415) 555-2671", "US", "+14155552671"),
            ("8 912 345-67-89", "RU", "+79123456789"),
        ] {
            assert_eq!(written(text, of, true).as_deref(), Ok(number), "{text}");
        }
        assert_eq!(written("(202) 555-0143", "US", false).as_deref(), Ok("+12025550143"));
    }

    #[test]
    fn what_no_country_writes_is_refused() {
        for (text, fault) in [
            ("", "too_short"),
            ("05000", "not_in_numbering_plan"),
            ("911", "not_in_numbering_plan"),
            ("0500000123456", "not_in_numbering_plan"),
            ("()-", "not_in_numbering_plan"),
            ("+", "not_in_numbering_plan"),
            ("0500000123 ext. 5", "not_digits"),
            ("0500000123;ext=5", "not_digits"),
            ("0500000123#5", "not_digits"),
            ("tel:+966500000123", "not_digits"),
            ("05000001AB", "not_digits"),
            ("0500000123\u{0}", "not_digits"),
            ("\u{bd}500000123", "not_digits"),
            ("05\u{bd}00000123", "not_digits"),
            ("05\n00000123", "not_digits"),
        ] {
            assert_eq!(written(text, "SA", false), Err(fault), "{text}");
        }
        assert_eq!(written(&"0".repeat(65), "SA", false), Err("too_long"));
        assert_eq!(written("(202) 555-0143", "US", true), Err("test_number"));
        for text in ["", "S", "sa", "SAU", "ZZ", "XX", "001", "\u{ff33}A", "966"] {
            assert!(country(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_a_checked_number_or_a_fault(text in "\\PC{0,40}|[0-9+() \u{660}-\u{669}-]{0,20}", live: bool) {
            if let Ok(number) = parse_written(&text, country("SA").unwrap(), live) {
                let accepted = parse(&number.to_string(), live);
                prop_assert_eq!(accepted.map_err(|(code, _)| code), Ok(number));
            }
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
