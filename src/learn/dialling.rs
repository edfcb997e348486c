//! How a peer writes numbers: the country whose rules it follows, its format, and what it puts before numbers.
//!
//! Owns the guesses and their thresholds. A number without `+` is tried by the numbering plans; where that leaves two
//! readings, nothing is guessed.

use std::collections::{BTreeMap, HashMap};

use super::counts::Counts;
use super::evidence::{Evidence, Numbers};
use super::habits::Found;
use crate::call::dialplan::{Dialplan, NumberFormat};
use crate::e164::E164;

/// Numbers of a calling code of which the country is asked.
const SAMPLES: usize = 16;
/// Fewest digits without `+` that may vote for a country: fewer may be a national number.
const MIN_INTERNATIONAL: usize = 11;
/// Longest prefix of digits alone that is looked for.
const MAX_DIGIT_PREFIX: usize = 6;
/// Fewest different numbers that show a prefix of digits alone.
const MIN_PREFIXED: usize = 3;

/// Numbering plans by calling code, each made once.
#[derive(Default)]
pub(super) struct Plans(HashMap<u16, Option<Dialplan>>);

impl Plans {
    /// The number that digits without `+` are by themselves, where its country has numbers of this length.
    fn international(&mut self, digits: &str) -> Option<E164> {
        let number = E164::from_digits(digits.as_bytes()).ok()?;
        let plan = self
            .0
            .entry(number.country_code())
            .or_insert_with(|| Dialplan::for_number(number, NumberFormat::Auto).ok());
        (plan.as_ref()?.read(digits.as_bytes()) == Some(number)).then_some(number)
    }
}

/// The country whose calling code half of the numbers in international form have, and no other as many.
pub(super) fn country(written: &[&Numbers], plans: &mut Plans) -> Option<Found<String>> {
    let mut votes: BTreeMap<u16, (u64, Vec<E164>)> = BTreeMap::new();
    let mut of = 0;
    let mut vote = |number: E164, count: u64| {
        let (votes, samples) = votes.entry(number.country_code()).or_default();
        *votes += count;
        of += count;
        if samples.len() < SAMPLES {
            samples.push(number);
        }
    };
    for numbers in written {
        for (number, count) in &numbers.whole.each {
            vote(*number, *count);
        }
        for (digits, count) in numbers.bare.each.iter().filter(|(digits, _)| digits.len() >= MIN_INTERNATIONAL) {
            if let Some(number) = plans.international(digits) {
                vote(number, *count);
            }
        }
    }
    let support = votes.values().map(|(votes, _)| *votes).max()?;
    let mut leaders = votes.into_values().filter(|(votes, _)| *votes == support).map(|(_, samples)| samples);
    let samples = leaders.next()?;
    if support * 2 < of || leaders.next().is_some() {
        return None;
    }
    // Countries that share a calling code: the one with most of the samples.
    let mut countries = Counts::default();
    for number in samples {
        if let Ok(plan) = Dialplan::for_number(number, NumberFormat::Auto) {
            countries.add(plan.country().to_owned(), 1, SAMPLES);
        }
    }
    let value = countries.top().map(|(country, _)| country.clone())?;
    Some(Found { value, support, of })
}

/// The format by which most callers without `+` can be read.
pub(super) fn format(bare: &Counts<String>, country: Option<&str>, plans: &mut Plans) -> Found<NumberFormat> {
    let of = readable(bare, |_| true);
    let international = readable(bare, |digits| plans.international(digits).is_some());
    let by_country = |format| {
        let plan = country.and_then(|country| Dialplan::for_country(country, format).ok());
        plan.map_or(0, |plan| readable(bare, |digits| plan.read(digits.as_bytes()).is_some()))
    };
    let mut found = Found { value: NumberFormat::Auto, support: by_country(NumberFormat::Auto), of };
    for (value, support) in
        [(NumberFormat::E164NoPlus, international), (NumberFormat::Nsn, by_country(NumberFormat::Nsn))]
    {
        if support > found.support {
            found = Found { value, support, of };
        }
    }
    found
}

fn readable(bare: &Counts<String>, mut reads: impl FnMut(&str) -> bool) -> u64 {
    bare.each.iter().filter(|(digits, _)| reads(digits)).map(|(_, count)| *count).sum()
}

