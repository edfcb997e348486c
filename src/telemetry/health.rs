//! Readiness: the few facts that decide whether this node should be given work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::beat::Beats;

/// How long a node is away between its end and being ready again.
const RESTART: Duration = Duration::from_secs(5);

/// Shared flags behind `/readyz`, and the beats behind the watchdog.
#[derive(Debug, Default)]
pub struct Health {
    started: AtomicBool,
    store_failed: AtomicBool,
    /// When the drain ends, in milliseconds since boot; 0 while there is none.
    drain_ends: AtomicU64,
    worker_failed: AtomicBool,
    writer_failed: AtomicBool,
    /// The parts that must turn.
    pub beats: Beats,
}

impl Health {
    /// Recovery is done and every listener is open.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Whether the last commit failed and has not been made good.
    pub fn set_store_failed(&self, failed: bool) {
        self.store_failed.store(failed, Ordering::Release);
    }

    /// A SIP socket is read no more: part of the calls goes unanswered until a restart.
    pub fn set_worker_failed(&self) {
        self.worker_failed.store(true, Ordering::Release);
    }

    /// The store's writer has ended by a panic: nothing is written until a restart.
    pub fn set_writer_failed(&self) {
        self.writer_failed.store(true, Ordering::Release);
    }

    /// The node takes no new verifications and will stop at `ends`, time since boot.
    pub fn set_draining(&self, ends: Duration) {
        let ends = u64::try_from(ends.as_millis()).unwrap_or(u64::MAX);
        self.drain_ends.store(ends.max(1), Ordering::Release);
    }

    /// Whether the node is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain_ends.load(Ordering::Acquire) > 0
    }

    /// While draining: when this node, started again, may take work, counted from `now`, time since boot.
    #[must_use]
    pub fn retry_after(&self, now: Duration) -> Option<Duration> {
        let ends = Some(self.drain_ends.load(Ordering::Acquire)).filter(|ends| *ends > 0)?;
        Some(Duration::from_millis(ends).saturating_sub(now) + RESTART)
    }

    /// Whether something has ended that only a restart brings back.
    #[must_use]
    pub fn needs_restart(&self) -> Option<&'static str> {
        if self.worker_failed.load(Ordering::Acquire) {
            Some("a SIP socket is not read")
        } else if self.writer_failed.load(Ordering::Acquire) {
            Some("the store's writer has ended")
        } else {
            None
        }
    }

    /// Why the node is not ready; `None` when it is.
    #[must_use]
    pub fn not_ready(&self) -> Option<&'static str> {
        if !self.started.load(Ordering::Acquire) {
            Some("starting")
        } else if self.is_draining() {
            Some("draining")
        } else if let Some(reason) = self.needs_restart() {
            Some(reason)
        } else if self.store_failed.load(Ordering::Acquire) {
            Some("the store cannot write")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draining_node_tells_what_is_left_and_the_time_of_a_restart() {
        let health = Health::default();
        assert_eq!(health.retry_after(Duration::from_secs(100)), None);
        health.set_draining(Duration::from_secs(130));
        assert_eq!(health.retry_after(Duration::from_secs(100)), Some(Duration::from_secs(35)));
        assert_eq!(health.retry_after(Duration::from_secs(140)), Some(RESTART));
    }
}
