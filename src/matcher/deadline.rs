//! Deadlines: the buckets that tell which pairs are due.

use std::collections::BTreeMap;

use super::boot_time::BootTime;
use super::pair::PairKey;

/// Pairs by the second in which they want to be looked at. Adding is O(1) but for a step in a map of a few hundred
/// seconds; nothing is removed early, so whoever takes a pair out must look whether it is still due.
#[derive(Debug, Default)]
pub struct Buckets {
    seconds: BTreeMap<u64, Vec<PairKey>>,
}

impl Buckets {
    /// Notes that `pair` wants to be looked at once `at` has passed: in the second that begins then or after it.
    pub fn add(&mut self, at: BootTime, pair: PairKey) {
        self.seconds.entry(at.0.div_ceil(1000)).or_default().push(pair);
    }

    /// The pairs of the first second from `from` on that has any.
    #[must_use]
    pub fn first_from(&self, from: u64) -> Option<(u64, Vec<PairKey>)> {
        self.seconds.range(from..).next().map(|(second, pairs)| (*second, pairs.clone()))
    }

    /// Takes out at most `limit` pairs whose second has begun.
    pub fn take_due(&mut self, now: BootTime, limit: usize) -> Vec<PairKey> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(mut bucket) = self.seconds.first_entry().filter(|bucket| *bucket.key() <= now.0 / 1000)
        {
            let pairs = bucket.get_mut();
            due.extend(pairs.drain(pairs.len() - pairs.len().min(limit - due.len())..));
            if pairs.is_empty() {
                bucket.remove();
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_out_when_their_second_has_begun_and_not_before() {
        let mut buckets = Buckets::default();
        for (at, pair) in [(1_500, 1), (2_000, 2), (2_001, 3)] {
            buckets.add(BootTime(at), PairKey(pair));
        }
        assert_eq!(buckets.take_due(BootTime(1_999), 10), []);
        assert_eq!(buckets.take_due(BootTime(2_000), 1).len(), 1);
        assert_eq!(buckets.take_due(BootTime(2_999), 10).len(), 1);
        assert_eq!(buckets.take_due(BootTime(3_000), 10), [PairKey(3)]);
    }
}
