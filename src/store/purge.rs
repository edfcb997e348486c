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

/// Entries of the audit log removed in one transaction: more than stand between two checkpoints at any rate of calls.
const AUDIT_CHUNK: i64 = 20_000;

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

/// Old verifications behind the one last looked at.
const VERIFICATIONS: &str = "SELECT ended_at, seq FROM verifications WHERE ended_at < ?1 AND ended_at >= ?2 \
    AND (ended_at > ?2 OR seq > ?3) ORDER BY ended_at, seq LIMIT ?4";

/// Removes one verification that no event or call is about.
const VERIFICATION: &str = "DELETE FROM verifications WHERE seq = ?1 \
    AND NOT EXISTS (SELECT 1 FROM events WHERE verification = verifications.id) \
    AND NOT EXISTS (SELECT 1 FROM calls WHERE verification = verifications.id)";

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
    /// The same of verifications.
    last_verification: (i64, i64),
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

/// Tables in the order of the purge. Deliveries go before the events that they carry, and these before what they are
/// about.
const STAGES: [fn(&mut Purge, &Connection) -> rusqlite::Result<Removed>; 7] = [
    Purge::calls,
    Purge::deliveries,
    Purge::events,
    Purge::verifications,
    Purge::old_answers,
    |_, connection| surplus_answers(connection),
    Purge::audit,
];

impl Purge {
    /// A purge of what is older than `retention` at `now`.
    pub fn new(now: SystemTime, retention: Retention) -> Self {
        let before = |age| now.checked_sub(age).map_or(0, millis);
        // While something names the phone of a verification, its row is what an erasure finds that by.
        let events = retention.events.max(SCHEDULE);
        let verifications = retention.verifications.max(retention.calls).max(events);
        Self {
            verifications_before: before(verifications),
            calls_before: before(retention.calls),
            outbox_before: before(events),
            audit_before: before(retention.audit),
            now,
            answers_before: before(ANSWERS_KEPT),
            stage: 0,
            last_event: (i64::MIN, i64::MIN),
            last_verification: (i64::MIN, i64::MIN),
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

    /// Removes old verifications of which nothing else is left: a replayed event outlives its time.
    fn verifications(&mut self, connection: &Connection) -> rusqlite::Result<Removed> {
        let (at, seq) = self.last_verification;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let old: Vec<(i64, i64)> = connection
            .prepare_cached(VERIFICATIONS)?
            .query_map(params![self.verifications_before, at, seq, CHUNK], read)?
            .collect::<rusqlite::Result<_>>()?;
        let mut delete = connection.prepare_cached(VERIFICATION)?;
        for (_, seq) in &old {
            delete.execute([seq])?;
        }
        self.last_verification = old.last().copied().unwrap_or(self.last_verification);
        Ok(Removed { more: !old.is_empty(), ..Removed::default() })
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

    /// Removes the beginning of the audit log, up to a checkpoint before which every entry is old: the log begins behind
    /// one that was signed. Its last entry stays. A piece at a time, each with its word in the log.
    fn audit(&mut self, connection: &Connection) -> rusqlite::Result<Removed> {
        let sql = "WITH old AS (SELECT seq FROM audit_checkpoints WHERE at < ?1 \
                   AND seq >= (SELECT min(seq) FROM audit) AND seq < (SELECT max(seq) FROM audit) \
                   AND seq < (SELECT coalesce((SELECT seq FROM audit WHERE at >= ?1 ORDER BY seq LIMIT 1), ?3))) \
                   SELECT coalesce((SELECT max(seq) FROM old WHERE seq < (SELECT min(seq) FROM audit) + ?2), \
                                   (SELECT min(seq) FROM old))";
        let until: Option<i64> =
            connection.prepare_cached(sql)?.query_row([self.audit_before, AUDIT_CHUNK, i64::MAX], |row| row.get(0))?;
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
            (VERIFICATIONS, "verifications_ended"),
            (VERIFICATION, "events_of_verification"),
            (OLD_ANSWERS, "idempotency_created"),
        ];
        for (sql, index) in uses {
            let plan = plan(&connection, sql);
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE") && !plan.contains("SCAN"), "{sql}: {plan}");
        }
    }
}
