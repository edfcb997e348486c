//! How a trunk's digits are read: the dialling prefixes and number lengths of its country.

use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumber, Region, get_national_significant_number_owned as significant,
};

use crate::e164::E164;

/// Prefixes that some country dials before an international number (ITU-T E.164 Annex A calls them international
/// prefixes). Which of them a country uses is asked of the numbering-plan library.
/// The longest come first: where one begins another, the longer one is meant.
const INTERNATIONAL_PREFIXES: [&str; 12] =
    ["00700", "0011", "011", "010", "001", "002", "009", "119", "810", "000", "990", "00"];

/// Prefixes that some country dials before a national number, likewise asked of the library.
const TRUNK_PREFIXES: [&str; 5] = ["0", "8", "1", "06", "01"];

/// Countries whose carriers send a mobile's national significant number bare, and the digit that it begins with.
const BARE_MOBILES: [(&str, u8); 1] = [("SA", b'5')];

/// What digits without `+` may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberFormat {
    /// International or national form by their prefixes, or the country's own code without `+`.
    Auto,
    /// E.164 without `+`.
    E164NoPlus,
    /// As `Auto`, and bare digits are the national significant number.
    Nsn,
}

/// A form that is against E.164 and that some carriers send all the same. A trunk that names it has it repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Repair {
    /// `+` before a national number: `+0500000123`.
    PlusNational,
    /// `+` before an international prefix: `+00966500000123`.
    PlusInternational,
    /// A trunk prefix behind the country code: `9660500000123`, with `+` or without.
    CodeAndTrunkPrefix,
}

impl Repair {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::PlusNational, Self::PlusInternational, Self::CodeAndTrunkPrefix];

    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PlusNational => "plus_national",
            Self::PlusInternational => "plus_international",
            Self::CodeAndTrunkPrefix => "code_and_trunk_prefix",
        }
    }
}

/// The country is not one of ISO 3166 that has a numbering plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no country with a numbering plan; give two letters of ISO 3166 such as \"SA\"")]
pub struct UnknownCountry(pub String);

/// A country's prefixes and lengths, with the trunk's own habit.
#[derive(Debug, Clone)]
pub struct Dialplan {
    country: String,
    region: Region,
    /// Whether other countries have the same calling code.
    shares_code: bool,
    code: u16,
    code_digits: Vec<u8>,
    international_prefixes: Vec<Vec<u8>>,
    trunk_prefix: Vec<u8>,
    /// Bit n is set where a national significant number can have n digits.
    lengths: u32,
    bare_mobile: Option<u8>,
    format: NumberFormat,
    tech_prefix: Vec<u8>,
    repairs: Vec<Repair>,
}

impl Dialplan {
    /// Collects the rules of `country`, two letters of ISO 3166 in either case.
    ///
    /// # Errors
    /// [`UnknownCountry`].
    pub fn for_country(country: &str, format: NumberFormat) -> Result<Self, UnknownCountry> {
        let unknown = || UnknownCountry(country.chars().take(16).collect());
        let country = country.to_ascii_uppercase();
        let region: Region = country.parse().map_err(|_| unknown())?;
        let plan = &*PHONE_NUMBER_UTIL;
        let code = plan.get_country_code_for_region(region).ok_or_else(unknown)?;
        let example = significant(&plan.get_example_number(region).map_err(|_| unknown())?);
        let reads_as = |dialled: String, code: i32, number: &str| {
            plan.parse(&dialled, Some(region))
                .is_ok_and(|read| read.country_code == code && significant(&read) == number)
        };
        let is_international = |prefix: &str| reads_as(format!("{prefix}442079460200"), 44, "2079460200");
        let is_trunk = |prefix: &str| reads_as(format!("{prefix}{example}"), code, &example);
        let is_possible = |length: &u32| {
            let national_number = 5 * 10u64.pow(length - 1);
            let number = PhoneNumber { country_code: code, national_number, ..PhoneNumber::default() };
            matches!(plan.is_possible_number_with_reason(&number), Ok(NumberLengthType::IsPossible))
        };
        Ok(Self {
            code: u16::try_from(code).map_err(|_| unknown())?,
            code_digits: code.to_string().into_bytes(),
            international_prefixes: INTERNATIONAL_PREFIXES
                .iter()
                .filter(|prefix| is_international(prefix))
                .map(|prefix| prefix.as_bytes().to_vec())
                .collect(),
            trunk_prefix: TRUNK_PREFIXES
                .iter()
                .find(|prefix| is_trunk(prefix))
                .map_or(Vec::new(), |prefix| prefix.as_bytes().to_vec()),
            lengths: (4..=15).filter(is_possible).map(|length| 1 << length).sum(),
            bare_mobile: BARE_MOBILES.iter().find(|(name, _)| *name == country).map(|(_, digit)| *digit),
            shares_code: plan.get_regions_for_country_calling_code(code).is_some_and(|regions| regions.count() > 1),
            country,
            region,
            format,
            tech_prefix: Vec::new(),
            repairs: Vec::new(),
        })
    }

