//! Numbers as they were before a reload: what is pending on them is still called.
//!
//! Owns which trunk may bring a call for a number that the settings in force do not give it, and for which
//! verifications: those that were begun under the settings that did. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::settings::{NumberRange, Numbers};
use crate::call::event::TrunkId;
use crate::e164::E164;
use crate::matcher::boot_time::BootTime;
use crate::matcher::pair::LATE;

/// Longest window of a verification.
const WINDOW: Duration = Duration::from_mins(5);

/// How long numbers are kept: a window that begins right at the reload, calls that are late for it, and as much again
/// for a creation that is under way.
const KEPT: Duration = Duration::from_secs(WINDOW.as_secs() + 2 * LATE.as_secs());

/// Most reloads whose numbers are kept at once.
const MAX_LAYERS: usize = 64;

/// So many reloads within the last minutes have taken numbers away that no more can be kept in mind. Later there is
/// room again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{MAX_LAYERS} reloads within {} minutes have taken numbers away, and calls for them are still due; reload again later",
    KEPT.as_secs() / 60
)]
pub struct TooManyChanges;

/// Which settings a verification was begun under: how many were in force before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation(pub u32);

impl Generation {
    /// As late as can be: calls that the settings in force let in prove any verification.
    pub const ANY: Self = Self(u32::MAX);
}

/// What one reload took away.
#[derive(Debug, Clone)]
struct Layer {
    numbers: Arc<Numbers>,
    /// The settings that were the last to have them.
    last: Generation,
    until: BootTime,
}

/// Numbers that earlier settings had, by reload.
#[derive(Debug, Clone, Default)]
pub(super) struct Earlier {
    layers: Vec<Layer>,
}

impl Earlier {
    /// What is to be kept when `next` follows `current`, whose generation is `last`.
    pub(super) fn after(
        &self,
        current: &Numbers,
        last: Generation,
        next: &Numbers,
        now: BootTime,
    ) -> Result<Self, TooManyChanges> {
        let gone = |numbers: &Numbers| -> Vec<NumberRange> {
            numbers.ranges().iter().filter(|range| !covers(next, range)).cloned().collect()
        };
        let kept = self.layers.iter().filter(|layer| layer.until > now);
        let mut layers: Vec<Layer> = kept
            .map(|layer| Layer { numbers: Arc::new(Numbers::new(gone(&layer.numbers))), ..layer.clone() })
            .collect();
        layers.push(Layer { numbers: Arc::new(Numbers::new(gone(current))), last, until: now.plus(KEPT) });
        layers.retain(|layer| !layer.numbers.ranges().is_empty());
        if layers.len() > MAX_LAYERS { Err(TooManyChanges) } else { Ok(Self { layers }) }
    }

    /// Whether anybody may still call `number`.
    pub(super) fn knows(&self, number: E164, now: impl FnOnce() -> BootTime) -> bool {
        !self.layers.is_empty() && self.find(number, now()).next().is_some()
    }

    /// The newest settings under which `trunk` brought calls for `number`.
    pub(super) fn served(&self, number: E164, trunk: TrunkId, now: BootTime) -> Option<Generation> {
        self.find(number, now).filter(|(range, _)| range.trunks.contains(&trunk)).map(|(_, last)| last).max()
    }

    /// How long a pair of `number` rests, by the newest settings that had it.
    pub(super) fn cool_down(&self, number: E164) -> Option<Duration> {
        self.find(number, BootTime::default()).max_by_key(|(_, last)| *last).map(|(range, _)| range.cool_down)
    }

    fn find(&self, number: E164, now: BootTime) -> impl Iterator<Item = (&NumberRange, Generation)> {
        let layers = self.layers.iter().filter(move |layer| layer.until > now);
        layers.filter_map(move |layer| Some((layer.numbers.find(number)?, layer.last)))
    }
}

