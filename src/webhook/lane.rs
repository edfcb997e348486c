//! One endpoint's lane: a task that tries its deliveries, so many at a time, and says what became of each.
//!
//! Owns the queue of one endpoint and its attempts in flight. Reads and writes no store: rows and results pass through
//! channels (`worker` has the other ends). Invariant: every delivery taken in is settled, or is left as it was in the
//! store when the lane ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::{Histogram, IntCounter};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::attempt::{AttemptError, Outcome, Poster};
use super::queue::{DONE, Queue};
use super::{Clock, stopped};
use crate::outbox::delivery::{DeliveryId, Due};
use crate::outbox::event::EventType;
use crate::outbox::schedule;
use crate::store::Delivery;
use crate::telemetry::metrics::Metrics;

/// Attempts in flight to one endpoint.
pub(super) const IN_FLIGHT: usize = 64;

/// How often the store is asked for rows that are due.
const POLL: Duration = Duration::from_secs(1);

/// Rows are asked for when no more than this many wait.
const LOW_WATER: usize = IN_FLIGHT;

/// Rows asked for beyond those that are known, which the store still names.
const BATCH: usize = 512;

/// Polls after which a stored result is forgotten, once more at the latest.
const FORGET: u32 = 5;

/// What became of a try: the step that the store has to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settlement {
    /// The row.
    pub(super) id: DeliveryId,
    /// Its new state.
    pub(super) state: Delivery,
}

impl Settlement {
    /// How many attempts the row will have had.
    pub(super) fn made(&self) -> u32 {
        match self.state {
            Delivery::PutOff { attempts, .. } => attempts,
            Delivery::Delivered { .. } | Delivery::Exhausted { .. } => DONE,
        }
    }
}

/// Decides what follows `outcome`. `jitter` is a random number in 0..1.
fn settle(due: &Due, outcome: &Outcome, now: SystemTime, jitter: f64) -> Settlement {
    let (error, retry_after) = match outcome {
        Outcome::Delivered(status) => {
            return Settlement { id: due.id, state: Delivery::Delivered { at: now, status: *status } };
        }
        Outcome::Failed { error, retry_after } => (error.to_string(), *retry_after),
    };
    let attempts = due.attempts.saturating_add(1);
    let age = now.duration_since(due.planned_from).unwrap_or_default();
    let state = match schedule::next_attempt(attempts, age, jitter, retry_after) {
        Some(offset) => Delivery::PutOff { attempts, next_at: due.planned_from + offset, error },
        None => Delivery::Exhausted { attempts, error },
    };
    Settlement { id: due.id, state }
}

/// The attempts' counters of one application.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    delivered: IntCounter,
    failed: IntCounter,
    refused_address: IntCounter,
    exhausted: IntCounter,
    invite_to_webhook: Histogram,
}

impl Counters {
    pub(super) fn new(metrics: &Metrics, application: &str) -> Self {
        let child = |result| metrics.webhook_attempts.with_label_values(&[application, result]);
        Self {
            delivered: child("delivered"),
            failed: child("failed"),
            refused_address: child("refused_address"),
            exhausted: child("exhausted"),
            invite_to_webhook: metrics.invite_to_webhook.clone(),
        }
    }

    /// Every attempt counts once: as the last one where it was. How long a call's way to the receiver took is told by
    /// first attempts alone, for the later ones wait by plan.
    fn count(&self, due: &Due, outcome: &Outcome, state: &Delivery) {
        if let Delivery::Delivered { at, .. } = state
            && due.kind == EventType::Verified
            && due.attempts == 0
        {
            self.invite_to_webhook.observe(at.duration_since(due.planned_from).unwrap_or_default().as_secs_f64());
        }
        match (state, outcome) {
            (Delivery::Delivered { .. }, _) => &self.delivered,
            (Delivery::Exhausted { .. }, _) => &self.exhausted,
            (_, Outcome::Failed { error, .. }) if error.is_refused_address() => &self.refused_address,
            _ => &self.failed,
        }
        .inc();
    }
}

/// The task of one endpoint.
pub(super) struct Lane {
    pub(super) application: String,
    pub(super) poster: Arc<Poster>,
    pub(super) counters: Counters,
    pub(super) clock: Clock,
    /// New deliveries, right after their commit.
    pub(super) fresh: mpsc::Receiver<Due>,
    /// Asks for so many rows that are due; one question at a time.
    pub(super) polls: mpsc::Sender<u32>,
    /// The answers.
    pub(super) polled: mpsc::Receiver<Vec<Due>>,
    /// What became of each try.
    pub(super) settled: mpsc::Sender<Settlement>,
    /// The results that the store has answered for, each with the attempts made.
    pub(super) stored: mpsc::Receiver<(DeliveryId, u32)>,
}

