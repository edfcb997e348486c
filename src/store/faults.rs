//! The two places where a disk shows its faults, so that tests can have them: the size of the file, and COMMIT.
//!
//! Outside tests this is nothing but the COMMIT statement.

use rusqlite::Connection;

/// Faults to come. Empty outside tests.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    #[cfg(test)]
    planned: std::sync::Arc<Planned>,
}

/// What a test wants to go wrong.
#[cfg(test)]
#[derive(Debug, Default)]
pub struct Planned {
    /// Most pages that the file may have; 0 is no limit.
    pub max_pages: std::sync::atomic::AtomicU32,
    /// The next COMMIT of a change reports an I/O error: 1 after it went through, 2 instead.
    pub commit: std::sync::atomic::AtomicU8,
    /// Rows that had ever been changed when the open transaction began: a sweep that finds nothing to do is no change.
    changed: std::sync::atomic::AtomicU64,
}

impl Faults {
    /// Comes before each transaction.
    #[cfg_attr(not(test), allow(clippy::unused_self, reason = "there is something to apply in tests only"))]
    pub fn prepare(&self, connection: &Connection) {
        #[cfg(test)]
        {
            self.planned.changed.store(connection.total_changes(), std::sync::atomic::Ordering::SeqCst);
            let pages = self.planned.max_pages.load(std::sync::atomic::Ordering::SeqCst);
            let limit = if pages == 0 { u32::MAX - 1 } else { pages };
            connection.pragma_update_and_check(None, "max_page_count", limit, |_| Ok(())).unwrap();
        }
        #[cfg(not(test))]
        let _ = connection;
    }

    /// Commits the open transaction.
    #[cfg_attr(not(test), allow(clippy::unused_self, reason = "there is something to apply in tests only"))]
    pub fn commit(&self, connection: &Connection) -> rusqlite::Result<()> {
        #[cfg(test)]
        {
            let unchanged =
                self.planned.changed.load(std::sync::atomic::Ordering::SeqCst) == connection.total_changes();
            let planned = if unchanged { 0 } else { self.planned.commit.swap(0, std::sync::atomic::Ordering::SeqCst) };
            if planned == 1 {
                connection.execute_batch("COMMIT")?;
            }
            if planned != 0 {
                let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
                return Err(rusqlite::Error::SqliteFailure(failure, None));
            }
        }
        connection.prepare_cached("COMMIT")?.execute([]).map(drop)
    }

    /// The faults, for the test to set.
    #[cfg(test)]
    pub fn planned(&self) -> &Planned {
        &self.planned
    }
}