/// What stands before the numbers of half of the calls: with `#`, `*` or before a `+`; else digits without which
/// numbers can be read that cannot be read with them.
pub(super) fn prefix(
    evidence: &Evidence,
    dialled: &Numbers,
    country: Option<&str>,
    plans: &mut Plans,
) -> Found<String> {
    let of = evidence.calls;
    for numbers in [dialled, &evidence.callers] {
        if let Some((prefix, support)) = numbers.prefixes.top()
            && support * 2 >= of
        {
            return Found { value: prefix.clone(), support, of };
        }
    }
    let plan = country.and_then(|country| Dialplan::for_country(country, NumberFormat::Auto).ok());
    let mut is_number = |digits: &str| {
        plans.international(digits).is_some()
            || plan.as_ref().is_some_and(|plan| plan.read(digits.as_bytes()).is_some())
    };
    for numbers in [dialled, &evidence.callers] {
        if numbers.bare.total * 2 >= of
            && let Some(value) = digit_prefix(&numbers.bare, &mut is_number)
        {
            return Found { value, support: numbers.bare.total, of };
        }
    }
    Found { value: String::new(), support: 0, of }
}

fn digit_prefix(bare: &Counts<String>, is_number: &mut impl FnMut(&str) -> bool) -> Option<String> {
    let first = bare.each.keys().next()?;
    if bare.each.len() < MIN_PREFIXED || bare.each.keys().any(|digits| is_number(digits)) {
        return None;
    }
    (1..=MAX_DIGIT_PREFIX.min(first.len())).map(|length| &first[..length]).find_map(|prefix| {
        let fits = bare.each.keys().all(|digits| digits.strip_prefix(prefix).is_some_and(&mut *is_number));
        fits.then(|| prefix.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::super::habits::tests::{evidence, numbers};
    use super::*;

    #[test]
    fn the_country_has_half_of_the_numbers() {
        let mut plans = Plans::default();
        let mut named = |whole: &[(&str, u64)], bare: &[(&str, u64)]| {
            country(&[&numbers(whole, bare)], &mut plans).map(|found| (found.value, found.support, found.of))
        };
        let found = |value: &str, support, of| Some((value.to_owned(), support, of));
        assert_eq!(named(&[("+447700900123", 3), ("+12025550143", 1)], &[]), found("GB", 3, 4));
        assert_eq!(named(&[("+12025550143", 2)], &[("07700900123", 9)]), found("US", 2, 2));
        assert_eq!(named(&[], &[("966500000123", 2), ("447700900123", 1)]), found("SA", 2, 3));
        let many = [("+447700900123", 1), ("+12025550143", 1), ("+966500000123", 1)];
        assert_eq!(named(&many, &[]), None);
        assert_eq!(named(&[], &[("0500000123", 5)]), None);
    }

    #[test]
    fn the_format_is_the_one_that_reads_most() {
        for (bare, country, value, support) in [
            (&[("07700900123", 2), ("447700900124", 1)][..], Some("GB"), NumberFormat::Auto, 3),
            (&[("447700900124", 2), ("966500000123", 1)], Some("GB"), NumberFormat::E164NoPlus, 3),
            (&[("7700900123", 2), ("7700900124", 1)], Some("GB"), NumberFormat::Nsn, 3),
            (&[("966500000123", 1)], None, NumberFormat::E164NoPlus, 1),
            (&[], Some("GB"), NumberFormat::Auto, 0),
        ] {
            let found = format(&numbers(&[], bare).bare, country, &mut Plans::default());
            assert_eq!((found.value, found.support), (value, support), "{bare:?}");
        }
    }

    #[test]
    fn prefixes_are_found_with_a_mark_or_by_what_they_hide() {
        let mut marked = evidence(&[("447700900123", 4)], [&[("+442079460200", 4)], &[], &[]]);
        assert_eq!(found_prefix(&marked), "");
        marked.dialled[0].prefixes.add("1234#".to_owned(), 3, 9);
        assert_eq!(found_prefix(&marked), "1234#");
        let hidden = [("99442079460200", 1), ("99442079460201", 1), ("99966115000000", 1)];
        assert_eq!(found_prefix(&evidence(&[], [&hidden, &[], &[]])), "99");
        let plain = [("442079460200", 1), ("442079460201", 1), ("442079460202", 1)];
        assert_eq!(found_prefix(&evidence(&[], [&plain, &[], &[]])), "");
    }

    fn found_prefix(evidence: &Evidence) -> String {
        prefix(evidence, &evidence.dialled[0], Some("GB"), &mut Plans::default()).value
    }
}
