//! Erasing a person's data: every row that names the phone, and the bodies of what was told of it.
//!
//! The ids, types and sequence of events stay, and so does the audit log, which names the phone by its HMAC alone: the key
//! of that goes with the verification's row. What was not delivered is not sent any more. Invariant: a chunk is one
//! transaction with its entry in the audit log, which lists what it removed, so that the same can be done to a backup.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::apply::{ApplyError, Outbox, end};
use super::queue::Urgency;
use super::row;
use super::step::{Done, Work};
use super::{End, StepError, Store, StoreError, schema};
use crate::audit::kind::Kind;
use crate::call::assurance::{Reason, Reasons};
use crate::e164::E164;
use crate::matcher::verification::{Status, VerificationId};
use crate::outbox::event::{EventId, erased_body};

/// How long the write-ahead log is waited for at a time: readers may hold it.
const LOG_PATIENCE: Duration = Duration::from_millis(50);

/// What is to be erased in one transaction.
#[derive(Debug, Clone)]
pub struct Erase {
    /// Whose.
    pub application: String,
    /// The verifications of the phone.
    pub verifications: Vec<VerificationId>,
    /// Calls of the phone that named verifications of others.
    pub calls: Vec<String>,
    /// Who asked: the id of an API key, or nothing where the operator did.
    pub key: Option<String>,
    /// When, UTC.
    pub at: SystemTime,
}

/// What of an application's records names a phone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// Its verifications: what they are called, and where they are pending, the number.
    pub verifications: Vec<(VerificationId, Option<E164>)>,
    /// Calls of it that named verifications of others.
    pub calls: Vec<String>,
}

/// How much was erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// Verifications removed.
    pub verifications: u64,
    /// Of them, those that were pending and ended for it.
    pub ended: u64,
    /// Calls removed, or left without their number.
    pub calls: u64,
    /// Events whose bodies were redacted.
    pub events: u64,
    /// Deliveries that are not sent any more.
    pub deliveries: u64,
    /// Answers to idempotency keys removed.
    pub answers: u64,
}

impl Erased {
    /// Adds what was erased besides.
    pub fn add(&mut self, other: Self) {
        self.verifications += other.verifications;
        self.ended += other.ended;
        self.calls += other.calls;
        self.events += other.events;
        self.deliveries += other.deliveries;
        self.answers += other.answers;
    }
}

/// The `data` of `phone.erased`.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) application: String,
    pub(super) key: Option<String>,
    pub(super) verifications: Vec<String>,
    pub(super) calls: Vec<String>,
}

impl Store {
    /// What names this phone, in whichever of its forms, among an application's records.
    ///
    /// # Errors
    /// As [`Store::verification`].
    pub async fn traces(&self, application: &str, phone: E164) -> Result<Traces, StoreError> {
        let application = application.to_owned();
        self.inner.readers.read(move |connection| traces(connection, &application, phone)).await
    }

    /// The applications that have verifications, also those that are not configured any more.
    ///
    /// # Errors
    /// As [`Store::verification`].
    pub async fn applications(&self) -> Result<Vec<String>, StoreError> {
        self.inner.readers.read(applications).await
    }

    /// Erases one chunk, as urgent as a creation.
    pub fn erase(&self, step: Erase, done: impl FnOnce(Result<Erased, StepError>) + Send + 'static) {
        let read = |it| match it {
            Done::Erased(erased) => erased,
            _ => Erased::default(),
        };
        self.inner.ask(Urgency::Create, Work::Erase(Box::new(step)), read, done);
    }

    /// Empties the write-ahead log, in which removed data stands as it was. Whether that was done: a reader may be in the
    /// way just then. Blocks.
    #[must_use]
    pub fn truncate_log(&self) -> bool {
        let truncate = || -> Result<(), StoreError> {
            let connection = schema::reopen_writer(&self.inner.readers.path)?;
            // The writer waits as long.
            connection.busy_timeout(LOG_PATIENCE)?;
            Ok(schema::checkpoint(&connection)?)
        };
        truncate().inspect_err(|error| tracing::debug!(%error, "the write-ahead log is not emptied yet")).is_ok()
    }
}

pub(super) fn traces(connection: &Connection, application: &str, phone: E164) -> rusqlite::Result<Traces> {
    let snapshot = connection.unchecked_transaction()?;
    let mut all = Traces::default();
    for form in phone.forms() {
        let Traces { verifications, calls } = traces_of_form(&snapshot, application, form)?;
        all.verifications.extend(verifications);
        all.calls.extend(calls);
    }
    Ok(all)
}

fn traces_of_form(connection: &Connection, application: &str, phone: E164) -> rusqlite::Result<Traces> {
    let sql = "SELECT id, status, number FROM verifications WHERE application = ?1 AND phone = ?2";
    let pending = |row: &rusqlite::Row<'_>| {
        let number = (row::status(row, 1)? == Status::Pending).then(|| row::number(row, 2)).transpose()?;
        Ok((row::verification_id(row, 0)?, number))
    };
    let phone = row::integer(phone);
    let verifications =
        connection.prepare_cached(sql)?.query_map(params![application, phone], pending)?.collect::<Result<_, _>>()?;
    // Those that named a verification of the phone itself go with it.
    let sql = "SELECT id FROM calls WHERE caller = ?2 AND outcome IN ('refused', 'mismatched') AND application = ?1 \
               AND NOT EXISTS (SELECT 1 FROM verifications v WHERE v.id = calls.verification AND v.phone = ?2)";
    let calls = connection
        .prepare_cached(sql)?
        .query_map(params![application, phone], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(Traces { verifications, calls })
}

