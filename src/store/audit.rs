//! The rows of the audit log: written by the writer in the transaction of what they tell, read for receipts and exports.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::apply::{ApplyError, Outbox};
use super::queue::Urgency;
use super::row::{self, millis};
use super::step::{Audit, Checkpoint, Work};
use super::{StepError, Store, StoreError, schema};
use crate::audit::chain::{Chain, Entry, hash};
use crate::audit::kind::Kind;
use crate::matcher::verification::VerificationId;
use crate::receipt::statement::Recorded;

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its place.
    pub seq: u64,
    /// Its text.
    pub text: String,
    /// The hash that was kept with it.
    pub hash: Vec<u8>,
    /// Whether what stands beside the text for look-ups is what the text says.
    pub agrees: bool,
}

/// How far the log has come, and how far that was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditHead {
    /// The last entry.
    pub chain: Chain,
    /// Entry of the newest checkpoint; 0 for none.
    pub signed: u64,
}

impl Outbox<'_> {
    /// Puts an entry behind the last one. `data` is a JSON object.
    pub(super) fn audit(
        &mut self,
        at: SystemTime,
        kind: Kind,
        verification: Option<VerificationId>,
        data: &str,
    ) -> Result<(), ApplyError> {
        Ok(append(self.connection, &mut self.effects.chain, at, kind, verification, data)?)
    }
}

/// Puts an entry behind the last one.
pub(super) fn append(
    connection: &Connection,
    chain: &mut Chain,
    at: SystemTime,
    kind: Kind,
    verification: Option<VerificationId>,
    data: &str,
) -> rusqlite::Result<()> {
    let at = row::whole_millis(at);
    let link = chain.append(at, kind, data);
    let sql = "INSERT INTO audit (seq, at, kind, verification, text, hash) \
               VALUES (:seq, :at, :kind, :verification, :text, :hash)";
    let parameters = named_params! {
        ":seq": link.seq.cast_signed(),
        ":at": millis(at),
        ":kind": kind.as_str(),
        ":verification": verification.map(|id| id.to_string()),
        ":text": link.text,
        ":hash": link.hash,
    };
    connection.prepare_cached(sql)?.execute(parameters).map(drop)
}

/// Keeps a checkpoint.
pub(super) fn keep_checkpoint(connection: &Connection, seq: u64, at: SystemTime, jws: &str) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO audit_checkpoints (seq, at, jws) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![seq.cast_signed(), millis(at), jws]).map(drop)
}

/// How far the log has come.
pub(super) fn chain(connection: &Connection) -> rusqlite::Result<Chain> {
    let sql = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| Ok(Chain { seq: row.get::<_, i64>(0)?.unsigned_abs(), hash: row.get(1)? });
    let last = connection.prepare_cached(sql)?.query_row([], read).optional()?;
    // Age alone never removes the last one.
    Ok(last.unwrap_or_default())
}

