//! What the operator says by signal: SIGTERM drains, SIGINT stops at once, SIGHUP reloads.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the node heeds.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What is wanted of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Drain, then stop.
    Drain,
    /// Read the configuration again.
    Reload,
    /// Stop without a drain.
    Stop,
}

impl Signals {
    /// Begins to heed them: from here on none of them ends the process by itself. One that comes before it is asked for
    /// waits; of one kind, several that wait are one. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.terminate.recv() => Wish::Drain,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits, while the node is draining, until the operator asks a second time to stop.
    pub async fn again(&mut self) {
        while self.next().await == Wish::Reload {
            tracing::warn!("SIGHUP is ignored: this node is draining and reads its configuration at the next start");
        }
    }

    /// Waits for `time`, or until the operator asks a second time.
    pub async fn wait(&mut self, time: Duration) {
        // Either end will do.
        let _ = tokio::time::timeout(time, self.again()).await;
    }
}
