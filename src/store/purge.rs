//! What is removed when it is old: a chunk in one transaction, table by table.
//!
//! Invariant: age alone removes no delivery that is due, and no event that a delivery refers to. Each row goes by the
//! time that it bears, for a clock that was wrong may have stamped its neighbours.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, params};

use super::Retention;
use super::row::millis;

/// Rows removed in one transaction, at most.
const CHUNK: i64 = 1_000;

/// How long an idempotency answer is kept.
const ANSWERS_KEPT: Duration = Duration::from_hours(24);

/// How many idempotency answers are kept.
const ANSWERS: i64 = 1_000_000;

/// Events and deliveries stay at least this long, whatever the retention: the plan of tries is a day long.
const SCHEDULE: Duration = Duration::from_hours(25);

/// Removes old deliveries that are not due.
const DELIVERIES: &str = "DELETE FROM deliveries WHERE id IN \
    (SELECT id FROM deliveries WHERE state <> 'due' AND planned_from < ?1 ORDER BY planned_from LIMIT ?2) \
    RETURNING state = 'parked'";

/// Old events behind the one last looked at.
const EVENTS: &str = "SELECT at, seq FROM events WHERE at < ?1 AND at >= ?2 AND (at > ?2 OR seq > ?3) \
    ORDER BY at, seq LIMIT ?4";

/// Removes one event that no delivery refers to.
const EVENT: &str = "DELETE FROM events WHERE seq = ?1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event = ?1)";

/// Removes answers that are too old to be repeated.
const OLD_ANSWERS: &str = "DELETE FROM idempotency WHERE seq IN \
    (SELECT seq FROM idempotency WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)";

/// A purge and how far it has come.
#[derive(Debug)]
pub struct Purge {
    verifications_before: i64,
    calls_before: i64,
    outbox_before: i64,
    audit_before: i64,
    /// When it was begun, UTC.
    pub now: SystemTime,
    answers_before: i64,
    stage: usize,
    /// Time and `seq` of the last event looked at: those that stay must not be looked at again for each chunk.
    last_event: (i64, i64),
}

/// What a chunk did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Whether there may be more of the kind.
    pub more: bool,
    /// Deliveries removed that were parked: nobody was left to take them.
    pub parked: u64,
    /// The last entry of the audit log that was removed.
    pub audit_until: Option<u64>,
}

/// Tables in the order of the purge. Deliveries go before the events that they carry.
const STAGES: [fn(&mut Purge, &Connection) -> rusqlite::Result<Removed>; 7] = [
    Purge::verifications,
    Purge::calls,
    Purge::deliveries,
    Purge::events,
    Purge::old_answers,
    |_, connection| surplus_answers(connection),
    Purge::audit,
];

impl Purge {
    /// A purge of what is older than `retention` at `now`.
    pub fn new(now: SystemTime, retention: Retention) -> Self {
        let before = |age| now.checked_sub(age).map_or(0, millis);
        Self {
            verifications_before: before(retention.verifications),
            calls_before: before(retention.calls),
            outbox_before: before(retention.events.max(SCHEDULE)),
            audit_before: before(retention.audit),
            now,
            answers_before: before(ANSWERS_KEPT),
            stage: 0,
            last_event: (i64::MIN, i64::MIN),
        }
    }

    /// Removes one chunk inside the open transaction. A purge whose transaction was undone must not go on.
    pub fn chunk(&mut self, connection: &Connection) -> rusqlite::Result<Removed> {
        STAGES[self.stage](self, connection)
    }

    /// What is left to do after a chunk; `None` when it is done.
    pub fn after(self, removed: Removed) -> Option<Self> {
        let stage = if removed.more { self.stage } else { self.stage + 1 };
        (stage < STAGES.len()).then_some(Self { stage, ..self })
    }

    fn verifications(&mut self, connection: &Connection) -> rusqlite::Result<Removed> {
        let sql = "DELETE FROM verifications WHERE seq IN \
                   (SELECT seq FROM verifications WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2)";
        Removed::count(connection.prepare_cached(sql)?.execute(params![self.verifications_before, CHUNK]))
    }

