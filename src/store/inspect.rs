//! A look at the database from outside: read only, while the node runs or not.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{StoreError, row, schema};

/// Newest schema version that this program reads and writes.
#[expect(clippy::cast_possible_wrap, reason = "there are a handful")]
pub const SCHEMA_VERSION: i64 = schema::VERSION as i64;

/// How long a look waits for whoever has the file locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

const INTERRUPT_AGAIN: Duration = Duration::from_millis(20);

/// What `PRAGMA quick_check` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Soundness {
    /// All pages are in order.
    Sound,
    /// The time did not suffice.
    Unfinished,
    /// The first fault, in `SQLite`'s words.
    Damaged(String),
}

/// A connection that cannot write.
#[derive(Debug)]
pub struct Inspector {
    connection: Connection,
}

impl Inspector {
    /// Opens the file; it must be there.
    ///
    /// # Errors
    /// `StoreError::Open`.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            Ok(connection)
        };
        let connection = open().map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
        Ok(Self { connection })
    }

    /// Schema version of the file; 0 where nothing is in it.
    ///
    /// # Errors
    /// `StoreError::Read`, as for each of the reads.
    pub fn version(&self) -> Result<i64, StoreError> {
        Ok(self.connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
    }

    /// When the newest event happened. The file must have a schema.
    ///
    /// # Errors
    /// `StoreError::Read`.
    pub fn newest_event(&self) -> Result<Option<SystemTime>, StoreError> {
        let read = |row: &rusqlite::Row<'_>| {
            if row.get_ref(0)? == rusqlite::types::ValueRef::Null { Ok(None) } else { row::time(row, 0).map(Some) }
        };
        Ok(self.connection.query_row("SELECT max(at) FROM events", [], read)?)
    }

    /// Has `SQLite` look through all pages, for `limit` at most.
    ///
    /// # Errors
    /// `StoreError::Read`.
    pub fn soundness(&self, limit: Duration) -> Result<Soundness, StoreError> {
        let handle = self.connection.get_interrupt_handle();
        let (done, over) = mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            let mut wait = limit;
            // Again and again: an interrupt that comes before the statement runs is forgotten.
            while over.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
                handle.interrupt();
                wait = INTERRUPT_AGAIN;
            }
        });
        let told = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        drop(done);
        // A watch that panicked has nothing to say.
        let _ = watch.join();
        match told {
            Ok(text) if text == "ok" => Ok(Soundness::Sound),
            Ok(fault) => Ok(Soundness::Damaged(fault)),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                Ok(Soundness::Unfinished)
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                Ok(Soundness::Damaged(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Folder;

    #[test]
    fn a_database_is_looked_at_beside_its_writer_and_cannot_be_changed() {
        let folder = Folder::new();
        let writer = schema::open_writer(&folder.database()).unwrap();
        let inspector = Inspector::open(&folder.database()).unwrap();
        assert_eq!(inspector.version().unwrap(), SCHEMA_VERSION);
        assert_eq!(inspector.newest_event().unwrap(), None);
        assert_eq!(inspector.soundness(Duration::from_mins(1)).unwrap(), Soundness::Sound);
        assert!(inspector.connection.execute("DELETE FROM events", []).is_err());
        drop(writer);
    }

    #[test]
    fn a_look_ends_in_its_time() {
        let folder = Folder::new();
        let writer = schema::open_writer(&folder.database()).unwrap();
        writer
            .execute_batch(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) \
             INSERT INTO events (id, application, verification, type, at, body) \
             SELECT 'evt_' || i, 'demo', 'ver_' || i, 'verification.created', i, hex(randomblob(40)) FROM n",
            )
            .unwrap();
        let inspector = Inspector::open(&folder.database()).unwrap();
        assert!(inspector.newest_event().unwrap().is_some());
        assert_eq!(inspector.soundness(Duration::ZERO).unwrap(), Soundness::Unfinished);
    }
}
