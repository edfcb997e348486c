//! The state of endpoints: since when they fail, whether and why they are disabled.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension};

use super::apply::{ApplyError, Outbox};
use super::queue::Urgency;
use super::step::{Enable, Work};
use super::{StepError, Store, StoreError, row};
use crate::audit::kind::Kind;
use crate::outbox::delivery::{EndpointId, Subscriptions};
use crate::outbox::endpoint::DisableReason;
use crate::outbox::event::EventType;

/// An endpoint that is configured, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRow {
    /// Its name.
    pub endpoint: EndpointId,
    /// What it wants.
    pub events: Vec<EventType>,
    /// When the first of the tries failed that have all failed since, UTC; `None` where the last one did not.
    pub failing_since: Option<SystemTime>,
    /// When it was disabled, UTC, and why; `None` while it is enabled.
    pub disabled: Option<(SystemTime, DisableReason)>,
    /// Deliveries to it that are not done, parked ones too.
    pub backlog: u64,
}

impl Store {
    /// Enables a disabled endpoint; any other stays as it is. What is parked for it becomes due again, by and by.
    pub fn enable(&self, step: Enable, done: impl FnOnce(Result<(), StepError>) + Send + 'static) {
        self.inner.ask(Urgency::Create, Work::Enable(Box::new(step)), drop, done);
    }

    /// An application's endpoints, in the order of its configuration.
    pub async fn endpoints(&self, application: &str) -> Result<Vec<EndpointRow>, StoreError> {
        let (subscriptions, application) = (self.inner.subscriptions.load_full(), application.to_owned());
        self.inner.readers.read(move |connection| list(connection, &subscriptions, &application)).await
    }
}

/// The endpoints of an application, in the order of its configuration.
pub(super) fn list(
    connection: &Connection,
    subscriptions: &Subscriptions,
    application: &str,
) -> rusqlite::Result<Vec<EndpointRow>> {
    let state = "SELECT failing_since, disabled_at, reason FROM endpoints WHERE id = ?1";
    let backlog = "SELECT (SELECT count(*) FROM deliveries WHERE endpoint = ?1 AND state = 'due') \
                   + (SELECT count(*) FROM deliveries WHERE endpoint = ?1 AND state = 'parked')";
    let mut found = Vec::new();
    for wish in subscriptions.0.iter().filter(|wish| wish.application == application) {
        let read = |row: &rusqlite::Row<'_>| {
            let disabled_at = row::maybe_time(row, 1)?;
            let reason = match disabled_at {
                Some(at) => Some((at, row::disable_reason(row, 2)?)),
                None => None,
            };
            Ok((row::maybe_time(row, 0)?, reason))
        };
        let standing = connection.prepare_cached(state)?.query_row([&wish.endpoint.0], read).optional()?;
        let (failing_since, disabled) = standing.unwrap_or_default();
        let backlog: i64 = connection.prepare_cached(backlog)?.query_row([&wish.endpoint.0], |row| row.get(0))?;
        found.push(EndpointRow {
            endpoint: wish.endpoint.clone(),
            events: wish.events.clone(),
            failing_since,
            disabled,
            backlog: backlog.unsigned_abs(),
        });
    }
    Ok(found)
}

/// All endpoints that are disabled, configured or not.
pub(super) fn disabled(connection: &Connection) -> rusqlite::Result<HashSet<EndpointId>> {
    let sql = "SELECT id FROM endpoints WHERE disabled_at IS NOT NULL";
    connection.prepare_cached(sql)?.query_map([], |row| row::endpoint_id(row, 0))?.collect()
}

/// Whether this one is.
pub(super) fn is_disabled(connection: &Connection, endpoint: &EndpointId) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM endpoints WHERE id = ?1 AND disabled_at IS NOT NULL)";
    connection.prepare_cached(sql)?.query_row([&endpoint.0], |row| row.get(0))
}

/// Has an endpoint begin anew, where it was disabled.
pub(super) fn enable(outbox: &mut Outbox<'_>, step: &Enable) -> Result<(), ApplyError> {
    let sql = "UPDATE endpoints SET disabled_at = NULL, reason = NULL, failing_since = NULL, failures = 0 \
               WHERE id = ?1 AND disabled_at IS NOT NULL";
    if outbox.connection.prepare_cached(sql)?.execute([&step.endpoint.0])? == 1 {
        outbox.effects.enabled = true;
        let (application, key) = (step.application.as_str(), step.key.as_str());
        let data = wish(application, key, &[("endpoint", step.endpoint.public()), ("url", step.endpoint.shown())]);
        outbox.audit(step.at, Kind::EndpointEnabled, None, &data)?;
    }
    Ok(())
}

/// The `data` of an entry that tells what the holder of an API key wished.
pub(super) fn wish(application: &str, key: &str, more: &[(&str, String)]) -> String {
    let members = [("application", application.to_owned()), ("key", key.to_owned())];
    let all: BTreeMap<&str, &String> = members.iter().chain(more).map(|(name, value)| (*name, value)).collect();
    serde_json::to_string(&all).expect("texts always become JSON")
}
