//! What a try of a delivery leaves behind: its row, the state of its endpoint, and the events about both.
//!
//! Decides nothing: when the next try is due comes with the step, when an endpoint is disabled is `outbox::endpoint`'s.
//! Invariant: a try counts once, whatever was done to its delivery or endpoint while it was under way.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, params};
use ulid::Ulid;

use super::apply::{ApplyError, Event, Outbox};
use super::row::{self, millis};
use super::step::Tried;
use crate::outbox::delivery::EndpointId;
use crate::outbox::endpoint::{DisableReason, Failing, verdict};
use crate::outbox::event::{EventId, EventType};
use crate::outbox::notice::{Disabled, Exhausted, LastAttempt};

/// Longest error text kept for a delivery, in bytes.
const ERROR_BYTES: usize = 200;

/// Does the step. A delivery that is done already stays as it is.
pub(super) fn tried(outbox: &mut Outbox<'_>, step: &Tried) -> Result<(), ApplyError> {
    if step.last.error.is_none() { delivered(outbox, step) } else { failed(outbox, step) }
}

fn delivered(outbox: &mut Outbox<'_>, step: &Tried) -> Result<(), ApplyError> {
    let connection = outbox.connection;
    let due = "UPDATE deliveries SET state = 'delivered', attempts = ?2, last_at = ?3, status = ?4, error = NULL \
               WHERE id = ?1 AND state = 'due'";
    let parameters = params![step.id.0, step.attempts, millis(step.last.at), step.last.status];
    if connection.prepare_cached(due)?.execute(parameters)? == 1 {
        outbox.effects.backlog -= 1;
    } else {
        // Its endpoint was disabled or removed while the try was under way.
        let parked = "UPDATE deliveries SET state = 'delivered', attempts = ?2, last_at = ?3, status = ?4, \
                      error = NULL WHERE id = ?1 AND state = 'parked'";
        if connection.prepare_cached(parked)?.execute(parameters)? == 0 {
            return Ok(());
        }
    }
    let well = "UPDATE endpoints SET failing_since = NULL, failures = 0 \
                WHERE id = (SELECT endpoint FROM deliveries WHERE id = ?1) \
                AND failing_since IS NOT NULL AND disabled_at IS NULL";
    connection.prepare_cached(well)?.execute([step.id.0])?;
    Ok(())
}

/// A delivery that is not done.
struct Row {
    application: String,
    endpoint: EndpointId,
    event: i64,
    state: String,
    replayed_after: u32,
}

fn failed(outbox: &mut Outbox<'_>, step: &Tried) -> Result<(), ApplyError> {
    let Some(row) = find(outbox.connection, step)? else { return Ok(()) };
    // A replay has made it due at once, by a plan of its own.
    let next_at = if row.replayed_after == step.replayed_after { step.next_at.map(millis) } else { None };
    let exhausted = step.next_at.is_none() && row.replayed_after == step.replayed_after;
    let error = step.last.error.as_deref().map(shortened);
    let sql = "UPDATE deliveries SET state = ?2, attempts = ?3, last_at = ?4, status = ?5, error = ?6, \
               next_at = coalesce(?7, next_at) WHERE id = ?1";
    outbox.connection.prepare_cached(sql)?.execute(params![
        step.id.0,
        if exhausted { "exhausted" } else { &row.state },
        step.attempts,
        millis(step.last.at),
        step.last.status,
        error,
        next_at,
    ])?;
    if exhausted {
        outbox.effects.backlog -= i64::from(row.state == "due");
        tell_exhausted(outbox, step, &row, error)?;
    }
    count_failure(outbox, step, &row)
}

fn find(connection: &Connection, step: &Tried) -> Result<Option<Row>, ApplyError> {
    let sql = "SELECT application, endpoint, event, state, replayed_after FROM deliveries \
               WHERE id = ?1 AND state IN ('due', 'parked')";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Row {
            application: row.get(0)?,
            endpoint: row::endpoint_id(row, 1)?,
            event: row.get(2)?,
            state: row.get(3)?,
            replayed_after: row.get(4)?,
        })
    };
    Ok(connection.prepare_cached(sql)?.query_row([step.id.0], read).optional()?)
}

fn tell_exhausted(outbox: &mut Outbox<'_>, step: &Tried, row: &Row, error: Option<&str>) -> Result<(), ApplyError> {
    let sql = "SELECT id, type, verification FROM events WHERE seq = ?1";
    let read = |found: &rusqlite::Row<'_>| {
        Ok((row::event_id(found, 0)?, row::event_type(found, 1)?, row::maybe_verification_id(found, 2)?))
    };
    let (event, kind, verification) = outbox.connection.prepare_cached(sql)?.query_row([row.event], read)?;
    if kind.is_of_delivery() {
        return Ok(());
    }
    let last = LastAttempt { at: step.last.at, status: step.last.status, error: error.map(str::to_owned) };
    let attempts = step.attempts.saturating_sub(row.replayed_after);
    let (id, endpoint) = (step.id, &row.endpoint);
    let body = Exhausted { id, endpoint, attempts, last: &last, event, kind, verification }.body();
    let event = Event {
        id: EventId(Ulid::generate()),
        kind: EventType::DeliveryExhausted,
        at: last.at,
        application: &row.application,
        verification,
        body: body.into(),
    };
    outbox.tell(&event, None)
}

fn count_failure(outbox: &mut Outbox<'_>, step: &Tried, row: &Row) -> Result<(), ApplyError> {
    let sql = "INSERT INTO endpoints (id, application, failing_since, failures) VALUES (?1, ?2, ?3, 1) \
               ON CONFLICT (id) DO UPDATE SET failing_since = coalesce(failing_since, excluded.failing_since), \
               failures = failures + 1 RETURNING failing_since, failures, disabled_at IS NOT NULL";
    let parameters = params![row.endpoint.0, row.application, millis(step.last.at)];
    let read = |found: &rusqlite::Row<'_>| {
        let failures = u32::try_from(found.get::<_, i64>(1)?).unwrap_or(u32::MAX);
        Ok((Failing { since: row::time(found, 0)?, failures }, found.get(2)?))
    };
    let (failing, disabled): (_, bool) = outbox.connection.prepare_cached(sql)?.query_row(parameters, read)?;
    match verdict(step.last.status, failing, step.last.at) {
        Some(reason) if !disabled => disable(outbox, row, failing.since, step.last.at, reason),
        _ => Ok(()),
    }
}

fn disable(
    outbox: &mut Outbox<'_>,
    row: &Row,
    failing_since: SystemTime,
    at: SystemTime,
    reason: DisableReason,
) -> Result<(), ApplyError> {
    let sql = "UPDATE endpoints SET disabled_at = ?2, reason = ?3 WHERE id = ?1";
    outbox.connection.prepare_cached(sql)?.execute(params![row.endpoint.0, millis(at), reason.as_str()])?;
    let event = Event {
        id: EventId(Ulid::generate()),
        kind: EventType::EndpointDisabled,
        at,
        application: &row.application,
        verification: None,
        body: Disabled { endpoint: &row.endpoint, reason, failing_since, at }.body().into(),
    };
    outbox.tell(&event, Some(&row.endpoint))?;
    outbox.effects.disabled.push((row.application.clone(), row.endpoint.clone(), reason));
    Ok(())
}

fn shortened(error: &str) -> &str {
    &error[..error.floor_char_boundary(ERROR_BYTES)]
}
