//! Counts by kind, of which a bounded number of kinds is told apart.

use std::collections::BTreeMap;

/// How often each of a kind was seen.
pub(super) struct Counts<T> {
    /// Those below the cap.
    pub each: BTreeMap<T, u64>,
    /// Of all.
    pub total: u64,
}

impl<T> Default for Counts<T> {
    fn default() -> Self {
        Self { each: BTreeMap::new(), total: 0 }
    }
}

impl<T: Ord> Counts<T> {
    /// Counts one. What is new beyond `most` is only part of the total.
    pub(super) fn add(&mut self, what: T, count: u64, most: usize) {
        self.total += count;
        if let Some(before) = self.each.get_mut(&what) {
            *before += count;
        } else if self.each.len() < most {
            self.each.insert(what, count);
        }
    }

    /// The most frequent one, the least of equals.
    pub(super) fn top(&self) -> Option<(&T, u64)> {
        let mut top: Option<(&T, u64)> = None;
        for (what, &count) in &self.each {
            if top.is_none_or(|(_, most)| count > most) {
                top = Some((what, count));
            }
        }
        top
    }

    /// Adds what another one has counted.
    pub(super) fn merge(&mut self, other: Self, most: usize) {
        let beyond = other.total.saturating_sub(other.each.values().sum());
        for (what, count) in other.each {
            self.add(what, count, most);
        }
        self.total += beyond;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_beyond_the_cap_are_only_summed() {
        let mut counts = Counts::default();
        for what in [1, 2, 2, 3] {
            counts.add(what, 1, 2);
        }
        assert_eq!((counts.each.len(), counts.total, counts.top()), (2, 4, Some((&2, 2))));
        let mut more = Counts::default();
        more.add(2, 5, 2);
        more.merge(counts, 2);
        assert_eq!((more.total, more.top()), (9, Some((&2, 7))));
    }
}
