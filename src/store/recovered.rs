//! What a start brings back: all that memory must know before the first call is read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::Connection;

use super::row::{self, millis};
use super::writer;
use crate::call::assurance::Assurance;
use crate::call::event::CallKey;
use crate::e164::E164;
use crate::matcher::verification::{Status, VerificationId};

/// For how long a call that claimed is remembered over a restart: a peer repeats an INVITE for 32 s (RFC 3261
/// 17.1.1.2, Timer B).
const CLAIMS_REMEMBERED_MILLIS: i64 = 32_000;

/// Everything memory needs at start.
#[derive(Debug)]
pub struct Recovered {
    /// Verifications that wait for their call, also those whose window has passed meanwhile.
    pub pending: Vec<PendingRow>,
    /// Verifications whose (phone, number) pair may still rest, in the order of their end.
    pub resting: Vec<RestingRow>,
    /// Calls of the last 32 s that claimed a verification, oldest first.
    pub claimed_calls: Vec<CallKey>,
    /// Deliveries not done.
    pub backlog: u64,
}

/// A pending verification, as far as memory needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRow {
    /// Its id.
    pub id: VerificationId,
    /// Name of its application.
    pub application: Arc<str>,
    /// Whether it was begun in live mode.
    pub livemode: bool,
    /// The phone to be proven.
    pub phone: E164,
    /// The number that it is to call.
    pub number: E164,
    /// Lowest level of proof that verifies it.
    pub minimum_assurance: Assurance,
    /// UTC.
    pub created_at: SystemTime,
    /// End of the window, UTC.
    pub expires_at: SystemTime,
}

/// A verification that ended a short while ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestingRow {
    /// Its id.
    pub id: VerificationId,
    /// Name of its application.
    pub application: Arc<str>,
    /// Whether it was begun in live mode.
    pub livemode: bool,
    /// The phone.
    pub phone: E164,
    /// The number that it was to call.
    pub number: E164,
    /// How it ended.
    pub status: Status,
    /// When, UTC.
    pub ended_at: SystemTime,
}

/// What memory needs at start, as one snapshot.
pub fn recover(connection: &Connection, now: SystemTime, rested_from: SystemTime) -> rusqlite::Result<Recovered> {
    let snapshot = connection.unchecked_transaction()?;
    let mut names = BTreeSet::<Arc<str>>::new();
    let mut name = |text: &str| {
        if let Some(name) = names.get(text) {
            return Arc::clone(name);
        }
        let name: Arc<str> = text.into();
        names.insert(Arc::clone(&name));
        name
    };

    let sql = "SELECT id, application, phone, number, minimum_assurance, created_at, expires_at, livemode \
               FROM verifications WHERE status = 'pending'";
    let pending = snapshot
        .prepare(sql)?
        .query_map([], |row| {
            Ok(PendingRow {
                id: row::verification_id(row, 0)?,
                application: name(row.get_ref(1)?.as_str()?),
                phone: row::number(row, 2)?,
                number: row::number(row, 3)?,
                minimum_assurance: row::assurance(row, 4)?,
                created_at: row::time(row, 5)?,
                expires_at: row::time(row, 6)?,
                livemode: row.get(7)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;

    let sql = "SELECT id, application, phone, number, status, ended_at, livemode FROM verifications \
               WHERE ended_at >= ?1 ORDER BY ended_at";
    let resting = snapshot
        .prepare(sql)?
        .query_map([millis(rested_from)], |row| {
            Ok(RestingRow {
                id: row::verification_id(row, 0)?,
                application: name(row.get_ref(1)?.as_str()?),
                phone: row::number(row, 2)?,
                number: row::number(row, 3)?,
                status: row::status(row, 4)?,
                ended_at: row::time(row, 5)?,
                livemode: row.get(6)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;

    let sql = "SELECT call_key FROM calls WHERE received_at >= ?1 AND outcome = 'verified' ORDER BY received_at";
    let claimed_calls = snapshot
        .prepare(sql)?
        .query_map([millis(now) - CLAIMS_REMEMBERED_MILLIS], |row| Ok(CallKey(row.get::<_, i64>(0)?.cast_unsigned())))?
        .collect::<rusqlite::Result<Vec<_>>>()?;

    let backlog = writer::backlog(&snapshot)?.unsigned_abs();
    Ok(Recovered { pending, resting, claimed_calls, backlog })
}
