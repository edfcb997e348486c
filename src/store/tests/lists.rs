//! Pages: what is in them, in which order, by which index, and what they never leave out.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::store::lists;

/// All entries, page by page.
fn all<T>(page: impl Fn(Option<String>) -> Option<Page<T>>) -> Vec<T> {
    let (mut entries, mut after) = (Vec::new(), None);
    loop {
        let Page { entries: more, next } = page(after).unwrap();
        entries.extend(more);
        match next {
            Some(next) => after = Some(next),
            None => return entries,
        }
    }
}

impl Node {
    fn ids(&self, filter: &VerificationFilter, limit: u32) -> Vec<VerificationId> {
        let page = |after: Option<String>| {
            let after = after.map(|id| id.parse().unwrap());
            block_on(self.store.verifications("demo", filter.clone(), after, limit)).unwrap()
        };
        all(page).into_iter().map(|row| row.id).collect()
    }

    fn feed(&self, kind: Option<EventType>, limit: u32) -> Vec<EventRow> {
        all(|after| block_on(self.store.events("demo", kind, after, limit)).unwrap())
    }
}

/// Created at the time that its id tells.
fn dated(n: u64) -> Create {
    let mut step = create(n);
    step.verification.id = VerificationId(Ulid::from_parts(START + n, n.into()));
    step
}

#[test]
fn verifications_come_newest_first_by_every_filter_and_at_every_page_size() {
    let node = Node::new();
    let mut rows = Vec::new();
    for n in 1..=60 {
        let mut step = dated(n * 10);
        step.event = EventId(Ulid(n.into()));
        step.verification.phone = phone(n % 3);
        step.verification.reference = (n % 2 == 0).then(|| format!("r-{}", n % 4));
        if n % 5 == 0 {
            step.verification.application = "other".into();
        }
        let row = wait(|done| node.store.create(step, done)).unwrap();
        rows.push(match n % 4 {
            0 => node.end(row.id, 1_000 + n, Status::Expired).unwrap().unwrap(),
            1 => node.claim(row.id, 1_000 + n).unwrap().unwrap(),
            _ => row,
        });
    }
    rows.reverse();
    let some =
        |status, n: Option<u64>, reference: Option<&str>, times: (Option<u64>, Option<u64>)| VerificationFilter {
            status,
            phone: n.map(phone),
            reference: reference.map(str::to_owned),
            created_after: times.0.map(at),
            created_before: times.1.map(at),
        };
    let open = (None, None);
    let filters = [
        VerificationFilter::default(),
        some(Some(Status::Pending), None, None, open),
        some(Some(Status::Denied), None, None, open),
        some(None, Some(1), None, open),
        some(None, None, Some("r-2"), open),
        some(Some(Status::Expired), Some(2), Some("r-0"), open),
        some(Some(Status::Verified), None, Some("r-2"), open),
        some(None, None, None, (Some(200), Some(400))),
        some(None, None, None, (Some(0), None)),
        some(None, None, None, (None, Some(0))),
        some(Some(Status::Pending), Some(0), None, (Some(100), Some(5_000))),
        some(None, None, None, (Some(700), None)),
    ];
    for filter in filters {
        let fits = |row: &&Verification| {
            row.application == "demo"
                && filter.status.is_none_or(|status| row.status == status)
                && filter.phone.is_none_or(|phone| row.phone == phone)
                && filter.reference.as_ref().is_none_or(|text| row.reference.as_ref() == Some(text))
                && filter.created_after.is_none_or(|time| row.created_at > time)
                && filter.created_before.is_none_or(|time| row.created_at < time)
        };
        let wanted: Vec<_> = rows.iter().filter(fits).map(|row| row.id).collect();
        for limit in [1, 7, 48, 100] {
            assert_eq!(node.ids(&filter, limit), wanted, "{filter:?} by {limit}");
        }
    }
    let foreign = rows.iter().find(|row| row.application == "other").unwrap().id;
    for unknown in [foreign, VerificationId(Ulid(1))] {
        let page =
            block_on(node.store.verifications("demo", VerificationFilter::default(), Some(unknown), 10)).unwrap();
        assert_eq!(page, None);
    }
}

