//! Tries, endpoints that are disabled, replays, and endpoints that change.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde_json::Value;
use ulid::Ulid;

use super::*;
use crate::outbox::delivery::DeliveryState;
use crate::outbox::endpoint::DisableReason;

const EVERYTHING: &str = "demo everything";
const TERMINAL: &str = "demo terminal";
const HOUR: u64 = 3_600_000;

#[test]
fn gone_disables_at_once_parks_and_tells_the_others() {
    let node = Node::new();
    node.create(1).unwrap();
    node.create(2).unwrap();
    let due = node.due(at(10));
    node.settle(failed(due[0].id, 1, at(20), 410, Some(at(1_000))));
    let row = node.endpoint(EVERYTHING);
    assert_eq!(row.disabled, Some((at(20), DisableReason::Gone)));
    assert_eq!((row.failing_since, row.backlog), (Some(at(20)), 2));
    assert!(node.store.disabled().borrow().contains(&EndpointId(EVERYTHING.into())));
    assert_eq!(node.metrics.webhook_disabled.with_label_values(&["demo", "gone"]).get(), 1);
    assert_eq!(node.metrics.webhook_endpoints_disabled.get(), 1);
    until(|| node.due(at(HOUR)).is_empty());

    // Told to the one that wants it, not to the disabled one.
    let told = due_at(&node, TERMINAL);
    assert_eq!(told.iter().map(|due| due.kind).collect::<Vec<_>>(), [EventType::EndpointDisabled]);
    let body: Value = serde_json::from_str(&told[0].body).unwrap();
    assert_eq!(body["data"]["endpoint"]["id"], EndpointId(EVERYTHING.into()).public());
    assert_eq!(node.column("SELECT verification IS NULL FROM events WHERE type = 'endpoint.disabled'"), [Some(1)]);
    until(|| node.metrics.webhook_backlog.get() == 1);

    // What comes now is kept for it, and is not due.
    node.create(3).unwrap();
    assert_eq!((node.endpoint(EVERYTHING).backlog, node.due(at(HOUR)).len()), (3, 0));
    assert_eq!(node.metrics.webhook_backlog.get(), 1);
    // Another 410 of an attempt that was in flight tells nothing again.
    node.settle(failed(due[1].id, 1, at(30), 410, Some(at(1_000))));
    assert_eq!(due_at(&node, TERMINAL).len(), 1);
}

#[test]
fn an_endpoint_that_is_enabled_gets_what_was_parked() {
    let node = Node::new();
    for n in 1..=2_500 {
        node.store.create(create(n), |_| ());
    }
    until(|| node.metrics.webhook_backlog.get() == 2_500);
    let first = node.due(at(5_000))[0].id;
    node.settle(failed(first, 1, at(5_000), 410, Some(at(6_000))));
    until(|| node.due(at(HOUR)).is_empty() && node.metrics.webhook_backlog.get() == 1);
    wait(|done| node.store.enable(enable(EndpointId(EVERYTHING.into())), done)).unwrap();
    let row = node.endpoint(EVERYTHING);
    assert_eq!((row.disabled, row.failing_since, row.backlog), (None, None, 2_500));
    assert!(node.store.disabled().borrow().is_empty());
    until(|| node.due(at(HOUR)).len() == 2_500);
    until(|| node.metrics.webhook_backlog.get() == 2_501);
    assert_eq!(node.due(at(HOUR)).iter().find(|due| due.id == first).unwrap().attempts, 1);
}

#[test]
fn a_day_of_failures_disables_and_one_success_begins_anew() {
    let node = Node::new();
    for n in 1..=20 {
        node.create(n).unwrap();
    }
    let due = node.due(at(100));
    let fail = |index: usize, hours: u64| {
        node.settle(failed(due[index].id, 1, at(1_000 + hours * HOUR), 500, Some(at(100 * HOUR))));
        node.endpoint(EVERYTHING).disabled
    };
    for index in 0..10 {
        assert_eq!(fail(index, index as u64), None);
    }
    assert_eq!(node.endpoint(EVERYTHING).failing_since, Some(at(1_000)));
    node.settle(taken(due[10].id, 1, at(23 * HOUR), 204));
    assert_eq!(node.endpoint(EVERYTHING).failing_since, None);
    for (index, hours) in [(11, 25), (12, 26), (13, 27), (14, 49)] {
        assert_eq!(fail(index, hours), None, "few, though for a day");
    }
    assert_eq!(fail(15, 49), Some((at(1_000 + 49 * HOUR), DisableReason::Failing)));
}

