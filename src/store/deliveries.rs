//! Deliveries as their application sees them, and their replay.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::apply::{ApplyError, Outbox};
use super::lists::{MAX_EXAMINED, OVERTAKEN, Page};
use super::row::{self, millis};
use super::step::{Replay, ReplayMany};
use super::{endpoints, sweep};
use crate::audit::kind::Kind;
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

/// What a chunk of a wish to replay a range did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplayedMany {
    /// Deliveries that are due now.
    pub replayed: u64,
    /// The last one that was looked at; `None` where the range is done.
    pub next: Option<DeliveryId>,
    /// Whether the endpoint takes none: it is disabled or not configured any more.
    pub refused: bool,
    /// Whether the delivery to go on behind is not there.
    pub unknown_after: bool,
}

/// Most deliveries that one chunk looks at: about what a writer does in 10 ms.
const MANY: u32 = 500;

/// Longest plan of tries, in milliseconds.
const PLAN: i64 = 86_400_000;

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
fn first_event(connection: &Connection, time: SystemTime) -> rusqlite::Result<i64> {
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
    let data = endpoints::wish(&step.application, &step.key, &[("delivery", step.id.to_string())]);
    outbox.audit(step.at, Kind::DeliveriesReplayed, None, &data)?;
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

/// Makes a chunk of a range due now. The worker finds them in the store, behind what has just happened.
pub(super) fn replay_many(outbox: &mut Outbox<'_>, step: &ReplayMany) -> Result<ReplayedMany, ApplyError> {
    let connection = outbox.connection;
    let endpoint = &step.endpoint;
    if !outbox.subscriptions.contains(endpoint) || endpoints::is_disabled(connection, endpoint)? {
        return Ok(ReplayedMany { refused: true, ..ReplayedMany::default() });
    }
    let first = step.from.checked_sub(std::time::Duration::from_millis(1)).unwrap_or(std::time::UNIX_EPOCH);
    let first = first_event(connection, first)?;
    let last = "SELECT max(seq) FROM (SELECT seq FROM events WHERE at < ?1 ORDER BY at DESC LIMIT ?2)";
    let last: Option<i64> =
        connection.prepare_cached(last)?.query_row((millis(step.until), OVERTAKEN), |row| row.get(0))?;
    let sql = "SELECT d.id, d.state, d.endpoint, e.at, e.type FROM deliveries d JOIN events e ON e.seq = d.event \
               WHERE d.event BETWEEN ?1 AND ?2 AND d.id > ?3 ORDER BY d.event, d.id LIMIT ?4";
    // Deliveries are made with their events and in their order, so one that was looked at tells where to go on.
    let after = step.after.map_or(0, |id| id.0);
    let from = "SELECT event FROM deliveries WHERE id = ?1";
    let begun: Option<i64> = connection.prepare_cached(from)?.query_row([after], |row| row.get(0)).optional()?;
    if step.after.is_some() && begun.is_none() {
        return Ok(ReplayedMany { unknown_after: true, ..ReplayedMany::default() });
    }
    let parameters = params![first.max(begun.unwrap_or(0)), last.unwrap_or(0), after, MANY];
    let mut replayed = ReplayedMany::default();
    let (mut looked_at, mut wanted) = (0, Vec::new());
    {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(parameters)?;
        while let Some(found) = rows.next()? {
            looked_at += 1;
            let id = DeliveryId(found.get(0)?);
            replayed.next = Some(id);
            let state = row::delivery_state(found, 1)?;
            let over = matches!(state, DeliveryState::Delivered | DeliveryState::Exhausted);
            if over
                && step.state.is_none_or(|wanted| wanted == state)
                && row::endpoint_id(found, 2)? == *endpoint
                && (millis(step.from)..millis(step.until)).contains(&found.get::<_, i64>(3)?)
                && step.kind.is_none_or(|kind| found.get_ref(4).is_ok_and(|it| it.as_str() == Ok(kind.as_str())))
            {
                wanted.push(id);
            }
        }
    }
    if looked_at < MANY {
        replayed.next = None;
    }
    let sql = "UPDATE deliveries SET state = 'due', planned_from = ?2, next_at = ?2, replayed_after = attempts \
               WHERE id = ?1";
    for id in &wanted {
        connection.prepare_cached(sql)?.execute(params![id.0, millis(step.at)])?;
    }
    replayed.replayed = wanted.len() as u64;
    outbox.effects.backlog += i64::try_from(wanted.len()).unwrap_or(i64::MAX);
    if let (Some(first), Some(last)) = (wanted.first(), wanted.last()) {
        let members = [
            ("endpoint", endpoint.public()),
            ("count", wanted.len().to_string()),
            ("first", first.to_string()),
            ("last", last.to_string()),
        ];
        let data = endpoints::wish(&step.application, &step.key, &members);
        outbox.audit(step.at, Kind::DeliveriesReplayed, None, &data)?;
    }
    Ok(replayed)
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
