//! When the calls of a load begin: open loop, at a rate whatever the peer does, or closed, so many at once.
//!
//! Pure: times are spans since the start of the load. In an open loop a call has the moment that the rate gives it, and
//! its latency counts from there: a generator or a peer that stalls shows in the calls that should have gone meanwhile.

use std::time::Duration;

/// The rule by which calls begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many a second.
    Open {
        /// Calls a second; more than 0.
        rate: f64,
        /// How long the rate takes to rise evenly from 0. No time: it is there at once.
        ramp: Duration,
    },
    /// As many at once; one that ends makes room for the next.
    Closed {
        /// Calls in flight; at least 1.
        window: usize,
    },
}

/// Where a load ends: at the first of its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// No call is due later than this. In an open loop one that is overdue may still begin after it.
    pub duration: Duration,
    /// At most so many calls.
    pub calls: Option<u64>,
}

/// Hands out the calls of one thread. Several share a load by turns: of `threads` the one at `place` has the calls
/// `place`, `place + threads`, and so on.
#[derive(Debug)]
pub struct Pacer {
    pace: Pace,
    bounds: Bounds,
    place: u64,
    threads: u64,
    begun: u64,
}

/// One call that is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Its number in the whole load, from 0; no two threads have the same.
    pub call: u64,
    /// When it was to begin.
    pub at: Duration,
}

impl Pacer {
    /// The share of the thread at place `turn` of `threads`.
    #[must_use]
    pub fn new(pace: Pace, bounds: Bounds, turn: u64, threads: u64) -> Self {
        Self { pace, bounds, place: turn, threads: threads.max(1), begun: 0 }
    }

    /// The next call, where one is due at `now` with `open` calls of this thread in flight.
    pub fn take(&mut self, now: Duration, open: usize) -> Option<Due> {
        let due = match self.pace {
            Pace::Open { .. } => self.next().filter(|due| due.at <= now)?,
            Pace::Closed { window } => {
                let share = share(window as u64, self.place, self.threads);
                let next = self.next().filter(|_| (open as u64) < share && now < self.bounds.duration)?;
                Due { at: now, ..next }
            }
        };
        self.begun += 1;
        Some(due)
    }

    /// When to look again, if time alone makes the next call due.
    #[must_use]
    pub fn wake(&self) -> Option<Duration> {
        match self.pace {
            Pace::Open { .. } => self.next().map(|due| due.at),
            Pace::Closed { .. } => None,
        }
    }

    /// Whether no call begins any more.
    #[must_use]
    pub fn is_over(&self, now: Duration) -> bool {
        match self.pace {
            Pace::Open { .. } => self.next().is_none(),
            Pace::Closed { .. } => now >= self.bounds.duration || self.next().is_none(),
        }
    }

    fn next(&self) -> Option<Due> {
        let call = self.place + self.begun * self.threads;
        if self.bounds.calls.is_some_and(|calls| call >= calls) {
            return None;
        }
        let at = match self.pace {
            Pace::Open { rate, ramp } => moment(call, rate, ramp),
            Pace::Closed { .. } => return Some(Due { call, at: Duration::ZERO }),
        };
        (at < self.bounds.duration).then_some(Due { call, at })
    }
}

/// The part of `whole` that falls to one of several.
fn share(whole: u64, place: u64, threads: u64) -> u64 {
    whole / threads + u64::from(place < whole % threads)
}

/// When the call of this number begins: `rate` times `t^2 / (2 ramp)` have begun at `t` within the ramp.
#[allow(clippy::cast_precision_loss, reason = "a load has fewer than 2^52 calls")]
fn moment(call: u64, rate: f64, ramp: Duration) -> Duration {
    let (call, ramp) = (call as f64, ramp.as_secs_f64());
    let seconds = if call < rate * ramp / 2.0 { (2.0 * call * ramp / rate).sqrt() } else { call / rate + ramp / 2.0 };
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_open_loop_catches_up_with_the_moments_it_missed() {
        let mut pacer = Pacer::new(open(10.0, Duration::ZERO), bounds(SECOND, None), 0, 1);
        assert_eq!(pacer.take(Duration::ZERO, 0), Some(Due { call: 0, at: Duration::ZERO }));
        assert_eq!(pacer.take(Duration::from_millis(99), 0), None);
        assert_eq!(pacer.wake(), Some(Duration::from_millis(100)));
        let late: Vec<Duration> =
            std::iter::from_fn(|| pacer.take(Duration::from_millis(350), 99)).map(|due| due.at).collect();
        assert_eq!(late, [100, 200, 300].map(Duration::from_millis));
    }

    #[test]
    fn a_load_ends_at_its_duration_or_its_number_of_calls() {
        let count = |bounds| {
            let mut pacer = Pacer::new(open(10.0, Duration::ZERO), bounds, 0, 1);
            let count = std::iter::from_fn(|| pacer.take(SECOND * 100, 0)).count();
            assert!(pacer.is_over(Duration::ZERO));
            count
        };
        assert_eq!(count(bounds(SECOND * 2, None)), 20);
        assert_eq!(count(bounds(SECOND * 2, Some(7))), 7);
    }

    #[test]
    fn a_ramp_rises_evenly() {
        let mut pacer = Pacer::new(open(100.0, SECOND * 10), bounds(SECOND * 20, None), 0, 1);
        let mut begun = |now| std::iter::from_fn(|| pacer.take(now, 0)).count();
        assert_eq!(begun(SECOND * 5), 126, "a quarter of the ramp's 500, and the first");
        assert_eq!(begun(SECOND * 10), 375);
        assert_eq!(begun(SECOND * 11), 100);
    }

    #[test]
    fn a_closed_loop_keeps_its_window_full() {
        let mut pacer = Pacer::new(Pace::Closed { window: 3 }, bounds(SECOND, None), 0, 1);
        assert!(pacer.take(Duration::ZERO, 2).is_some());
        assert!(pacer.take(Duration::ZERO, 3).is_none());
        assert_eq!(pacer.wake(), None);
        assert!(pacer.take(SECOND, 0).is_none(), "no call begins at the end");
        assert!(pacer.is_over(SECOND));
    }

    #[test]
    fn threads_share_calls_and_window() {
        let mut seen = Vec::new();
        for place in 0..3 {
            let mut pacer = Pacer::new(open(30.0, Duration::ZERO), bounds(SECOND, None), place, 3);
            seen.extend(std::iter::from_fn(|| pacer.take(SECOND, 0)).map(|due| due.call));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..30).collect::<Vec<u64>>());
        assert_eq!((0..3).map(|place| share(10, place, 3)).collect::<Vec<_>>(), [4, 3, 3]);
    }

    fn open(rate: f64, ramp: Duration) -> Pace {
        Pace::Open { rate, ramp }
    }

    fn bounds(duration: Duration, calls: Option<u64>) -> Bounds {
        Bounds { duration, calls }
    }
}
