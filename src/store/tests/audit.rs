//! The audit log as the writer keeps it, over faults and restarts.

use std::sync::atomic::Ordering;

use super::*;
use crate::audit::chain::Chain;
use crate::audit::check::{Checker, Fault, Findings};
use crate::audit::kind::Kind;
use crate::matcher::phone_key::PhoneKey;

/// Checks the whole log by what is stored of it, with `signed`.
fn check(node: &Node, signed: &[Chain]) -> Findings {
    let mut checker = Checker::new(signed);
    let log = AuditLog::open(&node.folder.database()).unwrap();
    let all = log.entries(None, |row| -> Result<(), StoreError> {
        checker.entry(row.seq, &row.text, &row.hash, row.agrees);
        Ok(())
    });
    all.unwrap();
    checker.finish()
}

fn audit(node: &Node, n: u64) {
    wait(|done| node.store.audit(Audit { kind: Kind::KeyUsed, at: at(n), data: format!("{{\"n\":{n}}}") }, done))
        .unwrap();
}

fn sign(node: &Node, at: SystemTime) -> Chain {
    let head = block_on(node.store.audit_head()).unwrap();
    let checkpoint = Checkpoint { seq: head.chain.seq, at, jws: "a.b.c".into() };
    wait(|done| node.store.checkpoint(checkpoint, done)).unwrap();
    head.chain
}

#[test]
fn every_end_is_in_the_log_with_the_hmac_of_its_phone_and_nothing_else_of_it() {
    let node = Node::new();
    let key = PhoneKey([5; 32]);
    for n in 1..=4 {
        let mut step = create(n);
        step.verification.phone_key = Some(key);
        step.verification.api_key = Some("0011".into());
        wait(|done| node.store.create(step, done)).unwrap();
    }
    let ids: Vec<_> = (1..=4).map(|n| create(n).verification.id).collect();
    node.claim(ids[0], 11).unwrap();
    node.end(ids[1], 12, Status::Expired).unwrap();
    node.end(ids[2], 13, Status::Canceled).unwrap();
    // What has ended, or never was, leaves none.
    node.end(ids[0], 14, Status::Expired).unwrap();
    let found = check(&node, &[]);
    assert_eq!((found.faults, found.entries), (vec![], 3));
    let recorded = |id| block_on(node.store.recorded("demo", id)).unwrap();
    let first = recorded(ids[0]).unwrap();
    let data: serde_json::Value = serde_json::from_str(&first.data).unwrap();
    assert_eq!((&data["status"], &data["key"]), (&"verified".into(), &"0011".into()));
    assert_eq!(data["phone_hmac"], hex::encode(key.hmac(phone(1))));
    assert_eq!(data["call"]["trunk"], "local");
    assert!(!first.data.contains(&phone(1).to_string()));
    assert!(recorded(ids[3]).is_none(), "it is pending");
    assert_eq!(block_on(node.store.recorded("other", ids[0])).unwrap(), None);
}

#[test]
fn the_chain_goes_on_after_what_was_undone_unknown_or_restarted() {
    let mut node = Node::new();
    audit(&node, 1);
    // One that fails alone.
    node.create(1).unwrap();
    let mut poison = create(2);
    poison.event = EventId(Ulid(1));
    assert!(wait(|done| node.store.create(poison, done)).is_err());
    audit(&node, 2);
    for planned in [1, 2] {
        node.faults.planned().commit.store(planned, Ordering::SeqCst);
        let id = create(10 + u64::from(planned)).verification.id;
        let _ = node.create(10 + u64::from(planned));
        until(|| node.not_ready().is_none());
        let _ = node.end(id, 20 + u64::from(planned), Status::Expired);
        audit(&node, 3);
    }
    node.restart();
    audit(&node, 4);
    let found = check(&node, &[]);
    assert_eq!(found.faults, vec![]);
    assert_eq!(block_on(node.store.audit_head()).unwrap().chain, found.last);
}

#[test]
fn what_is_done_to_the_log_by_hand_is_found() {
    let node = Node::new();
    for n in 1..=20 {
        audit(&node, n);
    }
    let signed = [sign(&node, at(21))];
    assert_eq!(check(&node, &signed).faults, vec![]);
    let hand = node.connection();
    hand.execute("UPDATE audit SET text = replace(text, '\"n\":7', '\"n\":8') WHERE seq = 7", []).unwrap();
    assert_eq!(check(&node, &signed).faults, [Fault::Changed(7)]);
    hand.execute("UPDATE audit SET kind = 'node.started' WHERE seq = 9", []).unwrap();
    assert_eq!(check(&node, &signed).faults, [Fault::Changed(7), Fault::Relabeled(9)]);
    hand.execute("UPDATE audit SET kind = 'key.used', at = at + 1 WHERE seq = 9", []).unwrap();
    assert_eq!(check(&node, &signed).faults, [Fault::Changed(7), Fault::Relabeled(9)]);
    hand.execute("UPDATE audit SET at = at - 1 WHERE seq = 9", []).unwrap();
    hand.execute("DELETE FROM audit WHERE seq IN (7, 12, 20)", []).unwrap();
    assert_eq!(check(&node, &signed).faults, [Fault::Removed(7, 7), Fault::Removed(12, 12), Fault::Removed(20, 20)]);
}

#[test]
fn age_removes_the_beginning_up_to_what_was_signed_and_never_the_last() {
    let node = Node::new();
    let now = 900 * DAY;
    let mut signed = Vec::new();
    for n in 0..4 {
        for _ in 0..5 {
            audit(&node, n * 300 * DAY);
        }
        signed.push(sign(&node, at(n * 300 * DAY)));
    }
    node.store.set_retention(Retention {
        audit: Duration::from_hours(24 * 400),
        ..Retention::of_all(Duration::from_hours(1))
    });
    node.store.purge(at(now));
    // Signed at 0 and 300 days: older than 400 days before day 900.
    until(|| node.column("SELECT min(seq) FROM audit") == [Some(11)]);
    assert_eq!(node.column("SELECT max(seq) FROM audit"), [Some(21)], "of which the log tells");
    assert_eq!(node.column("SELECT seq FROM audit_checkpoints ORDER BY seq"), [Some(10), Some(15), Some(20)]);
    assert_eq!(check(&node, &signed[1..]).faults, vec![]);
    node.store.purge(at(now + 4_000 * DAY));
    until(|| node.column("SELECT min(seq) FROM audit") == [Some(21)]);
    assert_eq!(check(&node, &signed[3..]).faults, vec![]);
    node.connection().execute("DELETE FROM audit WHERE seq = 21", []).unwrap();
    assert!(!check(&node, &signed[3..]).faults.is_empty(), "that was not age");
}

#[test]
fn a_checkpoint_with_a_wrong_time_removes_nothing_that_is_young() {
    let node = Node::new();
    for n in 0..5 {
        audit(&node, 800 * DAY + n);
    }
    sign(&node, at(0));
    audit(&node, 800 * DAY + 9);
    node.store.set_retention(Retention::of_all(Duration::from_hours(24)));
    // The audit log is the last that a purge looks at: another one is taken when it is done.
    for n in 0..3 {
        node.store.purge(at(800 * DAY + 10));
        audit(&node, 800 * DAY + 11 + n);
    }
    node.store.close();
    assert_eq!(node.column("SELECT min(seq) FROM audit"), [Some(1)]);
}

const DAY: u64 = 86_400_000;