    fn calls(&mut self, connection: &Connection) -> rusqlite::Result<Removed> {
        let sql = "DELETE FROM calls WHERE rowid IN \
                   (SELECT rowid FROM calls WHERE received_at < ?1 ORDER BY received_at LIMIT ?2)";
        Removed::count(connection.prepare_cached(sql)?.execute(params![self.calls_before, CHUNK]))
    }

    fn deliveries(&mut self, connection: &Connection) -> rusqlite::Result<Removed> {
        let mut statement = connection.prepare_cached(DELIVERIES)?;
        let mut removed = Removed::default();
        for parked in statement.query_map(params![self.outbox_before, CHUNK], |row| row.get::<_, bool>(0))? {
            removed.more = true;
            removed.parked += u64::from(parked?);
        }
        Ok(removed)
    }

    fn events(&mut self, connection: &Connection) -> rusqlite::Result<Removed> {
        let (at, seq) = self.last_event;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let old: Vec<(i64, i64)> = connection
            .prepare_cached(EVENTS)?
            .query_map(params![self.outbox_before, at, seq, CHUNK], read)?
            .collect::<rusqlite::Result<_>>()?;
        let mut delete = connection.prepare_cached(EVENT)?;
        for (_, seq) in &old {
            delete.execute([seq])?;
        }
        self.last_event = old.last().copied().unwrap_or(self.last_event);
        Ok(Removed { more: !old.is_empty(), ..Removed::default() })
    }

    /// Removes the entries of the audit log up to its second checkpoint, where that is old: the log begins behind one
    /// that was signed, at every moment. Its last entry stays.
    fn audit(&mut self, connection: &Connection) -> rusqlite::Result<Removed> {
        let sql = "SELECT seq FROM audit_checkpoints WHERE at < ?1 AND seq >= (SELECT min(seq) FROM audit) \
                   AND seq < (SELECT max(seq) FROM audit) ORDER BY seq LIMIT 1";
        let until: Option<i64> =
            connection.prepare_cached(sql)?.query_row([self.audit_before], |row| row.get(0)).optional()?;
        let Some(until) = until else { return Ok(Removed::default()) };
        connection.prepare_cached("DELETE FROM audit_checkpoints WHERE seq < ?1")?.execute([until])?;
        connection.prepare_cached("DELETE FROM audit WHERE seq <= ?1")?.execute([until])?;
        Ok(Removed { more: true, audit_until: Some(until.unsigned_abs()), ..Removed::default() })
    }

    fn old_answers(&mut self, connection: &Connection) -> rusqlite::Result<Removed> {
        Removed::count(connection.prepare_cached(OLD_ANSWERS)?.execute(params![self.answers_before, CHUNK]))
    }
}

impl Removed {
    fn count(rows: rusqlite::Result<usize>) -> rusqlite::Result<Self> {
        rows.map(|rows| Self { more: rows > 0, ..Self::default() })
    }
}

/// Removes the oldest answers beyond the number that is kept.
fn surplus_answers(connection: &Connection) -> rusqlite::Result<Removed> {
    let newest = "SELECT seq FROM idempotency ORDER BY seq DESC LIMIT 1";
    let newest: i64 = connection.prepare_cached(newest)?.query_row([], |row| row.get(0)).optional()?.unwrap_or(0);
    let sql = "DELETE FROM idempotency WHERE seq IN \
               (SELECT seq FROM idempotency WHERE seq <= ?1 ORDER BY seq LIMIT ?2)";
    Removed::count(connection.prepare_cached(sql)?.execute(params![newest - ANSWERS, CHUNK]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;
    use crate::store::tests::{Folder, plan};

    #[test]
    fn what_is_old_is_found_by_an_index() {
        let folder = Folder::new();
        let connection = schema::open_writer(&folder.database()).unwrap();
        let uses = [
            (DELIVERIES, "deliveries_not_due"),
            (EVENTS, "events_at"),
            (EVENT, "deliveries_of_event"),
            (OLD_ANSWERS, "idempotency_created"),
        ];
        for (sql, index) in uses {
            let plan = plan(&connection, sql);
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE") && !plan.contains("SCAN"), "{sql}: {plan}");
        }
    }
}
