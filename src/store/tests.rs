//! The store through its facade: what each step leaves behind, and what faults do.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use rusqlite::Connection;
use ulid::Ulid;

use super::*;
use crate::call::assurance::{Reason, Reasons};
use crate::call::event::{CallEvent, CallRecordId, CallerSource, Presentation, TrunkId};
use crate::outbox::delivery::Subscription;
use crate::outbox::event::{CallFacts, EventId};

const DEADLINE: Duration = Duration::from_secs(20);
const CALLER: u64 = 966_500_000_123;
const START: u64 = 1_764_000_000_000;

#[test]
fn create_leaves_a_pending_row_and_one_event_with_its_delivery() {
    let mut node = Node::new();
    let created = node.create(1).unwrap();
    assert_eq!((created.status, created.sequence), (Status::Pending, 1));
    assert_eq!(node.read(created.id), Some(created.clone()));
    assert_eq!(node.events(created.id), ["verification.created"]);

    let due = node.ready.try_recv().unwrap();
    assert_eq!((due.event, due.attempts, due.event_at), (EventId(Ulid(1)), 0, created.created_at));
    assert!(due.body.contains(r#""type":"verification.created""#) && due.body.contains(r#""sequence":1"#));
    assert_eq!(node.metrics.webhook_backlog.get(), 1);
    assert_eq!(node.reached("pending"), 1);
}

#[test]
fn claim_verifies_and_records_the_call() {
    let mut node = Node::new();
    let id = node.create(1).unwrap().id;
    let claimed = node.claim(id, 2).unwrap().unwrap();
    assert_eq!((claimed.status, claimed.sequence, claimed.assurance), (Status::Verified, 2, Some(Assurance::B)));
    assert!(claimed.reasons.contains(Reason::PresentedDiffers));
    assert_eq!(claimed.ended_at, Some(at(2)));
    assert_eq!(node.read(id), Some(claimed));
    assert_eq!(node.events(id), ["verification.created", "verification.verified"]);
    assert_eq!(node.column("SELECT caller FROM calls WHERE outcome = 'verified'"), [Some(CALLER.cast_signed())]);
    node.ready.try_recv().unwrap();
    assert!(node.ready.try_recv().unwrap().body.contains(r#""call":{"id":"call_"#));
    assert_eq!((node.reached("pending"), node.reached("verified")), (1, 1));
}

#[test]
fn a_restricted_number_is_stored_nowhere() {
    let node = Node::new();
    let other = "+966500000999".parse().unwrap();
    let id = node.create(1).unwrap().id;
    let mut step = claim(id, 2);
    step.call.event.presentation = Presentation::Restricted;
    step.call.event.caller = Some(other);
    wait(|done| node.store.claim(step, done)).unwrap().unwrap();
    assert_eq!(node.column("SELECT caller FROM calls"), [None]);
    node.store.close();
    let digits = other.as_u64().to_string();
    let file = std::fs::read(node.folder.database()).unwrap();
    assert!(!file.windows(digits.len()).any(|window| window == digits.as_bytes()));
}

#[test]
fn claim_of_an_ended_verification_changes_nothing() {
    let node = Node::new();
    let id = node.create(1).unwrap().id;
    let ended = node.end(id, 2, Status::Canceled).unwrap().unwrap();
    assert_eq!((ended.status, ended.ended_at), (Status::Canceled, Some(at(2))));
    assert_eq!(node.claim(id, 3), Ok(None));
    assert_eq!(node.end(id, 4, Status::Expired), Ok(None));
    assert_eq!(node.read(id), Some(ended));
    assert_eq!(node.events(id), ["verification.created", "verification.canceled"]);
    assert!(node.column("SELECT caller FROM calls").is_empty());
}

#[test]
fn claim_of_an_unknown_verification_is_none() {
    let node = Node::new();
    assert_eq!(node.claim(VerificationId(Ulid(9)), 1), Ok(None));
}

#[test]
fn note_adds_reasons_while_pending_and_a_late_call_changes_nothing() {
    let node = Node::new();
    let id = node.create(1).unwrap().id;
    node.note(id, 2, EventType::CallReceived).unwrap();
    let noted = node.read(id).unwrap();
    assert_eq!((noted.status, noted.sequence), (Status::Pending, 2));
    assert!(noted.reasons.contains(Reason::PresentedDiffers));

    let ended = node.end(id, 3, Status::Expired).unwrap().unwrap();
    node.note(id, 4, EventType::CallReceived).unwrap();
    node.note(id, 5, EventType::LateCall).unwrap();
    assert_eq!(node.read(id), Some(Verification { sequence: 4, ..ended }));
    let events = ["created", "call_received", "expired", "late_call"].map(|kind| format!("verification.{kind}"));
    assert_eq!(node.events(id), events);
    assert_eq!(node.column("SELECT call_key FROM calls ORDER BY received_at"), [Some(2), Some(5)]);
}

#[test]
fn expiries_of_any_number_are_answered_in_order() {
    let node = Node::new();
    let ids: Vec<_> = (1..=1_500).map(|n| create(n).verification.id).collect();
    let (sender, created) = mpsc::channel();
    for n in 1..=1_500 {
        let sender = sender.clone();
        node.store.create(create(n), move |answer| sender.send(answer.is_ok()).unwrap());
    }
    drop(sender);
    assert!(created.iter().all(|created| created));

    node.claim(ids[7], 5_000).unwrap().unwrap();
    let steps = ids.iter().zip(10_000..).map(|(id, n)| end(*id, n, Status::Expired)).collect();
    let answers = wait(|done| node.store.expire(steps, done));
    for (index, (answer, id)) in answers.into_iter().zip(&ids).enumerate() {
        let ended = answer.unwrap().map(|row| (row.id, row.status));
        assert_eq!(ended, (index != 7).then_some((*id, Status::Expired)));
    }
    assert!(wait(|done| node.store.expire(Vec::new(), done)).is_empty());
}

#[test]
fn group_commit_answers_every_waiter() {
    let node = Node::new();
    let (sender, answers) = mpsc::channel();
    for n in 1..=3_000 {
        let sender = sender.clone();
        node.store.create(create(n), move |answer| sender.send(answer.unwrap().id).unwrap());
    }
    drop(sender);
    assert_eq!(answers.iter().collect::<std::collections::HashSet<_>>().len(), 3_000);
    let commits = node.metrics.store_commit.get_sample_count();
    assert!(commits < 3_000, "{commits} commits");
    assert_eq!(node.metrics.store_batch.get_sample_sum() as u32, 3_000);
}

#[test]
fn a_new_start_finds_everything_again() {
    let mut node = Node::new();
    let [pending, verified, rested, canceled] = [1, 2, 3, 4].map(|n| node.create(n).unwrap());
    node.end(rested.id, 5, Status::Expired).unwrap().unwrap();
    node.claim(verified.id, 70_000).unwrap().unwrap();
    node.end(canceled.id, 71_000, Status::Canceled).unwrap().unwrap();
    node.note(pending.id, 72_000, EventType::CallReceived).unwrap();
    node.restart();

    let recovered = node.store.recover(at(90_000), Duration::from_secs(60)).unwrap();
    let row = PendingRow {
        id: pending.id,
        application: "demo".into(),
        phone: pending.phone,
        number: pending.number,
        minimum_assurance: Assurance::C,
        created_at: pending.created_at,
        expires_at: pending.expires_at,
    };
    assert_eq!(recovered.pending, [row]);
    let resting: Vec<_> = recovered.resting.iter().map(|row| (row.id, row.status)).collect();
    assert_eq!(resting, [(verified.id, Status::Verified), (canceled.id, Status::Canceled)]);
    assert_eq!(recovered.claimed_calls, [CallKey(70_000)]);
    assert_eq!(recovered.backlog, 8);
    assert_eq!(node.metrics.webhook_backlog.get(), 8);
    let later = node.store.recover(at(110_000), Duration::from_secs(60)).unwrap();
    assert_eq!(later.claimed_calls, []);
}

#[test]
fn every_field_reads_back() {
    let node = Node::new();
    let mut step = create(1);
    step.verification.livemode = true;
    step.verification.purpose = Some(crate::matcher::verification::Purpose::Consent);
    step.verification.consent =
        Some(crate::matcher::verification::Consent { document: "terms".into(), sha256: "ab".repeat(32) });
    step.verification.reference = Some("signup-88".into());
    step.verification.metadata = BTreeMap::from([("naïve \"key\"".into(), "v\n1".into())]);
    step.verification.locale = Some("ar".into());
    step.verification.client_ip = Some("192.0.2.1".into());
    step.verification.client_device_id = Some("device".into());
    step.verification.created_at += Duration::from_nanos(999);
    let created = wait(|done| node.store.create(step, done)).unwrap();
    assert_eq!(created.created_at, at(1));
    assert_eq!(node.read(created.id), Some(created));
}

#[test]
fn the_idempotency_answer_comes_with_the_step_and_only_with_it() {
    let node = Node::new();
    let mut step = create(1);
    step.idempotency = Some(idempotency("k1", 201));
    let created = wait(|done| node.store.create(step, done)).unwrap();
    let stored = node.answer("k1").unwrap();
    assert_eq!((stored.status, stored.verification, stored.fingerprint), (201, created.id, [7; 32]));
    assert_eq!(stored.body, serde_json::to_string(&created).unwrap());

    let mut cancel = end(created.id, 2, Status::Canceled);
    cancel.idempotency = Some(idempotency("k2", 200));
    let canceled = wait(|done| node.store.end(cancel, done)).unwrap().unwrap();
    assert_eq!(node.answer("k2").unwrap().body, serde_json::to_string(&canceled).unwrap());

    let mut again = end(created.id, 3, Status::Canceled);
    again.idempotency = Some(idempotency("k3", 200));
    assert_eq!(wait(|done| node.store.end(again, done)), Ok(None));
    assert_eq!(node.answer("k3"), None);

    let mut twin = create(4);
    twin.idempotency = Some(idempotency("k1", 201));
    let id = twin.verification.id;
    assert_eq!(wait(|done| node.store.create(twin, done)), Err(StepError::RolledBack));
    assert_eq!((node.read(id), node.events(id).len()), (None, 0));
}

#[test]
fn replaces_ends_the_older_one_in_the_same_transaction() {
    let mut node = Node::new();
    let older = node.create(1).unwrap();
    let mut step = create(2);
    let mut superseded = end(older.id, 3, Status::Canceled);
    superseded.reasons = Reasons::of(Reason::Superseded);
    step.replaces = Some(superseded);
    let newer = wait(|done| node.store.create(step, done)).unwrap();
    let ended = node.read(older.id).unwrap();
    assert_eq!(ended.status, Status::Canceled);
    assert!(ended.reasons.contains(Reason::Superseded));
    assert_eq!(node.events(older.id), ["verification.created", "verification.canceled"]);
    assert_eq!(node.events(newer.id), ["verification.created"]);
    let events: Vec<_> = std::iter::from_fn(|| node.ready.try_recv().ok()).map(|due| due.event).collect();
    assert_eq!(events, [1, 3, 2].map(|n| EventId(Ulid(n))));

    let mut third = create(4);
    third.replaces = Some(end(older.id, 5, Status::Canceled));
    wait(|done| node.store.create(third, done)).unwrap();
    assert_eq!(node.events(older.id).len(), 2);
}

#[test]
fn a_poison_step_fails_alone() {
    let node = Node::new();
    node.create(1).unwrap();
    let (sender, answers) = mpsc::channel();
    for n in 2..=40 {
        let sender = sender.clone();
        let mut step = create(n);
        if n == 20 {
            step.event = EventId(Ulid(1));
        }
        node.store.create(step, move |answer| sender.send((n, answer.map(drop))).unwrap());
    }
    drop(sender);
    for (n, answer) in &answers {
        assert_eq!(answer, if n == 20 { Err(StepError::RolledBack) } else { Ok(()) }, "{n}");
    }
    assert_eq!(node.read(create(20).verification.id), None);
    assert_eq!(node.reached("pending"), 39);
    assert_eq!(node.metrics.webhook_backlog.get(), 39);
    assert_eq!(node.not_ready(), None);
}

#[test]
fn a_status_that_is_no_end_is_refused() {
    let node = Node::new();
    let id = node.create(1).unwrap().id;
    assert_eq!(node.end(id, 2, Status::Verified), Err(StepError::RolledBack));
    assert_eq!(node.note(id, 3, EventType::Verified), Err(StepError::RolledBack));
    assert_eq!(node.events(id), ["verification.created"]);
}

#[test]
fn a_full_disk_undoes_steps_and_recovers_by_itself() {
    let node = Node::new();
    let claimable = node.create(1).unwrap();
    let delivery = node.due(at(1))[0].id;
    node.faults.planned().max_pages.store(1, Ordering::SeqCst);
    let refused = (2..5_000).find(|n| node.create(*n) == Err(StepError::RolledBack)).expect("the disk fills up");
    let id = create(refused).verification.id;
    assert_eq!((node.read(id), node.events(id).len()), (None, 0));
    assert_eq!(node.not_ready(), Some("the store cannot write"));

    let mut poor = create(10_000);
    poor.verification.metadata = BTreeMap::from([("k".into(), "v".repeat(100_000))]);
    assert_eq!(wait(|done| node.store.create(poor, done)), Err(StepError::RolledBack));
    node.store.delivered(delivery, at(9), 200);

    node.faults.planned().max_pages.store(0, Ordering::SeqCst);
    until(|| node.not_ready().is_none());
    until(|| !node.due(at(9)).iter().any(|due| due.id == delivery));
    assert!(node.create(refused).is_ok());
    assert!(node.claim(claimable.id, 20_000).unwrap().is_some());
}

#[test]
fn a_commit_that_failed_and_took_effect_is_answered_as_done() {
    let node = Node::new();
    let pending = node.create(1).unwrap();
    let delivery = node.due(at(1))[0].id;
    node.faults.planned().commit.store(1, Ordering::SeqCst);
    let claimed = node.claim(pending.id, 2).unwrap().unwrap();
    assert_eq!(claimed.status, Status::Verified);
    assert_eq!(node.events(pending.id).len(), 2);

    node.faults.planned().commit.store(1, Ordering::SeqCst);
    let created = node.create(3).unwrap();
    assert_eq!(node.read(created.id), Some(created));

    node.faults.planned().commit.store(1, Ordering::SeqCst);
    node.store.delivered(delivery, at(4), 200);
    until(|| node.not_ready().is_none() && !node.due(at(9)).iter().any(|due| due.id == delivery));
    until(|| node.metrics.webhook_backlog.get() == 2);
}

#[test]
fn a_commit_that_failed_without_effect_is_undone() {
    let node = Node::new();
    let pending = node.create(1).unwrap();
    let delivery = node.due(at(1))[0].id;
    node.faults.planned().commit.store(2, Ordering::SeqCst);
    assert_eq!(node.claim(pending.id, 2), Err(StepError::RolledBack));
    assert_eq!(node.read(pending.id), Some(pending.clone()));
    assert!(node.claim(pending.id, 3).unwrap().is_some());

    node.faults.planned().commit.store(2, Ordering::SeqCst);
    node.store.delivered(delivery, at(4), 200);
    until(|| !node.due(at(9)).iter().any(|due| due.id == delivery));
    assert_eq!(node.not_ready(), None);
}

#[test]
fn while_an_outcome_is_unknown_steps_are_refused_and_none_is_answered_falsely() {
    let node = Node::new();
    let pending = node.create(1).unwrap();
    let away = node.folder.0.join("away");
    node.faults.planned().commit.store(1, Ordering::SeqCst);
    std::fs::rename(node.folder.database(), &away).unwrap();
    let (sender, claimed) = mpsc::channel();
    node.store.claim(claim(pending.id, 2), move |answer| sender.send(answer).unwrap());
    let refused = || {
        let (sender, answer) = mpsc::channel();
        let step = end(VerificationId(Ulid(999)), 3, Status::Expired);
        node.store.end(step, move |answer| drop(sender.send(answer)));
        answer.try_recv() == Ok(Err(StepError::Full))
    };
    until(refused);
    assert!(claimed.try_recv().is_err());
    assert_eq!(node.not_ready(), Some("the store cannot write"));

    std::fs::rename(&away, node.folder.database()).unwrap();
    assert!(claimed.recv_timeout(DEADLINE).unwrap().unwrap().is_some());
    assert!(node.create(4).is_ok());
}

#[test]
fn read_back_tells_what_was_committed_from_what_was_not() {
    use resolve::{Resolution, resolve};
    let node = Node::new();
    let [claimed, pending, gone] = [1, 2, 3].map(|n| node.create(n).unwrap());
    let verified = node.claim(claimed.id, 4).unwrap();
    node.end(gone.id, 5, Status::Expired).unwrap();
    node.note(pending.id, 6, EventType::CallReceived).unwrap();
    let noted = node.read(pending.id);
    node.store.close();

    let connection = node.connection();
    let resolve = |work: Work| resolve(&connection, &work).unwrap();
    let created = |n| {
        let prepared = Prepared { create: create(n), body: "".into(), answer: None };
        Work::Create(Box::new(prepared))
    };
    let noting = |id, n, kind| Work::Note(Box::new(note(id, n, kind)));
    assert!(matches!(resolve(created(2)), Resolution::Done(Some(row)) if row.id == pending.id));
    assert_eq!(resolve(created(9)), Resolution::Undone);
    assert_eq!(resolve(Work::Claim(Box::new(claim(claimed.id, 4)))), Resolution::Done(verified));
    assert_eq!(resolve(Work::Claim(Box::new(claim(pending.id, 10)))), Resolution::Undone);
    assert_eq!(resolve(Work::Claim(Box::new(claim(gone.id, 11)))), Resolution::Void);
    assert_eq!(resolve(Work::End(Box::new(end(pending.id, 12, Status::Expired)))), Resolution::Undone);
    assert_eq!(resolve(noting(pending.id, 6, EventType::CallReceived)), Resolution::Done(noted));
    assert_eq!(resolve(noting(pending.id, 13, EventType::CallReceived)), Resolution::Undone);
    assert_eq!(resolve(noting(gone.id, 14, EventType::CallReceived)), Resolution::Void);
    assert_eq!(resolve(noting(gone.id, 15, EventType::LateCall)), Resolution::Undone);
    let delivered = Delivery::Delivered { at: at(1), status: 200 };
    assert_eq!(resolve(Work::Delivery(DeliveryId(1), delivered)), Resolution::Again);
}

#[test]
fn a_waiter_that_panics_harms_nobody_else() {
    let node = Node::new();
    node.store.create(create(1), |_| panic!("on purpose"));
    assert!(node.create(2).is_ok());
}

#[test]
fn a_closed_store_has_done_what_it_took_and_refuses_more() {
    let node = Node::new();
    let (sender, answers) = mpsc::channel();
    for n in 1..=100 {
        let sender = sender.clone();
        node.store.create(create(n), move |answer| sender.send(answer.is_ok()).unwrap());
    }
    drop(sender);
    node.store.close();
    assert_eq!(answers.iter().filter(|done| *done).count(), 100);
    assert_eq!(node.create(101), Err(StepError::Full));
    let log = node.folder.0.join("ringproof.db-wal");
    assert!(std::fs::metadata(log).map_or(0, |file| file.len()) == 0);
    assert!(node.read(create(1).verification.id).is_some());
}

#[test]
fn the_last_clone_may_go_away_inside_a_waiter() {
    let node = Node::new();
    let (sender, done) = mpsc::channel();
    let clone = node.store.clone();
    let Node { store, .. } = node;
    store.create(create(1), move |answer| {
        drop(clone);
        sender.send(answer.is_ok()).unwrap();
    });
    drop(store);
    assert!(done.recv_timeout(DEADLINE).unwrap());
}

#[test]
fn a_full_queue_refuses_on_the_spot() {
    let node = Node::new();
    let (begun, holding) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    node.store.create(create(1), move |_| {
        begun.send(()).unwrap();
        let _ = held.recv();
    });
    holding.recv_timeout(DEADLINE).unwrap();
    for n in 0..65_536 {
        node.store.end(end(VerificationId(Ulid(n.into())), n, Status::Canceled), |answer| {
            assert_ne!(answer, Err(StepError::Full))
        });
    }
    let (sender, refused) = mpsc::channel();
    node.store.end(end(VerificationId(Ulid(1)), 1, Status::Canceled), move |answer| sender.send(answer).unwrap());
    assert_eq!(refused.try_recv(), Ok(Err(StepError::Full)));
    assert_eq!(node.metrics.store_failures.with_label_values(&["queue_full"]).get(), 1);
    release.send(()).unwrap();
    node.store.close();
}

#[test]
fn numbers_used_are_the_latest_first_and_each_once() {
    let node = Node::new();
    for (n, number) in [(1, 1), (2, 2), (3, 1), (4, 3)] {
        let mut step = create(n);
        step.verification.phone = phone(7);
        step.verification.number = dial(number);
        wait(|done| node.store.create(step, done)).unwrap();
    }
    node.create(5).unwrap();
    let used = |application: &str, limit| block_on(node.store.numbers_used(application, phone(7), limit)).unwrap();
    assert_eq!(used("demo", 10), [dial(3), dial(1), dial(2)]);
    assert_eq!(used("demo", 2), [dial(3), dial(1)]);
    assert_eq!(used("other", 10), []);
}

#[test]
fn due_leaves_out_what_is_done_or_planned_for_later() {
    let node = Node::new();
    for n in 1..=5 {
        node.create(n).unwrap();
    }
    assert_eq!(node.due(at(0)).len(), 0);
    assert_eq!(node.due(at(3)).len(), 3);
    let all = node.due(at(10));
    assert_eq!(all.len(), 5);
    node.store.delivered(all[0].id, at(10), 204);
    node.store.put_off(all[1].id, 1, at(5_000), "é".repeat(300));
    node.store.exhausted(all[2].id, 12, "connection refused".into());
    until(|| node.due(at(4_999)).len() == 2);
    let later = node.due(at(5_000));
    assert_eq!(later.iter().map(|due| due.id).collect::<Vec<_>>(), [all[3].id, all[4].id, all[1].id]);
    assert_eq!((later[2].attempts, &later[2].body, later[2].event), (1, &all[1].body, all[1].event));
    assert_eq!(block_on(node.store.backlog()).unwrap(), 3);
    assert_eq!(node.metrics.webhook_backlog.get(), 3);
    assert_eq!(node.column("SELECT max(length(CAST(error AS BLOB))) FROM deliveries"), [Some(200)]);
    node.store.delivered(all[0].id, at(11), 200);
    node.store.delivered(all[3].id, at(11), 200);
    until(|| block_on(node.store.backlog()).unwrap() == 2);
    assert_eq!(node.metrics.webhook_backlog.get(), 2);
}

#[test]
fn an_endpoint_gets_only_what_it_subscribed_to() {
    let node = Node::new();
    let mut step = create(1);
    step.verification.application = "other".into();
    wait(|done| node.store.create(step, done)).unwrap();
    let id = node.create(2).unwrap().id;
    node.end(id, 3, Status::Denied).unwrap();
    let terminal = EndpointId("demo terminal".into());
    let due = block_on(node.store.due(&terminal, at(10), 10)).unwrap();
    assert_eq!(due.iter().map(|due| due.event).collect::<Vec<_>>(), [EventId(Ulid(3))]);
    assert_eq!(node.due(at(10)).len(), 1);
}

#[test]
fn purge_removes_what_is_old_in_chunks_and_nothing_else() {
    let node = Node::new();
    let (sender, answers) = mpsc::channel();
    for n in 1..=2_300 {
        let sender = sender.clone();
        let mut step = create(n);
        step.idempotency = Some(idempotency(&n.to_string(), 201));
        node.store.create(step, move |answer| sender.send(answer.is_ok()).unwrap());
    }
    drop(sender);
    assert_eq!(answers.iter().count(), 2_300);
    let steps = (1..=2_299).map(|n| end(create(n).verification.id, 10_000 + n, Status::Expired)).collect();
    assert!(wait(|done| node.store.expire(steps, done)).iter().all(Result::is_ok));

    let day = 24 * 3_600_000;
    let young = 40 * day;
    let mut fresh = create(young);
    fresh.idempotency = Some(idempotency("fresh", 201));
    let fresh = wait(|done| node.store.create(fresh, done)).unwrap();
    node.claim(fresh.id, young + 1).unwrap().unwrap();

    node.store.purge(at(young + 2));
    until(|| node.count("idempotency") == 1);
    assert_eq!(node.count("verifications"), 2, "the old one that is pending, and the fresh one");
    assert_eq!(node.count("calls"), 1);
    assert_eq!(node.count("events"), 2);
    assert_eq!(node.count("deliveries"), 2);
    assert_eq!(node.metrics.webhook_backlog.get(), 2);
    assert!(node.answer("fresh").is_some());
    assert_eq!(node.claim(create(2_300).verification.id, young + 3).map(|row| row.is_some()), Ok(true));
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Create(u8),
    Claim(u8),
    End(u8, u8),
    Expire(u8, u8),
    Note(u8),
    Late(u8),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let which = 0..6u8;
    prop_oneof![
        4 => which.clone().prop_map(Act::Create),
        3 => which.clone().prop_map(Act::Claim),
        2 => (which.clone(), 0..3u8).prop_map(|(which, status)| Act::End(which, status)),
        1 => (which.clone(), which.clone()).prop_map(|(first, second)| Act::Expire(first, second)),
        2 => which.clone().prop_map(Act::Note),
        1 => which.prop_map(Act::Late),
        1 => Just(Act::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_steps_gives_one_terminal_state_and_one_terminal_event(
        acts in prop::collection::vec(act(), 1..60)
    ) {
        let mut node = Node::new();
        let mut model: HashMap<u8, (Status, usize)> = HashMap::new();
        for (index, act) in acts.into_iter().enumerate() {
            let n = 1_000 + index as u64;
            let id = |which: u8| create(u64::from(which)).verification.id;
            let pending = |model: &HashMap<u8, (Status, usize)>, which: u8| {
                model.get(&which).is_some_and(|(status, _)| *status == Status::Pending)
            };
            match act {
                Act::Create(which) => {
                    let mut step = create(u64::from(which));
                    step.event = EventId(Ulid(n.into()));
                    let created = wait(|done| node.store.create(step, done));
                    prop_assert_eq!(created.is_ok(), !model.contains_key(&which));
                    model.entry(which).or_insert((Status::Pending, 1));
                }
                Act::Claim(which) => {
                    let expected = pending(&model, which);
                    prop_assert_eq!(node.claim(id(which), n).unwrap().is_some(), expected);
                    if expected {
                        model.entry(which).and_modify(|entry| *entry = (Status::Verified, entry.1 + 1));
                    }
                }
                Act::End(which, status) => {
                    let status = [Status::Canceled, Status::Denied, Status::Failed][usize::from(status)];
                    let expected = pending(&model, which);
                    prop_assert_eq!(node.end(id(which), n, status).unwrap().is_some(), expected);
                    if expected {
                        model.entry(which).and_modify(|entry| *entry = (status, entry.1 + 1));
                    }
                }
                Act::Expire(first, second) => {
                    let steps =
                        vec![end(id(first), n, Status::Expired), end(id(second), n + 500, Status::Expired)];
                    let answers = wait(|done| node.store.expire(steps, done));
                    for (which, answer) in [first, second].into_iter().zip(answers) {
                        let expected = pending(&model, which);
                        prop_assert_eq!(answer.unwrap().is_some(), expected);
                        if expected {
                            model.entry(which).and_modify(|entry| *entry = (Status::Expired, entry.1 + 1));
                        }
                    }
                }
                Act::Note(which) => {
                    node.note(id(which), n, EventType::CallReceived).unwrap();
                    if pending(&model, which) {
                        model.entry(which).and_modify(|entry| entry.1 += 1);
                    }
                }
                Act::Late(which) => {
                    node.note(id(which), n, EventType::LateCall).unwrap();
                    model.entry(which).and_modify(|entry| entry.1 += 1);
                }
                Act::Restart => node.restart(),
            }
        }
        for (which, (status, sequence)) in model {
            let row = node.read(create(u64::from(which)).verification.id).unwrap();
            prop_assert_eq!((row.status, row.sequence as usize), (status, sequence));
            prop_assert_eq!(row.ended_at.is_some(), status != Status::Pending);
            let events = node.events(row.id);
            prop_assert_eq!(events.len(), sequence);
            let terminal: Vec<_> = events
                .iter()
                .filter(|kind| EventType::ALL.iter().any(|one| one.is_terminal() && one.as_str() == *kind))
                .collect();
            let expected = (status != Status::Pending).then(|| format!("verification.{}", status.as_str()));
            prop_assert_eq!(terminal, expected.iter().collect::<Vec<_>>());
        }
    }
}

/// A folder of its own, gone with the value.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringproof-store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.0.join("ringproof.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store with one endpoint for everything and one for terminal events. Fields drop in this order.
struct Node {
    store: Store,
    ready: tokio::sync::mpsc::Receiver<Due>,
    metrics: Metrics,
    health: Arc<Health>,
    faults: Faults,
    folder: Folder,
}

impl Node {
    fn new() -> Self {
        Self::in_folder(Folder::new())
    }

    fn in_folder(folder: Folder) -> Self {
        let settings = Settings { path: folder.database(), retention: Duration::from_secs(30 * 24 * 3600) };
        let (metrics, health, faults) = (Metrics::new(), Arc::new(Health::default()), Faults::default());
        let (sender, ready) = tokio::sync::mpsc::channel(64);
        let everything = EventType::ALL.into_iter().filter(|kind| *kind != EventType::Denied).collect();
        let wish =
            |name: &str, events| Subscription { application: "demo".into(), endpoint: EndpointId(name.into()), events };
        let subscriptions =
            Subscriptions(vec![wish("demo everything", everything), wish("demo terminal", vec![EventType::Denied])]);
        health.set_started();
        let store =
            Store::open_with(&settings, subscriptions, metrics.clone(), Arc::clone(&health), sender, faults.clone())
                .unwrap();
        Self { store, ready, metrics, health, faults, folder }
    }

    fn restart(&mut self) {
        self.store.close();
        let folder = std::mem::replace(&mut self.folder, Folder(PathBuf::from("/nonexistent/ringproof")));
        *self = Self::in_folder(folder);
    }

    fn create(&self, n: u64) -> Result<Verification, StepError> {
        wait(|done| self.store.create(create(n), done))
    }

    fn claim(&self, id: VerificationId, n: u64) -> Result<Option<Verification>, StepError> {
        wait(|done| self.store.claim(claim(id, n), done))
    }

    fn end(&self, id: VerificationId, n: u64, status: Status) -> Result<Option<Verification>, StepError> {
        wait(|done| self.store.end(end(id, n, status), done))
    }

    fn note(&self, id: VerificationId, n: u64, kind: EventType) -> Result<(), StepError> {
        wait(|done| self.store.note(note(id, n, kind), done))
    }

    fn read(&self, id: VerificationId) -> Option<Verification> {
        block_on(self.store.verification(id)).unwrap()
    }

    fn answer(&self, key: &str) -> Option<StoredAnswer> {
        block_on(self.store.answer("demo", "key-1", key)).unwrap()
    }

    fn due(&self, now: SystemTime) -> Vec<Due> {
        block_on(self.store.due(&EndpointId("demo everything".into()), now, 10_000)).unwrap()
    }

    fn connection(&self) -> Connection {
        Connection::open(self.folder.database()).unwrap()
    }

    fn events(&self, id: VerificationId) -> Vec<String> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT type FROM events WHERE verification = ?1 ORDER BY seq").unwrap();
        statement.query_map([id.to_string()], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn column(&self, sql: &str) -> Vec<Option<i64>> {
        let connection = self.connection();
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn count(&self, table: &str) -> i64 {
        self.column(&format!("SELECT count(*) FROM {table}"))[0].unwrap()
    }

    fn reached(&self, status: &str) -> u64 {
        self.metrics.verifications.with_label_values(&["demo", status]).get()
    }

    fn not_ready(&self) -> Option<&'static str> {
        self.health.not_ready()
    }
}

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(START + millis)
}

fn phone(n: u64) -> E164 {
    E164::from_u64(966_500_000_000 + n).unwrap()
}

fn dial(n: u64) -> E164 {
    E164::from_u64(966_115_000_000 + n).unwrap()
}

/// Verification and event `n`, created at millisecond `n`.
fn create(n: u64) -> Create {
    let verification = Verification {
        id: VerificationId(Ulid(n.into())),
        application: "demo".into(),
        livemode: false,
        status: Status::Pending,
        phone: phone(n % 1_000_000),
        number: dial(1),
        purpose: None,
        consent: None,
        reference: None,
        metadata: BTreeMap::new(),
        minimum_assurance: Assurance::C,
        locale: None,
        client_ip: None,
        client_device_id: None,
        assurance: None,
        reasons: Reasons::NONE,
        created_at: at(n),
        expires_at: at(n + 120_000),
        ended_at: None,
        sequence: 0,
    };
    Create { verification, event: EventId(Ulid(n.into())), idempotency: None, replaces: None }
}

fn claim(id: VerificationId, n: u64) -> Claim {
    Claim { verification: id, event: EventId(Ulid(n.into())), call: call(n), at: at(n) }
}

fn end(id: VerificationId, n: u64, status: Status) -> End {
    let event = EventId(Ulid(n.into()));
    End { verification: id, status, reasons: Reasons::NONE, event, at: at(n), idempotency: None }
}

fn note(id: VerificationId, n: u64, kind: EventType) -> Note {
    Note { verification: id, kind, event: EventId(Ulid(n.into())), call: call(n), at: at(n) }
}

fn call(n: u64) -> CallFacts {
    let event = CallEvent {
        key: CallKey(n),
        trunk: TrunkId(0),
        caller: Some(E164::from_u64(CALLER).unwrap()),
        presented: None,
        source: Some(CallerSource::Pai),
        presentation: Presentation::Allowed,
        dialled: Some(dial(1)),
        assurance: Assurance::B,
        reasons: Reasons::of(Reason::PresentedDiffers),
        received_at: at(n),
    };
    CallFacts { id: CallRecordId(Ulid(n.into())), trunk: "local".into(), event }
}

fn idempotency(key: &str, status: u16) -> IdempotencyRecord {
    IdempotencyRecord {
        application: "demo".into(),
        scope: "key-1".into(),
        key: key.into(),
        fingerprint: [7; 32],
        status,
    }
}

/// Runs a step and waits for its answer.
fn wait<T: Send + 'static>(step: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (sender, answer): (_, Receiver<T>) = mpsc::channel();
    step(Box::new(move |value| sender.send(value).unwrap()));
    answer.recv_timeout(DEADLINE).expect("a step is always answered")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Waits for a condition.
fn until(condition: impl Fn() -> bool) {
    let (_sender, never) = mpsc::channel::<()>();
    for _ in 0..DEADLINE.as_millis() / 10 {
        if condition() {
            return;
        }
        let _ = never.recv_timeout(Duration::from_millis(10));
    }
    panic!("the condition is not met within {DEADLINE:?}");
}