    /// As [`Dialplan::for_country`], for the country of `number`; where none is known to have given it out, for the
    /// main one of its calling code.
    ///
    /// # Errors
    /// [`UnknownCountry`] for numbers of no country, such as +800.
    pub fn for_number(number: E164, format: NumberFormat) -> Result<Self, UnknownCountry> {
        let plan = &*PHONE_NUMBER_UTIL;
        let region = plan.get_region_for_number(&parsed(number));
        let region = region.or_else(|| plan.get_region_for_country_code(number.country_code().into()));
        Self::for_country(&region.map(|region| region.to_string()).unwrap_or_default(), format)
    }

    /// The same with a prefix that the trunk puts before every number, and the forms that are repaired.
    #[must_use]
    pub fn with_habits(self, tech_prefix: &str, repairs: Vec<Repair>) -> Self {
        Self { tech_prefix: tech_prefix.as_bytes().to_vec(), repairs, ..self }
    }

    /// The prefix that the trunk puts before every number.
    #[must_use]
    pub fn tech_prefix(&self) -> &str {
        std::str::from_utf8(&self.tech_prefix).unwrap_or_default()
    }

    /// The forms that are repaired.
    #[must_use]
    pub fn repairs(&self) -> &[Repair] {
        &self.repairs
    }

    /// `text` without the prefix that the trunk puts before every number.
    #[must_use]
    pub fn without_tech_prefix<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        text.strip_prefix(&self.tech_prefix[..]).unwrap_or(text)
    }

    /// Whether what stands behind `+` is E.164, and no form that has to be repaired first.
    #[must_use]
    pub const fn takes_plus_as_it_is(&self) -> bool {
        self.repairs.is_empty() && self.tech_prefix.is_empty()
    }

    /// Reads digits that came behind `+`.
    #[must_use]
    pub fn read_with_plus(&self, digits: &[u8]) -> Option<E164> {
        self.repaired(digits, true).or_else(|| E164::from_digits(digits).ok())
    }

    /// The number that is meant by a form against E.164, where the trunk has it repaired.
    fn repaired(&self, digits: &[u8], plus: bool) -> Option<E164> {
        self.repairs.iter().find_map(|repair| match repair {
            Repair::PlusInternational if plus => {
                let rest = self.international_prefixes.iter().find_map(|prefix| digits.strip_prefix(&prefix[..]))?;
                E164::from_digits(rest).ok()
            }
            Repair::PlusNational if plus && self.has_trunk_prefix(digits) && self.code != 1 => {
                self.national(&digits[self.trunk_prefix.len()..])
            }
            Repair::CodeAndTrunkPrefix if self.code != 1 => {
                let rest = digits.strip_prefix(&self.code_digits[..]).filter(|rest| self.has_trunk_prefix(rest))?;
                self.national(&rest[self.trunk_prefix.len()..])
            }
            _ => None,
        })
    }

    /// The country, two upper-case letters.
    #[must_use]
    pub fn country(&self) -> &str {
        &self.country
    }

    /// The trunk's habit.
    #[must_use]
    pub const fn format(&self) -> NumberFormat {
        self.format
    }

    /// The country calling code.
    #[must_use]
    pub const fn country_code(&self) -> u16 {
        self.code
    }

    /// Reads digits that came without `+`. `None` where no rule gives exactly one E.164 number.
    #[must_use]
    pub fn read(&self, digits: &[u8]) -> Option<E164> {
        if let Some(repaired) = self.repaired(digits, false) {
            return Some(repaired);
        }
        if self.format == NumberFormat::E164NoPlus {
            return E164::from_digits(digits).ok();
        }
        if let Some(rest) = self.international_prefixes.iter().find_map(|prefix| digits.strip_prefix(&prefix[..])) {
            return E164::from_digits(rest).ok();
        }
        if self.has_trunk_prefix(digits) {
            return self.national(&digits[self.trunk_prefix.len()..]);
        }
        let bare = self.sends_bare(digits) || self.format == NumberFormat::Nsn;
        let bare = bare.then(|| self.national(digits)).flatten();
        let with_code = digits.strip_prefix(&self.code_digits[..]).and_then(|rest| self.national(rest));
        match (bare, with_code) {
            // A national number may begin like the country's own code: of two readings the one counts that the plan
            // has given out.
            (Some(bare), Some(with_code)) if !is_valid(bare) && is_valid(with_code) => Some(with_code),
            (bare, with_code) => bare.or(with_code),
        }
    }

    /// Whether a number is one of the trunk's country. Countries that share a calling code are told apart.
    #[must_use]
    pub fn is_domestic(&self, number: E164) -> bool {
        if number.country_code() != self.code {
            return false;
        }
        // What the library knows no country of, test numbers for example, goes by the code alone.
        let region = || PHONE_NUMBER_UTIL.get_region_for_number(&parsed(number));
        !self.shares_code || region().is_none_or(|region| region == self.region)
    }

    /// Reads a number whose context is global: `+966` before `0500000123` or `500000123` (RFC 3966 5.1.5).
    #[must_use]
    pub fn read_in_context(&self, context: &[u8], digits: &[u8]) -> Option<E164> {
        if context == self.code_digits {
            return self.national(if self.has_trunk_prefix(digits) {
                &digits[self.trunk_prefix.len()..]
            } else {
                digits
            });
        }
        let mut buffer = [0u8; E164::MAX_DIGITS];
        let whole = buffer.get_mut(..context.len() + digits.len())?;
        whole[..context.len()].copy_from_slice(context);
        whole[context.len()..].copy_from_slice(digits);
        E164::from_digits(whole).ok()
    }

    fn has_trunk_prefix(&self, digits: &[u8]) -> bool {
        !self.trunk_prefix.is_empty() && digits.starts_with(&self.trunk_prefix)
    }

    /// Whether people of the country write numbers without any prefix: where there is no trunk prefix, in the North
    /// American plan (its prefix 1 may be left out), and for the mobiles of some countries.
    fn sends_bare(&self, digits: &[u8]) -> bool {
        self.trunk_prefix.is_empty()
            || self.code == 1
            || (self.bare_mobile.is_some() && digits.first().copied() == self.bare_mobile)
    }

    /// Puts the calling code before a national significant number of a possible length.
    fn national(&self, digits: &[u8]) -> Option<E164> {
        let possible = digits.len() < 32 && self.lengths & (1 << digits.len()) != 0;
        if !possible || self.has_trunk_prefix(digits) && self.code != 1 {
            return None;
        }
        let mut buffer = [0u8; E164::MAX_DIGITS];
        let code = self.code_digits.len();
        let whole = buffer.get_mut(..code + digits.len())?;
        whole[..code].copy_from_slice(&self.code_digits);
        whole[code..].copy_from_slice(digits);
        E164::from_digits(whole).ok()
    }
}

