//! What erasing removes, what it leaves, and what it leaves of a person in the file.

use super::*;
use crate::audit::chain::Entry;
use crate::audit::kind::Kind;
use crate::matcher::phone_key::PhoneKey;

/// A verification of the phone `n` with a key of its own and an answer kept.
fn begin(node: &Node, n: u64) -> VerificationId {
    let mut step = create(n);
    step.verification.phone_key = Some(PhoneKey([u8::try_from(n % 200).unwrap(); 32]));
    step.verification.reference = Some(format!("customer-{n}"));
    step.idempotency = Some(idempotency(&n.to_string(), 201));
    let id = step.verification.id;
    wait(|done| node.store.create(step, done)).unwrap();
    id
}

fn erase(node: &Node, n: u64) -> Erased {
    let traces = block_on(node.store.traces("demo", phone(n))).unwrap();
    let step = Erase {
        application: "demo".into(),
        verifications: traces.verifications.into_iter().map(|(id, _)| id).collect(),
        calls: traces.calls,
        key: None,
        at: at(100),
    };
    wait(|done| node.store.erase(step, done)).unwrap()
}

#[test]
fn everything_of_a_phone_goes_and_nothing_of_another() {
    let mut node = Node::new();
    let (verified, pending, other) = (begin(&node, 1), begin(&node, 1_000_001), begin(&node, 2));
    node.claim(verified, 11).unwrap();
    node.note(pending, 12, EventType::CallReceived).unwrap();
    assert!(block_on(node.store.recorded("demo", verified)).unwrap().is_some());
    let before = node.due(at(10_000_000)).len();
    let erased = erase(&node, 1);
    let expected = Erased { verifications: 2, ended: 1, calls: 2, events: 5, deliveries: 4, answers: 2 };
    assert_eq!(erased, expected);
    assert_eq!((node.read(verified), node.read(pending)), (None, None));
    assert!(node.answer("1").is_none() && node.answer("2").is_some());
    assert!(node.read(other).is_some());
    // What was not delivered is not sent; that the pending one has ended is, without a word of the person.
    let due = node.due(at(10_000_000));
    assert_eq!(due.len(), before - 4 + 1);
    let told = due.iter().find(|due| due.kind == EventType::Canceled).unwrap();
    let body: serde_json::Value = serde_json::from_str(&told.body).unwrap();
    let left = serde_json::json!({"id": pending.to_string(), "object": "verification", "sequence": 3, "erased": true});
    assert_eq!(body["data"], left);
    assert_eq!(node.metrics.webhook_backlog.get(), i64::try_from(due.len()).unwrap());
    // Ids, types and order of the events stay.
    assert_eq!(node.events(verified), ["verification.created", "verification.verified"]);
    assert_eq!(node.events(pending), ["verification.created", "verification.call_received", "verification.canceled"]);
    // What says that it was proven stays, and says no more whom it was.
    assert!(block_on(node.store.recorded("demo", verified)).unwrap().is_some());
    assert_eq!(erase(&node, 1), Erased::default());
    node.restart();
    assert_eq!(node.read(verified), None);
}

#[test]
fn calls_of_the_phone_on_others_verifications_lose_its_number() {
    let node = Node::new();
    let other = begin(&node, 2);
    // The caller of the tests' calls, phone 123, names a verification of phone 2.
    node.note(other, 12, EventType::CallReceived).unwrap();
    let erased = erase(&node, 123);
    assert_eq!(erased, Erased { calls: 1, ..Erased::default() });
    assert_eq!(node.column("SELECT caller FROM calls"), [None]);
    assert!(node.read(other).is_some());
}

#[test]
fn the_number_is_nowhere_in_the_files_any_more() {
    let node = Node::new();
    let id = begin(&node, 7);
    node.claim(id, 11).unwrap();
    for n in 100..140 {
        begin(&node, n);
    }
    let needle = phone(7).to_string();
    let digits = needle.trim_start_matches('+').as_bytes().to_vec();
    let holds = |bytes: &[u8]| bytes.windows(digits.len()).any(|window| window == digits);
    let files = || -> Vec<Vec<u8>> {
        let mut log = node.folder.database().into_os_string();
        log.push("-wal");
        [node.folder.database(), log.into()].iter().map(|path| std::fs::read(path).unwrap_or_default()).collect()
    };
    assert!(files().iter().any(|bytes| holds(bytes)), "it was there");
    assert!(erase(&node, 7).verifications >= 1);
    assert!(node.store.truncate_log());
    assert!(!files().iter().any(|bytes| holds(bytes)));
}

#[test]
fn an_erasure_is_done_again_by_its_entries() {
    let node = Node::new();
    let id = begin(&node, 5);
    erase(&node, 5);
    let mut texts = Vec::new();
    let log = AuditLog::open(&node.folder.database()).unwrap();
    log.entries(Some(Kind::PhoneErased), |row| -> Result<(), StoreError> {
        texts.push(row.text);
        Ok(())
    })
    .unwrap();
    assert!(Entry::parse(&texts[0]).unwrap().data.get().contains(&id.to_string()));

    let restored = Node::new();
    begin(&restored, 5);
    for step in erase_again(&texts, at(200)) {
        wait(|done| restored.store.erase(step, done)).unwrap();
    }
    assert_eq!(restored.read(id), None);
}

#[test]
fn a_copy_is_one_moment_of_a_store_at_work() {
    let node = Node::new();
    for n in 1..=50 {
        begin(&node, n);
    }
    let copied = node.folder.database().with_extension("copy");
    copy(&node.folder.database(), &copied).unwrap();
    begin(&node, 51);
    let copy = Connection::open(&copied).unwrap();
    let count: i64 = copy.query_row("SELECT count(*) FROM verifications", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 50);
    let version: i64 = copy.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, i64::try_from(schema::VERSION).unwrap());
}
