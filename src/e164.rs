//! `E164`: a checked phone number.
//!
//! Owns the international form of a number, its country calling code and its masking for logs. Does not know
//! numbering plans of single countries. Invariant: an `E164` that exists has 8 to 15 digits and begins with a country
//! calling code that the ITU has assigned (ITU-T E.164).

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

/// Phone number in international form: `+` and 8 to 15 digits (ITU-T E.164).
///
/// Kept as an integer, which is exact because no country calling code begins with zero. `Display` gives the whole
/// number for a peer or an API client; `Debug` and [`E164::masked`] are for logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct E164(u64);

/// Numbers whose national form a thread remembers.
const FORMATTED_NUMBERS: usize = 1_024;

thread_local! {
    /// The numbers that people call are few and told with every verification, and to form one anew costs more than the
    /// rest of an event's body.
    static FORMATTED: RefCell<Vec<Option<(E164, String)>>> = RefCell::new(vec![None; FORMATTED_NUMBERS]);
}

/// Why a text is not an E.164 number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// The leading `+` is missing.
    #[error("does not begin with '+'")]
    NoPlus,
    /// A character that is no ASCII digit stands behind the `+`.
    #[error("has a character that is not a digit")]
    NotDigits,
    /// Fewer than 8 digits.
    #[error("has fewer than 8 digits")]
    TooShort,
    /// More than 15 digits.
    #[error("has more than 15 digits")]
    TooLong,
    /// No country has this calling code.
    #[error("begins with a country calling code that is not assigned")]
    UnknownCountryCode,
}

impl E164 {
    /// Fewest digits accepted.
    pub const MIN_DIGITS: usize = 8;
    /// Most digits that E.164 allows.
    pub const MAX_DIGITS: usize = 15;

    /// Reads the digits of an international number, without `+` or separators.
    ///
    /// # Errors
    /// Each [`NumberError`] but `NoPlus`.
    pub fn from_digits(digits: &[u8]) -> Result<Self, NumberError> {
        if digits.len() > Self::MAX_DIGITS {
            return Err(NumberError::TooLong);
        }
        let mut number = 0u64;
        for &digit in digits {
            if !digit.is_ascii_digit() {
                return Err(NumberError::NotDigits);
            }
            number = number * 10 + u64::from(digit - b'0');
        }
        if digits.len() < Self::MIN_DIGITS {
            return Err(NumberError::TooShort);
        }
        if digits[0] == b'0' || Self(number).country_code() == 0 {
            return Err(NumberError::UnknownCountryCode);
        }
        Ok(Self(number))
    }

    /// The number as an integer of 8 to 15 decimal digits: the form in which it is stored.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Reads back what [`E164::as_u64`] gave.
    ///
    /// # Errors
    /// As [`E164::from_digits`].
    pub fn from_u64(number: u64) -> Result<Self, NumberError> {
        let mut buffer = [0u8; 20];
        Self::from_digits(decimal(number, &mut buffer))
    }

    /// The number `offset` places behind this one, for ranges of numbers.
    ///
    /// # Errors
    /// `NumberError::TooLong` where the result has more than 15 digits, `UnknownCountryCode` where it leaves the plan.
    pub fn offset(self, offset: u64) -> Result<Self, NumberError> {
        Self::from_u64(self.0.saturating_add(offset))
    }

    /// Country calling code, 1 to 998 (ITU-T E.164 Annex D).
    #[must_use]
    pub const fn country_code(self) -> u16 {
        // The first three digits: a number has 8 at least.
        #[expect(clippy::cast_possible_truncation, reason = "three digits")]
        let begin = (self.0 / 10u64.pow(self.0.ilog10() - 2)) as usize;
        CODES[begin]
    }

    /// The number as people of its country write it, for example `011 500 0042`; the E.164 form where the numbering
    /// plan is not known.
    #[must_use]
    pub fn national_format(self) -> String {
        FORMATTED.with_borrow_mut(|formatted| {
            let place = usize::try_from(self.0 % FORMATTED_NUMBERS as u64).unwrap_or(0);
            match &mut formatted[place] {
                Some((number, text)) if *number == self => text.clone(),
                other => other.insert((self, self.formatted())).1.clone(),
            }
        })
    }

