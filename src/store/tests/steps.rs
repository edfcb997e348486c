//! What each step leaves behind.

use std::sync::mpsc;

use ulid::Ulid;

use super::*;

#[test]
fn create_leaves_a_pending_row_and_one_event_with_its_delivery() {
    let mut node = Node::new();
    let created = node.create(1).unwrap();
    assert_eq!((created.status, created.sequence), (Status::Pending, 1));
    assert_eq!(node.read(created.id), Some(created.clone()));
    assert_eq!(node.events(created.id), ["verification.created"]);

    let due = node.ready.try_recv().unwrap();
    assert_eq!((due.event, due.attempts, due.planned_from), (EventId(Ulid(1)), 0, created.created_at));
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
    let other: E164 = "+966500000999".parse().unwrap();
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
    // As SQLite keeps an integer of this size.
    let bytes = &other.as_u64().to_be_bytes()[2..];
    assert!(!file.windows(bytes.len()).any(|window| window == bytes));
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
fn note_adds_reasons_while_pending_and_later_calls_leave_their_record_alone() {
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
    assert_eq!(node.column("SELECT call_key FROM calls ORDER BY received_at"), [Some(2), Some(4), Some(5)]);
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
    assert_eq!(answers.iter().collect::<HashSet<_>>().len(), 3_000);
    let commits = node.metrics.store_commit.get_sample_count();
    assert!(commits < 3_000, "{commits} commits");
    assert!((node.metrics.store_batch.get_sample_sum() - 3_000.0).abs() < 0.5);
}

#[test]
fn the_idempotency_answer_comes_with_the_step_and_only_with_it() {
    let node = Node::new();
    let mut step = create(1);
    step.idempotency = Some(idempotency("k1", 201));
    let client = step.client.clone();
    let created = wait(|done| node.store.create(step, done)).unwrap();
    let stored = node.answer("k1").unwrap();
    assert_eq!((stored.status, stored.verification, stored.fingerprint), (201, created.id, [7; 32]));
    assert_eq!(stored.body, created.to_json_with(&client));

    let mut cancel = end(created.id, 2, Status::Canceled);
    cancel.idempotency = Some(idempotency("k2", 200));
    let canceled = wait(|done| node.store.end(cancel, done)).unwrap().unwrap();
    assert_eq!(node.answer("k2").unwrap().body, canceled.to_json());

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
fn a_status_that_is_no_end_is_refused() {
    let node = Node::new();
    let id = node.create(1).unwrap().id;
    assert_eq!(node.end(id, 2, Status::Verified), Err(StepError::RolledBack));
    assert_eq!(node.note(id, 3, EventType::Verified), Err(StepError::RolledBack));
    assert_eq!(node.events(id), ["verification.created"]);
}

#[test]
fn debug_of_rendered_texts_shows_no_number() {
    let step = create(1);
    let (number, verification) = (step.verification.phone.to_string(), step.verification.id);
    let body = step.verification.to_json();
    assert!(body.contains(&number));
    let answer = StoredAnswer { fingerprint: [0; 32], status: 201, body: body.clone(), verification };
    let prepared = Prepared { create: step, body: body.clone().into(), answer: Some(body) };
    let text = format!("{answer:?} {:?}", Work::Create(Box::new(prepared)));
    assert!(!text.contains(&number), "{text}");
}
