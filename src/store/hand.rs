//! A store whose writer is turned by hand, on one thread with everything else: for tests that choose what happens when.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::Sender;

use super::faults::Faults;
use super::queue::Taken;
use super::writer::Writer;
use super::{Settings, Store, StoreError};
use crate::outbox::delivery::{Due, Subscriptions};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// The writer of a store.
pub struct Hand {
    writer: Writer,
    faults: Faults,
}

impl Hand {
    /// Opens a store and gives its writer into the hand.
    pub fn open(
        settings: &Settings,
        subscriptions: Subscriptions,
        metrics: Metrics,
        health: Arc<Health>,
        ready: Sender<Due>,
    ) -> Result<(Store, Self), StoreError> {
        let faults = Faults::default();
        let (store, writer) = Store::assemble(settings, subscriptions, metrics, health, ready, faults.clone())?;
        store.inner.readers.inline.store(true, Ordering::Relaxed);
        Ok((store, Self { writer, faults }))
    }

    /// Does the next piece of work, where there is one. Whether there was.
    pub fn turn(&mut self) -> bool {
        self.writer.prepare();
        match self.writer.queue.take(Some(Duration::ZERO)) {
            Taken::Idle if !self.writer.failed => false,
            Taken::Idle => {
                self.writer.turn(Taken::Idle);
                false
            }
            taken => self.writer.turn(taken),
        }
    }

    /// Has the next COMMIT report an error: 1 after it went through, 2 instead.
    pub fn fail_commit(&self, how: u8) {
        self.faults.planned().commit.store(how, Ordering::SeqCst);
    }

    /// Has the disk take nothing new, or everything again.
    pub fn fill_disk(&self, full: bool) {
        self.faults.planned().max_pages.store(u32::from(full), Ordering::SeqCst);
    }

    /// The process is gone: what waited is answered by nobody.
    pub fn crash(self) {
        drop(self.writer.queue.abandon());
    }
}
