//! The database file: how it is opened, its schema and the steps from one version to the next.
//!
//! The schema is in `migrations/`, one file a version, with the meaning of each column. `PRAGMA user_version` names
//! the version of a file. A migration that has been released never changes: what is new is a new file.

use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tracing::{info, warn};

use super::StoreError;

/// The steps between versions: number n takes a file from version n to n + 1.
const MIGRATIONS: [&str; 4] = [
    include_str!("migrations/1.sql"),
    include_str!("migrations/2.sql"),
    include_str!("migrations/3.sql"),
    include_str!("migrations/4.sql"),
];

/// Newest version that this program reads and writes.
pub const VERSION: usize = MIGRATIONS.len();

/// The version from which on what is removed is written over.
const SECURE: usize = 4;

/// `PRAGMA application_id` of a file in which what was removed is not written over yet.
const STRAYS: i32 = 4;

/// How long a statement waits for another process, such as an operator's `SQLite` tool. Less than the 4 s after which a
/// caller gives its wait up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Size to which the write-ahead log's file is cut back, in bytes.
const LOG_SIZE_LIMIT: i64 = 64 << 20;

/// Page cache of the writer and of each reader, in KiB.
const WRITER_CACHE: i64 = 64 << 10;
const READER_CACHE: i64 = 8 << 10;

/// More than the number of different statements.
const CACHED_STATEMENTS: usize = 64;

/// Opens the file for the writer, creates it with mode 0600 where there is none, and migrates it.
///
/// # Errors
/// `StoreError::File`, `Open`, `Newer` or `Migration`.
pub fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let fault = |source| StoreError::File { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    // SQLite gives the write-ahead log and its index the mode of the database.
    file.and_then(|file| file.set_permissions(PermissionsExt::from_mode(0o600))).map_err(fault)?;

    let mut connection = connect(path, WRITER_CACHE)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Opens the file again after a fault. A file that has gone is not made anew: that would turn what is unknown into
/// a loss that nobody sees.
///
/// # Errors
/// `StoreError::Open`.
pub fn reopen_writer(path: &Path) -> Result<Connection, StoreError> {
    connect(path, WRITER_CACHE)
}

/// Opens the file for reading.
///
/// # Errors
/// `StoreError::Open`.
pub fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = connect(path, READER_CACHE)?;
    let fault = |source| StoreError::Open { path: path.to_owned(), source };
    connection.pragma_update(None, "query_only", true).map_err(fault)?;
    Ok(connection)
}

/// Copies the file as of one moment into another one: with no page in it that is free, and none of a log.
///
/// # Errors
/// `StoreError::Open` and `Read`.
pub fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(from, flags)
        .map_err(|source| StoreError::Open { path: from.to_owned(), source })?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let to = to.to_str().ok_or(rusqlite::Error::InvalidPath(to.to_owned()))?;
    // Else the pages of the copy keep strays of rows beside their own.
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    connection.execute("VACUUM INTO ?1", [to])?;
    Ok(())
}

fn connect(path: &Path, cache: i64) -> Result<Connection, StoreError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        // Else a prepared statement is planned anew whenever another value is bound where one was looked at for its plan.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // The store's own `Log` moves pages.
        connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
        connection.pragma_update_and_check(None, "journal_size_limit", LOG_SIZE_LIMIT, |_| Ok(()))?;
        connection.pragma_update(None, "cache_size", -cache)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // What is removed is written over: a person's data must not stay in pages that are free.
        connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
        Ok(connection)
    };
    open().map_err(|source| StoreError::Open { path: path.to_owned(), source })
}

/// Moves every committed page into the database, syncs it and empties the write-ahead log, so that nothing of a
/// failed commit is left there.
///
/// # Errors
/// `SQLite`'s own; `SQLITE_BUSY` where a reader of another process is in the way.
pub fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    let blocked: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if blocked {
        return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None));
    }
    Ok(())
}