    fn formatted(self) -> String {
        let text = self.to_string();
        match rlibphonenumber::PHONE_NUMBER_UTIL.parse(&text, None) {
            Ok(number) => number.format_as(rlibphonenumber::PhoneNumberFormat::National).into_owned(),
            Err(_) => text,
        }
    }

    /// The one form among those that reach the same subscriber, for comparing numbers; what is told and stored is the
    /// number as it came. Argentina's mobiles come with a 9 behind the country code or without it, Mexico's with the 1
    /// that the plan gave up in 2019, Brazil's with the ninth digit that all mobiles have since 2016 or in the form of
    /// eight digits.
    #[must_use]
    pub const fn subscriber(self) -> Self {
        const AREA: u64 = 10_000_000_000;
        let number = self.0;
        match number {
            // +54 9 or +52 1 and ten digits become +54 or +52 and those ten.
            5_490_000_000_000..=5_499_999_999_999 => Self(54 * AREA + number % AREA),
            5_210_000_000_000..=5_219_999_999_999 => Self(52 * AREA + number % AREA),
            // +55, two digits of the area, 9 and eight digits of a mobile become the same without the 9. Eight digits
            // that begin with 2 to 5 are a landline, which has no form of nine.
            5_500_000_000_000..=5_599_999_999_999 => {
                let (area, local) = (number / 1_000_000_000, number % 1_000_000_000);
                if local >= 960_000_000 { Self(area * 100_000_000 + local % 100_000_000) } else { self }
            }
            _ => self,
        }
    }

    /// Every form in which the same subscriber may be written, this one among them: what [`E164::subscriber`] makes one.
    pub fn forms(self) -> impl Iterator<Item = Self> {
        const AREA: u64 = 10_000_000_000;
        let (bare, whole) = (self.subscriber(), self.subscriber().0);
        let other = match whole {
            540_000_000_000..=549_999_999_999 => Some(549 * AREA + whole % AREA),
            520_000_000_000..=529_999_999_999 => Some(521 * AREA + whole % AREA),
            550_000_000_000..=559_999_999_999 => {
                let (area, local) = (whole / 100_000_000, whole % 100_000_000);
                Some(area * 1_000_000_000 + 900_000_000 + local)
            }
            _ => None,
        };
        let other = other.map(Self).filter(|other| other.subscriber() == bare && *other != bare);
        [Some(bare), other].into_iter().flatten()
    }

    /// The number for a log: calling code and the last two digits, the rest as `*`.
    #[must_use]
    pub fn masked(self) -> Masked {
        Masked(self)
    }
}

impl FromStr for E164 {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        let digits = text.strip_prefix('+').ok_or(NumberError::NoPlus)?;
        Self::from_digits(digits.as_bytes())
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "E164({})", self.masked())
    }
}

/// A number as logs may show it, for example `+966*******23`.
#[derive(Clone, Copy)]
pub struct Masked(E164);