impl Lane {
    /// Works until `stop` says so, then lets the attempts in flight end within `grace`. What still waits then, and
    /// what is cut off, is due in the store.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>, grace: Duration) {
        let mut work =
            Work { lane: self, queue: Queue::default(), attempts: JoinSet::new(), in_flight: HashMap::new() };
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ticks, mut asked) = (0u32, None);
        let mut more = false;
        loop {
            work.start();
            if more && asked.is_none() && work.queue.len() <= LOW_WATER {
                more = false;
                asked = work.ask();
            }
            tokio::select! {
                // The rare ones first: under load the others are always ready.
                biased;
                () = stopped(&mut stop) => break,
                _ = tick.tick() => {
                    ticks += 1;
                    // Rows that a slow poll brings may be older than the news that their results are stored.
                    if ticks >= FORGET && asked.is_none() {
                        ticks = 0;
                        work.queue.forget();
                    }
                    if asked.is_none() && work.queue.len() <= LOW_WATER {
                        asked = work.ask();
                    }
                }
                Some((id, made)) = work.lane.stored.recv() => work.queue.stored(id, made),
                Some(rows) = work.lane.polled.recv() => {
                    let full = asked.take().is_some_and(|limit| rows.len() >= limit as usize);
                    let admitted = rows.into_iter().map(|row| work.queue.admit(row)).filter(|admitted| *admitted).count();
                    // A full answer with nothing new is the store being behind: the next tick is soon enough.
                    more = full && admitted > 0;
                }
                Some(ended) = work.attempts.join_next_with_id() => work.end(ended).await,
                Some(due) = work.lane.fresh.recv(), if work.queue.has_room() => { work.queue.admit(due); }
            }
        }
        work.wind_up(grace).await;
    }
}

/// A lane at work.
struct Work {
    lane: Lane,
    queue: Queue,
    attempts: JoinSet<Outcome>,
    in_flight: HashMap<Id, Due>,
}

impl Work {
    fn start(&mut self) {
        while self.in_flight.len() < IN_FLIGHT
            && let Some(due) = self.queue.take()
        {
            let (poster, now) = (Arc::clone(&self.lane.poster), (self.lane.clock)());
            let (event, body) = (due.event, Arc::clone(&due.body));
            let task = self.attempts.spawn(async move { poster.post(&event.to_string(), &body, now).await });
            self.in_flight.insert(task.id(), due);
        }
    }

    /// Asks for rows; gives how many at most.
    fn ask(&self) -> Option<u32> {
        if self.queue.is_held() {
            return None;
        }
        let limit = u32::try_from(self.queue.tracked() + BATCH).unwrap_or(u32::MAX);
        self.lane.polls.try_send(limit).is_ok().then_some(limit)
    }

