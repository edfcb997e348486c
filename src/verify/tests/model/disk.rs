//! What is on disk, against what was promised.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::Connection;

use super::*;
use crate::audit::check::Checker;
use crate::store::{AuditLog, StoreError};

/// A row that waits for its call.
pub(super) struct Pending {
    pub(super) phone: E164,
    pub(super) number: E164,
    pub(super) expires_at: SystemTime,
}

impl World {
    fn connection(&self) -> Connection {
        Connection::open(self.folder.join("test.db")).unwrap()
    }

    pub(super) fn pending(&self) -> Vec<Pending> {
        let connection = self.connection();
        let sql = "SELECT phone, number, expires_at FROM verifications WHERE status = 'pending'";
        let mut statement = connection.prepare(sql).unwrap();
        let number = |value: i64| E164::from_u64(value.unsigned_abs()).unwrap();
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Pending {
                phone: number(row.get(0)?),
                number: number(row.get(1)?),
                expires_at: UNIX_EPOCH + Duration::from_millis(row.get::<_, i64>(2)?.unsigned_abs()),
            })
        };
        statement.query_map([], read).unwrap().map(Result::unwrap).collect()
    }

    /// What is on disk, while no process is there, against what was promised.
    pub(super) fn look(&mut self) {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT id, status, phone, number FROM verifications").unwrap();
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(String, String, i64, i64)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        };
        let rows: Vec<_> = statement.query_map([], read).unwrap().map(Result::unwrap).collect();
        let status: HashMap<&str, &str> = rows.iter().map(|row| (row.0.as_str(), row.1.as_str())).collect();
        for id in self.promised.created.keys() {
            assert!(status.contains_key(&*id.to_string()), "{id} was answered 201 and is gone");
        }
        let mut by = BTreeMap::new();
        for (key, id) in &self.promised.verified {
            assert_eq!(status[&*id.to_string()], "verified", "call {key} was answered 486 for {id}");
            assert_eq!(by.insert(id, key), None, "{id} was verified by two calls");
        }
        for id in &self.promised.canceled {
            assert_eq!(status[&*id.to_string()], "canceled", "the cancel of {id} was answered 200");
        }
        let mut pairs = BTreeSet::new();
        for (id, state, phone, number) in &rows {
            if state == "pending" {
                assert!(pairs.insert((phone, number)), "a pair is pending for {id} and another one");
            } else if let Some(before) = self.promised.seen.insert(id.clone(), state.clone()) {
                assert_eq!(before, *state, "{id} has ended twice");
            }
            let events = "SELECT count(*) FROM events WHERE verification = ?1 AND type IN \
                          ('verification.verified', 'verification.expired', 'verification.canceled')";
            let told: i64 = connection.prepare_cached(events).unwrap().query_row([id], |row| row.get(0)).unwrap();
            let entries = "SELECT count(*) FROM audit WHERE verification = ?1";
            let entries: i64 = connection.prepare_cached(entries).unwrap().query_row([id], |row| row.get(0)).unwrap();
            let ended = i64::from(state != "pending");
            assert_eq!((told, entries), (ended, ended), "terminal events and entries of {id}, which is {state}");
            let kind = format!("verification.{state}");
            let sql = "SELECT count(*) FROM events WHERE verification = ?1 AND type = ?2";
            let same: i64 = connection.prepare_cached(sql).unwrap().query_row([id, &kind], |row| row.get(0)).unwrap();
            assert_eq!(same, ended, "{id} is {state}");
        }
        let claims = "SELECT count(*), count(DISTINCT call_key) FROM calls WHERE outcome = 'verified'";
        let (claims, calls): (i64, i64) =
            connection.query_row(claims, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(claims, calls, "a call has verified two");
        let mut checker = Checker::new(&[]);
        let log = AuditLog::open(&self.folder.join("test.db")).unwrap();
        log.entries(None, |row| -> Result<(), StoreError> {
            checker.entry(row.seq, &row.text, &row.hash, row.agrees);
            Ok(())
        })
        .unwrap();
        assert_eq!(checker.finish().faults, [], "the audit log is whole");
    }
}
