//! The numbers of a load: ranges, and which number a call takes.

use std::fmt;
use std::str::FromStr;

use crate::e164::{E164, NumberError};

/// Most numbers of one range.
pub const MAX_COUNT: u32 = 100_000_000;

/// Consecutive numbers: `+966500000000/1000`, or one without a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: E164,
    count: u32,
}

/// Why a text is no range of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// What stands before the slash is no number.
    #[error("{0}; write +966500000000, or +966500000000/1000 for that and the 999 behind it")]
    Number(#[from] NumberError),
    /// What stands behind the slash is no count.
    #[error("has a count that is not 1 to {MAX_COUNT}; write +966500000000/1000")]
    Count,
    /// The last number has another length or calling code than the first.
    #[error("runs past the last number of its country code and length")]
    End,
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (first, count) = text.split_once('/').unwrap_or((text, "1"));
        let first: E164 = first.parse()?;
        let plain = count.bytes().all(|byte| byte.is_ascii_digit());
        let count = count.parse().ok().filter(|count| plain && (1..=MAX_COUNT).contains(count));
        let count = count.ok_or(RangeError::Count)?;
        let last = first.offset(u64::from(count - 1)).map_err(|_| RangeError::End)?;
        let alike = |number: E164| (number.country_code(), number.as_u64().ilog10());
        if alike(first) != alike(last) {
            return Err(RangeError::End);
        }
        Ok(Self { first, count })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}", self.first),
            count => write!(f, "{}/{count}", self.first),
        }
    }
}

/// The numbers of several ranges, each with a place from 0 on.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// Each range's first place and first number; the places rise.
    ranges: Vec<(u64, u64)>,
    total: u64,
    step: u64,
}

impl Numbers {
    /// The numbers of these ranges; `None` when there is no range.
    #[must_use]
    pub fn new(ranges: &[Range]) -> Option<Self> {
        let mut total = 0;
        let mut places = Vec::with_capacity(ranges.len());
        for range in ranges {
            places.push((total, range.first.as_u64()));
            total += u64::from(range.count);
        }
        (total > 0).then(|| Self { ranges: places, total, step: step(total) })
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The number that call `call` takes when they are taken in order, again from the first after the last.
    #[must_use]
    pub fn in_order(&self, call: u64) -> u64 {
        self.at(call % self.total)
    }

    /// The number that call `call` takes when they are spread: in no order, yet each once before any a second time.
    #[must_use]
    pub fn spread(&self, call: u64) -> u64 {
        let place = u128::from(call % self.total) * u128::from(self.step) % u128::from(self.total);
        self.at(u64::try_from(place).unwrap_or(0))
    }

    fn at(&self, place: u64) -> u64 {
        let range = self.ranges.partition_point(|(first, _)| *first <= place) - 1;
        let (first, number) = self.ranges[range];
        number + (place - first)
    }
}

/// A step near the golden section of `total` that shares no factor with it, so that its multiples meet every place.
fn step(total: u64) -> u64 {
    let mut step = (total / 1_000 * 618 + total % 1_000 * 618 / 1_000).max(1);
    while common_factor(step, total) > 1 {
        step += 1;
    }
    step
}

fn common_factor(mut one: u64, mut other: u64) -> u64 {
    while other > 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_and_print_back() {
        for text in ["+966500000000/1000000", "+966500000000", "+966500000000/2"] {
            assert_eq!(text.parse::<Range>().unwrap().to_string(), text);
        }
        let cases = [
            ("966500000000", RangeError::Number(NumberError::NoPlus)),
            ("+966500000000/", RangeError::Count),
            ("+966500000000/+5", RangeError::Count),
            ("+966500000000/0", RangeError::Count),
            ("+966500000000/100000001", RangeError::Count),
            ("+966999999990/11", RangeError::End),
            ("+999999999999990/11", RangeError::Number(NumberError::UnknownCountryCode)),
        ];
        for (text, fault) in cases {
            assert_eq!(text.parse::<Range>(), Err(fault), "{text}");
        }
    }

    #[test]
    fn calls_in_order_go_through_every_range_and_begin_anew() {
        let numbers = numbers(&["+966500000000/2", "+442079460200"]);
        let taken: Vec<u64> = (0..4).map(|call| numbers.in_order(call)).collect();
        assert_eq!(taken, [966_500_000_000, 966_500_000_001, 442_079_460_200, 966_500_000_000]);
    }

    #[test]
    fn spread_calls_meet_every_number_before_one_comes_again() {
        for count in [1, 2, 3, 10, 97, 1_000, 1_024] {
            let numbers = numbers(&[&format!("+966500000000/{count}")]);
            let mut taken: Vec<u64> = (0..count).map(|call| numbers.spread(call)).collect();
            assert_eq!(numbers.spread(count), taken[0]);
            assert!(count < 97 || taken[1].abs_diff(taken[0]) > 1, "{count} numbers come in order");
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len() as u64, count);
        }
        assert!(Numbers::new(&[]).is_none());
    }

    fn numbers(ranges: &[&str]) -> Numbers {
        let ranges: Vec<Range> = ranges.iter().map(|text| text.parse().unwrap()).collect();
        Numbers::new(&ranges).unwrap()
    }
}