/// By jumps through an index: no table is read as a whole.
pub(super) fn applications(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "WITH RECURSIVE found(name) AS (SELECT min(application) FROM verifications \
               UNION ALL SELECT (SELECT min(application) FROM verifications WHERE application > found.name) \
               FROM found WHERE found.name IS NOT NULL) SELECT name FROM found WHERE name IS NOT NULL";
    connection.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// Does the step.
pub(super) fn erase(outbox: &mut Outbox<'_>, step: &Erase) -> Result<Erased, ApplyError> {
    let mut erased = Erased::default();
    let mut redacted = HashSet::new();
    for id in &step.verifications {
        of_verification(outbox, step, *id, &mut erased, &mut redacted)?;
    }
    let sql = "UPDATE calls SET caller = NULL, trace = NULL WHERE id = ?1 AND application = ?2";
    for id in &step.calls {
        erased.calls += count(outbox.connection.prepare_cached(sql)?.execute([id, &step.application])?);
    }
    // Also what was not there: a backup that is put back later may hold it.
    let verifications = step.verifications.iter().map(VerificationId::to_string).collect();
    let calls = step.calls.clone();
    let entry = Entry { application: step.application.clone(), key: step.key.clone(), verifications, calls };
    let data = serde_json::to_string(&entry).expect("texts always become JSON");
    outbox.audit(step.at, Kind::PhoneErased, None, &data)?;
    outbox.effects.due.retain(|due| !redacted.contains(&due.event));
    outbox.effects.erased.push(step.application.clone());
    Ok(erased)
}

/// Removes a verification, where it is there, and what hangs on it.
fn of_verification(
    outbox: &mut Outbox<'_>,
    step: &Erase,
    id: VerificationId,
    erased: &mut Erased,
    redacted: &mut HashSet<EventId>,
) -> Result<(), ApplyError> {
    let due = outbox.effects.due.len();
    let told = EventId(Ulid::generate());
    let ended = end(
        outbox,
        &End {
            verification: id,
            status: Status::Canceled,
            reasons: Reasons::of(Reason::Erased),
            event: told,
            at: step.at,
            idempotency: None,
        },
    )?;
    // It is told without the phone, so it is read from the store.
    outbox.effects.due.truncate(due);
    erased.ended += u64::from(ended.is_some());
    let connection = outbox.connection;
    let id = id.to_string();
    let removed = "DELETE FROM verifications WHERE id = ?1 AND application = ?2";
    if connection.prepare_cached(removed)?.execute([&id, &step.application])? == 0 {
        return Ok(());
    }
    erased.verifications += 1;
    erased.calls += count(connection.prepare_cached("DELETE FROM calls WHERE verification = ?1")?.execute([&id])?);
    let answers = "DELETE FROM idempotency WHERE verification = ?1";
    erased.answers += count(connection.prepare_cached(answers)?.execute([&id])?);
    let events = "SELECT seq, type, at, body, id FROM events WHERE verification = ?1";
    let read = |row: &rusqlite::Row<'_>| {
        let body = row.get::<_, Arc<str>>(3)?;
        Ok((row.get::<_, i64>(0)?, row::event_type(row, 1)?, row::time(row, 2)?, body, row::event_id(row, 4)?))
    };
    let events: Vec<_> = connection.prepare_cached(events)?.query_map([&id], read)?.collect::<rusqlite::Result<_>>()?;
    for (seq, kind, at, body, event) in events.into_iter().filter(|(_, kind, ..)| !kind.is_of_delivery()) {
        let left = erased_body(kind, at, &id, &body);
        connection.prepare_cached("UPDATE events SET body = ?2 WHERE seq = ?1")?.execute(params![seq, left])?;
        erased.events += 1;
        redacted.insert(event);
        if event == told {
            continue;
        }
        for (state, due) in [("due", 1), ("parked", 0)] {
            let sql = "UPDATE deliveries SET state = 'erased' WHERE event = ?1 AND state = ?2";
            let stopped = connection.prepare_cached(sql)?.execute(params![seq, state])?;
            outbox.effects.backlog -= due * i64::try_from(stopped).unwrap_or(i64::MAX);
            erased.deliveries += count(stopped);
        }
    }
    Ok(())
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

/// Whether a verification is there: what a chunk of unknown outcome has removed is not.
pub(super) fn is_done(connection: &Connection, step: &Erase) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM verifications WHERE id = ?1";
    for id in &step.verifications {
        if connection.prepare_cached(sql)?.query_row([id.to_string()], |_| Ok(())).optional()?.is_some() {
            return Ok(false);
        }
    }
    let sql = "SELECT 1 FROM calls WHERE id = ?1 AND caller IS NOT NULL";
    for id in &step.calls {
        if connection.prepare_cached(sql)?.query_row([id], |_| Ok(())).optional()?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Does again what an audit log says was erased, in the database of a node that does not run: those of it that are
/// there, as after a backup was put back. `texts` are entries of the kind `phone.erased`. Gives the steps to be done.
#[must_use]
pub fn again(texts: &[String], at: SystemTime) -> Vec<Erase> {
    let mut steps = Vec::new();
    for text in texts {
        let Some(entry) = crate::audit::chain::Entry::parse(text) else { continue };
        let Ok(entry) = serde_json::from_str::<Entry>(entry.data.get()) else { continue };
        steps.push(Erase {
            application: entry.application,
            verifications: entry.verifications.iter().filter_map(|id| id.parse().ok()).collect(),
            calls: entry.calls,
            key: entry.key,
            at,
        });
    }
    steps
}
