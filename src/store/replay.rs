//! Having deliveries sent again: one, or a range of them in chunks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, Row, params};

use super::apply::{ApplyError, Outbox};
use super::deliveries::{DeliveryRow, find, first_event};
use super::lists::OVERTAKEN;
use super::queue::Urgency;
use super::row::{self, millis};
use super::step::{Done, Replay, ReplayMany, Work};
use super::{StepError, Store, endpoints};
use crate::audit::kind::Kind;
use crate::outbox::delivery::{DeliveryId, DeliveryState, Due, EndpointId};

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

/// Begins a plan of tries anew.
const ANEW: &str =
    "UPDATE deliveries SET state = 'due', planned_from = ?2, next_at = ?2, replayed_after = attempts WHERE id = ?1";

impl Store {
    /// Makes a delivery of this application due at `at`, which is now, with a fresh plan of tries. Id and body stay.
    pub fn replay(
        &self,
        (application, id): (&str, DeliveryId),
        key: &str,
        at: SystemTime,
        done: impl FnOnce(Result<Replayed, StepError>) + Send + 'static,
    ) {
        let work = Work::Replay(Replay { application: application.to_owned(), id, key: key.to_owned(), at });
        let read = |it| match it {
            Done::Replay(replayed) => replayed,
            _ => Replayed::Unknown,
        };
        self.inner.ask(Urgency::Create, work, read, done);
    }

    /// Makes a chunk of an endpoint's deliveries due now, as [`Store::replay`] does one.
    pub fn replay_many(&self, step: ReplayMany, done: impl FnOnce(Result<ReplayedMany, StepError>) + Send + 'static) {
        let read = |it| match it {
            Done::ReplayedMany(replayed) => replayed,
            _ => ReplayedMany::default(),
        };
        self.inner.ask(Urgency::Create, Work::ReplayMany(Box::new(step)), read, done);
    }
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
    connection.prepare_cached(ANEW)?.execute(params![step.id.0, millis(step.at)])?;
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
    let first = step.from.checked_sub(Duration::from_millis(1)).unwrap_or(UNIX_EPOCH);
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
    for id in &wanted {
        connection.prepare_cached(ANEW)?.execute(params![id.0, millis(step.at)])?;
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
