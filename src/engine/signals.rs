//! What the operator says by signal: SIGTERM drains, SIGINT stops at once, SIGHUP would reload.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that the node heeds.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Begins to heed them: from here on none of them ends the process by itself.
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

    /// Waits for the wish to stop and tells for how long to drain: `drain` for SIGTERM, not at all for SIGINT.
    pub async fn stop(&mut self, drain: Duration) -> Duration {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return drain,
                _ = self.interrupt.recv() => return Duration::ZERO,
                _ = self.hangup.recv() => {
                    tracing::warn!("reload is not in this version; restart to read the configuration");
                }
            }
        }
    }

    /// Waits for `time`, or until the operator asks a second time.
    pub async fn wait(&mut self, time: Duration) {
        let again = self.stop(Duration::ZERO);
        // Either end will do.
        let _ = tokio::time::timeout(time, again).await;
    }
}