    async fn end(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (task, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), AttemptError::Aborted.into()),
        };
        let Some(due) = self.in_flight.remove(&task) else { return };
        let settlement = settle(&due, &outcome, (self.lane.clock)(), rand::random());
        self.lane.counters.count(&due, &outcome, &settlement.state);
        let application = &self.lane.application;
        match &settlement.state {
            Delivery::Delivered { .. } => {}
            Delivery::PutOff { attempts, error, .. } => {
                tracing::debug!(application, event = %due.event, attempts, error, "webhook attempt failed");
            }
            Delivery::Exhausted { attempts, error } => {
                tracing::warn!(application, event = %due.event, attempts, error, "webhook delivery given up");
            }
        }
        self.queue.settle(settlement.id, settlement.made());
        // Nobody listens only when the worker itself is gone; the row is due again after the next start.
        let _ = self.lane.settled.send(settlement).await;
    }

    async fn wind_up(&mut self, grace: Duration) {
        let ending = async {
            while let Some(ended) = self.attempts.join_next_with_id().await {
                self.end(ended).await;
            }
        };
        if timeout(grace, ending).await.is_err() {
            self.attempts.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;
    use rustls::RootCertStore;
    use tokio::task::JoinHandle;
    use ulid::Ulid;

    use super::super::attempt::Tls;
    use super::super::local_server::{LocalServer, Reply, endpoint, within};
    use super::super::queue::UNSTORED;
    use super::*;
    use crate::outbox::delivery::EndpointId;
    use crate::outbox::event::EventId;

    #[tokio::test]
    async fn delivered_and_failed_tries_are_settled_and_counted() {
        let healthy = LocalServer::start(Reply::status(202)).await;
        let mut lane = Running::start(&healthy.url());
        lane.fresh.send(due(7, 0)).await.unwrap();
        let settled = within(lane.settled.recv()).await.unwrap();
        let delivered = Delivery::Delivered { at: now(), status: 202 };
        assert_eq!(settled, Settlement { id: DeliveryId(7), state: delivered });

        let failing = LocalServer::start(Reply::status(503).with("retry-after", "60")).await;
        let mut lane = Running::start(&failing.url());
        lane.fresh.send(due(8, 0)).await.unwrap();
        let put_off =
            Delivery::PutOff { attempts: 1, next_at: now() + Duration::from_mins(1), error: "status 503".to_owned() };
        let settled = within(lane.settled.recv()).await.unwrap();
        assert_eq!(settled, Settlement { id: DeliveryId(8), state: put_off });
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
            assert_eq!(settled.state, Delivery::Delivered { at: now(), status: 204 });
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
            lane.stored.send((DeliveryId(id), DONE)).await.unwrap();
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
        lane.stop.send(true).unwrap();
        within(&mut lane.task).await.unwrap();
        assert_eq!(lane.settled.recv().await, None);
    }

    #[tokio::test]
    async fn refused_address_is_counted_as_such() {
        let mut lane = Running::with(endpoint("https://localhost:1/", false));
        lane.fresh.send(due(1, 0)).await.unwrap();
        match within(lane.settled.recv()).await.unwrap().state {
            Delivery::PutOff { error, .. } => {
                assert!(error.ends_with("is not a public address: loopback"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(lane.metrics.webhook_attempts.with_label_values(&["demo", "refused_address"]).get(), 1);
    }

    #[test]
    fn the_twelfth_failure_is_the_last() {
        let failed = Outcome::from(AttemptError::Timeout);
        let settlement = settle(&due(1, 11), &failed, now() + Duration::from_hours(24), 0.5);
        let error = "no answer within 10 s".to_owned();
        assert_eq!(settlement.state, Delivery::Exhausted { attempts: 12, error });
    }

    proptest! {
        #[test]
        fn failure_never_plans_a_try_for_the_past_and_counts_it(attempts in 0u32..11, age in 0u64..200_000, jitter in 0.0f64..1.0, wait in prop::option::of(0u64..100_000)) {
            let at = now() + Duration::from_secs(age);
            let failed = Outcome::Failed { error: AttemptError::Status(500), retry_after: wait.map(Duration::from_secs) };
            match settle(&due(1, attempts), &failed, at, jitter).state {
                Delivery::PutOff { attempts: counted, next_at, .. } => {
                    prop_assert_eq!(counted, attempts + 1);
                    prop_assert!(next_at >= at);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    struct Running {
        fresh: mpsc::Sender<Due>,
        questions: mpsc::Receiver<u32>,
        answers: mpsc::Sender<Vec<Due>>,
        settled: mpsc::Receiver<Settlement>,
        stored: mpsc::Sender<(DeliveryId, u32)>,
        metrics: Metrics,
        stop: watch::Sender<bool>,
        task: JoinHandle<()>,
    }

    impl Running {
        fn start(url: &str) -> Self {
            Self::with(endpoint(url, true))
        }

        fn with(endpoint: super::super::settings::Endpoint) -> Self {
            let (fresh, handed_over) = mpsc::channel(256);
            let (polls, questions) = mpsc::channel(1);
            let (answers, polled) = mpsc::channel(1);
            let (results, settled) = mpsc::channel(1024);
            let (stored, told) = mpsc::channel(1024);
            let (stop, stopping) = watch::channel(false);
            let metrics = Metrics::new();
            let lane = Lane {
                application: "demo".to_owned(),
                poster: Arc::new(Poster::new(endpoint, &Tls::with_roots(RootCertStore::empty()))),
                counters: Counters::new(&metrics, "demo"),
                clock: now,
                fresh: handed_over,
                polls,
                polled,
                settled: results,
                stored: told,
            };
            let task = tokio::spawn(lane.run(stopping, Duration::from_millis(50)));
            Self { fresh, questions, answers, settled, stored, metrics, stop, task }
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
            body: "{}".into(),
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_764_000_001)
    }
}