#[test]
fn a_clock_that_was_wrong_for_a_while_hides_no_verification() {
    let node = Node::new();
    // An hour ahead in the middle, and right again.
    for n in (1..=5).chain(3_600_006..=3_600_010).chain(11..=15) {
        wait(|done| node.store.create(dated(n), done)).unwrap();
    }
    let within = |after: Option<u64>, before: Option<u64>| {
        let filter = VerificationFilter {
            created_after: after.map(at),
            created_before: before.map(at),
            ..VerificationFilter::default()
        };
        node.ids(&filter, 3).len()
    };
    assert_eq!(within(None, Some(16)), 10);
    assert_eq!(within(Some(3), None), 12);
    assert_eq!(within(Some(10), Some(1_000)), 5);
    assert_eq!(within(Some(20), None), 5);
}

#[test]
fn a_page_looks_at_no_more_rows_than_it_may_and_says_where_to_go_on() {
    let node = Node::new();
    let first = node.create(1).unwrap();
    let connection = node.connection();
    let many = "WITH RECURSIVE n(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < 12000) \
                INSERT INTO verifications SELECT n, printf('ver_%026d', n), application, livemode, 'expired', phone, number, \
                purpose, consent_document, consent_sha256, 'same', metadata, minimum_assurance, locale, client_ip, \
                client_device_id, assurance, reasons, created_at, expires_at, ended_at, sequence, phone_key, api_key FROM n, verifications";
    assert_eq!(connection.execute(many, []).unwrap(), 11_999);
    let filter = VerificationFilter {
        reference: Some("same".into()),
        status: Some(Status::Verified),
        ..VerificationFilter::default()
    };
    let page = |after| block_on(node.store.verifications("demo", filter.clone(), after, 10)).unwrap().unwrap();
    let one = page(None);
    assert_eq!((one.entries.len(), one.next.as_deref()), (0, Some("ver_00000000000000000000002001")));
    assert_eq!(page(Some(one.next.unwrap().parse().unwrap())), Page { entries: Vec::new(), next: None });

    let events = "WITH RECURSIVE n(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < 12000) \
                  INSERT INTO events (seq, id, application, verification, type, at, body) \
                  SELECT n, printf('evt_%026d', n), application, verification, type, at, body FROM n, events";
    assert_eq!(connection.execute(events, []).unwrap(), 11_999);
    node.claim(first.id, 50_000).unwrap().unwrap();
    let verified = Some(EventType::Verified);
    let page = block_on(node.store.events("demo", verified, None, 10)).unwrap().unwrap();
    assert_eq!((page.entries.len(), page.next.as_deref()), (0, Some("evt_00000000000000000000010000")));
    assert_eq!(node.feed(verified, 10).len(), 1);
}

#[test]
fn a_page_of_events_has_a_bound_in_bytes() {
    let node = Node::new();
    for n in 1..=100 {
        let mut step = create(n);
        step.verification.metadata = BTreeMap::from([("m".into(), "x".repeat(20_000))]);
        wait(|done| node.store.create(step, done)).unwrap();
    }
    let page = block_on(node.store.events("demo", None, None, 100)).unwrap().unwrap();
    assert!((50..60).contains(&page.entries.len()), "{}", page.entries.len());
    assert_eq!(node.feed(None, 100).len(), 100);
}

#[test]
fn the_feed_holds_every_event_of_the_application_as_it_is_sent() {
    let mut node = Node::new();
    let first = node.create(1).unwrap();
    node.note(first.id, 2, EventType::CallReceived).unwrap();
    node.claim(first.id, 3).unwrap().unwrap();
    let mut step = create(4);
    step.verification.application = "other".into();
    wait(|done| node.store.create(step, done)).unwrap();
    let due: Vec<_> = std::iter::from_fn(|| node.ready.try_recv().ok()).collect();
    for limit in [1, 2, 3, 100] {
        let feed = node.feed(None, limit);
        let sent: Vec<_> = due.iter().map(|due| (due.event.to_string(), due.body.to_string())).collect();
        assert_eq!(feed.into_iter().map(|row| (row.id, row.body)).collect::<Vec<_>>(), sent);
    }
    assert_eq!(node.feed(Some(EventType::Verified), 10).len(), 1);
    let behind = |id: u64| block_on(node.store.events("demo", None, Some(EventId(Ulid(id.into())).to_string()), 10));
    assert_eq!(behind(3).unwrap(), Some(Page { entries: Vec::new(), next: None }));
    assert_eq!((behind(4).unwrap(), behind(99).unwrap()), (None, None), "another's, and none");
}