fn signed(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce(max(seq), 0) FROM audit_checkpoints";
    connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

impl Store {
    /// Puts an entry into the audit log.
    pub fn audit(&self, step: Audit, done: impl FnOnce(Result<(), StepError>) + Send + 'static) {
        self.inner.ask(Urgency::Create, Work::Audit(Box::new(step)), drop, done);
    }

    /// Keeps a checkpoint of the audit log.
    pub fn checkpoint(&self, step: Checkpoint, done: impl FnOnce(Result<(), StepError>) + Send + 'static) {
        self.inner.ask(Urgency::Delivery, Work::Checkpoint(Box::new(step)), drop, done);
    }

    /// How far the audit log has come.
    ///
    /// # Errors
    /// As [`Store::verification`].
    pub async fn audit_head(&self) -> Result<AuditHead, StoreError> {
        let read = |connection: &Connection| Ok(AuditHead { chain: chain(connection)?, signed: signed(connection)? });
        self.inner.readers.read(read).await
    }

    /// What the audit log holds of a verification of this application that has ended.
    ///
    /// # Errors
    /// As [`Store::verification`].
    pub async fn recorded(
        &self,
        application: &str,
        verification: VerificationId,
    ) -> Result<Option<Recorded>, StoreError> {
        let application = application.to_owned();
        self.inner.readers.read(move |connection| recorded(connection, &application, verification)).await
    }
}

fn recorded(connection: &Connection, application: &str, id: VerificationId) -> rusqlite::Result<Option<Recorded>> {
    let sql = "SELECT seq, text, hash, at, kind, verification FROM audit WHERE verification = ?1";
    let found = connection.prepare_cached(sql)?.query_row([id.to_string()], entry).optional()?;
    let Some(row) = found else { return Ok(None) };
    let recorded = || {
        let hash: [u8; 32] = row.hash.as_slice().try_into().ok().filter(|kept| hash(&row.text) == *kept)?;
        let entry = Entry::parse(&row.text).filter(|entry| row.agrees && entry.seq == row.seq)?;
        let at = humantime::parse_rfc3339(entry.at).ok()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Some(Recorded { seq: row.seq, hash, at, data: entry.data.get().to_owned() })
    };
    let Some(recorded) = recorded() else {
        // Nothing is signed that was changed.
        tracing::error!(
            entry = row.seq,
            "an entry of the audit log is not as it was written: run `ringproof audit verify`"
        );
        return Ok(None);
    };
    let owner: serde_json::Value = serde_json::from_str(&recorded.data).unwrap_or_default();
    Ok((owner["application"] == application).then_some(recorded))
}

/// The audit log of a database that another process may be writing: one moment of it.
pub struct AuditLog {
    connection: Connection,
}

impl AuditLog {
    /// Opens the database at `path` for reading.
    ///
    /// # Errors
    /// `StoreError::Open`, `Read`, or `Newer` where another version has written it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = schema::open_reader(path)?;
        schema::require_current(&connection)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.execute_batch("BEGIN")?;
        Ok(Self { connection })
    }

    /// The checkpoints, the oldest first: the entry that each was stored for, and its signature.
    ///
    /// # Errors
    /// `StoreError::Read`.
    pub fn checkpoints(&self) -> Result<Vec<(u64, String)>, StoreError> {
        let mut statement = self.connection.prepare("SELECT seq, jws FROM audit_checkpoints ORDER BY seq")?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?));
        Ok(statement.query_map([], read)?.collect::<Result<_, _>>()?)
    }

    /// The last entry, where there is one.
    ///
    /// # Errors
    /// `StoreError::Read`.
    pub fn last(&self) -> Result<Option<AuditRow>, StoreError> {
        let sql = "SELECT seq, text, hash, at, kind, verification FROM audit ORDER BY seq DESC LIMIT 1";
        Ok(self.connection.prepare(sql)?.query_row([], entry).optional()?)
    }

    /// Has `each` see the entries of this kind, of all kinds without one, the oldest first. It ends where that fails.
    ///
    /// # Errors
    /// `StoreError::Read`, and what `each` gives.
    pub fn entries<E: From<StoreError>>(
        &self,
        kind: Option<Kind>,
        mut each: impl FnMut(AuditRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = "SELECT seq, text, hash, at, kind, verification FROM audit ORDER BY seq";
        let mut statement = self.connection.prepare(sql).map_err(StoreError::Read)?;
        for row in statement.query_map([], entry).map_err(StoreError::Read)? {
            let row = row.map_err(StoreError::Read)?;
            // By the text, which is what the hash is of.
            let is = |kind: Kind| Entry::parse(&row.text).is_none_or(|entry| entry.kind == kind.as_str());
            if kind.is_none_or(is) {
                each(row)?;
            }
        }
        Ok(())
    }
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<AuditRow> {
    #[derive(serde::Deserialize)]
    struct Named {
        verification: Option<String>,
    }
    let (seq, text): (_, String) = (row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?);
    let (at, kind, verification): (i64, String, Option<String>) = (row.get(3)?, row.get(4)?, row.get(5)?);
    let agrees = Entry::parse(&text).is_some_and(|entry| {
        let ended = kind == Kind::VerificationEnded.as_str();
        let named = || serde_json::from_str::<Named>(entry.data.get()).ok().and_then(|data| data.verification);
        entry.kind == kind
            && humantime::parse_rfc3339(entry.at).is_ok_and(|time| millis(time) == at)
            && verification == if ended { named() } else { None }
    });
    Ok(AuditRow { seq, text, hash: row.get(2)?, agrees })
}
