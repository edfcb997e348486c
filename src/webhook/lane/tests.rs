use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use rustls::RootCertStore;
use tokio::task::JoinHandle;
use ulid::Ulid;

use super::super::attempt::Tls;
use super::super::circuit::TROUBLE;
use super::super::local_server::{LocalServer, Reply, endpoint, within};
use super::super::queue::UNSTORED;
use super::super::settings::Endpoint;
use super::*;
use crate::outbox::event::EventId;

#[tokio::test]
async fn delivered_and_failed_tries_are_settled_and_counted() {
    let healthy = LocalServer::start(Reply::status(202)).await;
    let mut lane = Running::start(&healthy.url());
    lane.fresh.send(due(7, 0)).await.unwrap();
    let settled = within(lane.settled.recv()).await.unwrap();
    assert_eq!(settled, delivered(7, 1, 202));

    let failing = LocalServer::start(Reply::status(503).with("retry-after", "60")).await;
    let mut lane = Running::start(&failing.url());
    lane.fresh.send(due(8, 0)).await.unwrap();
    let settled = within(lane.settled.recv()).await.unwrap();
    let last = LastAttempt { at: now(), status: Some(503), error: Some("status 503".to_owned()) };
    let next_at = Some(now() + Duration::from_mins(1));
    assert_eq!(settled, Tried { id: DeliveryId(8), attempts: 1, replayed_after: 0, last, next_at });
    assert_eq!(lane.metrics.webhook_attempts.with_label_values(&["demo", "failed"]).get(), 1);
}

#[tokio::test]
async fn due_rows_are_asked_for_and_tried_until_there_are_no_more() {
    let server = LocalServer::start(Reply::status(204)).await;
    let mut lane = Running::start(&server.url());
    let asked = within(lane.questions.recv()).await.unwrap();
    let first: Vec<Due> = (0..i64::from(asked)).map(|id| due(id, 1)).collect();
    let count = first.len();
    lane.answers.send(first).await.unwrap();
    // A full answer means more: the lane asks again as soon as the queue is low. The row that is named again is the
    // store being a moment behind.
    within(lane.questions.recv()).await.unwrap();
    lane.answers.send(vec![due(0, 1), due(100_000, 0)]).await.unwrap();
    let mut done = Vec::new();
    for _ in 0..=count {
        let settled = within(lane.settled.recv()).await.unwrap();
        assert_eq!(settled.last, LastAttempt { at: now(), status: Some(204), error: None });
        done.push(settled.id.0);
    }
    done.sort_unstable();
    let expected: Vec<i64> = (0..i64::from(asked)).chain([100_000]).collect();
    assert_eq!(done, expected, "each is tried once");
}

#[tokio::test]
async fn tries_held_for_want_of_stored_results_go_on_when_there_is_news() {
    let server = LocalServer::start(Reply::status(204)).await;
    let mut lane = Running::start(&server.url());
    let most = i64::try_from(UNSTORED + IN_FLIGHT).unwrap();
    let mut tried = 0;
    for id in 0..=most {
        lane.fresh.send(due(id, 0)).await.unwrap();
        while lane.settled.try_recv().is_ok() {
            tried += 1;
        }
    }
    while tried < UNSTORED {
        within(lane.settled.recv()).await.unwrap();
        tried += 1;
    }
    // What is in flight then may still end; the last one sent needs the news.
    for id in 0..128 {
        lane.stored.send((DeliveryId(id), 1)).await.unwrap();
    }
    while tried <= UNSTORED + IN_FLIGHT {
        within(lane.settled.recv()).await.unwrap();
        tried += 1;
    }
}

