//! Pages of what is stored: an application's verifications and its events, and the calls of a verification.
//!
//! Every page is one snapshot, found by an index, and looks at no more than [`MAX_EXAMINED`] rows, so that no wish
//! takes long. Where a filter leaves few of them, a page holds less than it may, and says where to go on.

use std::fmt;
use std::time::SystemTime;

use rusqlite::types::Null;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use ulid::Ulid;

use super::row::{self, columns, millis};
use super::{Store, StoreError};
use crate::call::assurance::{Assurance, Reasons};
use crate::e164::E164;
use crate::matcher::verification::{Status, Verification, VerificationId};
use crate::outbox::event::EventType;

/// Most rows that a page looks at.
pub(super) const MAX_EXAMINED: u32 = 10_000;
/// A page of events ends behind the one with which its bodies reach this many bytes.
const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// How far the order of ids and that of rows may be apart: creations that run at once overtake one another.
pub(super) const OVERTAKEN: u32 = 1_000;

/// Entries in their order, and where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// Id to go on behind; `None` on the last page.
    pub next: Option<String>,
}

/// Which verifications are wanted: those that fit everything that is there.
#[derive(Clone, Default)]
pub struct VerificationFilter {
    /// How they stand.
    pub status: Option<Status>,
    /// Whom they are to prove.
    pub phone: Option<E164>,
    /// The application's own name for them.
    pub reference: Option<String>,
    /// Created later than this.
    pub created_after: Option<SystemTime>,
    /// Created earlier than this.
    pub created_before: Option<SystemTime>,
}

impl fmt::Debug for VerificationFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationFilter")
            .field("status", &self.status)
            .field("phone", &self.phone)
            .finish_non_exhaustive()
    }
}

/// A call that named a verification's pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRow {
    /// `call_` and a ULID.
    pub id: String,
    /// Name of the trunk that carried it.
    pub trunk: String,
    /// The caller; `None` where there is no number, or one that may not be shown.
    pub caller: Option<E164>,
    /// The header that named the caller.
    pub source: Option<String>,
    /// The dialled number.
    pub dialled: Option<E164>,
    /// Its level of proof.
    pub assurance: Assurance,
    /// What speaks against it, or is worth telling.
    pub reasons: Reasons,
    /// `verified`, `refused` or `late`.
    pub outcome: String,
    /// When the INVITE came in, UTC.
    pub received_at: SystemTime,
    /// How it was judged, as a JSON list of steps; `None` of a call from before version 3 of the schema.
    pub trace: Option<String>,
}

/// An event of the pull feed.
#[derive(Clone, PartialEq, Eq)]
pub struct EventRow {
    /// `evt_` and a ULID.
    pub id: String,
    /// The body that webhooks carry, byte for byte.
    pub body: String,
}

impl fmt::Debug for EventRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body names the phone in full.
        f.debug_struct("EventRow").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Store {
    /// Verifications of an application, the newest first, at most `limit`. `None`: `after` is none of them.
    ///
    /// # Errors
    /// As [`Store::verification`].
    pub async fn verifications(
        &self,
        application: &str,
        filter: VerificationFilter,
        after: Option<VerificationId>,
        limit: u32,
    ) -> Result<Option<Page<Verification>>, StoreError> {
        let application = application.to_owned();
        let read = move |connection: &Connection| verifications(connection, &application, &filter, after, limit);
        self.inner.readers.read(read).await
    }

    /// Calls that named the pair of a verification, the newest first, at most `limit`. `None`: `after` is none of them.
    ///
    /// # Errors
    /// As [`Store::verification`].
    pub async fn calls(
        &self,
        verification: VerificationId,
        after: Option<String>,
        limit: u32,
    ) -> Result<Option<Page<CallRow>>, StoreError> {
        self.inner.readers.read(move |connection| calls(connection, verification, after.as_deref(), limit)).await
    }

    /// Events of an application in the order of their commits, at most `limit`. `None`: `after` is none of those that
    /// are kept.
    ///
    /// # Errors
    /// As [`Store::verification`].
    pub async fn events(
        &self,
        application: &str,
        kind: Option<EventType>,
        after: Option<String>,
        limit: u32,
    ) -> Result<Option<Page<EventRow>>, StoreError> {
        let application = application.to_owned();
        let read = move |connection: &Connection| events(connection, &application, kind, after.as_deref(), limit);
        self.inner.readers.read(read).await
    }
}