#[test]
fn the_state_of_an_endpoint_outlives_a_restart() {
    let mut node = Node::new();
    node.create(1).unwrap();
    let due = node.due(at(10));
    node.settle(failed(due[0].id, 1, at(20), 410, Some(at(1_000))));
    node.restart();
    assert_eq!(node.endpoint(EVERYTHING).disabled, Some((at(20), DisableReason::Gone)));
    assert!(node.store.disabled().borrow().contains(&EndpointId(EVERYTHING.into())));
    node.create(2).unwrap();
    until(|| node.endpoint(EVERYTHING).backlog == 2 && node.due(at(HOUR)).is_empty());
}

#[test]
fn the_last_failure_tells_of_itself_once_and_without_end() {
    let node = Node::new();
    let verification = node.create(1).unwrap().id;
    let due = node.due(at(10));
    let last = failed(due[0].id, 12, at(20), 500, None);
    node.settle(last.clone());
    node.settle(last);
    let told = node.due(at(HOUR));
    assert_eq!(told.iter().map(|due| due.kind).collect::<Vec<_>>(), [EventType::DeliveryExhausted]);
    let body: Value = serde_json::from_str(&told[0].body).unwrap();
    assert_eq!(body["data"]["delivery"]["id"], due[0].id.to_string());
    assert_eq!(body["data"]["delivery"]["attempts"], 12);
    assert_eq!(body["data"]["delivery"]["last_attempt"]["status"], 500);
    assert_eq!(body["data"]["event"]["type"], "verification.created");
    assert_eq!(body["data"]["verification"], verification.to_string());
    assert_eq!(node.metrics.webhook_backlog.get(), 1);

    node.settle(failed(told[0].id, 12, at(30), 500, None));
    assert_eq!((node.due(at(HOUR)).len(), node.count("events")), (0, 2), "no event about an event about a delivery");
    assert_eq!(node.metrics.webhook_backlog.get(), 0);
}

#[test]
fn any_delivery_may_be_replayed_with_a_plan_of_its_own() {
    let mut node = Node::new();
    node.create(1).unwrap();
    let first = node.ready.try_recv().unwrap();
    node.settle(failed(first.id, 1, at(10), 500, Some(at(1_000))));
    node.settle(Tried { replayed_after: 0, ..failed(first.id, 12, at(HOUR), 500, None) });
    assert_eq!(row(&node, first.id).state, DeliveryState::Exhausted);
    let told = node.ready.try_recv().unwrap();
    node.settle(taken(told.id, 1, at(HOUR), 204));

    let Replayed::Due(again) = replay(&node, first.id, 2 * HOUR).unwrap() else { panic!("it is due") };
    assert_eq!((again.state, again.attempts, again.next_at), (DeliveryState::Pending, 0, Some(at(2 * HOUR))));
    let due = node.ready.try_recv().unwrap();
    assert_eq!((due.id, due.event, &due.body), (first.id, first.event, &first.body));
    assert_eq!((due.attempts, due.replayed_after, due.planned_from), (12, 12, at(2 * HOUR)));
    assert_eq!(node.metrics.webhook_backlog.get(), 1);
    assert_eq!(node.due(at(3 * HOUR)).iter().map(|due| due.id).collect::<Vec<_>>(), [first.id]);

    node.settle(Tried { replayed_after: 12, ..taken(first.id, 13, at(2 * HOUR), 200) });
    let done = row(&node, first.id);
    assert_eq!((done.state, done.attempts, done.next_at), (DeliveryState::Delivered, 1, None));
    assert_eq!(done.last.unwrap().at, at(2 * HOUR));
    // A second time, as often as one likes: one delivery, due once.
    for hour in [3, 4] {
        assert!(matches!(replay(&node, first.id, hour * HOUR), Ok(Replayed::Due(_))));
    }
    assert_eq!((node.due(at(5 * HOUR)).len(), node.metrics.webhook_backlog.get()), (1, 1));
    assert_eq!(row(&node, told.id).state, DeliveryState::Delivered);
}

