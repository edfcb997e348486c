//! How fast a receiver is given what it has missed: slowly at first, faster while it takes it well.
//!
//! What happens now is not paced: it goes first. Pure.

/// Deliveries in the first second.
pub(super) const LEAST: usize = 16;

/// Deliveries in a second at most: more than one endpoint can be given.
const MOST: usize = 65_536;

/// One in so many may fail without a word about the pace.
const FEW: usize = 10;

/// The pace of one receiver.
#[derive(Debug)]
pub(super) struct Pace {
    /// Deliveries in this second.
    rate: usize,
    /// Events that it did not take in this second.
    failed: usize,
    /// Events that it took, new ones too.
    taken: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rate: LEAST, failed: 0, taken: 0 }
    }
}

impl Pace {
    /// The receiver did not take so many events.
    pub(super) fn failure(&mut self, events: usize) {
        self.failed += events;
    }

    /// The receiver has taken so many events: it can do with as many in a second.
    pub(super) fn success(&mut self, events: usize) {
        self.taken += events;
    }

    /// The receiver was away: what it gets now begins slowly.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }

    /// A second has passed, of which `left` places were not used. Gives those of the next one.
    pub(super) fn turn(&mut self, left: usize) -> usize {
        let (failed, taken) = (std::mem::take(&mut self.failed), std::mem::take(&mut self.taken));
        // Some fail with every receiver.
        if failed * FEW > taken + failed {
            self.rate = (self.rate / 2).max(LEAST);
        } else if left == 0 || taken >= self.rate {
            self.rate = (self.rate * 2).min(MOST);
        }
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_while_all_goes_well_and_halves_where_something_fails() {
        let mut pace = Pace::default();
        assert_eq!((0..4).map(|_| pace.turn(0)).collect::<Vec<_>>(), [32, 64, 128, 256]);
        assert_eq!(pace.turn(3), 256, "it is fast enough");
        pace.success(255);
        assert_eq!(pace.turn(3), 256);
        pace.success(256);
        assert_eq!((pace.turn(3), pace.turn(3)), (512, 512), "so many new ones were no trouble either");
        pace.failure(1);
        assert_eq!(pace.turn(0), 256);
        pace.failure(1);
        assert_eq!((pace.turn(0), pace.turn(0)), (128, 256));
        for _ in 0..100 {
            pace.turn(0);
        }
        assert_eq!(pace.turn(0), MOST);
        for _ in 0..100 {
            pace.failure(1);
            pace.turn(0);
        }
        assert_eq!(pace.turn(1), LEAST);
        pace.turn(0);
        pace.begin_anew();
        assert_eq!(pace.turn(1), LEAST);
    }

    #[test]
    fn a_few_failures_in_each_second_hold_nothing_back() {
        let (mut pace, mut left, mut seconds) = (Pace::default(), 100_000_usize, 0);
        while left > 0 {
            let given = pace.turn(0).min(left);
            pace.failure(given / 20);
            pace.success(given - given / 20);
            left -= given - given / 20;
            seconds += 1;
        }
        assert!(seconds < 30, "{seconds}");
    }

    #[test]
    fn a_million_is_caught_up_with_in_minutes() {
        let (mut pace, mut left, mut seconds) = (Pace::default(), 1_000_000_usize, 0);
        while left > 0 {
            // A receiver that takes four thousand a second.
            left = left.saturating_sub(pace.turn(0).min(4_000));
            seconds += 1;
        }
        assert!((200..300).contains(&seconds), "{seconds}");
    }
}
