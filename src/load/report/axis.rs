//! Where values stand in a picture, and which of them are marked.
//!
//! Pure. Invariant: a scale has at least two ticks, and every value has a place within its bounds.

/// Most ticks of a logarithmic scale before only the powers of ten are marked.
const MANY: usize = 9;
/// About so many steps has a linear scale.
const STEPS: f64 = 5.0;
/// What counts as all of the most: sums of ticks are not exact.
const REACHED: f64 = 0.999_999;
/// Steps of a decade that are marked.
const MANTISSAS: [f64; 3] = [1.0, 2.0, 5.0];
/// Bounds of logarithmic scales: one nanosecond to 10^13, which is hours.
const DECADES: (f64, f64) = (1.0, 1e13);

/// A line of values.
#[derive(Debug)]
pub(super) struct Scale {
    transform: fn(f64) -> f64,
    /// The bounds, transformed.
    low: f64,
    high: f64,
    /// Places of the bounds in the picture.
    start: f64,
    end: f64,
    /// The values that are marked, in rising order.
    pub(super) ticks: Vec<f64>,
}

impl Scale {
    /// Even from 0 to the first tick that is `most` at least.
    pub(super) fn linear(most: f64, (start, end): (f64, f64)) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = step(most);
        let mut ticks = vec![0.0];
        let mut tick = 0.0;
        while tick < most * REACHED && ticks.len() < MANY {
            tick += step;
            ticks.push(tick);
        }
        Self { transform: std::convert::identity, low: 0.0, high: tick, start, end, ticks }
    }

    /// By powers of ten, from a tick that is `least` at most to one that is `most` at least.
    pub(super) fn logarithmic(least: f64, most: f64, (start, end): (f64, f64)) -> Self {
        let candidates = candidates();
        let end_of_scale = candidates.len() - 1;
        let low = candidates.iter().rposition(|value| *value <= least).unwrap_or(0).min(end_of_scale - 1);
        let high = candidates.iter().position(|value| *value >= most).unwrap_or(end_of_scale).max(low + 1);
        let mut ticks = candidates[low..=high].to_vec();
        let bounds = (candidates[low].log10(), candidates[high].log10());
        if ticks.len() > MANY {
            ticks.retain(|value| is_power(*value));
        }
        Self { transform: f64::log10, low: bounds.0, high: bounds.1, start, end, ticks }
    }

    /// By shares of a whole: 0, then nine tenths, 99 hundredths and so on, `nines` times, all equally far apart. Its
    /// values are numbers of nines; at least 1.
    pub(super) fn nines(nines: u32, (start, end): (f64, f64)) -> Self {
        let nines = nines.max(1);
        let ticks = (0..=nines).map(f64::from).collect();
        Self { transform: std::convert::identity, low: 0.0, high: f64::from(nines), start, end, ticks }
    }

    /// The place of a value; one beyond a bound stands at the bound.
    pub(super) fn place(&self, value: f64) -> f64 {
        let part = ((self.transform)(value) - self.low) / (self.high - self.low);
        // Not a number and the logarithm of 0 end at the low bound.
        let part = if part > 0.0 { part.min(1.0) } else { 0.0 };
        self.start + part * (self.end - self.start)
    }
}

/// A step of 1, 2 or 5 times a power of ten with which `most` has about five.
fn step(most: f64) -> f64 {
    let rough = most / STEPS;
    let decade = 10f64.powf(rough.log10().floor());
    MANTISSAS.into_iter().map(|mantissa| mantissa * decade).find(|step| *step >= rough * 0.999).unwrap_or(decade * 10.0)
}

/// Every value that may be a tick of a logarithmic scale.
fn candidates() -> Vec<f64> {
    let mut values = Vec::new();
    let mut decade = DECADES.0;
    while decade <= DECADES.1 {
        values.extend(MANTISSAS.map(|mantissa| mantissa * decade));
        decade *= 10.0;
    }
    values
}

fn is_power(value: f64) -> bool {
    let exponent = value.log10();
    (exponent - exponent.round()).abs() < 1e-9
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::load::report::units::tick;

    #[test]
    fn linear_ticks_are_round_and_reach_the_most() {
        let cases: [(f64, &[f64]); 4] = [
            (10.0, &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (11.0, &[0.0, 5.0, 10.0, 15.0]),
            (150_000.0, &[0.0, 50_000.0, 100_000.0, 150_000.0]),
            (0.0, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ];
        for (most, ticks) in cases {
            let scale = Scale::linear(most, (0.0, 100.0));
            assert_eq!(scale.ticks.len(), ticks.len(), "{most}: {:?}", scale.ticks);
            assert!(scale.ticks.iter().zip(ticks).all(|(a, b)| (a - b).abs() < 1e-6), "{most}: {:?}", scale.ticks);
        }
    }

    #[test]
    fn logarithmic_ticks_thin_out_over_many_decades() {
        let ticks = |least, most| -> Vec<String> {
            Scale::logarithmic(least, most, (0.0, 1.0)).ticks.into_iter().map(tick).collect()
        };
        assert_eq!(ticks(3e5, 4e6), ["200 µs", "500 µs", "1 ms", "2 ms", "5 ms"]);
        assert_eq!(ticks(2e3, 9e8), ["10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        assert_eq!(ticks(1e6, 1e6), ["1 ms", "2 ms"]);
    }

    #[test]
    fn equal_ratios_are_equal_lengths() {
        let scale = Scale::logarithmic(1e3, 1e6, (10.0, 40.0));
        for (value, place) in [(1e3, 10.0), (1e4, 20.0), (1e6, 40.0), (0.0, 10.0), (1e12, 40.0)] {
            assert!((scale.place(value) - place).abs() < 1e-9, "{value}");
        }
    }

    proptest! {
        #[test]
        fn every_value_has_a_place(least in 0.0f64..1e12, more in 0.0f64..1e12, value in any::<f64>()) {
            let scales = [Scale::linear(more, (300.0, 20.0)), Scale::logarithmic(least, least + more, (300.0, 20.0))];
            for scale in scales {
                prop_assert!(scale.ticks.len() >= 2, "{:?}", scale);
                prop_assert!((20.0..=300.0).contains(&scale.place(value)), "{:?}", scale);
            }
        }
    }
}