#[test]
fn a_try_under_way_does_not_undo_a_replay() {
    let node = Node::new();
    node.create(1).unwrap();
    node.create(2).unwrap();
    let due = node.due(at(10));
    for one in &due {
        replay(&node, one.id, 500).unwrap();
        assert!(matches!(replay(&node, one.id, 1_000), Ok(Replayed::Due(_))));
        node.settle(Tried { replayed_after: 0, ..failed(one.id, 1, at(2_000), 500, Some(at(HOUR))) });
    }
    // `replayed_after` is 0 here, as it was: the failure is the first of the new plan. After more tries it is not.
    let (next, third) = (failed(due[0].id, 2, at(3_000), 500, Some(at(HOUR))), due[0].id);
    node.settle(next);
    replay(&node, third, 4_000).unwrap();
    node.settle(Tried { replayed_after: 0, ..failed(third, 3, at(5_000), 500, None) });
    let left = row(&node, third);
    assert_eq!((left.state, left.attempts, left.next_at), (DeliveryState::Pending, 1, Some(at(4_000))));
}

#[test]
fn replays_that_cannot_be_say_why() {
    let node = Node::new();
    node.create(1).unwrap();
    node.create(2).unwrap();
    let due = node.due(at(10));
    assert_eq!(replay(&node, DeliveryId(999), 20), Ok(Replayed::Unknown));
    assert_eq!(wait(|done| node.store.replay(("other", due[0].id), "key", at(20), done)), Ok(Replayed::Unknown));
    node.settle(failed(due[0].id, 1, at(20), 410, Some(at(1_000))));
    let endpoint = EndpointId(EVERYTHING.into());
    assert_eq!(replay(&node, due[1].id, 30), Ok(Replayed::Disabled(endpoint.clone())));
    wait(|done| node.store.enable(enable(endpoint.clone()), done)).unwrap();
    assert!(matches!(replay(&node, due[1].id, 40), Ok(Replayed::Due(_))));
    node.store.subscribe(Subscriptions::default());
    assert_eq!(replay(&node, due[1].id, 50), Ok(Replayed::Removed(endpoint)));
}

#[test]
fn deliveries_follow_the_endpoints_that_are_configured() {
    let node = Node::new();
    let everything = subscription(EVERYTHING, &EventType::ALL);
    node.create(1).unwrap();
    let in_flight = node.due(at(10))[0].clone();
    node.store.subscribe(Subscriptions(vec![subscription("demo new", &EventType::ALL)]));
    node.create(2).unwrap();
    assert_eq!(due_at(&node, "demo new").len(), 1, "new events go to the new one");
    until(|| node.due(at(HOUR)).is_empty() && node.metrics.webhook_backlog.get() == 1);
    assert_eq!(block_on(node.store.endpoints("demo")).unwrap().len(), 1);

    node.store.subscribe(Subscriptions(vec![everything.clone()]));
    until(|| node.due(at(HOUR)).len() == 1 && due_at(&node, "demo new").is_empty());
    until(|| node.metrics.webhook_backlog.get() == 1);
    // A try that was under way when its endpoint was removed counts.
    node.store.subscribe(Subscriptions::default());
    until(|| node.metrics.webhook_backlog.get() == 0);
    node.settle(taken(in_flight.id, 1, at(2_000), 204));
    node.store.subscribe(Subscriptions(vec![everything]));
    assert_eq!(row(&node, in_flight.id).state, DeliveryState::Delivered);
    assert_eq!(node.metrics.webhook_backlog.get(), 0);
}

#[test]
fn other_endpoints_are_taken_on_while_the_disk_is_full_and_parking_follows() {
    let node = Node::new();
    node.create(1).unwrap();
    node.faults.planned().max_pages.store(1, Ordering::SeqCst);
    let mut large = create(2);
    large.verification.metadata = BTreeMap::from([("k".into(), "v".repeat(1_000_000))]);
    assert_eq!(wait(|done| node.store.create(large, done)), Err(StepError::RolledBack));
    node.store.subscribe(Subscriptions::default());
    assert_eq!(block_on(node.store.endpoints("demo")).unwrap(), []);
    node.faults.planned().max_pages.store(0, Ordering::SeqCst);
    until(|| node.not_ready().is_none());
    until(|| node.due(at(HOUR)).is_empty());
}

