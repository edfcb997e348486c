//! When a delivery is tried: Standard Webhooks' advice of growing gaps over a day.
//!
//! Tries are planned from the event, and a node that is up keeps to that plan. One that was down finds many planned
//! tries in the past: they are made up for one at a time, each some way behind the one before, so that a receiver gets
//! growing gaps then too.

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

/// The part of its planned gap that a try keeps from the failure before it, however late it is. Small enough that it
/// moves no try of a node that is up.
const SPACING_DIVISOR: u32 = 3;

/// Most of that, so that what was missed is made up for within hours.
const LONGEST_SPACING: Duration = Duration::from_hours(1);

/// Longest wait that a receiver may ask for with Retry-After.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// When the next try is due, as an offset from the event, after `attempts` failed ones; `None` when there is none left.
///
/// `jitter` is a random number in 0..1. `age` is how long ago the event happened: a try comes after that by a third of
/// its planned gap at least, or an hour where that is less. `retry_after` is what the receiver asked for: honoured up to an hour and never past a day after the event.
#[must_use]
pub fn next_attempt(attempts: u32, age: Duration, jitter: f64, retry_after: Option<Duration>) -> Option<Duration> {
    let index = usize::try_from(attempts).ok()?;
    let planned = *OFFSETS.get(index)?;
    let gap = planned.saturating_sub(OFFSETS[index.saturating_sub(1)]);
    let moved = gap.mul_f64(JITTER * (2.0 * jitter.clamp(0.0, 1.0) - 1.0).abs());
    let jittered = if jitter < 0.5 { planned.saturating_sub(moved) } else { planned + moved };
    let spacing = (gap / SPACING_DIVISOR).min(LONGEST_SPACING).mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0));
    let asked = retry_after.map_or(Duration::ZERO, |wait| (age + wait.min(LONGEST_RETRY_AFTER)).min(LAST));
    Some(jittered.max(asked).max(age + spacing))
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
        assert_eq!(next_attempt(4, Duration::from_secs(85_000), 0.5, Some(hours(1))), Some(hours(24)));
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
        fn a_node_that_is_up_keeps_to_the_offsets(
            attempts in 1u32..12,
            earlier in -1.0f64..1.0,
            answer in 0.0f64..0.15,
            jitter in 0.0f64..1.0,
        ) {
            // The try before was moved by its own jitter, and its answer took a part of the gap.
            let index = attempts as usize;
            let [before, last, planned] = [index.saturating_sub(2), index - 1, index].map(|n| OFFSETS[n].as_secs_f64());
            let age = last + (last - before) * JITTER * earlier + (planned - last) * answer;
            let undisturbed = next_attempt(attempts, Duration::ZERO, jitter, None);
            prop_assert_eq!(next_attempt(attempts, Duration::from_secs_f64(age), jitter, None), undisturbed);
        }

        #[test]
        fn gaps_grow_whatever_was_missed(
            first in 0u64..200_000,
            jitters in prop::collection::vec(0.0f64..1.0, 12),
            took in 0u64..10,
        ) {
            // Down from the event on; up again at `first`, with each try failing after `took`.
            let first = Duration::from_secs(first);
            let mut failed = vec![first];
            for (attempts, jitter) in (1..).zip(&jitters) {
                let age = *failed.last().unwrap() + Duration::from_secs(took);
                let Some(next) = next_attempt(attempts, age, *jitter, None) else { break };
                let index = attempts as usize;
                let gap = OFFSETS[index].abs_diff(OFFSETS[index - 1]);
                prop_assert!(next >= age + (gap / 3).min(Duration::from_hours(1)), "{} {:?} {:?}", attempts, age, next);
                failed.push(next);
            }
            prop_assert_eq!(failed.len(), OFFSETS.len());
            let (third, last) = (failed[2].abs_diff(first), failed[11].abs_diff(first));
            prop_assert!(third >= Duration::from_secs(1), "{:?}", third);
            prop_assert!(last >= Duration::from_hours(5), "{:?}", last);
            // And what was missed is made up for: no plan beyond the first day's end or some hours after the first try.
            prop_assert!(failed[11] <= Duration::from_hours(25).max(first + Duration::from_hours(8)));
        }
    }

    #[test]
    fn an_old_event_is_tried_over_hours_before_it_is_given_up() {
        let mut age = Duration::from_hours(26);
        let mut waits = Vec::new();
        for attempts in 1..12 {
            let next = next_attempt(attempts, age, 0.0, None).unwrap();
            waits.push(next.abs_diff(age).as_secs());
            age = next;
        }
        assert_eq!(waits, [0, 1, 8, 90, 500, 1800, 3600, 3600, 3600, 3600, 3600]);
        assert_eq!(next_attempt(12, age, 0.0, None), None);
    }
}
