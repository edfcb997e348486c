//! The seconds of a load as steps of a line.
//!
//! Invariant: a rate stands on the time in which it was counted. What is left of a second at the end is a short step,
//! or part of the one before, never a fall that nobody saw.

use std::time::Duration;

use super::figures::float;
use crate::load::tally::Second;

/// Most steps of a line; in longer loads several seconds are one.
const MOST_STEPS: u32 = 300;
/// Seconds of a load that a tally keeps apart.
const MOST_SECONDS: u32 = 86_400;
/// Shortest time that a rate may stand on.
const SHORTEST: f64 = 0.001;

/// A piece of time, and what was counted in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// Its begin, in seconds since the start.
    pub(super) from: f64,
    /// Its end.
    pub(super) to: f64,
    /// What was counted.
    pub(super) counts: Second,
}

impl Step {
    /// So many of a count, a second.
    pub(super) fn rate(&self, count: u64) -> f64 {
        float(count) / (self.to - self.from).max(SHORTEST)
    }
}

/// The steps of a load that took `elapsed`.
pub(super) fn steps(seconds: &[Second], elapsed: Duration) -> Vec<Step> {
    let begun = elapsed.as_secs() + u64::from(elapsed.subsec_nanos() > 0);
    let whole = u32::try_from(begun.max(seconds.len() as u64)).unwrap_or(MOST_SECONDS).min(MOST_SECONDS);
    let group = whole.div_ceil(MOST_STEPS).max(1);
    let end = elapsed.as_secs_f64();
    let mut steps: Vec<Step> = Vec::new();
    for first in (0..whole).step_by(group as usize) {
        let behind = first + group;
        let counts = sum(seconds, first, behind);
        let from = f64::from(first);
        let to = if behind < whole { f64::from(behind) } else { end };
        match steps.last_mut() {
            Some(last) if to - from < f64::from(group) / 2.0 => {
                last.to = last.to.max(to);
                last.counts = add(last.counts, counts);
            }
            _ => steps.push(Step { from, to: to.max(from + SHORTEST), counts }),
        }
    }
    steps
}

fn sum(seconds: &[Second], first: u32, behind: u32) -> Second {
    let seconds = seconds.iter().skip(first as usize).take((behind - first) as usize);
    seconds.fold(Second::default(), |sum, second| add(sum, *second))
}

const fn add(one: Second, other: Second) -> Second {
    Second { begun: one.begun + other.begun, ended: one.ended + other.ended, lost: one.lost + other.lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_second_is_a_step_of_its_own_length() {
        let steps = steps(&[calls(100), calls(70)], Duration::from_millis(1_700));
        let shape: Vec<_> = steps.iter().map(|step| (step.from, step.to, step.rate(step.counts.ended))).collect();
        assert_eq!(shape.len(), 2);
        assert_eq!((shape[0].0, shape[0].1, shape[0].2), (0.0, 1.0, 100.0));
        assert!((shape[1].1 - 1.7).abs() < 1e-9 && (shape[1].2 - 100.0).abs() < 1e-6, "{shape:?}");
    }

    #[test]
    fn a_small_rest_joins_the_second_before() {
        let steps = steps(&[calls(100), calls(10)], Duration::from_millis(1_100));
        assert_eq!(steps.len(), 1);
        assert!((steps[0].rate(steps[0].counts.ended) - 100.0).abs() < 1e-6, "{steps:?}");
    }

    #[test]
    fn nothing_is_left_out() {
        for (count, milliseconds) in [(0, 0), (0, 2_500), (1, 3), (3, 2_999), (3, 7_000), (1_000, 999_400)] {
            let steps = steps(&vec![calls(2); count], Duration::from_millis(milliseconds));
            let ended: u64 = steps.iter().map(|step| step.counts.ended).sum();
            assert_eq!(ended, 2 * count as u64, "{count} seconds");
            assert!(steps.len() <= MOST_STEPS as usize);
            assert!(steps.iter().all(|step| step.from < step.to), "{steps:?}");
            assert!(steps.windows(2).all(|pair| pair[0].to <= pair[1].from), "{steps:?}");
        }
    }

    fn calls(ended: u64) -> Second {
        Second { begun: ended, ended, lost: 0 }
    }
}
