//! Deliveries as their application sees them, and their replay.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::apply::{ApplyError, Outbox};
use super::endpoints;
use super::row::{self, millis};
use super::step::Replay;
use crate::matcher::verification::VerificationId;
use crate::outbox::delivery::{DeliveryId, DeliveryState, Due, EndpointId};
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

/// What became of the wish to replay a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// It is due now.
    Due(DeliveryRow),
    /// The application has none with this id.
    Unknown,
    /// Its endpoint is disabled.
    Disabled(EndpointId),
    /// Its endpoint is not configured any more.
    Removed(EndpointId),
}

const SELECT: &str = "SELECT d.id, d.endpoint, e.id, e.type, e.at, e.verification, d.state, \
    d.attempts - d.replayed_after, d.next_at, d.last_at, d.status, d.error \
    FROM deliveries d JOIN events e ON e.seq = d.event WHERE d.application = :application";

/// The newest deliveries first, those made before the one with id `after` alone, at most `limit`.
pub(super) fn list(
    connection: &Connection,
    application: &str,
    filter: &DeliveryFilter,
    after: Option<DeliveryId>,
    limit: u32,
) -> rusqlite::Result<Vec<DeliveryRow>> {
    let DeliveryFilter { state, endpoint, event, created_after } = filter;
    let mut sql = SELECT.to_owned();
    // Each wish is a term of its own, so that the index for it can be used.
    sql += match state {
        None => " AND :state IS NULL",
        Some(DeliveryState::Delivered) => " AND d.state = :state",
        Some(_) => " AND d.state <> 'delivered' AND d.state = :state",
    };
    sql += if endpoint.is_some() { " AND d.endpoint = :endpoint" } else { " AND :endpoint IS NULL" };
    let of_event = " AND d.event = (SELECT seq FROM events WHERE id = :event)";
    sql += if event.is_some() { of_event } else { " AND :event IS NULL" };
    sql += if created_after.is_some() { " AND e.at > :created_after" } else { " AND :created_after IS NULL" };
    sql += " AND d.id < :before ORDER BY d.id DESC LIMIT :limit";
    let parameters = named_params! {
        ":application": application,
        ":state": state.map(column),
        ":endpoint": endpoint.as_ref().map(|endpoint| &endpoint.0),
        ":event": event.map(|event| event.to_string()),
        ":created_after": created_after.map(millis),
        ":before": after.map_or(i64::MAX, |id| id.0),
        ":limit": limit,
    };
    connection.prepare_cached(&sql)?.query_map(parameters, read)?.collect()
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

/// Makes a delivery due now, by a plan that begins now.
pub(super) fn replay(outbox: &mut Outbox<'_>, step: &Replay) -> Result<Replayed, ApplyError> {
    let connection = outbox.connection;
    let Some(row) = find(connection, &step.application, step.id)? else { return Ok(Replayed::Unknown) };
    if !outbox.subscriptions.contains(&row.endpoint) {
        return Ok(Replayed::Removed(row.endpoint));
    }
    if endpoints::is_disabled(connection, &row.endpoint)? {
        return Ok(Replayed::Disabled(row.endpoint));
    }
    let sql = "UPDATE deliveries SET state = 'due', planned_from = ?2, next_at = ?2, replayed_after = attempts \
               WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![step.id.0, millis(step.at)])?;
    outbox.effects.backlog += i64::from(row.state != DeliveryState::Pending);
    let sql = "SELECT d.attempts, d.planned_from, e.body FROM deliveries d JOIN events e ON e.seq = d.event \
               WHERE d.id = ?1";
    let due = |found: &Row<'_>| {
        let attempts = found.get(0)?;
        Ok(Due {
            id: row.id,
            endpoint: row.endpoint.clone(),
            event: row.event,
            kind: row.kind,
            planned_from: row::time(found, 1)?,
            attempts,
            replayed_after: attempts,
            body: found.get(2)?,
        })
    };
    outbox.effects.due.push(connection.prepare_cached(sql)?.query_row([step.id.0], due)?);
    Ok(find(connection, &step.application, step.id)?.map_or(Replayed::Unknown, Replayed::Due))
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
        let order = " AND d.id < 9 ORDER BY d.id DESC LIMIT 9";
        let cases = [
            ("", "deliveries_of_application"),
            (" AND d.state = 'delivered'", "deliveries_of_application"),
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
