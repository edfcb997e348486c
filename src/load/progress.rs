//! How far a load is, for whoever watches: counters that threads share, and a line on the terminal.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the line is to be shown anew.
pub const PERIOD: Duration = Duration::from_millis(250);
/// How many of those the rate is taken over: a second.
const SAMPLES: usize = 4;

/// Calls at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls that have begun.
    pub begun: u64,
    /// Calls that ended as they should.
    pub ended: u64,
    /// Calls that were given up.
    pub lost: u64,
}

/// The sum of what all threads have done. Threads add to it by batches.
#[derive(Debug, Default)]
pub struct Progress {
    begun: AtomicU64,
    ended: AtomicU64,
    lost: AtomicU64,
}

impl Progress {
    /// Adds what a thread has done between two moments.
    pub fn add(&self, before: Counts, after: Counts) {
        self.begun.fetch_add(after.begun - before.begun, Ordering::Relaxed);
        self.ended.fetch_add(after.ended - before.ended, Ordering::Relaxed);
        self.lost.fetch_add(after.lost - before.lost, Ordering::Relaxed);
    }

    /// The sum so far. While threads add to it, a count may be ahead of another.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            begun: self.begun.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }
}

/// The line on the terminal.
#[derive(Debug)]
pub struct Line {
    bar: ProgressBar,
    total: Option<Duration>,
    samples: VecDeque<(Duration, u64)>,
}

impl Line {
    /// A line on standard error, where that is a terminal. `total` is how long the load takes, where it is known.
    #[must_use]
    pub fn on_terminal(total: Option<Duration>) -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("{msg}").ok()?);
        Some(Self { bar, total, samples: VecDeque::from([(Duration::ZERO, 0)]) })
    }

    /// Shows where the load is at `elapsed`; to be called every [`PERIOD`].
    pub fn show(&mut self, elapsed: Duration, counts: Counts) {
        let (since, begun) = self.samples.front().copied().unwrap_or_default();
        let rate = rate(counts.begun.saturating_sub(begun), elapsed.saturating_sub(since));
        self.bar.set_message(text(elapsed, self.total, counts, rate));
        self.bar.tick();
        self.samples.push_back((elapsed, counts.begun));
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn text(elapsed: Duration, total: Option<Duration>, counts: Counts, rate: u64) -> String {
    let Counts { begun, ended, lost } = counts;
    let of = total.map(|total| format!(" of {:.0}", total.as_secs_f64())).unwrap_or_default();
    let open = begun.saturating_sub(ended + lost);
    format!("{:.0}{of} s   {begun} calls   {rate}/s   {open} in flight   {lost} lost", elapsed.as_secs_f64())
}

fn rate(count: u64, time: Duration) -> u64 {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    (count * 1_000).checked_div(milliseconds).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_what_they_did_since_the_last_batch() {
        let progress = Progress::default();
        let counts = |begun, ended, lost| Counts { begun, ended, lost };
        progress.add(Counts::default(), counts(5, 3, 1));
        progress.add(counts(5, 3, 1), counts(9, 8, 1));
        progress.add(Counts::default(), counts(1, 0, 0));
        assert_eq!(progress.counts(), counts(10, 8, 1));
    }

    #[test]
    fn the_line_says_time_calls_rate_and_losses() {
        let counts = Counts { begun: 1_000, ended: 900, lost: 3 };
        let shown =
            text(Duration::from_secs(4), Some(Duration::from_secs(10)), counts, rate(250, Duration::from_secs(1)));
        assert_eq!(shown, "4 of 10 s   1000 calls   250/s   97 in flight   3 lost");
        assert_eq!(
            text(Duration::ZERO, None, Counts::default(), rate(1, Duration::ZERO)),
            "0 s   0 calls   0/s   0 in flight   0 lost"
        );
    }
}
