//! What the operator configures about the store.

use std::path::PathBuf;
use std::time::Duration;

/// What the operator configures about the store.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The database file. Beside it `SQLite` keeps one with `-wal` and one with `-shm` behind its name.
    pub path: PathBuf,
    /// How long what is over is kept.
    pub retention: Retention,
}

/// How long records are kept, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Verifications, from their end.
    pub verifications: Duration,
    /// Calls.
    pub calls: Duration,
    /// Events and deliveries: 25 hours at least, and in any case until they are delivered or given up.
    pub events: Duration,
    /// The audit log.
    pub audit: Duration,
}

impl Retention {
    /// Everything for so long.
    #[must_use]
    pub const fn of_all(time: Duration) -> Self {
        Self { verifications: time, calls: time, events: time, audit: time }
    }
}
