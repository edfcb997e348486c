//! Parking: deliveries follow the state of their endpoints, a chunk in one transaction, beside more urgent work.
//!
//! A delivery is parked while its endpoint is disabled or not configured, and due while it is neither. Each chunk looks
//! anew for what is not so. Invariant: a backlog of any size holds up no other step for longer than a chunk takes.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, params};
use tracing::{error, info, warn};

use super::apply::Effects;
use super::writer::{Fault, Writer, run};
use super::{endpoints, row};
use crate::outbox::delivery::{EndpointId, Subscriptions};

/// Deliveries moved in one transaction, at most.
const CHUNK: u32 = 1_000;

/// Endpoints with deliveries in a state, by jumps through its index: a backlog is not read as a whole.
const WITH_DUE: &str = "WITH RECURSIVE found(endpoint) AS (\
    SELECT min(endpoint) FROM deliveries WHERE state = 'due' \
    UNION ALL SELECT (SELECT min(endpoint) FROM deliveries WHERE state = 'due' AND endpoint > found.endpoint) \
    FROM found WHERE found.endpoint IS NOT NULL) \
    SELECT endpoint FROM found WHERE endpoint IS NOT NULL";
const WITH_PARKED: &str = "WITH RECURSIVE found(endpoint) AS (\
    SELECT min(endpoint) FROM deliveries WHERE state = 'parked' \
    UNION ALL SELECT (SELECT min(endpoint) FROM deliveries WHERE state = 'parked' AND endpoint > found.endpoint) \
    FROM found WHERE found.endpoint IS NOT NULL) \
    SELECT endpoint FROM found WHERE endpoint IS NOT NULL";

const PARK: &str = "UPDATE deliveries SET state = 'parked' WHERE id IN \
    (SELECT id FROM deliveries WHERE endpoint = ?1 AND state = 'due' ORDER BY next_at LIMIT ?2)";
/// The time of the next try stays as it was: what was waiting longest goes first.
const TAKE_UP: &str = "UPDATE deliveries SET state = 'due' WHERE id IN \
    (SELECT id FROM deliveries WHERE endpoint = ?1 AND state = 'parked' LIMIT ?2)";

/// Moves one chunk inside the open transaction. Gives by how much the backlog changes; `None` when all is as it should
/// be.
pub(super) fn chunk(connection: &Connection, subscriptions: &Subscriptions) -> rusqlite::Result<Option<i64>> {
    let disabled = endpoints::disabled(connection)?;
    let live = |endpoint: &EndpointId| subscriptions.contains(endpoint) && !disabled.contains(endpoint);
    let ways = [(WITH_DUE, false, PARK, -1), (WITH_PARKED, true, TAKE_UP, 1)];
    for (which, wanted, sql, sign) in ways {
        let found = with(connection, which)?;
        if let Some(endpoint) = found.into_iter().find(|endpoint| live(endpoint) == wanted) {
            let moved = connection.prepare_cached(sql)?.execute(params![endpoint.0, CHUNK])?;
            return Ok(Some(sign * i64::try_from(moved).unwrap_or(i64::MAX)));
        }
    }
    Ok(None)
}

/// The endpoints that have deliveries due, now or later.
pub(super) fn endpoints_due(connection: &Connection) -> rusqlite::Result<Vec<EndpointId>> {
    with(connection, WITH_DUE)
}