pub(super) fn verifications(
    connection: &Connection,
    application: &str,
    filter: &VerificationFilter,
    after: Option<VerificationId>,
    limit: u32,
) -> rusqlite::Result<Option<Page<Verification>>> {
    let snapshot = connection.unchecked_transaction()?;
    let mut range = range(&snapshot, filter)?;
    if let Some(after) = after {
        let sql = "SELECT seq FROM verifications WHERE id = ?1 AND application = ?2";
        let found = snapshot.prepare_cached(sql)?.query_row((after.to_string(), application), |row| row.get(0));
        let Some(seq) = found.optional()? else { return Ok(None) };
        range.last = range.last.min(i64::saturating_sub(seq, 1));
    }
    let (mut found, examined_to) = search(&snapshot, application, filter, range, limit)?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);

    let next = if more { found.last().copied() } else { examined_to };
    let sql = concat!("SELECT ", columns!(), " FROM verifications WHERE seq = ?1");
    let mut statement = snapshot.prepare_cached(sql)?;
    let mut read = |seq: i64| statement.query_row([seq], row::verification);
    let entries = found.iter().map(|seq| read(*seq)).collect::<rusqlite::Result<Vec<_>>>()?;
    let next = match next {
        Some(seq) => Some(read(seq)?.id.to_string()),
        None => None,
    };
    Ok(Some(Page { entries, next }))
}

/// Rows in question, both ends among them, and what their time of creation must be.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: i64,
    last: i64,
    after: i64,
    before: i64,
}

/// Ids begin with the time of creation and have an index, which gives the ends of a range of time.
fn range(connection: &Connection, filter: &VerificationFilter) -> rusqlite::Result<Range> {
    let mut range = Range { first: 0, last: i64::MAX, after: i64::MIN, before: i64::MAX };
    let bound = |millis: i64| VerificationId(Ulid::from_parts(millis.unsigned_abs(), 0)).to_string();
    if let Some(time) = filter.created_after {
        range.after = millis(time);
        let sql = "SELECT min(seq) FROM (SELECT seq FROM verifications WHERE id >= ?1 ORDER BY id LIMIT ?2)";
        let id = bound((range.after - 1_000).max(0));
        let first = connection.prepare_cached(sql)?.query_row((id, OVERTAKEN), |row| row.get::<_, Option<i64>>(0))?;
        range.first = first.unwrap_or(i64::MAX);
    }
    if let Some(time) = filter.created_before {
        let whole = row::whole_millis(time) == time;
        range.before = millis(time) + i64::from(!whole);
        let sql = "SELECT max(seq) FROM (SELECT seq FROM verifications WHERE id < ?1 ORDER BY id DESC LIMIT ?2)";
        let id = bound(range.before + 1_000);
        let last = connection.prepare_cached(sql)?.query_row((id, OVERTAKEN), |row| row.get::<_, Option<i64>>(0))?;
        range.last = last.unwrap_or(0);
    }
    Ok(range)
}

/// Looks through the rows that the narrowest index gives. Beside what fits, where it is no full page and more rows
/// remain: the last one that was looked at.
fn search(
    connection: &Connection,
    application: &str,
    filter: &VerificationFilter,
    range: Range,
    limit: u32,
) -> rusqlite::Result<(Vec<i64>, Option<i64>)> {
    let phone = filter.phone.map(row::integer);
    let status = filter.status.map(Status::as_str);
    let (sql, key): (&str, &dyn ToSql) = match (&phone, &filter.reference, &status) {
        (Some(phone), _, _) => (OF_PHONE, phone),
        (_, Some(reference), _) => (OF_REFERENCE, reference),
        (_, _, Some(status)) => (OF_STATUS, status),
        (None, None, None) => (OF_APPLICATION, &Null),
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![application, range.first, range.last, MAX_EXAMINED + 1, key])?;
    let (mut found, mut last) = (Vec::new(), None);
    for _ in 0..MAX_EXAMINED {
        let Some(row) = rows.next()? else { return Ok((found, None)) };
        let (seq, created) = (row.get(0)?, row.get::<_, i64>(3)?);
        let is = |index, wanted: Option<&str>| -> rusqlite::Result<bool> {
            Ok(wanted.is_none() || row.get_ref(index)?.as_str_or_null()? == wanted)
        };
        if is(1, status)? && is(2, filter.reference.as_deref())? && created > range.after && created < range.before {
            found.push(seq);
            if found.len() > limit as usize {
                return Ok((found, None));
            }
        }
        last = Some(seq);
    }
    let more = rows.next()?.is_some();
    Ok((found, last.filter(|_| more)))
}

