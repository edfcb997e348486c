//! What is read back, and what is removed.

use std::collections::BTreeMap;
use std::sync::mpsc;

use super::*;

#[test]
fn a_new_start_finds_everything_again() {
    let mut node = Node::new();
    let [pending, verified, rested, canceled] = [1, 2, 3, 4].map(|n| node.create(n).unwrap());
    node.end(rested.id, 5, Status::Expired).unwrap().unwrap();
    node.claim(verified.id, 70_000).unwrap().unwrap();
    node.end(canceled.id, 71_000, Status::Canceled).unwrap().unwrap();
    node.note(pending.id, 72_000, EventType::CallReceived).unwrap();
    node.restart();

    let recovered = node.store.recover(at(90_000), Duration::from_mins(1)).unwrap();
    let row = PendingRow {
        id: pending.id,
        application: "demo".into(),
        livemode: pending.livemode,
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
    let later = node.store.recover(at(110_000), Duration::from_mins(1)).unwrap();
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
fn numbers_of_phones_from_before_a_restart_are_known_after_it() {
    let mut node = Node::new();
    let created = node.create(5).unwrap();
    node.restart();
    let used = |phone| block_on(node.store.numbers_used("demo", phone, 10)).unwrap();
    assert_eq!(used(created.phone), [created.number], "whether or not all rows have been read");
    until(|| !node.store.inner.known.may_know("demo", phone(77)));
    assert_eq!((used(created.phone), used(phone(77))), (vec![created.number], vec![]));
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
    node.delivered(all[0].id, at(10), 204);
    let mut put_off = failed(all[1].id, 1, at(10), 500, Some(at(5_000)));
    put_off.last.error = Some("é".repeat(300));
    node.settle(put_off);
    node.delivered(all[2].id, at(10), 204);
    until(|| node.due(at(4_999)).len() == 2);
    let later = node.due(at(5_000));
    assert_eq!(later.iter().map(|due| due.id).collect::<Vec<_>>(), [all[3].id, all[4].id, all[1].id]);
    assert_eq!((later[2].attempts, &later[2].body, later[2].event), (1, &all[1].body, all[1].event));
    assert_eq!(block_on(node.store.backlog()).unwrap(), 3);
    assert_eq!(node.metrics.webhook_backlog.get(), 3);
    assert_eq!(node.column("SELECT max(length(CAST(error AS BLOB))) FROM deliveries"), [Some(200)]);
    node.delivered(all[0].id, at(11), 200);
    node.delivered(all[3].id, at(11), 200);
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

    let kept = create(2_300).event;
    for due in node.due(at(20_000)) {
        if due.event != kept {
            node.delivered(due.id, at(20_000), 204);
        }
    }
    until(|| node.metrics.webhook_backlog.get() == 1);

    let young = 40 * DAY;
    let mut fresh = create(young);
    fresh.idempotency = Some(idempotency("fresh", 201));
    let fresh = wait(|done| node.store.create(fresh, done)).unwrap();
    node.claim(fresh.id, young + 1).unwrap().unwrap();

    node.store.purge(at(young + 2));
    until(|| node.count("idempotency") == 1);
    assert_eq!(node.count("verifications"), 2, "the old one that is pending, and the fresh one");
    assert_eq!(node.count("calls"), 1);
    assert_eq!(node.count("events"), 3, "those of the fresh one, and the old one that is due still");
    assert_eq!(node.count("deliveries"), 3);
    assert_eq!(node.metrics.webhook_backlog.get(), 3);
    assert!(node.answer("fresh").is_some());
    assert_eq!(node.claim(create(2_300).verification.id, young + 3).map(|row| row.is_some()), Ok(true));
}

const DAY: u64 = 24 * 3_600_000;

#[test]
fn purge_takes_no_delivery_that_is_due_however_old_and_leaves_its_event() {
    let node = Node::new();
    for n in 1..=2_500 {
        node.store.create(create(n), |_| ());
    }
    until(|| node.metrics.webhook_backlog.get() == 2_500);
    let due = node.due(at(5_000));
    // So many stay in front that a chunk holds nothing to remove.
    node.delivered(due[0].id, at(5_000), 204);
    node.delivered(due[1].id, at(5_000), 204);
    node.delivered(due[2_400].id, at(5_000), 204);
    until(|| node.metrics.webhook_backlog.get() == 2_497);

    node.store.purge(at(400 * DAY));
    until(|| node.count("events") == 2_497);
    let left = node.due(at(400 * DAY));
    assert_eq!(left.len(), 2_497);
    assert!(left.iter().all(|row| ![due[0].id, due[1].id, due[2_400].id].contains(&row.id)));
    assert_eq!(node.metrics.webhook_backlog.get(), 2_497);

    // What is delivered after all goes with the next purge.
    node.delivered(left[0].id, at(400 * DAY), 204);
    until(|| node.metrics.webhook_backlog.get() == 2_496);
    node.store.purge(at(400 * DAY));
    until(|| node.count("events") == 2_496);
}

#[test]
fn purge_by_a_row_with_a_wrong_time_takes_none_of_its_neighbours() {
    let node = Node::new();
    let now = 100 * DAY;
    // The third was committed while the clock stood back.
    for (key, n) in [now, now + 1, 3, now + 2].into_iter().enumerate() {
        let mut step = create(n);
        step.idempotency = Some(idempotency(&key.to_string(), 201));
        wait(|done| node.store.create(step, done)).unwrap();
    }
    for due in node.due(at(now + 10)) {
        node.delivered(due.id, at(now + 10), 204);
    }
    until(|| node.metrics.webhook_backlog.get() == 0);
    node.store.purge(at(now + 20));
    until(|| node.count("idempotency") == 3);
    assert_eq!((node.count("deliveries"), node.count("events")), (3, 3));
    assert!(node.answer("0").is_some() && node.answer("2").is_none());
}

#[test]
fn purge_takes_parked_deliveries_with_the_retention_and_counts_them() {
    let node = Node::new();
    for n in [1, 2, 50 * DAY] {
        node.create(n).unwrap();
    }
    node.store.subscribe(Subscriptions::default());
    until(|| node.metrics.webhook_backlog.get() == 0);
    node.store.purge(at(50 * DAY + 1));
    until(|| node.count("events") == 1);
    assert_eq!(node.count("deliveries"), 1);
    assert_eq!(node.metrics.store_failures.with_label_values(&["parked_purged"]).get(), 2);
}