#[test]
fn an_event_that_is_removed_is_no_place_to_go_on_from() {
    let node = Node::new();
    let gone = node.create(1).unwrap();
    node.delivered(node.due(at(10))[0].id, at(10), 204);
    until(|| node.metrics.webhook_backlog.get() == 0);
    let kept = node.create(50 * 86_400_000).unwrap();
    node.end(gone.id, 20, Status::Expired).unwrap();
    node.delivered(node.due(at(30))[0].id, at(30), 204);
    until(|| node.metrics.webhook_backlog.get() == 1);
    node.store.purge(at(50 * 86_400_000 + 1));
    until(|| node.count("events") == 1);
    let removed = EventId(Ulid(1)).to_string();
    assert_eq!(block_on(node.store.events("demo", None, Some(removed), 10)).unwrap(), None);
    assert_eq!(node.feed(None, 10).len(), 1);
    let page = |after| block_on(node.store.verifications("demo", VerificationFilter::default(), after, 10)).unwrap();
    assert_eq!(page(Some(gone.id)), None);
    assert_eq!(page(None).unwrap().entries, [kept]);
}

#[test]
fn a_reader_that_follows_the_feed_misses_nothing_and_sees_nothing_twice() {
    let node = Node::new();
    let stop = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let writers: Vec<_> = (0..4u64)
            .map(|writer| {
                let node = &node;
                scope.spawn(move || (0..250).for_each(|n| drop(node.create(1 + writer * 1_000 + n).unwrap())))
            })
            .collect();
        let reader = scope.spawn(|| {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let last = stop.load(Ordering::SeqCst);
                let page = block_on(node.store.events("demo", None, after.clone(), 7)).unwrap().unwrap();
                seen.extend(page.entries.into_iter().map(|row| row.id));
                after = seen.last().cloned();
                if last && page.next.is_none() {
                    return seen;
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        reader.join().unwrap()
    });
    let order: Vec<String> = node.feed(None, 100).into_iter().map(|row| row.id).collect();
    assert_eq!(order.len(), 1_000);
    assert_eq!(seen, order);
}

#[test]
fn calls_of_a_verification_come_newest_first_and_show_no_withheld_number() {
    let node = Node::new();
    let (one, other) = (node.create(1).unwrap(), node.create(2).unwrap());
    for n in 10..15 {
        node.note(one.id, n, EventType::CallReceived).unwrap();
    }
    let mut withheld = note(one.id, 15, EventType::CallReceived);
    withheld.call.event.presentation = Presentation::Restricted;
    wait(|done| node.store.note(withheld, done)).unwrap();
    node.claim(one.id, 16).unwrap().unwrap();
    node.note(other.id, 17, EventType::CallReceived).unwrap();
    let calls = |limit| all(|after| block_on(node.store.calls(one.id, after, limit)).unwrap());
    for limit in [1, 3, 100] {
        let ids: Vec<_> = calls(limit).into_iter().map(|call| call.id).collect();
        assert_eq!(ids, [16u64, 15, 14, 13, 12, 11, 10].map(|n| CallRecordId(Ulid(n.into())).to_string()));
    }
    let calls = calls(10);
    assert_eq!((calls[0].outcome.as_str(), calls[0].caller.map(E164::as_u64)), ("verified", Some(CALLER)));
    assert_eq!((calls[1].outcome.as_str(), calls[1].caller), ("refused", None));
    assert_eq!(
        (calls[1].source.as_deref(), calls[1].dialled, calls[1].received_at),
        (Some("pai"), Some(dial(1)), at(15))
    );
    let foreign = CallRecordId(Ulid(17)).to_string();
    assert_eq!(block_on(node.store.calls(one.id, Some(foreign), 10)).unwrap(), None);
}

#[test]
fn every_page_is_found_by_an_index_in_its_own_order() {
    let node = Node::new();
    let connection = node.connection();
    for (sql, found) in [
        (lists::OF_APPLICATION, "(application=? AND rowid>? AND rowid<?)"),
        (lists::OF_STATUS, "(application=? AND status=? AND rowid>? AND rowid<?)"),
        (lists::OF_PHONE, "(application=? AND phone=? AND rowid>? AND rowid<?)"),
        (lists::OF_REFERENCE, "(application=? AND reference=? AND rowid>? AND rowid<?)"),
        (lists::CALLS, "(verification=? AND rowid<?)"),
        (lists::EVENTS, "(application=? AND rowid>?)"),
    ] {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let unbound = rusqlite::params_from_iter(vec![rusqlite::types::Null; statement.parameter_count()]);
        let plan: Vec<String> = statement.query_map(unbound, |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        assert!(plan.len() == 1 && plan[0].contains("USING INDEX") && plan[0].ends_with(found), "{plan:?}");
    }
}