#[tokio::test]
async fn attempts_in_flight_are_bounded() {
    let server = LocalServer::start(Reply::Hang).await;
    let lane = Running::start(&server.url());
    for id in 0..200 {
        lane.fresh.send(due(id, 0)).await.unwrap();
    }
    within(async {
        while server.waiting() < IN_FLIGHT {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The lane took all of them in and yet began no other attempt.
    within(async {
        while lane.fresh.capacity() < lane.fresh.max_capacity() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((server.waiting(), server.connections()), (IN_FLIGHT, IN_FLIGHT));
}

#[tokio::test]
async fn stopping_ends_what_hangs_after_the_grace_and_settles_nothing_of_it() {
    let mut server = LocalServer::start(Reply::Hang).await;
    let mut lane = Running::start(&server.url());
    lane.fresh.send(due(1, 0)).await.unwrap();
    server.next().await;
    lane.stop.send(Some(Duration::from_millis(50))).unwrap();
    within(&mut lane.task).await.unwrap();
    assert_eq!(lane.settled.recv().await, None);
}

#[tokio::test]
async fn refused_address_is_counted_as_such() {
    let mut lane = Running::with(endpoint("https://localhost:1/", false));
    lane.fresh.send(due(1, 0)).await.unwrap();
    let error = within(lane.settled.recv()).await.unwrap().last.error.unwrap();
    assert!(error.ends_with("is not a public address: loopback"), "{error}");
    assert_eq!(lane.metrics.webhook_attempts.with_label_values(&["demo", "refused_address"]).get(), 1);
}

#[tokio::test]
async fn a_receiver_that_fails_is_only_probed_until_it_is_well() {
    let server = LocalServer::start(Reply::status(500)).await;
    let mut lane = Running::start(&server.url());
    let many = i64::from(TROUBLE) * 3;
    for id in 0..many {
        lane.fresh.send(due(id, 0)).await.unwrap();
    }
    for _ in 0..TROUBLE {
        within(lane.settled.recv()).await.unwrap();
    }
    let probed = || lane.metrics.webhook_endpoints_probed.get();
    within(async {
        while probed() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.reply(Reply::status(204));
    // What was in flight when it came to that has failed, then a probe succeeds and the rest follows at once.
    let mut left = many - i64::from(TROUBLE);
    let mut well = 0;
    while left > 0 {
        let settled = within(lane.settled.recv()).await.unwrap();
        well += i64::from(settled.last.error.is_none());
        left -= 1;
    }
    assert!(well > i64::from(TROUBLE), "{well}");
    assert_eq!(lane.metrics.webhook_endpoints_probed.get(), 0);
}

#[tokio::test]
async fn a_receiver_that_refuses_some_events_gets_the_others_at_once() {
    for refusal in [400, 409, 413, 415, 422] {
        let server = LocalServer::start(Reply::status(refusal)).await;
        let mut lane = Running::start(&server.url());
        let many = i64::from(TROUBLE) * 3;
        for id in 0..many {
            lane.fresh.send(due(id, 0)).await.unwrap();
        }
        for _ in 0..many {
            let settled = within(lane.settled.recv()).await.unwrap();
            assert_eq!(settled.last.status, Some(refusal));
            assert_eq!(lane.metrics.webhook_endpoints_probed.get(), 0, "{refusal}");
        }
    }
}

#[tokio::test]
async fn gone_holds_everything_until_the_store_has_said_what_follows() {
    let mut server = LocalServer::start(Reply::status(410)).await;
    let mut lane = Running::start(&server.url());
    lane.fresh.send(due(1, 0)).await.unwrap();
    let settled = within(lane.settled.recv()).await.unwrap();
    assert_eq!(settled.last.status, Some(410));
    server.next().await;
    for id in 2..100 {
        lane.fresh.send(due(id, 0)).await.unwrap();
    }
    within(lane.questions.recv()).await.unwrap();
    lane.disabled.send_replace(Arc::new([EndpointId(server.url().into())].into()));
    lane.stored.send((DeliveryId(1), 1)).await.unwrap();
    // A poll that was under way still comes; it is not for a disabled endpoint.
    lane.answers.send(vec![due(200, 0)]).await.unwrap();
    within(async {
        while lane.answers.capacity() < 1 || lane.fresh.capacity() < lane.fresh.max_capacity() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(server.waiting(), 0, "nothing is sent to it");

    server.reply(Reply::status(204));
    lane.disabled.send_replace(Arc::default());
    within(lane.questions.recv()).await.unwrap();
    lane.answers.send(vec![due(2, 0), due(200, 0)]).await.unwrap();
    for _ in 0..2 {
        let settled = within(lane.settled.recv()).await.unwrap();
        assert_eq!(settled.last.status, Some(204));
    }
}

#[tokio::test]
async fn what_is_held_is_let_go_and_read_anew_once_data_was_erased() {
    let server = LocalServer::start(Reply::Hang).await;
    let mut lane = Running::start(&server.url());
    // A question is open, whose answer was read before.
    within(lane.questions.recv()).await.unwrap();
    for id in 0..200 {
        lane.fresh.send(due(id, 0)).await.unwrap();
    }
    within(async {
        while server.waiting() < IN_FLIGHT {
            tokio::task::yield_now().await;
        }
    })
    .await;
    lane.clear.send_replace([("demo".to_owned(), 1)].into());
    within(async {
        while lane.fresh.capacity() < lane.fresh.max_capacity() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let outdated = Due { body: "{\"phone\":1}".into(), ..due(300, 0) };
    lane.answers.send(vec![outdated]).await.unwrap();
    within(lane.questions.recv()).await.unwrap();
    server.reply(Reply::status(204));
    lane.answers.send(vec![Due { body: "{\"erased\":true}".into(), ..due(300, 0) }]).await.unwrap();
    let mut others = Vec::new();
    while others.is_empty() {
        let settled = within(lane.settled.recv()).await.unwrap();
        others.extend(Some(settled.id.0).filter(|id| *id >= i64::try_from(IN_FLIGHT).unwrap()));
    }
    assert_eq!(others, [300], "nothing of what waited was sent");
}

#[tokio::test]
async fn further_events_gather_while_batches_are_under_way() {
    let mut server = LocalServer::start(Reply::Hang).await;
    let lane = Running::with(Endpoint { batch: 50, ..endpoint(&server.url(), true) });
    for id in 0..i64::try_from(BATCHES_IN_FLIGHT).unwrap() {
        lane.fresh.send(due(id, 0)).await.unwrap();
        assert_eq!(events(&server.next().await.body), 1);
    }
    for id in 100..220 {
        lane.fresh.send(due(id, 0)).await.unwrap();
    }
    within(async {
        while lane.fresh.capacity() < lane.fresh.max_capacity() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(server.waiting(), 0);
}

#[tokio::test]
async fn what_waits_goes_in_as_few_requests_as_hold_it() {
    let mut server = LocalServer::start(Reply::status(200)).await;
    let mut lane = Running::with(Endpoint { batch: 10, ..endpoint(&server.url(), true) });
    within(lane.questions.recv()).await.unwrap();
    let least = i64::try_from(pace::LEAST).unwrap();
    lane.answers.send((0..least).map(|id| due(id, 0)).collect()).await.unwrap();
    let mut sizes = Vec::new();
    for _ in 0..2 {
        sizes.push(events(&server.next().await.body));
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [6, 10]);
    let mut settled = Vec::new();
    for _ in 0..least {
        let tried = within(lane.settled.recv()).await.unwrap();
        assert_eq!((tried.attempts, tried.last.status), (1, Some(200)));
        settled.push(tried.id.0);
    }
    settled.sort_unstable();
    assert_eq!(settled, (0..least).collect::<Vec<i64>>());
    assert_eq!(lane.metrics.webhook_attempts.with_label_values(&["demo", "delivered"]).get(), 16);
}

#[tokio::test]
async fn a_batch_that_is_refused_for_an_event_is_sent_one_by_one() {
    let mut server = LocalServer::start(Reply::status(422)).await;
    let mut lane = Running::with(Endpoint { batch: 50, ..endpoint(&server.url(), true) });
    within(lane.questions.recv()).await.unwrap();
    lane.answers.send((0..3).map(|id| due(id, 2)).collect()).await.unwrap();
    let mut sizes = Vec::new();
    for _ in 0..4 {
        sizes.push(events(&server.next().await.body));
    }
    assert_eq!(sizes, [3, 1, 1, 1]);
    for _ in 0..3 {
        let tried = within(lane.settled.recv()).await.unwrap();
        assert_eq!((tried.attempts, tried.last.status), (3, Some(422)), "the try together is none of theirs");
    }
}

#[tokio::test]
async fn a_batch_that_fails_fails_for_each_of_its_events() {
    let server = LocalServer::start(Reply::status(500)).await;
    let mut lane = Running::with(Endpoint { batch: 50, ..endpoint(&server.url(), true) });
    within(lane.questions.recv()).await.unwrap();
    lane.answers.send((0..30).map(|id| due(id, 1)).collect()).await.unwrap();
    for _ in 0..30 {
        let tried = within(lane.settled.recv()).await.unwrap();
        assert_eq!((tried.attempts, tried.last.status, tried.next_at.is_some()), (2, Some(500), true));
    }
    assert_eq!(lane.metrics.webhook_endpoints_probed.get(), 0, "one request has failed");
}

/// How many events a batch holds.
fn events(body: &[u8]) -> usize {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!(body["type"], "event.batch");
    body["data"]["events"].as_array().unwrap().len()
}

#[tokio::test]
async fn changed_settings_hold_from_the_next_attempt_and_what_waits_stays() {
    let (first, mut second) = (LocalServer::start(Reply::Hang).await, LocalServer::start(Reply::status(204)).await);
    let lane = Running::start(&first.url());
    for id in 0..100 {
        lane.fresh.send(due(id, 0)).await.unwrap();
    }
    within(async {
        while first.waiting() < IN_FLIGHT || lane.fresh.capacity() < lane.fresh.max_capacity() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    lane.poster.send_replace(poster(&endpoint(&second.url(), true)));
    // Places are taken by attempts that hang; the first one free goes to the new address.
    drop(first);
    second.next().await;
}

#[test]
fn the_twelfth_failure_is_the_last_and_a_replay_has_twelve_more() {
    let failed = Outcome::from(AttemptError::Timeout);
    let day = now() + Duration::from_hours(24);
    let settled = settle(&due(1, 11), &failed, day, 0.5);
    assert_eq!((settled.attempts, settled.next_at), (12, None));
    assert_eq!(settled.last.error.as_deref(), Some("no answer within 10 s"));
    let replayed = Due { planned_from: day, replayed_after: 12, ..due(1, 12) };
    let settled = settle(&replayed, &failed, day, 0.5);
    assert_eq!((settled.attempts, settled.replayed_after), (13, 12));
    assert_eq!(settled.next_at, Some(day + Duration::from_secs(1)));
    assert_eq!(settle(&Due { attempts: 23, ..replayed }, &failed, day, 0.5).next_at, None);
}

proptest! {
    #[test]
    fn failure_never_plans_a_try_for_the_past_and_counts_it(attempts in 0u32..11, age in 0u64..200_000, jitter in 0.0f64..1.0, wait in prop::option::of(0u64..100_000)) {
        let at = now() + Duration::from_secs(age);
        let failed = Outcome::Failed { error: AttemptError::Status(500), retry_after: wait.map(Duration::from_secs) };
        let settled = settle(&due(1, attempts), &failed, at, jitter);
        prop_assert_eq!(settled.attempts, attempts + 1);
        prop_assert!(settled.next_at.is_some_and(|next_at| next_at >= at));
    }
}

fn delivered(id: i64, attempts: u32, status: u16) -> Tried {
    let last = LastAttempt { at: now(), status: Some(status), error: None };
    Tried { id: DeliveryId(id), attempts, replayed_after: 0, last, next_at: None }
}

fn poster(endpoint: &Endpoint) -> Arc<Poster> {
    Arc::new(Poster::new(endpoint, &Tls::with_roots(RootCertStore::empty())))
}

struct Running {
    fresh: mpsc::Sender<Due>,
    questions: mpsc::Receiver<u32>,
    answers: mpsc::Sender<Vec<Due>>,
    settled: mpsc::Receiver<Tried>,
    stored: mpsc::Sender<(DeliveryId, u32)>,
    poster: watch::Sender<Arc<Poster>>,
    disabled: watch::Sender<DisabledEndpoints>,
    clear: watch::Sender<Erasures>,
    metrics: Metrics,
    stop: watch::Sender<Option<Duration>>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(url: &str) -> Self {
        Self::with(endpoint(url, true))
    }

    fn with(endpoint: Endpoint) -> Self {
        let (fresh, handed_over) = mpsc::channel(256);
        let (polls, questions) = mpsc::channel(1);
        let (answers, polled) = mpsc::channel(1);
        let (results, settled) = mpsc::channel(1024);
        let (stored, told) = mpsc::channel(1024);
        let (stop, stopping) = watch::channel(None);
        let (set_poster, poster) = watch::channel(poster(&endpoint));
        let (disable, disabled) = watch::channel(DisabledEndpoints::default());
        let (clear, cleared) = watch::channel(Erasures::default());
        let metrics = Metrics::new();
        let lane = Lane {
            application: "demo".to_owned(),
            endpoint: endpoint.id,
            poster,
            disabled,
            clear: cleared,
            counters: Counters::new(&metrics, "demo"),
            clock: now,
            fresh: handed_over,
            polls,
            polled,
            settled: results,
            stored: told,
        };
        let task = tokio::spawn(lane.run(stopping));
        let (poster, disabled) = (set_poster, disable);
        Self { fresh, questions, answers, settled, stored, poster, disabled, clear, metrics, stop, task }
    }
}

fn due(id: i64, attempts: u32) -> Due {
    Due {
        id: DeliveryId(id),
        endpoint: EndpointId("demo".into()),
        event: EventId(Ulid::nil()),
        kind: EventType::Verified,
        planned_from: now(),
        attempts,
        replayed_after: 0,
        body: "{\"data\":{}}".into(),
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_764_000_001)
}
