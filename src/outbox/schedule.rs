//! When a delivery is tried: Standard Webhooks' advice of growing gaps over a day.

use std::time::Duration;

/// Offsets of the tries from the event.
const OFFSETS: [Duration; 12] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    LAST,
];

/// The last try comes a day after the event.
const LAST: Duration = Duration::from_hours(24);

/// How far a try may move: a fifth of the gap before it, either way.
const JITTER: f64 = 0.2;

/// Longest wait that a receiver may ask for with Retry-After.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// When the next try is due, as an offset from the event, after `attempts` failed ones; `None` when there is none left.
///
/// `jitter` is a random number in 0..1. `age` is how long ago the event happened: a try is never planned for the past.
/// `retry_after` is what the receiver asked for: honoured up to an hour and never past a day after the event.
#[must_use]
pub fn next_attempt(attempts: u32, age: Duration, jitter: f64, retry_after: Option<Duration>) -> Option<Duration> {
    let index = usize::try_from(attempts).ok()?;
    let planned = *OFFSETS.get(index)?;
    let gap = planned.saturating_sub(OFFSETS[index.saturating_sub(1)]);
    let moved = gap.mul_f64(JITTER * (2.0 * jitter.clamp(0.0, 1.0) - 1.0).abs());
    let jittered = if jitter < 0.5 { planned.saturating_sub(moved) } else { planned + moved };
    let asked = retry_after.map_or(Duration::ZERO, |wait| (age + wait.min(LONGEST_RETRY_AFTER)).min(LAST));
    Some(jittered.max(asked).max(age))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tries_follow_the_published_offsets() {
        let seconds: Vec<u64> =
            (0..12).map(|n| next_attempt(n, Duration::ZERO, 0.5, None).unwrap().as_secs()).collect();
        assert_eq!(seconds, [0, 1, 5, 30, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]);
        assert_eq!(next_attempt(12, Duration::ZERO, 0.5, None), None);
    }

    #[test]
    fn retry_after_puts_off_by_an_hour_at_most_and_not_past_the_day() {
        let hours = Duration::from_hours;
        assert_eq!(next_attempt(1, Duration::ZERO, 0.5, Some(Duration::from_secs(20))), Some(Duration::from_secs(20)));
        assert_eq!(next_attempt(1, Duration::ZERO, 0.5, Some(hours(9))), Some(hours(1)));
        assert_eq!(next_attempt(11, Duration::from_secs(86_000), 0.5, Some(hours(1))), Some(hours(24)));
    }

    proptest! {
        #[test]
        fn a_try_moves_by_a_fifth_of_its_gap_at_most(attempts in 0u32..12, jitter in 0.0f64..1.0) {
            let index = attempts as usize;
            let planned = OFFSETS[index].as_secs_f64();
            let gap = planned - OFFSETS[index.saturating_sub(1)].as_secs_f64();
            let next = next_attempt(attempts, Duration::ZERO, jitter, None).unwrap().as_secs_f64();
            prop_assert!((next - planned).abs() <= gap * JITTER + 1e-6);
        }

        #[test]
        fn a_try_is_never_planned_for_the_past(attempts in 0u32..12, age in 0u64..200_000, jitter in 0.0f64..1.0) {
            let age = Duration::from_secs(age);
            prop_assert!(next_attempt(attempts, age, jitter, None).unwrap() >= age);
        }
    }
}
