//! Deliveries as their application sees them.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::apply::ApplyError;
use super::lists::{MAX_EXAMINED, OVERTAKEN, Page};
use super::row::{self, millis};
use super::{Store, StoreError, sweep};
use crate::matcher::verification::VerificationId;
use crate::outbox::delivery::{DeliveryId, DeliveryState, EndpointId};
use crate::outbox::event::{EventId, EventType};
use crate::outbox::notice::LastAttempt;

/// One event on its way to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Its id.
    pub id: DeliveryId,
    /// Where to.
    pub endpoint: EndpointId,
    /// What is told: the `webhook-id`.
    pub event: EventId,
    /// Its type.
    pub kind: EventType,
    /// When it happened, UTC.
    pub event_at: SystemTime,
    /// The verification that it is about, if it is about one.
    pub verification: Option<VerificationId>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Tries made since the event, or since the last replay.
    pub attempts: u32,
    /// When the next try is due, UTC: there exactly while pending.
    pub next_at: Option<SystemTime>,
    /// The last try that is known.
    pub last: Option<LastAttempt>,
}

/// Which deliveries of an application are wanted. What is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// In this state.
    pub state: Option<DeliveryState>,
    /// To this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Of this event.
    pub event: Option<EventId>,
    /// Of events after this time.
    pub created_after: Option<SystemTime>,
}

/// Longest plan of tries, in milliseconds.
const PLAN: i64 = 86_400_000;

impl Store {
    /// An application's deliveries, the newest first: those made before the one with id `after` alone, at most `limit`.
    pub async fn deliveries(
        &self,
        application: &str,
        filter: DeliveryFilter,
        after: Option<DeliveryId>,
        limit: u32,
    ) -> Result<Page<DeliveryRow>, StoreError> {
        let application = application.to_owned();
        let read = move |connection: &_| list(connection, &application, &filter, after, limit);
        self.inner.readers.read(read).await
    }

    /// One delivery of this application.
    pub async fn delivery(&self, application: &str, id: DeliveryId) -> Result<Option<DeliveryRow>, StoreError> {
        let application = application.to_owned();
        self.inner.readers.read(move |connection| find(connection, &application, id)).await
    }
}

const SELECT: &str = "SELECT d.id, d.endpoint, e.id, e.type, e.at, e.verification, d.state, \
    d.attempts - d.replayed_after, d.next_at, d.last_at, d.status, d.error, e.seq \
    FROM deliveries d JOIN events e ON e.seq = d.event WHERE d.application = :application";
/// Where `SELECT` has the place of the event.
const EVENT_SEQ: usize = 12;

/// The newest deliveries first, those made before the one with id `after` alone, at most `limit`.
pub(super) fn list(
    connection: &Connection,
    application: &str,
    filter: &DeliveryFilter,
    after: Option<DeliveryId>,
    limit: u32,
) -> rusqlite::Result<Page<DeliveryRow>> {
    let snapshot = connection.unchecked_transaction()?;
    let DeliveryFilter { state, endpoint, event, created_after } = filter;
    let first = created_after.map(|time| first_event(&snapshot, time)).transpose()?;
    let mut sql = SELECT.to_owned();
    // What has an index of its own is a term; the rest is looked at row by row, no more of them than a page may.
    let indexed = state.filter(|state| *state != DeliveryState::Delivered);
    sql += if indexed.is_some() { " AND d.state <> 'delivered' AND d.state = :state" } else { " AND :state IS NULL" };
    let of_event = " AND d.event = (SELECT seq FROM events WHERE id = :event)";
    sql += if event.is_some() { of_event } else { " AND :event IS NULL" };
    sql += " AND d.id < :before ORDER BY d.id DESC";
    let parameters = named_params! {
        ":application": application,
        ":state": indexed.map(column),
        ":event": event.map(|event| event.to_string()),
        ":before": after.map_or(i64::MAX, |id| id.0),
    };
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut rows = statement.query(parameters)?;
    let (mut entries, mut examined, mut last) = (Vec::new(), 0, None);
    while let Some(found) = rows.next()? {
        // Deliveries are made with their events and in their order.
        if first.is_some_and(|first| found.get::<_, i64>(EVENT_SEQ).is_ok_and(|seq| seq < first)) {
            break;
        }
        if examined == MAX_EXAMINED || entries.len() == limit as usize {
            return Ok(Page { entries, next: last.map(|id: DeliveryId| id.to_string()) });
        }
        examined += 1;
        last = Some(DeliveryId(found.get(0)?));
        let is = |index, wanted: Option<&str>| -> rusqlite::Result<bool> {
            Ok(wanted.is_none() || found.get_ref(index)?.as_str_or_null()? == wanted)
        };
        // What does not fit is not read any further.
        if is(6, state.map(column))?
            && is(1, endpoint.as_ref().map(|endpoint| &*endpoint.0))?
            && created_after.map_or(Ok(true), |time| found.get::<_, i64>(4).map(|at| at > millis(time)))?
        {
            entries.push(read(found)?);
        }
    }
    Ok(Page { entries, next: None })
}