/// Version of the schema of a file.
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Refuses a file that is not of this program's version, where it is not to be changed.
///
/// # Errors
/// `StoreError::Older`, `Newer` or `Read`.
pub fn require_current(connection: &Connection) -> Result<(), StoreError> {
    let found = version(connection)?;
    match usize::try_from(found) {
        Ok(VERSION) => Ok(()),
        Ok(older) if older < VERSION => Err(StoreError::Older { found, known: VERSION }),
        _ => Err(StoreError::Newer { found, known: VERSION }),
    }
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let found = version(connection).map_err(|source| StoreError::Migration { version: 0, source })?;
    let version = usize::try_from(found)
        .ok()
        .filter(|version| *version <= VERSION)
        .ok_or(StoreError::Newer { found, known: VERSION })?;
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        let version = step + 1;
        // What an earlier version removed stands in the file still.
        let strays = (version == SECURE && found > 0).then_some(STRAYS);
        apply(connection, sql, version, strays).map_err(|source| StoreError::Migration { version, source })?;
    }
    remove_strays(connection);
    Ok(())
}

/// Writes a file anew in which strays of removed rows may stand, as often as it takes until that is done once.
fn remove_strays(connection: &Connection) {
    let mark =
        |connection: &Connection| connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0));
    if mark(connection).ok() != Some(STRAYS) {
        return;
    }
    info!("the database of an earlier version is written anew once");
    let written = connection.execute("VACUUM", []).and_then(|_| connection.pragma_update(None, "application_id", 0));
    if let Err(fault) = written {
        warn!(%fault, "what was removed before is not written over yet; the next start tries again: make as much room as the database takes");
    }
}

