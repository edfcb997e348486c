//! Reads, on connections of their own beside the writer: each sees the last commit.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::Semaphore;

use super::row::{self, millis};
use super::{StoreError, schema};
use crate::e164::E164;
use crate::matcher::verification::VerificationId;
use crate::outbox::delivery::{DeliveryId, Due, EndpointId};

/// Reads at a time; others wait.
const READERS: usize = 4;

/// Newest verifications of a phone that are looked through for the numbers it was given.
const NUMBERS_LOOKED_AT: u32 = 1_000;

/// The answer to an earlier request with the same idempotency key.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// SHA-256 of that request.
    pub fingerprint: [u8; 32],
    /// HTTP status.
    pub status: u16,
    /// The body, byte for byte.
    pub body: String,
    /// The verification that it tells of.
    pub verification: VerificationId,
}

impl fmt::Debug for StoredAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body names the phone in full.
        f.debug_struct("StoredAnswer")
            .field("status", &self.status)
            .field("verification", &format_args!("{}", self.verification))
            .finish_non_exhaustive()
    }
}

/// A bounded pool of connections.
pub struct Readers {
    pub(super) path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    /// Reads on the calling thread, for a test that has one thread for everything.
    #[cfg(test)]
    pub(super) inline: std::sync::atomic::AtomicBool,
}

impl Readers {
    /// A pool that opens its connections when they are needed.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(READERS)),
            #[cfg(test)]
            inline: false.into(),
        }
    }

    /// Runs `read` on a thread that may block.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        #[cfg(test)]
        if self.inline.load(std::sync::atomic::Ordering::Relaxed) {
            return self.read_here(read);
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::ReaderLost)?;
        let readers = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            readers.read_here(read)
        });
        task.await.map_err(|_| StoreError::ReaderLost)?
    }

    /// Runs `read` on this thread.
    pub fn read_here<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path)?,
        };
        let value = read(&connection)?;
        // One that failed is not kept.
        let mut idle = self.idle.lock();
        if idle.len() < READERS {
            idle.push(connection);
        }
        Ok(value)
    }

    /// Closes the connections that nobody uses.
    pub fn close_idle(&self) {
        self.idle.lock().clear();
    }
}

/// The answer to an earlier request.
pub fn answer(
    connection: &Connection,
    application: &str,
    scope: &str,
    key: &str,
) -> rusqlite::Result<Option<StoredAnswer>> {
    let sql = "SELECT fingerprint, status, body, verification FROM idempotency \
               WHERE application = ?1 AND scope = ?2 AND request_key = ?3";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(StoredAnswer {
            fingerprint: row.get(0)?,
            status: row.get(1)?,
            body: row.get(2)?,
            verification: row::verification_id(row, 3)?,
        })
    };
    connection.prepare_cached(sql)?.query_row([application, scope, key], read).optional()
}

/// How many answers there are, by the first and last place: counting them would read a million rows.
pub fn idempotency_answers(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce((SELECT max(seq) FROM idempotency) - (SELECT min(seq) FROM idempotency) + 1, 0)";
    connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// The numbers that a phone was given, the latest first, each once.
pub fn numbers_used(
    connection: &Connection,
    application: &str,
    phone: E164,
    limit: u32,
) -> rusqlite::Result<Vec<E164>> {
    let sql = "SELECT number FROM verifications WHERE application = ?1 AND phone = ?2 ORDER BY seq DESC LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![application, row::integer(phone), NUMBERS_LOOKED_AT])?;
    let mut numbers = Vec::new();
    while let Some(row) = rows.next()? {
        if numbers.len() >= limit as usize {
            break;
        }
        let number = row::number(row, 0)?;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// Deliveries to `endpoint` whose time has come, the longest due first.
pub fn due(connection: &Connection, endpoint: &EndpointId, now: SystemTime, limit: u32) -> rusqlite::Result<Vec<Due>> {
    let sql = "SELECT deliveries.id, events.id, events.type, deliveries.planned_from, deliveries.attempts, \
               deliveries.replayed_after, events.body FROM deliveries JOIN events ON events.seq = deliveries.event \
               WHERE deliveries.endpoint = ?1 AND deliveries.state = 'due' AND deliveries.next_at <= ?2 \
               ORDER BY deliveries.next_at, deliveries.id LIMIT ?3";
    connection
        .prepare_cached(sql)?
        .query_map(params![endpoint.0, millis(now), limit], |row| {
            Ok(Due {
                id: DeliveryId(row.get(0)?),
                endpoint: endpoint.clone(),
                event: row::event_id(row, 1)?,
                kind: row::event_type(row, 2)?,
                planned_from: row::time(row, 3)?,
                attempts: row.get(4)?,
                replayed_after: row.get(5)?,
                body: row.get(6)?,
            })
        })?
        .collect()
}
