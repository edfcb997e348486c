//! What faults do to steps, and what they do not.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use ulid::Ulid;

use super::*;

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
fn a_full_disk_undoes_steps_and_recovers_by_itself() {
    let node = Node::new();
    let claimable = node.create(1).unwrap();
    node.faults.planned().max_pages.store(1, Ordering::SeqCst);
    let refused = (2..5_000).find(|n| node.create(*n) == Err(StepError::RolledBack)).expect("the disk fills up");
    let id = create(refused).verification.id;
    assert_eq!((node.read(id), node.events(id).len()), (None, 0));
    assert_eq!(node.not_ready(), Some("the store cannot write"));

    node.faults.planned().max_pages.store(0, Ordering::SeqCst);
    until(|| node.not_ready().is_none());
    assert!(node.create(refused).is_ok());
    assert!(node.claim(claimable.id, 20_000).unwrap().is_some());
}

#[test]
fn a_delivery_state_outlives_a_full_disk() {
    let node = Node::new();
    node.create(1).unwrap();
    let delivery = node.due(at(1))[0].id;
    let release = hold(&node);
    let (sender, answer) = mpsc::channel();
    let mut large = create(3);
    large.verification.metadata = BTreeMap::from([("k".into(), "v".repeat(1_000_000))]);
    node.faults.planned().max_pages.store(1, Ordering::SeqCst);
    node.store.create(large, move |answer| sender.send(answer).unwrap());
    node.delivered(delivery, at(9), 200);
    drop(release);
    assert_eq!(answer.recv_timeout(DEADLINE).unwrap(), Err(StepError::RolledBack));
    assert!(node.due(at(9)).iter().any(|due| due.id == delivery));

    node.faults.planned().max_pages.store(0, Ordering::SeqCst);
    until(|| !node.due(at(9)).iter().any(|due| due.id == delivery));
    assert_eq!(node.not_ready(), None);
    assert_eq!(node.metrics.webhook_backlog.get(), 1);
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
    node.delivered(delivery, at(4), 200);
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
    node.delivered(delivery, at(4), 200);
    until(|| !node.due(at(9)).iter().any(|due| due.id == delivery));
    assert_eq!(node.not_ready(), None);
}

#[test]
fn while_an_outcome_is_unknown_steps_are_refused_and_none_is_answered_falsely() {
    let node = Node::new();
    let pending = node.create(1).unwrap();
    let delivery = node.due(at(1))[0].id;
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
    let (stored, told) = mpsc::channel();
    node.store.deliver(taken(delivery, 1, at(9), 204), move |answer| stored.send(answer).unwrap());
    assert!(told.try_recv().is_err(), "what was sent waits for the disk");
    assert_eq!(node.not_ready(), Some("the store cannot write"));

    std::fs::rename(&away, node.folder.database()).unwrap();
    assert!(claimed.recv_timeout(DEADLINE).unwrap().unwrap().is_some());
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), Ok(()));
    assert!(!node.due(at(9)).iter().any(|due| due.id == delivery));
    assert!(node.create(4).is_ok());
}

#[test]
fn read_back_tells_what_was_committed_from_what_was_not() {
    let row = |row| Some(Ok(Done::Verification(row)));
    let (undone, void) = (Some(Err(StepError::RolledBack)), row(None));
    let node = Node::new();
    let [claimed, pending, gone] = [1, 2, 3].map(|n| node.create(n).unwrap());
    let verified = node.claim(claimed.id, 4).unwrap();
    node.end(gone.id, 5, Status::Expired).unwrap();
    node.note(pending.id, 6, EventType::CallReceived).unwrap();
    let noted = node.read(pending.id);
    node.store.close();

    let connection = node.connection();
    let resolve = |work: Work| resolve::resolve(&connection, &work).unwrap();
    let created = |n| {
        let prepared = Prepared { create: create(n), body: "".into(), answer: None };
        Work::Create(Box::new(prepared))
    };
    let noting = |id, n, kind| Work::Note(Box::new(note(id, n, kind)));
    assert!(matches!(resolve(created(2)), Some(Ok(Done::Verification(Some(row)))) if row.id == pending.id));
    assert_eq!(resolve(created(9)), undone);
    assert_eq!(resolve(Work::Claim(Box::new(claim(claimed.id, 4)))), row(verified));
    assert_eq!(resolve(Work::Claim(Box::new(claim(pending.id, 10)))), undone);
    assert_eq!(resolve(Work::Claim(Box::new(claim(gone.id, 11)))), void);
    assert_eq!(resolve(Work::End(Box::new(end(pending.id, 12, Status::Expired)))), undone);
    assert_eq!(resolve(noting(pending.id, 6, EventType::CallReceived)), row(noted));
    assert_eq!(resolve(noting(pending.id, 13, EventType::CallReceived)), undone);
    assert_eq!(resolve(noting(gone.id, 14, EventType::CallReceived)), void);
    assert_eq!(resolve(noting(gone.id, 15, EventType::LateCall)), undone);
    assert_eq!(resolve(Work::Tried(taken(DeliveryId(1), 1, at(1), 200))), None);
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
    let release = hold(&node);
    for n in 0..65_536 {
        node.store.end(end(VerificationId(Ulid(n.into())), n, Status::Canceled), |answer| {
            assert_ne!(answer, Err(StepError::Full));
        });
    }
    let (sender, refused) = mpsc::channel();
    node.store.end(end(VerificationId(Ulid(1)), 1, Status::Canceled), move |answer| sender.send(answer).unwrap());
    assert_eq!(refused.try_recv(), Ok(Err(StepError::Full)));
    assert_eq!(node.metrics.store_failures.with_label_values(&["queue_full"]).get(), 1);
    drop(release);
    node.store.close();
}

/// Keeps the writer busy until the returned end is dropped, so that what comes meanwhile shares a transaction.
fn hold(node: &Node) -> mpsc::Sender<()> {
    let (begun, holding) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    node.store.create(create(77_777), move |_| {
        begun.send(()).unwrap();
        let _ = held.recv();
    });
    holding.recv_timeout(DEADLINE).unwrap();
    release
}