fn apply(connection: &mut Connection, sql: &str, version: usize, mark: Option<i32>) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.execute_batch(sql)?;
    if let Some(mark) = mark {
        transaction.pragma_update(None, "application_id", mark)?;
    }
    transaction.pragma_update(None, "user_version", i64::try_from(version).unwrap_or(i64::MAX))?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::Folder;

    #[test]
    fn a_file_of_version_0_becomes_current_and_stays_readable() {
        let folder = Folder::new();
        drop(Connection::open(folder.database()).unwrap());
        for _ in 0..2 {
            let connection = open_writer(&folder.database()).unwrap();
            let version: usize =
                connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)).unwrap() as usize;
            assert_eq!(version, VERSION);
            let tables: u32 = connection
                .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'verifications'", [], |row| row.get(0))
                .unwrap();
            assert_eq!(tables, 1);
        }
    }

    #[test]
    fn a_file_of_version_1_keeps_every_row_and_its_numbering() {
        let folder = Folder::new();
        let old = Connection::open(folder.database()).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute_batch(
            "INSERT INTO events VALUES (7, 'evt_1', 'demo', 'ver_1', 'verification.verified', 1000, 'first'),
                                       (9, 'evt_2', 'shop', 'ver_2', 'verification.expired', 2000, 'second'),
                                       (40, 'evt_3', 'shop', 'ver_2', 'verification.expired', 2000, 'gone');
             DELETE FROM events WHERE seq = 40;
             INSERT INTO deliveries VALUES
                (3, 7, 'demo http://a/', 1000, 'delivered', 2, 1500, 1600, 204, 'status 500'),
                (4, 9, 'shop http://b/', 2000, 'due', 3, 9000, NULL, NULL, 'status 503'),
                (5, 9, 'shop http://c/', 2000, 'parked', 0, 2000, NULL, NULL, NULL),
                (6, 9, 'shop http://d/', 2000, 'exhausted', 12, 2000, NULL, NULL, 'no answer'),
                (50, 9, 'shop http://d/', 2000, 'due', 0, 2000, NULL, NULL, NULL);
             DELETE FROM deliveries WHERE id = 50;
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(old);
        let connection = open_writer(&folder.database()).unwrap();
        let texts = |sql: &str| -> Vec<String> {
            let mut statement = connection.prepare(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let events =
            "SELECT concat_ws('|', seq, id, application, verification, type, at, body) FROM events ORDER BY seq";
        let kept = [
            "7|evt_1|demo|ver_1|verification.verified|1000|first",
            "9|evt_2|shop|ver_2|verification.expired|2000|second",
        ];
        assert_eq!(texts(events), kept);
        let deliveries = "SELECT concat_ws('|', id, application, event, endpoint, state, planned_from, attempts, \
                          replayed_after, next_at, ifnull(last_at, '-'), ifnull(status, '-'), ifnull(error, '-')) \
                          FROM deliveries ORDER BY id";
        let kept = [
            "3|demo|7|demo http://a/|delivered|1000|3|0|1500|1600|204|-",
            "4|shop|9|shop http://b/|due|2000|3|0|9000|-|-|status 503",
            "5|shop|9|shop http://c/|parked|2000|0|0|2000|-|-|-",
            "6|shop|9|shop http://d/|exhausted|2000|12|0|2000|-|-|no answer",
        ];
        assert_eq!(texts(deliveries), kept);
        assert_eq!(texts("PRAGMA integrity_check"), ["ok"]);
        let strays = |connection: &Connection| {
            connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0)).unwrap()
        };
        assert_eq!(strays(&connection), 0, "it was written anew");

        let insert =
            "INSERT INTO events (id, application, type, at, body) VALUES ('evt_4', 'shop', 'x', 1, '') RETURNING seq";
        assert_eq!(connection.query_row(insert, [], |row| row.get::<_, i64>(0)).unwrap(), 41, "no number comes twice");
        let insert = "INSERT INTO deliveries (application, event, endpoint, planned_from, next_at) \
                      VALUES ('shop', 41, 'shop http://d/', 1, 1) RETURNING id";
        assert_eq!(connection.query_row(insert, [], |row| row.get::<_, i64>(0)).unwrap(), 51);
        // What a new file has is what an old one has become.
        let schema = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name <> 'sqlite_sequence' ORDER BY name";
        let migrated = texts(schema);
        let other = Folder::new();
        let fresh = open_writer(&other.database()).unwrap();
        let mut statement = fresh.prepare(schema).unwrap();
        let new: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(migrated, new);
    }

    #[test]
    fn a_file_with_strays_is_written_anew_at_the_next_start_where_that_broke_off() {
        let folder = Folder::new();
        let connection = open_writer(&folder.database()).unwrap();
        connection.pragma_update(None, "application_id", STRAYS).unwrap();
        drop(connection);
        let connection = open_writer(&folder.database()).unwrap();
        let mark = connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0)).unwrap();
        assert_eq!(mark, 0);
    }

    #[test]
    fn a_newer_file_is_refused_and_left_alone() {
        let folder = Folder::new();
        let newer = i64::try_from(VERSION).unwrap() + 1;
        Connection::open(folder.database()).unwrap().pragma_update(None, "user_version", newer).unwrap();
        let refused = open_writer(&folder.database());
        assert!(matches!(refused, Err(StoreError::Newer { found, known: VERSION }) if found == newer));
        let left = Connection::open(folder.database()).unwrap();
        assert_eq!(left.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap(), newer);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let folder = Folder::new();
        std::fs::write(folder.database(), "this is a text of more than a hundred bytes ".repeat(40)).unwrap();
        assert!(matches!(open_writer(&folder.database()), Err(StoreError::Open { .. })));
    }

    #[test]
    fn only_the_owner_may_read_the_files() {
        let folder = Folder::new();
        let connection = open_writer(&folder.database()).unwrap();
        connection.execute("INSERT INTO space_probe VALUES (x'00')", []).unwrap();
        for suffix in ["", "-wal", "-shm"] {
            let mut path = folder.database().into_os_string();
            path.push(suffix);
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{suffix}");
        }
    }
}
