//! What a load saw: counts, final codes, latencies, and the same second by second.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Shortest and longest latency that is told apart, in nanoseconds, and its decimal digits.
const RANGE: (u64, u64, u8) = (100, 300_000_000_000, 3);
/// Seconds that are kept apart; what comes later is added to the last.
const MAX_SECONDS: usize = 86_400;

/// The counts of one thread or of all.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Calls that have begun.
    pub begun: u64,
    /// Calls that ended as they should.
    pub ended: u64,
    /// Calls that got no end in time.
    pub lost: u64,
    /// Requests sent again, for no response came.
    pub retransmissions: u64,
    /// Datagrams or responses that belong to no call in flight: duplicates, or later than the timeout.
    pub stray: u64,
    /// Final responses by code, and errors that have no code by name.
    pub codes: BTreeMap<String, u64>,
    /// Each kind of latency.
    pub latencies: Vec<Latency>,
    /// What happened in each second since the start.
    pub seconds: Vec<Second>,
}

/// One kind of latency.
#[derive(Debug, Clone)]
pub struct Latency {
    /// What it spans, as `INVITE to final`.
    pub name: String,
    /// Its values in nanoseconds.
    pub histogram: Histogram<u64>,
}

/// One second of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Second {
    /// Calls that began in it.
    pub begun: u64,
    /// Calls that ended in it.
    pub ended: u64,
    /// Calls given up in it.
    pub lost: u64,
}

impl Tally {
    /// Nothing yet; the latencies have these names, and are recorded by their place among them.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the bounds are constants, and sound")]
    pub fn new(latencies: &[&str]) -> Self {
        let latency = |name: &&str| Latency {
            name: (*name).to_owned(),
            histogram: Histogram::new_with_bounds(RANGE.0, RANGE.1, RANGE.2).expect("the bounds are sound"),
        };
        Self {
            begun: 0,
            ended: 0,
            lost: 0,
            retransmissions: 0,
            stray: 0,
            codes: BTreeMap::new(),
            latencies: latencies.iter().map(latency).collect(),
            seconds: Vec::new(),
        }
    }

    /// A call began, this long after the start.
    pub fn begin(&mut self, at: Duration) {
        self.begun += 1;
        self.second(at).begun += 1;
    }

    /// What [`Tally::begin`] counted at this moment did not begin after all.
    pub fn withdraw(&mut self, at: Duration) {
        self.begun = self.begun.saturating_sub(1);
        let second = self.second(at);
        second.begun = second.begun.saturating_sub(1);
    }

    /// A call ended as it should.
    pub fn end(&mut self, at: Duration) {
        self.ended += 1;
        self.second(at).ended += 1;
    }

    /// A call was given up.
    pub fn lose(&mut self, at: Duration) {
        self.lost += 1;
        self.second(at).lost += 1;
    }

    /// A final response, or an error by its name.
    pub fn count(&mut self, code: &str) {
        match self.codes.get_mut(code) {
            Some(count) => *count += 1,
            None => drop(self.codes.insert(code.to_owned(), 1)),
        }
    }

    /// Records a latency of the kind at this place; what is longer than five minutes counts as that.
    pub fn measure(&mut self, kind: usize, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies[kind].histogram.saturating_record(nanoseconds);
    }

    /// Adds the counts of another thread, which has the same latencies.
    #[expect(clippy::missing_panics_doc, reason = "all histograms have the same bounds")]
    pub fn add(&mut self, other: &Self) {
        self.begun += other.begun;
        self.ended += other.ended;
        self.lost += other.lost;
        self.retransmissions += other.retransmissions;
        self.stray += other.stray;
        for (code, count) in &other.codes {
            *self.codes.entry(code.clone()).or_default() += count;
        }
        for (mine, others) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.histogram.add(&others.histogram).expect("both have the same bounds");
        }
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize(other.seconds.len(), Second::default());
        }
        for (mine, others) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.begun += others.begun;
            mine.ended += others.ended;
            mine.lost += others.lost;
        }
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let place = usize::try_from(at.as_secs()).unwrap_or(usize::MAX).min(MAX_SECONDS - 1);
        if self.seconds.len() <= place {
            self.seconds.resize(place + 1, Second::default());
        }
        &mut self.seconds[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_counted_is_added_second_by_second() {
        let mut one = Tally::new(&["INVITE to final"]);
        one.begin(Duration::ZERO);
        one.end(Duration::from_millis(1_200));
        one.count("486");
        one.measure(0, Duration::from_millis(3));
        let mut other = Tally::new(&["INVITE to final"]);
        other.begin(Duration::from_millis(2_500));
        other.lose(Duration::from_millis(2_900));
        other.count("486");
        other.count("503");
        other.measure(0, Duration::from_secs(1_000));
        one.add(&other);
        assert_eq!((one.begun, one.ended, one.lost), (2, 1, 1));
        assert_eq!(one.codes, BTreeMap::from([("486".to_owned(), 2), ("503".to_owned(), 1)]));
        let seconds: Vec<_> = one.seconds.iter().map(|second| (second.begun, second.ended, second.lost)).collect();
        assert_eq!(seconds, [(1, 0, 0), (0, 1, 0), (1, 0, 1)]);
        let histogram = &one.latencies[0].histogram;
        assert_eq!(histogram.len(), 2);
        assert!(histogram.max() >= 299_000_000_000, "an endless wait counts as five minutes");
    }
}
