//! Numbers without a pattern, the same for the same seed.

/// The golden ratio as a fraction of 64 bits, by which `SplitMix64` steps.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The sequence of one call (`SplitMix64`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Random(u64);

impl Random {
    /// That of call `number` of a run.
    pub(super) const fn new(seed: u64, number: u64) -> Self {
        Self(seed ^ number.wrapping_mul(STEP).rotate_left(32))
    }

    /// Any number.
    pub(super) const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to below 1.
    #[allow(clippy::cast_precision_loss, reason = "a double holds 53 bits")]
    pub(super) fn share(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_lie_below_one_and_about_half_of_them_below_a_half() {
        let shares: Vec<f64> = (0..1_000).map(|number| Random::new(1, number).share()).collect();
        assert!(shares.iter().all(|share| (0.0..1.0).contains(share)));
        let low = shares.iter().filter(|share| **share < 0.5).count();
        assert!((400..600).contains(&low), "{low}");
    }
}
