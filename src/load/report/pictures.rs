//! The pictures of a report: how latencies are spread, how they grow towards the slowest, and the rates over time.

use hdrhistogram::Histogram;

use super::axis::Scale;
use super::figures::{PERCENTILES, at, float};
use super::picture::{ACROSS, Axis, Picture, UPWARDS};
use super::series::Step;
use super::units::{number, span, tick};
use crate::load::tally::{Latency, Second};

/// Bars of a histogram.
const BARS: u32 = 85;
/// Points of a curve.
const POINTS: u32 = 240;
/// Most nines of a percentile curve: one call in 100,000.
const MOST_NINES: u32 = 5;
/// Lines of a picture that can be told apart.
pub(super) const SHAPES: usize = 4;

/// What share of the calls took how long, with the percentiles marked; `None` where nothing was measured.
pub(super) fn spread(latency: &Latency, id: &str) -> Option<String> {
    let histogram = &latency.histogram;
    let (least, most) = bounds([histogram].into_iter())?;
    let across = Scale::logarithmic(least, most, ACROSS);
    let shares = shares(histogram, &across);
    let upwards = Scale::linear(shares.iter().copied().fold(0.0, f64::max), UPWARDS);
    let marks = PERCENTILES.map(|(name, share)| (name, at(histogram, share)));
    let told: Vec<String> = marks.iter().map(|(name, value)| format!("{name} {}", span(*value))).collect();
    let mut picture = Picture::new(
        id,
        &latency.name,
        &format!("Histogram of the latency, on a logarithmic scale. {}.", told.join(", ")),
        &Axis { scale: &across, name: "latency", tick },
        &Axis { scale: &upwards, name: "% of all", tick: number },
    );
    let edge = |index: u32| ACROSS.0 + (ACROSS.1 - ACROSS.0) * f64::from(index) / f64::from(BARS);
    let bars = (0..BARS).zip(&shares).filter(|(_, share)| **share > 0.0);
    picture.bars(bars.map(|(index, share)| (edge(index), edge(index + 1), upwards.place(*share))));
    for ((line, (_, value)), told) in (0..).zip(marks).zip(&told) {
        picture.mark(across.place(value), line, told);
    }
    Some(picture.finish())
}

/// How long all but the slowest took, by the share that is left out; `None` where nothing was measured.
pub(super) fn percentiles(latencies: &[Latency], id: &str) -> Option<String> {
    let measured: Vec<&Latency> =
        latencies.iter().filter(|latency| !latency.histogram.is_empty()).take(SHAPES).collect();
    let (least, most) = bounds(measured.iter().map(|latency| &latency.histogram))?;
    let count = measured.iter().map(|latency| latency.histogram.len()).max()?;
    let nines = nines(count);
    let across = Scale::nines(nines, ACROSS);
    let upwards = Scale::logarithmic(least, most, UPWARDS);
    let mut picture = Picture::new(
        id,
        "Latency by percentile",
        "A line for each latency; to the right stand the slowest. The table has the numbers.",
        &Axis { scale: &across, name: "percentile", tick: percent },
        &Axis { scale: &upwards, name: "latency", tick },
    );
    for (shape, latency) in measured.into_iter().enumerate() {
        let nines = f64::from(nines);
        picture.name(shape, &latency.name);
        picture.line(
            shape,
            (0..=POINTS).map(|point| {
                let left_out = nines * f64::from(point) / f64::from(POINTS);
                let value = at(&latency.histogram, 1.0 - 10f64.powf(-left_out));
                (across.place(left_out), upwards.place(value))
            }),
        );
    }
    Some(picture.finish())
}