impl fmt::Display for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0u8; 20];
        let digits = decimal(self.0.0, &mut buffer);
        let code = code_length(self.0.country_code());
        f.write_str("+")?;
        for (index, digit) in digits.iter().enumerate() {
            let shown = index < code || index + 2 >= digits.len();
            write!(f, "{}", if shown { char::from(*digit) } else { '*' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut start = buffer.len();
    while number > 0 && start > 0 {
        start -= 1;
        buffer[start] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
    &buffer[start..]
}

const fn code_length(code: u16) -> usize {
    match code {
        0..=9 => 1,
        10..=99 => 2,
        _ => 3,
    }
}

/// The calling code of each three digits that begin a number, 0 where none is assigned. Codes are prefix-free, so the
/// first that fits is the only one.
const CODES: [u16; 1_000] = {
    let mut codes = [0; 1_000];
    let mut begin: u16 = 100;
    while begin < 1_000 {
        codes[begin as usize] = if is_assigned(begin / 100) {
            begin / 100
        } else if is_assigned(begin / 10) {
            begin / 10
        } else if is_assigned(begin) {
            begin
        } else {
            0
        };
        begin += 1;
    }
    codes
};

/// Country calling codes in use (ITU-T E.164 Annex D, list of assigned country codes).
const fn is_assigned(code: u16) -> bool {
    matches!(code,
        1 | 7 | 20 | 27 | 30..=34 | 36 | 39..=41 | 43..=49 | 51..=58 | 60..=66 | 81 | 82 | 84 | 86 | 90..=95 | 98
        | 211..=213 | 216 | 218 | 220..=258 | 260..=269 | 290 | 291 | 297..=299 | 350..=359 | 370..=383
        | 385..=387 | 389 | 420 | 421 | 423 | 500..=509 | 590..=599 | 670 | 672..=683 | 685..=692
        | 800 | 808 | 850 | 852 | 853 | 855 | 856 | 870 | 878 | 880..=883 | 886 | 888
        | 960..=968 | 970..=977 | 979 | 992..=996 | 998)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_subscriber_is_found_from_each() {
        let pairs = [
            ("+541123456789", "+5491123456789"),
            ("+525512345678", "+5215512345678"),
            ("+551187654321", "+5511987654321"),
        ];
        for (one, other) in pairs {
            let expected: Vec<E164> = [one, other].iter().map(|text| text.parse().unwrap()).collect();
            for text in [one, other] {
                assert_eq!(text.parse::<E164>().unwrap().forms().collect::<Vec<_>>(), expected, "{text}");
            }
        }
        for text in ["+966500000123", "+551133334444", "+4930123456"] {
            assert_eq!(text.parse::<E164>().unwrap().forms().map(|it| it.to_string()).collect::<Vec<_>>(), [text]);
        }
    }

    #[test]
    fn number_reads_and_prints_back() {
        let number: E164 = "+966500000123".parse().unwrap();
        assert_eq!(number.to_string(), "+966500000123");
        assert_eq!(number.country_code(), 966);
        assert_eq!(E164::from_u64(number.as_u64()), Ok(number));
    }

    #[test]
    fn faults_are_told_apart() {
        let cases = [
            ("966500000123", NumberError::NoPlus),
            ("+96650000o123", NumberError::NotDigits),
            ("+9665000", NumberError::TooShort),
            ("+9665000001234567", NumberError::TooLong),
            ("+0500000123", NumberError::UnknownCountryCode),
            ("+07700900123", NumberError::UnknownCountryCode),
            ("+2100000000", NumberError::UnknownCountryCode),
        ];
        for (text, fault) in cases {
            assert_eq!(text.parse::<E164>(), Err(fault), "{text}");
        }
    }

    #[test]
    fn logs_show_code_and_last_two_digits() {
        let number: E164 = "+12025550143".parse().unwrap();
        assert_eq!(number.masked().to_string(), "+1********43");
        assert_eq!(format!("{number:?}"), "E164(+1********43)");
    }

    #[test]
    fn f44_forms_of_one_subscriber_are_equal_and_others_stay() {
        let subscriber = |text: &str| text.parse::<E164>().unwrap().subscriber().to_string();
        for (one, other) in [
            ("+5491122334455", "+541122334455"),
            ("+5215512345678", "+525512345678"),
            ("+5511987654321", "+551187654321"),
        ] {
            assert_eq!(subscriber(one), subscriber(other), "{one} {other}");
        }
        for own in ["+390612345678", "+5511912345678", "+551123456789", "+447700900123", "+12025550143"] {
            assert_eq!(subscriber(own), own);
        }
    }

    #[test]
    fn ranges_count_on() {
        let first: E164 = "+966115000000".parse().unwrap();
        assert_eq!(first.offset(99).unwrap().to_string(), "+966115000099");
    }
}
