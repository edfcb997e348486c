//! Why the store cannot be opened or read.

use std::io;
use std::path::PathBuf;

/// Why the store cannot be opened or read. The operator acts on it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be created or its mode not set.
    #[error("{}: {source}", .path.display())]
    File {
        /// The database file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// `SQLite` cannot open the file, or it is no database.
    #[error("{} is not usable as a database: {source}", .path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// `SQLite`'s answer.
        source: rusqlite::Error,
    },
    /// A later version of this program has written the file.
    #[error("the database has schema version {found}, this program knows versions up to {known}")]
    Newer {
        /// `PRAGMA user_version` of the file.
        found: i64,
        /// Newest version that is known.
        known: usize,
    },
    /// An earlier version of this program has written the file, which is only to be read.
    #[error(
        "the database has schema version {found}, this program reads version {known}: start the node once, which brings it there"
    )]
    Older {
        /// `PRAGMA user_version` of the file.
        found: i64,
        /// The version that is read.
        known: usize,
    },
    /// The schema could not be brought to a version; the file is as it was.
    #[error("migration of the database to schema version {version} failed: {source}")]
    Migration {
        /// The version that was to be reached.
        version: usize,
        /// `SQLite`'s answer.
        source: rusqlite::Error,
    },
    /// A thread could not be started.
    #[error("a thread of the store does not start: {0}")]
    Thread(io::Error),
    /// A read failed.
    #[error("the database cannot be read: {0}")]
    Read(#[from] rusqlite::Error),
    /// The thread of a read ended before it was done.
    #[error("a read was not finished")]
    ReaderLost,
}