/// Whether all that came in by `range` still does.
fn covers(numbers: &Numbers, range: &NumberRange) -> bool {
    let last = range.first.as_u64() + u64::from(range.count);
    numbers.find(range.first).is_some_and(|now| {
        now.first.as_u64() + u64::from(now.count) >= last && range.trunks.iter().all(|trunk| now.trunks.contains(trunk))
    })
}

#[cfg(test)]
mod tests {
    use super::super::settings::ApplicationId;
    use super::*;

    fn numbers(ranges: &[(u64, u32, &[u16])]) -> Numbers {
        let range = |&(first, count, trunks): &(u64, u32, &[u16])| NumberRange {
            first: number(first),
            count,
            trunks: trunks.iter().copied().map(TrunkId).collect(),
            applications: vec![ApplicationId(0)],
            cool_down: Duration::from_secs(first),
        };
        Numbers::new(ranges.iter().map(range).collect())
    }

    fn number(last: u64) -> E164 {
        E164::from_u64(966_115_000_000 + last).unwrap()
    }

    const NOW: BootTime = BootTime(1_000_000);

    #[test]
    fn a_number_that_is_gone_is_known_by_its_trunks_until_its_windows_are_over() {
        let (before, after) = (numbers(&[(0, 10, &[0, 1]), (20, 10, &[0])]), numbers(&[(20, 10, &[0])]));
        let earlier = Earlier::default().after(&before, Generation(3), &after, NOW).unwrap();
        assert_eq!(earlier.served(number(5), TrunkId(1), NOW), Some(Generation(3)));
        assert_eq!(earlier.served(number(5), TrunkId(2), NOW), None);
        assert_eq!(earlier.served(number(25), TrunkId(0), NOW), None, "what goes on is not among the earlier");
        assert_eq!(earlier.cool_down(number(5)), Some(Duration::ZERO));
        let over = NOW.plus(KEPT);
        assert!(earlier.knows(number(5), || BootTime(over.0 - 1)) && !earlier.knows(number(5), || over));
        assert!(earlier.after(&after, Generation(4), &after, over).unwrap().layers.is_empty());
    }

    #[test]
    fn a_trunk_taken_from_a_number_brings_calls_for_what_it_served() {
        let plans = [numbers(&[(0, 10, &[0])]), numbers(&[(0, 10, &[1])]), numbers(&[(0, 5, &[1, 0])])];
        let mut earlier = Earlier::default();
        for (generation, pair) in (0..).zip(plans.windows(2)) {
            earlier = earlier.after(&pair[0], Generation(generation), &pair[1], NOW).unwrap();
        }
        assert_eq!(earlier.served(number(7), TrunkId(0), NOW), Some(Generation(0)));
        assert_eq!(earlier.served(number(7), TrunkId(1), NOW), Some(Generation(1)));
    }

    #[test]
    fn two_plans_in_turn_do_not_heap_up_and_ever_new_ones_are_refused_for_a_while() {
        let (one, other) = (numbers(&[(0, 10, &[0])]), numbers(&[(20, 10, &[0])]));
        let mut earlier = Earlier::default();
        for generation in 0..1000 {
            let (from, to) = if generation % 2 == 0 { (&one, &other) } else { (&other, &one) };
            earlier = earlier.after(from, Generation(generation), to, NOW).unwrap();
        }
        assert_eq!(earlier.layers.len(), 1);
        let mut earlier = Earlier::default();
        let plan = |step: usize| numbers(&[(step as u64, 1, &[0])]);
        for step in 0..MAX_LAYERS {
            let last = Generation(u32::try_from(step).unwrap());
            earlier = earlier.after(&plan(step), last, &plan(step + 1), NOW).unwrap();
        }
        let next = |now| earlier.after(&plan(64), Generation(64), &plan(65), now).map(|_| ());
        assert_eq!(next(NOW), Err(TooManyChanges));
        assert_eq!(next(NOW.plus(KEPT)), Ok(()));
    }
}
