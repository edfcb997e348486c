//! The way of a load through its time, as one thread or connection sees it: progress, interrupt, end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::calls::Calls;
use super::timers::Timers;
use super::{Part, Settings};
use crate::load::losses::Losses;
use crate::load::pace::Pacer;
use crate::load::progress::{Counts, Progress};
use crate::sip::flow::Transport;

/// Longest that a thread sleeps: it looks at the interrupt so often.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// How long calls in flight are waited for after an interrupt.
const GRACE: Duration = Duration::from_secs(1);
/// How long after the end an open loop still begins calls that are overdue.
const OVERDUE: Duration = Duration::from_secs(1);

/// What all threads of a load share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) progress: Progress,
    clock: fn() -> Instant,
    start: Instant,
    stopped: AtomicBool,
}

impl Shared {
    /// The load starts now.
    pub(super) fn new(settings: Settings, clock: fn() -> Instant) -> Self {
        let stopped = AtomicBool::new(false);
        Self { settings, progress: Progress::default(), clock, start: clock(), stopped }
    }

    /// Time since the start.
    pub(super) fn now(&self) -> Duration {
        (self.clock)().duration_since(self.start)
    }

    /// No call begins any more, and those in flight are not waited for long.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// The calls of one thread or connection, and how far they are.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) calls: Calls,
    shared: Arc<Shared>,
    reported: Counts,
    /// Where the wait after an interrupt ends.
    grace: Option<Duration>,
}

impl Course {
    pub(super) fn new(shared: Arc<Shared>, pacer: Pacer) -> Self {
        let settings = &shared.settings;
        let timers = match settings.via.transport {
            Transport::Udp => Timers::unreliable(settings.timeout),
            Transport::Tcp | Transport::Tls => Timers::reliable(settings.timeout),
        };
        let calls = Calls::new(pacer, timers, settings.plot.seed);
        Self { calls, shared, reported: Counts::default(), grace: None }
    }

    /// Time since the start.
    pub(super) fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Tells the progress, heeds the interrupt and the end, and gives whether all is over.
    pub(super) fn is_over(&mut self, now: Duration) -> bool {
        let counts = self.calls.counts();
        self.shared.progress.add(self.reported, counts);
        self.reported = counts;
        if self.shared.stopped.load(Ordering::Relaxed) {
            self.calls.stop();
            if now >= *self.grace.get_or_insert(now + GRACE) {
                self.calls.lose_all("interrupted", now);
            }
        } else if now >= self.shared.settings.bounds.duration.saturating_add(OVERDUE) {
            self.calls.refuse_due("not_begun", now);
        }
        self.calls.is_done(now)
    }

    /// When there is something to look at again, at the latest.
    pub(super) fn wake(&self, now: Duration) -> Duration {
        let tick = now + TICK;
        self.calls.wake().map_or(tick, |wake| wake.min(tick))
    }

    /// All that is to be told at the end.
    pub(super) fn finish(self) -> Part {
        let (tally, last) = self.calls.finish();
        Part { tally, last, losses: Losses::default() }
    }
}
