//! The figures of one latency.

use hdrhistogram::Histogram;

/// Names of the figures, in their order.
pub(super) const NAMES: [&str; 7] = ["min", "p50", "p90", "p99", "p99.9", "max", "mean"];

/// Percentiles that are marked, by name and share.
pub(super) const PERCENTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// Figures of a histogram in nanoseconds, in the order of [`NAMES`]; `None` where nothing was recorded.
pub(super) fn figures(histogram: &Histogram<u64>) -> Option<[f64; NAMES.len()]> {
    if histogram.is_empty() {
        return None;
    }
    let [p50, p90, p99, p999] = PERCENTILES.map(|(_, share)| at(histogram, share));
    Some([float(histogram.min()), p50, p90, p99, p999, float(histogram.max()), histogram.mean()])
}

/// The value in nanoseconds that this share of all values does not exceed.
pub(super) fn at(histogram: &Histogram<u64>, share: f64) -> f64 {
    float(histogram.value_at_quantile(share))
}

/// A count or a time in nanoseconds for reckoning.
#[allow(clippy::cast_precision_loss, reason = "counts and nanoseconds here stay below 2^52")]
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::tally::Tally;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut tally = Tally::new(&["x"]);
        for microseconds in 1..=1_000 {
            tally.measure(0, Duration::from_micros(microseconds));
        }
        let figures = figures(&tally.latencies[0].histogram).unwrap();
        let wanted = [1.0, 500.0, 900.0, 990.0, 999.0, 1_000.0, 500.5].map(|microseconds| microseconds * 1_000.0);
        for ((figure, wanted), name) in figures.into_iter().zip(wanted).zip(NAMES) {
            assert!((figure - wanted).abs() <= wanted * 0.01 + 100.0, "{name}: {figure}, not {wanted}");
        }
    }

    #[test]
    fn nothing_recorded_has_no_figures() {
        assert!(figures(&Tally::new(&["x"]).latencies[0].histogram).is_none());
    }
}