#[test]
fn a_commit_of_unknown_outcome_leaves_endpoints_as_the_disk_says() {
    for commit in [1, 2] {
        let node = Node::new();
        node.create(1).unwrap();
        let delivery = node.due(at(1))[0].id;
        node.faults.planned().commit.store(commit, Ordering::SeqCst);
        node.settle(failed(delivery, 1, at(4), 410, Some(at(1_000))));
        assert_eq!(node.endpoint(EVERYTHING).disabled, Some((at(4), DisableReason::Gone)));
        until(|| node.store.disabled().borrow().len() == 1 && node.due(at(HOUR)).is_empty());
        assert_eq!(due_at(&node, TERMINAL).len(), 1, "told once");
    }
}

#[test]
fn lists_are_filtered_and_paged_newest_first() {
    let node = Node::new();
    for n in 1..=5 {
        node.create(n).unwrap();
    }
    let mut step = create(6);
    step.verification.application = "other".into();
    wait(|done| node.store.create(step, done)).unwrap();
    let due = node.due(at(100));
    node.settle(taken(due[0].id, 1, at(200), 204));
    node.settle(failed(due[1].id, 1, at(200), 500, Some(at(HOUR))));
    node.settle(failed(due[2].id, 12, at(200), 500, None));
    let list = |filter: DeliveryFilter, after, limit| -> Vec<i64> {
        let page = block_on(node.store.deliveries("demo", filter, after, limit)).unwrap();
        page.entries.iter().map(|row| row.id.0).collect()
    };
    let id = |index: usize| due[index].id.0;
    let told = id(4) + 1;
    let all = DeliveryFilter::default;
    assert_eq!(list(all(), None, 100), [told, id(4), id(3), id(2), id(1), id(0)]);
    assert_eq!(list(all(), Some(due[3].id), 2), [id(2), id(1)]);
    let state = |state| DeliveryFilter { state: Some(state), ..all() };
    assert_eq!(list(state(DeliveryState::Delivered), None, 100), [id(0)]);
    assert_eq!(list(state(DeliveryState::Exhausted), None, 100), [id(2)]);
    assert_eq!(list(state(DeliveryState::Pending), None, 100), [told, id(4), id(3), id(1)]);
    assert_eq!(list(state(DeliveryState::Parked), None, 100), Vec::<i64>::new());
    assert_eq!(list(DeliveryFilter { event: Some(due[3].event), ..all() }, None, 100), [id(3)]);
    assert_eq!(list(DeliveryFilter { created_after: Some(at(4)), ..all() }, None, 100), [told, id(4)]);
    let endpoint = |name: &str| DeliveryFilter { endpoint: Some(EndpointId(name.into())), ..all() };
    assert_eq!(list(endpoint(EVERYTHING), None, 100).len(), 6);
    assert_eq!(list(endpoint(TERMINAL), None, 100).len(), 0);
    let one = row(&node, due[1].id);
    assert_eq!((one.attempts, one.next_at, one.event_at), (1, Some(at(HOUR)), at(2)));
    let attempt = LastAttempt { at: at(200), status: Some(500), error: Some("status 500".into()) };
    assert_eq!((one.last, one.verification), (Some(attempt), Some(VerificationId(Ulid(2)))));
    assert_eq!(block_on(node.store.delivery("other", due[1].id)).unwrap(), None);
}

#[test]
fn a_page_of_deliveries_looks_at_no_more_rows_than_it_may_and_says_where_to_go_on() {
    let node = Node::new();
    node.create(1).unwrap();
    let delivery = node.due(at(10))[0].id.0;
    let many = "WITH RECURSIVE n(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < 12000) \
                INSERT INTO deliveries (application, event, endpoint, state, planned_from, next_at) \
                SELECT application, event, 'demo other', 'due', planned_from, next_at FROM n, deliveries";
    assert_eq!(node.connection().execute(many, []).unwrap(), 11_999);
    let page =
        |filter: &DeliveryFilter, after| block_on(node.store.deliveries("demo", filter.clone(), after, 10)).unwrap();
    let all = DeliveryFilter::default;
    let of_endpoint = DeliveryFilter { endpoint: Some(EndpointId(EVERYTHING.into())), ..all() };
    let delivered = DeliveryFilter { state: Some(DeliveryState::Delivered), ..all() };
    let go_on = DeliveryId(delivery + 2_000).to_string();
    for (filter, found) in [(of_endpoint, 1), (delivered, 0)] {
        let one = page(&filter, None);
        assert_eq!((one.entries.len(), one.next.as_deref()), (0, Some(go_on.as_str())), "{filter:?}");
        let other = page(&filter, Some(DeliveryId(delivery + 2_000)));
        assert_eq!((other.entries.len(), other.next), (found, None), "{filter:?}");
    }
    // A time ends the search where it begins.
    let late = page(&DeliveryFilter { created_after: Some(at(HOUR)), ..all() }, None);
    assert_eq!((late.entries.len(), late.next), (0, None));
}