fn parsed(number: E164) -> PhoneNumber {
    let code = number.country_code();
    let digits = number.as_u64().to_string();
    let national = &digits[code.to_string().len()..];
    let zeros = national.bytes().take_while(|digit| *digit == b'0').count();
    PhoneNumber {
        country_code: code.into(),
        national_number: national.parse().unwrap_or(0),
        italian_leading_zero: (zeros > 0).then_some(true),
        number_of_leading_zeros: i32::try_from(zeros).ok().filter(|zeros| *zeros > 1),
        ..PhoneNumber::default()
    }
}

fn is_valid(number: E164) -> bool {
    PHONE_NUMBER_UTIL.is_valid_number(&parsed(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(country: &str, format: NumberFormat, digits: &str) -> Option<String> {
        Dialplan::for_country(country, format).unwrap().read(digits.as_bytes()).map(|number| number.to_string())
    }

    #[test]
    fn national_and_international_forms_are_read_by_country() {
        for (country, digits, number) in [
            ("GB", "00447700900123", "+447700900123"),
            ("GB", "07700900123", "+447700900123"),
            ("GB", "447700900123", "+447700900123"),
            ("US", "011447700900123", "+447700900123"),
            ("US", "2025550143", "+12025550143"),
            ("US", "12025550143", "+12025550143"),
            ("SA", "0500000123", "+966500000123"),
            ("SA", "500000123", "+966500000123"),
            ("SA", "966500000123", "+966500000123"),
            ("SA", "00966500000123", "+966500000123"),
            ("ES", "612345678", "+34612345678"),
            ("IT", "0612345678", "+390612345678"),
            ("AU", "0011447700900123", "+447700900123"),
            ("QA", "97433123456", "+97433123456"),
            ("QA", "33123456", "+97433123456"),
            ("IT", "393123456789", "+393123456789"),
            ("SG", "6581234567", "+6581234567"),
            ("HK", "0016581234567", "+6581234567"),
            ("HK", "00442079460200", "+442079460200"),
        ] {
            assert_eq!(read(country, NumberFormat::Auto, digits).as_deref(), Some(number), "{country} {digits}");
        }
    }

    #[test]
    fn what_could_be_two_numbers_is_none() {
        for (country, digits) in [
            ("GB", "7700900123"),
            ("GB", "2020"),
            ("SA", "9660500000123"),
            ("SA", "110000042"),
            ("US", "0"),
            ("GB", "0"),
            ("GB", "00"),
        ] {
            assert_eq!(read(country, NumberFormat::Auto, digits), None, "{country} {digits}");
        }
    }

    #[test]
    fn a_trunks_habit_decides_what_bare_digits_are() {
        assert_eq!(read("GB", NumberFormat::Nsn, "7700900123").as_deref(), Some("+447700900123"));
        assert_eq!(read("GB", NumberFormat::E164NoPlus, "966500000123").as_deref(), Some("+966500000123"));
        assert_eq!(read("GB", NumberFormat::E164NoPlus, "07700900123"), None);
    }

    #[test]
    fn f14_forms_against_the_plan_are_repaired_where_the_trunk_says_so() {
        let plan = |repairs: &[Repair]| {
            Dialplan::for_country("SA", NumberFormat::Auto).unwrap().with_habits("", repairs.to_vec())
        };
        let all = plan(&[Repair::PlusInternational, Repair::PlusNational, Repair::CodeAndTrunkPrefix]);
        let number = "+966500000123".parse().ok();
        assert_eq!(all.read_with_plus(b"0500000123"), number);
        assert_eq!(all.read_with_plus(b"00966500000123"), number);
        assert_eq!(all.read_with_plus(b"9660500000123"), number);
        assert_eq!(all.read(b"9660500000123"), number);
        assert_eq!(all.read_with_plus(b"966500000123"), number);
        let none = plan(&[]);
        assert_eq!(none.read_with_plus(b"0500000123"), None);
        assert_eq!(none.read_with_plus(b"00966500000123"), None);
        assert_eq!(none.read(b"9660500000123"), None);
        assert_eq!(plan(&[Repair::PlusNational]).read_with_plus(b"00966500000123"), None);
    }

    #[test]
    fn f43_a_tech_prefix_is_taken_off() {
        let plan = Dialplan::for_country("GB", NumberFormat::Auto).unwrap().with_habits("1234#", Vec::new());
        assert_eq!(plan.without_tech_prefix(b"1234#447700900123"), b"447700900123");
        assert_eq!(plan.without_tech_prefix(b"447700900123"), b"447700900123");
    }

    #[test]
    fn a_global_context_stands_before_the_number() {
        let plan = Dialplan::for_country("SA", NumberFormat::Auto).unwrap();
        let read = |context: &str, digits: &str| {
            plan.read_in_context(context.as_bytes(), digits.as_bytes()).map(|n| n.to_string())
        };
        assert_eq!(read("966", "0500000123").as_deref(), Some("+966500000123"));
        assert_eq!(read("44", "7700900123").as_deref(), Some("+447700900123"));
        assert_eq!(read("44", "77009001234567"), None);
    }

    #[test]
    fn a_number_has_the_dialplan_of_its_country() {
        let country = |text: &str| {
            let plan = Dialplan::for_number(text.parse().unwrap(), NumberFormat::Auto);
            plan.map(|plan| plan.country().to_owned()).ok()
        };
        let cases = [
            ("+966500000123", "SA"),
            ("+447700900123", "GB"),
            ("+12025550143", "US"),
            ("+14165550143", "CA"),
            ("+16042501234", "CA"),
        ];
        for (number, expected) in cases {
            assert_eq!(country(number).as_deref(), Some(expected), "{number}");
        }
        assert_eq!(country("+80012345678"), None);
    }

    #[test]
    fn countries_that_share_a_code_are_told_apart() {
        let domestic = |country: &str, number: &str| {
            Dialplan::for_country(country, NumberFormat::Auto).unwrap().is_domestic(number.parse().unwrap())
        };
        assert!(domestic("US", "+12025550143") && domestic("JM", "+18765551234") && domestic("SA", "+966500000123"));
        assert!(domestic("GB", "+447700900123"), "a test number goes by its code");
        assert!(!domestic("US", "+18765551234") && !domestic("US", "+14165551234") && !domestic("SA", "+447700900123"));
        assert!(!domestic("GB", "+447797712345") && !domestic("RU", "+77012345678"));
    }

    #[test]
    fn countries_without_a_plan_are_refused() {
        for country in ["", "XX", "SAU", "s"] {
            assert!(Dialplan::for_country(country, NumberFormat::Auto).is_err(), "{country}");
        }
        assert_eq!(Dialplan::for_country("sa", NumberFormat::Auto).unwrap().country(), "SA");
    }
}