/// The first event in the order of commits that happened after `time`. Events that happen at once overtake one
/// another.
pub(super) fn first_event(connection: &Connection, time: SystemTime) -> rusqlite::Result<i64> {
    let sql = "SELECT min(seq) FROM (SELECT seq FROM events WHERE at > ?1 ORDER BY at LIMIT ?2)";
    let first = connection.prepare_cached(sql)?.query_row((millis(time), OVERTAKEN), |row| row.get(0))?;
    Ok(Option::unwrap_or(first, i64::MAX))
}

/// One delivery of this application.
pub(super) fn find(
    connection: &Connection,
    application: &str,
    id: DeliveryId,
) -> rusqlite::Result<Option<DeliveryRow>> {
    let sql = format!("{SELECT} AND d.id = :id");
    let parameters = named_params! { ":application": application, ":id": id.0 };
    connection.prepare_cached(&sql)?.query_row(parameters, read).optional()
}

/// Brings forward what was planned by a clock that stood ahead: deliveries of events that are still to happen by the
/// clock of now. Their plan of tries begins now.
pub(super) fn hasten(connection: &Connection, now: SystemTime) -> Result<(), ApplyError> {
    let sql = "UPDATE deliveries SET next_at = ?2 + max(0, min(next_at - planned_from, ?3)), planned_from = ?2 \
               WHERE endpoint = ?1 AND state = 'due' AND next_at > ?2 AND planned_from > ?2";
    let ahead = "SELECT EXISTS (SELECT 1 FROM events WHERE at > ?1)";
    if !connection.prepare_cached(ahead)?.query_row([millis(now)], |row| row.get(0))? {
        return Ok(());
    }
    for endpoint in sweep::endpoints_due(connection)? {
        connection.prepare_cached(sql)?.execute(params![endpoint.0, millis(now), PLAN])?;
    }
    Ok(())
}

/// The name of a state in the database.
const fn column(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => "due",
        other => other.as_str(),
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    let state = row::delivery_state(row, 6)?;
    let last = match row::maybe_time(row, 9)? {
        Some(at) => Some(LastAttempt { at, status: row.get(10)?, error: row.get(11)? }),
        None => None,
    };
    Ok(DeliveryRow {
        id: DeliveryId(row.get(0)?),
        endpoint: row::endpoint_id(row, 1)?,
        event: row::event_id(row, 2)?,
        kind: row::event_type(row, 3)?,
        event_at: row::time(row, 4)?,
        verification: row::maybe_verification_id(row, 5)?,
        state,
        attempts: row.get(7)?,
        next_at: if state == DeliveryState::Pending { Some(row::time(row, 8)?) } else { None },
        last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;
    use crate::store::tests::{Folder, plan};

    #[test]
    fn a_page_is_found_by_an_index_in_its_order() {
        let folder = Folder::new();
        let connection = schema::open_writer(&folder.database()).unwrap();
        let order = " AND d.id < 9 ORDER BY d.id DESC";
        let cases = [
            ("", "deliveries_of_application"),
            (" AND d.state <> 'delivered' AND d.state = 'exhausted'", "deliveries_undelivered"),
            (" AND d.state <> 'delivered' AND d.state = 'due'", "deliveries_undelivered"),
            (" AND d.event = (SELECT seq FROM events WHERE id = 'evt_1')", "deliveries_of_event"),
        ];
        for (terms, index) in cases {
            let found = plan(&connection, &format!("{SELECT}{terms}{order}"));
            assert!(found.contains(index) && !found.contains("TEMP B-TREE"), "{terms}: {found}");
        }
    }
}