macro_rules! newest {
    ($condition:literal) => {
        concat!(
            "SELECT seq, status, reference, created_at FROM verifications WHERE application = ?1",
            $condition,
            " AND seq BETWEEN ?2 AND ?3 ORDER BY seq DESC LIMIT ?4"
        )
    };
}

/// Each is served by an index on the columns that it names, whose entries stand in the order of rows.
pub(super) const OF_APPLICATION: &str = newest!(" AND ?5 IS NULL");
pub(super) const OF_STATUS: &str = newest!(" AND status = ?5");
pub(super) const OF_PHONE: &str = newest!(" AND phone = ?5");
pub(super) const OF_REFERENCE: &str = newest!(" AND reference = ?5");
pub(super) const CALLS: &str = "SELECT id, trunk, caller, source, dialled, assurance, reasons, outcome, received_at, \
    trace FROM calls WHERE verification = ?1 AND rowid < ?2 ORDER BY rowid DESC LIMIT ?3";
pub(super) const EVENTS: &str =
    "SELECT id, type, body FROM events WHERE application = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";

pub(super) fn calls(
    connection: &Connection,
    verification: VerificationId,
    after: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Option<Page<CallRow>>> {
    let snapshot = connection.unchecked_transaction()?;
    let verification = verification.to_string();
    let mut before = i64::MAX;
    if let Some(after) = after {
        let sql = "SELECT rowid FROM calls WHERE id = ?1 AND verification = ?2";
        let found = snapshot.prepare_cached(sql)?.query_row((after, &verification), |row| row.get(0)).optional()?;
        let Some(place) = found else { return Ok(None) };
        before = place;
    }
    let mut statement = snapshot.prepare_cached(CALLS)?;
    let found = statement.query_map((&verification, before, limit.saturating_add(1)), call)?;
    let mut entries = found.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next = entries.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Some(Page { entries, next }))
}

fn call(row: &Row<'_>) -> rusqlite::Result<CallRow> {
    Ok(CallRow {
        id: row.get(0)?,
        trunk: row.get(1)?,
        caller: row::maybe(row, 2, |index| row::number(row, index))?,
        source: row.get(3)?,
        dialled: row::maybe(row, 4, |index| row::number(row, index))?,
        assurance: row::assurance(row, 5)?,
        reasons: Reasons::from_bits(row.get(6)?),
        outcome: row.get(7)?,
        received_at: row::time(row, 8)?,
        trace: row.get(9)?,
    })
}

pub(super) fn events(
    connection: &Connection,
    application: &str,
    kind: Option<EventType>,
    after: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Option<Page<EventRow>>> {
    let snapshot = connection.unchecked_transaction()?;
    let mut behind = 0;
    if let Some(after) = after {
        let sql = "SELECT seq FROM events WHERE id = ?1 AND application = ?2";
        let found = snapshot.prepare_cached(sql)?.query_row((after, application), |row| row.get(0)).optional()?;
        let Some(seq) = found else { return Ok(None) };
        behind = seq;
    }
    let mut statement = snapshot.prepare_cached(EVENTS)?;
    let mut rows = statement.query(params![application, behind, MAX_EXAMINED + 1])?;
    let (mut entries, mut bytes, mut examined, mut last) = (Vec::new(), 0, 0, None);
    while let Some(row) = rows.next()? {
        if examined == MAX_EXAMINED || entries.len() == limit as usize || bytes >= MAX_PAGE_BYTES {
            return Ok(Some(Page { entries, next: last }));
        }
        examined += 1;
        let id: String = row.get(0)?;
        if kind.is_none_or(|kind| row.get_ref(1).is_ok_and(|text| text.as_str() == Ok(kind.as_str()))) {
            let body: String = row.get(2)?;
            bytes += body.len();
            entries.push(EventRow { id: id.clone(), body });
        }
        last = Some(id);
    }
    Ok(Some(Page { entries, next: None }))
}