fn with(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<EndpointId>> {
    connection.prepare_cached(sql)?.query_map([], |row| row::endpoint_id(row, 0))?.collect()
}

/// Deliveries that wait for endpoints that are not configured.
fn orphaned(connection: &Connection, subscriptions: &Subscriptions) -> rusqlite::Result<i64> {
    let sql = "SELECT count(*) FROM deliveries WHERE endpoint = ?1 AND state = 'parked'";
    let gone = with(connection, WITH_PARKED)?.into_iter().filter(|endpoint| !subscriptions.contains(endpoint));
    gone.map(|endpoint| connection.prepare_cached(sql)?.query_row([&endpoint.0], |row| row.get::<_, i64>(0))).sum()
}

impl Writer {
    /// Moves one chunk, and has the next one follow. After a fault it is begun anew when the disk is well.
    pub(super) fn sweep(&mut self) {
        if self.stale && self.reopen().is_err() {
            self.sweep_later = true;
            return;
        }
        self.faults.prepare(&self.connection);
        let subscriptions = self.subscriptions.load_full();
        let moved = run(&self.connection, "BEGIN IMMEDIATE").and_then(|()| chunk(&self.connection, &subscriptions));
        let moved = match moved {
            Ok(moved) => moved,
            Err(fault) => {
                self.roll_back();
                self.sweep_later = true;
                return self.fail(&fault);
            }
        };
        match self.commit() {
            Ok(()) => {
                if let Some(moved) = moved {
                    self.metrics.webhook_backlog.add(moved);
                    self.queue.push_sweep();
                } else {
                    self.read_disabled();
                    self.tell_orphaned(&subscriptions);
                }
            }
            Err(Fault::Unknown(fault)) => {
                self.fail(&fault);
                self.settle(Vec::new());
            }
            Err(Fault::Undone(fault)) => {
                self.sweep_later = true;
                self.fail(&fault);
            }
            Err(Fault::Step(fault)) => error!(%fault, "parking failed"),
        }
    }

    fn tell_orphaned(&mut self, subscriptions: &Subscriptions) {
        match orphaned(&self.connection, subscriptions) {
            Ok(orphaned) if orphaned > 0 && orphaned != self.orphaned => {
                self.orphaned = orphaned;
                warn!(parked = orphaned, "deliveries wait for endpoints that are not configured any more");
            }
            Ok(orphaned) => self.orphaned = orphaned,
            Err(fault) => error!(%fault, "parked deliveries cannot be counted"),
        }
    }

    /// Tells of endpoints whose state the committed transaction has changed.
    pub(super) fn publish_endpoints(&self, effects: &Effects) {
        for (application, endpoint, reason) in &effects.disabled {
            self.metrics.webhook_disabled.with_label_values(&[application.as_str(), reason.as_str()]).inc();
            warn!(
                application,
                endpoint = endpoint.public(),
                url = endpoint.shown(),
                reason = reason.as_str(),
                "webhook endpoint disabled; enable it with POST /v1/endpoints/{}/enable",
                endpoint.public()
            );
        }
        if effects.enabled || !effects.disabled.is_empty() {
            self.read_disabled();
            self.queue.push_sweep();
        }
    }

    /// Reads anew which endpoints are disabled, and tells it where it has changed.
    pub(super) fn read_disabled(&self) {
        let disabled: HashSet<EndpointId> = match endpoints::disabled(&self.connection) {
            Ok(disabled) => disabled,
            Err(fault) => return error!(%fault, "the state of endpoints cannot be read"),
        };
        let subscriptions = self.subscriptions.load();
        let configured = disabled.iter().filter(|endpoint| subscriptions.contains(endpoint)).count();
        self.metrics.webhook_endpoints_disabled.set(i64::try_from(configured).unwrap_or(i64::MAX));
        self.disabled.send_if_modified(|known| {
            let changed = **known != disabled;
            for enabled in known.difference(&disabled) {
                info!(endpoint = enabled.public(), url = enabled.shown(), "webhook endpoint enabled");
            }
            if changed {
                *known = Arc::new(disabled);
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema;
    use crate::store::tests::{Folder, plan};

    #[test]
    fn backlogs_are_jumped_through_and_moved_by_their_indexes() {
        let folder = Folder::new();
        let connection = schema::open_writer(&folder.database()).unwrap();
        for (sql, index) in [
            (WITH_DUE, "SEARCH deliveries USING COVERING INDEX deliveries_due"),
            (WITH_PARKED, "SEARCH deliveries USING COVERING INDEX deliveries_parked"),
            (PARK, "deliveries_due"),
            (TAKE_UP, "deliveries_parked"),
        ] {
            let found = plan(&connection, sql);
            assert!(found.contains(index) && !found.contains("TEMP B-TREE"), "{sql}: {found}");
            assert!(!found.contains("SCAN deliveries"), "{sql}: {found}");
        }
    }
}