#[test]
fn what_a_clock_that_stood_ahead_has_planned_comes_at_once_after_it_is_set_back() {
    let node = Node::new();
    for n in [2 * HOUR, 2 * HOUR + 1, 5] {
        node.create(n).unwrap();
    }
    let all = node.due(at(3 * HOUR));
    // One of them was tried, and is to be tried again 30 s after it happened.
    let tried = all.iter().find(|due| due.planned_from == at(2 * HOUR)).unwrap();
    let next = at(2 * HOUR + 30_000);
    node.settle(failed(tried.id, 1, at(2 * HOUR + 1_000), 500, Some(next)));
    assert_eq!(node.due(at(100)).len(), 1);
    node.store.hasten(at(100));
    until(|| node.due(at(100)).len() == 2);
    assert_eq!(node.due(at(100 + 29_999)).len(), 2);
    assert_eq!(node.due(at(100 + 30_000)).len(), 3, "by the plan that began now");
}

#[test]
fn a_range_is_replayed_piece_by_piece_and_only_what_is_over() {
    let node = Node::new();
    for n in 1..=30 {
        node.create(n).unwrap();
    }
    let all = node.due(at(HOUR));
    for due in &all[..20] {
        node.delivered(due.id, at(100), 204);
    }
    node.settle(failed(all[20].id, 12, at(100), 500, None));
    until(|| node.metrics.webhook_backlog.get() == 9 + 1);
    let range = |from: u64, until: u64, state| ReplayMany {
        application: "demo".into(),
        endpoint: EndpointId(EVERYTHING.into()),
        state,
        kind: None,
        from: at(from),
        until: at(until),
        after: None,
        key: "key".into(),
        at: at(HOUR),
    };
    let replay = |step: ReplayMany| wait(|done| node.store.replay_many(step, done)).unwrap();
    assert_eq!(replay(range(5, 11, None)).replayed, 6);
    assert_eq!(replay(range(5, 11, None)).replayed, 0, "they are due already");
    assert_eq!(replay(range(0, 1_000, Some(DeliveryState::Exhausted))).replayed, 1);
    let kind = ReplayMany { kind: Some(EventType::Verified), ..range(0, 1_000, None) };
    assert_eq!(replay(kind).replayed, 0);
    assert_eq!(node.metrics.webhook_backlog.get(), 10 + 7);
    assert_eq!(row(&node, all[20].id).state, DeliveryState::Pending);
    assert_eq!(row(&node, all[20].id).attempts, 0, "by a plan of its own");
    let other = ReplayMany { endpoint: EndpointId("demo nowhere".into()), ..range(0, 1_000, None) };
    assert!(replay(other).refused);
}

fn row(node: &Node, id: DeliveryId) -> DeliveryRow {
    block_on(node.store.delivery("demo", id)).unwrap().unwrap()
}

fn replay(node: &Node, id: DeliveryId, millis: u64) -> Result<Replayed, StepError> {
    wait(|done| node.store.replay(("demo", id), "key", at(millis), done))
}

fn due_at(node: &Node, endpoint: &str) -> Vec<Due> {
    block_on(node.store.due(&EndpointId(endpoint.into()), at(1_000 * HOUR), 10_000)).unwrap()
}

fn subscription(endpoint: &str, events: &[EventType]) -> Subscription {
    Subscription { application: "demo".into(), endpoint: EndpointId(endpoint.into()), events: events.to_vec() }
}

fn enable(endpoint: EndpointId) -> Enable {
    Enable { application: "demo".into(), endpoint, key: "key".into(), at: at(0) }
}
