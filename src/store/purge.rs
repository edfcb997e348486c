//! What is removed when it is old: a chunk in one transaction, table by table.
//!
//! Events, deliveries and idempotency answers are in the order in which they were committed, so the oldest are at the
//! front and need no index of their own.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, params};

use super::row::millis;

/// Rows removed in one transaction, at most.
const CHUNK: i64 = 1_000;

/// How long an idempotency answer is kept.
const ANSWERS_KEPT: Duration = Duration::from_hours(24);

/// How many idempotency answers are kept.
const ANSWERS: i64 = 1_000_000;

/// Deliveries and their events stay at least this long, whatever the retention: the last try comes a day after.
const SCHEDULE: Duration = Duration::from_hours(25);

/// A purge and how far it has come.
#[derive(Debug)]
pub struct Purge {
    records_before: i64,
    outbox_before: i64,
    answers_before: i64,
    stage: usize,
}

/// What a chunk removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Rows of any kind.
    pub rows: usize,
    /// How many of them were deliveries still due.
    pub due: i64,
}

/// Tables in the order of the purge. Deliveries go before the events that they carry.
const STAGES: [fn(&Purge, &Connection) -> rusqlite::Result<Removed>; 5] =
    [Purge::verifications, Purge::calls, Purge::deliveries, Purge::events, Purge::answers];

impl Purge {
    /// A purge of what is older than `retention` at `now`.
    pub fn new(now: SystemTime, retention: Duration) -> Self {
        let before = |age| now.checked_sub(age).map_or(0, millis);
        Self {
            records_before: before(retention),
            outbox_before: before(retention.max(SCHEDULE)),
            answers_before: before(ANSWERS_KEPT),
            stage: 0,
        }
    }

    /// Removes one chunk inside the open transaction.
    pub fn chunk(&self, connection: &Connection) -> rusqlite::Result<Removed> {
        STAGES[self.stage](self, connection)
    }

    /// What is left to do after a chunk that removed `rows`; `None` when it is done.
    pub fn after(self, rows: usize) -> Option<Self> {
        let stage = if rows == 0 { self.stage + 1 } else { self.stage };
        (stage < STAGES.len()).then_some(Self { stage, ..self })
    }

    fn verifications(&self, connection: &Connection) -> rusqlite::Result<Removed> {
        let sql = "DELETE FROM verifications WHERE seq IN \
                   (SELECT seq FROM verifications WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2)";
        let rows = connection.prepare_cached(sql)?.execute(params![self.records_before, CHUNK])?;
        Ok(Removed { rows, due: 0 })
    }

    fn calls(&self, connection: &Connection) -> rusqlite::Result<Removed> {
        let sql = "DELETE FROM calls WHERE rowid IN \
                   (SELECT rowid FROM calls WHERE received_at < ?1 ORDER BY received_at LIMIT ?2)";
        let rows = connection.prepare_cached(sql)?.execute(params![self.records_before, CHUNK])?;
        Ok(Removed { rows, due: 0 })
    }

    fn deliveries(&self, connection: &Connection) -> rusqlite::Result<Removed> {
        let front = "SELECT max(id) FROM (SELECT id, event_at FROM deliveries ORDER BY id LIMIT ?2) \
                     WHERE event_at < ?1";
        let Some(last) = front_end(connection, front, self.outbox_before)? else { return Ok(Removed::NOTHING) };
        let due = "SELECT coalesce(sum(state = 'due'), 0) FROM deliveries WHERE id <= ?1";
        let due = connection.prepare_cached(due)?.query_row([last], |row| row.get(0))?;
        let rows = connection.prepare_cached("DELETE FROM deliveries WHERE id <= ?1")?.execute([last])?;
        Ok(Removed { rows, due })
    }

    fn events(&self, connection: &Connection) -> rusqlite::Result<Removed> {
        let front = "SELECT max(seq) FROM (SELECT seq, at FROM events ORDER BY seq LIMIT ?2) WHERE at < ?1";
        let Some(last) = front_end(connection, front, self.outbox_before)? else { return Ok(Removed::NOTHING) };
        let rows = connection.prepare_cached("DELETE FROM events WHERE seq <= ?1")?.execute([last])?;
        Ok(Removed { rows, due: 0 })
    }

    fn answers(&self, connection: &Connection) -> rusqlite::Result<Removed> {
        let newest = "SELECT seq FROM idempotency ORDER BY seq DESC LIMIT 1";
        let newest: i64 = connection.prepare_cached(newest)?.query_row([], |row| row.get(0)).optional()?.unwrap_or(0);
        let front = "SELECT max(seq) FROM (SELECT seq, created_at FROM idempotency ORDER BY seq LIMIT ?2) \
                     WHERE created_at < ?1 OR seq <= ?3";
        let last: Option<i64> = connection
            .prepare_cached(front)?
            .query_row(params![self.answers_before, CHUNK, newest - ANSWERS], |row| row.get(0))?;
        let Some(last) = last else { return Ok(Removed::NOTHING) };
        let rows = connection.prepare_cached("DELETE FROM idempotency WHERE seq <= ?1")?.execute([last])?;
        Ok(Removed { rows, due: 0 })
    }
}

impl Removed {
    const NOTHING: Self = Self { rows: 0, due: 0 };
}

/// The last of the first rows that is old. Those before it go with it, whatever time they bear: they were committed
/// earlier, under a clock that was wrong.
fn front_end(connection: &Connection, sql: &str, before: i64) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached(sql)?.query_row(params![before, CHUNK], |row| row.get(0))
}