/// Calls that began, ended and were given up, a second; `None` where there was no time.
pub(super) fn rates(steps: &[Step], id: &str) -> Option<String> {
    type Kind = (&'static str, usize, fn(Second) -> u64);
    const KINDS: [Kind; 3] =
        [("begun", 0, |counts| counts.begun), ("ended", 2, |counts| counts.ended), ("lost", 1, |counts| counts.lost)];
    let end = steps.last()?.to;
    let rates = steps.iter().flat_map(|step| KINDS.map(|(_, _, count)| step.rate(count(step.counts))));
    let upwards = Scale::linear(rates.fold(0.0, f64::max), UPWARDS);
    let across = Scale::linear(end, ACROSS);
    let mut picture = Picture::new(
        id,
        "Rate over time",
        "Calls begun, ended and lost in each second of the load. The table has the numbers.",
        &Axis { scale: &across, name: "seconds since the start", tick: number },
        &Axis { scale: &upwards, name: "a second", tick: number },
    );
    for (name, shape, count) in KINDS {
        picture.name(shape, name);
        picture.line(
            shape,
            steps.iter().flat_map(|step| {
                let y = upwards.place(step.rate(count(step.counts)));
                [(across.place(step.from), y), (across.place(step.to), y)]
            }),
        );
    }
    Some(picture.finish())
}

/// Least and longest of all, in nanoseconds.
fn bounds<'h>(histograms: impl Iterator<Item = &'h Histogram<u64>>) -> Option<(f64, f64)> {
    histograms
        .filter(|histogram| !histogram.is_empty())
        .map(|histogram| (float(histogram.min()), float(histogram.max())))
        .reduce(|(least, most), (min, max)| (least.min(min), most.max(max)))
}

/// The share of each bar in percent.
fn shares(histogram: &Histogram<u64>, across: &Scale) -> Vec<f64> {
    let width = (ACROSS.1 - ACROSS.0) / f64::from(BARS);
    let (mut shares, mut end) = (vec![0.0], ACROSS.0 + width);
    // Values come in rising order.
    for value in histogram.iter_recorded() {
        let place = across.place(float(value.value_iterated_to()));
        while place > end && shares.len() < BARS as usize {
            shares.push(0.0);
            end += width;
        }
        if let Some(share) = shares.last_mut() {
            *share += 100.0 * float(value.count_at_value()) / float(histogram.len());
        }
    }
    shares
}

/// So many nines of a percentile can be told of `count` values.
fn nines(count: u64) -> u32 {
    count.checked_ilog10().unwrap_or(0).clamp(1, MOST_NINES)
}

/// The percentile with so many nines.
fn percent(nines: f64) -> String {
    format!("{} %", number(100.0 - 100.0 / 10f64.powf(nines)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{sample, series};
    use super::*;

    #[test]
    fn every_value_is_in_a_bar() {
        let tally = sample::tally();
        let histogram = &tally.latencies[0].histogram;
        let across = Scale::logarithmic(float(histogram.min()), float(histogram.max()), ACROSS);
        let shares = shares(histogram, &across);
        assert!(shares.len() <= BARS as usize);
        assert!((shares.iter().sum::<f64>() - 100.0).abs() < 1e-6, "{shares:?}");
        assert_eq!(shares.iter().filter(|share| **share > 0.0).count(), 2, "2 ms and 40 ms are far apart");
    }

    #[test]
    fn percentiles_have_as_many_nines_as_there_are_calls_for() {
        assert_eq!([0, 5, 99, 100, 99_999, 10_000_000].map(nines), [1, 1, 1, 2, 4, 5]);
        assert_eq!([0.0, 1.0, 2.0, 3.0, 5.0].map(percent), ["0 %", "90 %", "99 %", "99.9 %", "99.999 %"]);
    }

    #[test]
    fn what_was_not_measured_has_no_picture() {
        let tally = sample::tally();
        assert!(spread(&tally.latencies[0], "a").unwrap().contains("p99.9 40.0 ms"));
        assert!(spread(&tally.latencies[1], "b").is_none());
        let curve = percentiles(&tally.latencies, "c").unwrap();
        assert!(curve.contains(">INVITE to final<") && !curve.contains("never"), "{curve}");
        assert!(percentiles(&tally.latencies[1..], "c").is_none());
        assert!(rates(&[], "d").is_none());
        let rates = rates(&series::steps(&tally.seconds, Duration::from_millis(2_500)), "d").unwrap();
        assert!([">begun<", ">ended<", ">lost<"].iter().all(|name| rates.contains(name)), "{rates}");
    }
}
