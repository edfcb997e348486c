//! Readiness: the few facts that decide whether this node should be given work.

use std::sync::atomic::{AtomicBool, Ordering};

/// Shared flags behind `/readyz`.
#[derive(Debug, Default)]
pub struct Health {
    started: AtomicBool,
    store_failed: AtomicBool,
    draining: AtomicBool,
    worker_failed: AtomicBool,
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

    /// The node takes no new verifications and will stop.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the node is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Why the node is not ready; `None` when it is.
    #[must_use]
    pub fn not_ready(&self) -> Option<&'static str> {
        if !self.started.load(Ordering::Acquire) {
            Some("starting")
        } else if self.draining.load(Ordering::Acquire) {
            Some("draining")
        } else if self.worker_failed.load(Ordering::Acquire) {
            Some("a SIP socket is not read")
        } else if self.store_failed.load(Ordering::Acquire) {
            Some("the store cannot write")
        } else {
            None
        }
    }
}
