//! One endpoint's lane: a task that tries its deliveries, so many at a time, and says what became of each.
//!
//! Owns the queue of one endpoint and its attempts in flight. Reads and writes no store: rows and results pass through
//! channels (`worker` has the other ends). Invariant: every delivery taken in is settled, or is left as it was in the
//! store when the lane ends. A disabled endpoint is sent nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::{Histogram, IntCounter, IntGauge};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Clock;
use super::attempt::{AttemptError, Outcome, Poster};
use super::circuit::Circuit;
use super::queue::Queue;
use crate::outbox::delivery::{DeliveryId, Due, EndpointId};
use crate::outbox::event::EventType;
use crate::outbox::notice::LastAttempt;
use crate::outbox::schedule;
use crate::store::{DisabledEndpoints, Tried};
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

/// Decides what follows `outcome`. `jitter` is a random number in 0..1.
fn settle(due: &Due, outcome: &Outcome, now: SystemTime, jitter: f64) -> Tried {
    let attempts = due.attempts.saturating_add(1);
    let (status, error, next_at) = match outcome {
        Outcome::Delivered(status) => (Some(*status), None, None),
        Outcome::Failed { error, retry_after } => {
            let planned = attempts.saturating_sub(due.replayed_after);
            let age = now.duration_since(due.planned_from).unwrap_or_default();
            let offset = schedule::next_attempt(planned, age, jitter, *retry_after);
            (error.status(), Some(error.to_string()), offset.map(|offset| due.planned_from + offset))
        }
    };
    let last = LastAttempt { at: now, status, error };
    Tried { id: due.id, attempts, replayed_after: due.replayed_after, last, next_at }
}

/// The attempts' counters of one application.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    delivered: IntCounter,
    failed: IntCounter,
    refused_address: IntCounter,
    exhausted: IntCounter,
    invite_to_webhook: Histogram,
    probed: IntGauge,
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
            probed: metrics.webhook_endpoints_probed.clone(),
        }
    }

    /// Every attempt counts once: as the last one where it was. How long a call's way to the receiver took is told by
    /// first attempts alone, for the later ones wait by plan.
    fn count(&self, due: &Due, outcome: &Outcome, tried: &Tried) {
        match outcome {
            Outcome::Delivered(_) => {
                if due.kind == EventType::Verified && due.attempts == 0 {
                    let time = tried.last.at.duration_since(due.planned_from).unwrap_or_default();
                    self.invite_to_webhook.observe(time.as_secs_f64());
                }
                &self.delivered
            }
            Outcome::Failed { .. } if tried.next_at.is_none() => &self.exhausted,
            Outcome::Failed { error, .. } if error.is_refused_address() => &self.refused_address,
            Outcome::Failed { .. } => &self.failed,
        }
        .inc();
    }
}

/// The task of one endpoint.
pub(super) struct Lane {
    pub(super) application: String,
    pub(super) endpoint: EndpointId,
    /// Who makes the attempts; another one when the endpoint's settings change.
    pub(super) poster: watch::Receiver<Arc<Poster>>,
    /// The endpoints that are sent nothing.
    pub(super) disabled: watch::Receiver<DisabledEndpoints>,
    pub(super) counters: Counters,
    pub(super) clock: Clock,
    /// New deliveries, right after their commit.
    pub(super) fresh: mpsc::Receiver<Due>,
    /// Asks for so many rows that are due; one question at a time.
    pub(super) polls: mpsc::Sender<u32>,
    /// The answers.
    pub(super) polled: mpsc::Receiver<Vec<Due>>,
    /// What became of each try.
    pub(super) settled: mpsc::Sender<Tried>,
    /// The results that the store has answered for, each with the attempts made.
    pub(super) stored: mpsc::Receiver<(DeliveryId, u32)>,
}

impl Lane {
    /// Works until `stop` gives a time, then lets the attempts in flight end within it. What still waits then, and what
    /// is cut off, is due in the store.
    pub(super) async fn run(self, mut stop: watch::Receiver<Option<Duration>>) {
        let mut work = Work {
            circuit: Circuit::new(self.counters.probed.clone()),
            lane: self,
            queue: Queue::default(),
            attempts: JoinSet::new(),
            in_flight: HashMap::new(),
            paused: false,
            gone: None,
        };
        work.look_if_paused();
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ticks, mut asked) = (0u32, None);
        let mut more = false;
        let grace = loop {
            work.start();
            if more && asked.is_none() && work.queue.len() <= LOW_WATER {
                more = false;
                asked = work.ask();
            }
            tokio::select! {
                // The rare ones first: under load the others are always ready.
                biased;
                grace = ending(&mut stop) => break grace,
                Ok(()) = work.lane.disabled.changed() => {
                    work.look_if_paused();
                    more = !work.paused;
                }
                _ = tick.tick() => {
                    work.circuit.turn();
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
                Some((id, made)) = work.lane.stored.recv() => work.stored(id, made),
                Some(rows) = work.lane.polled.recv() => {
                    let full = asked.take().is_some_and(|limit| rows.len() >= limit as usize);
                    // A full answer with nothing new is the store being behind: the next tick is soon enough.
                    more = work.admit(rows) > 0 && full;
                }
                Some(ended) = work.attempts.join_next_with_id() => work.end(ended).await,
                Some(due) = work.lane.fresh.recv(), if work.paused || work.queue.has_room() => {
                    if !work.paused {
                        work.queue.admit_fresh(due);
                    }
                }
            }
        };
        work.wind_up(grace).await;
    }
}

/// Waits until the lane has to end; gives the time that it has for it.
async fn ending(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match stop.wait_for(Option::is_some).await {
        Ok(grace) => grace.unwrap_or_default(),
        // Nobody is left to say so.
        Err(_) => Duration::ZERO,
    }
}

/// A lane at work.
struct Work {
    lane: Lane,
    queue: Queue,
    circuit: Circuit,
    attempts: JoinSet<Outcome>,
    in_flight: HashMap<Id, Due>,
    /// The endpoint is disabled: nothing is tried, and what waits is left to the store.
    paused: bool,
    /// The try that the receiver answered with 410, until the store has disabled the endpoint for it.
    gone: Option<DeliveryId>,
}

impl Work {
    fn start(&mut self) {
        while !self.paused
            && self.gone.is_none()
            && self.in_flight.len() < IN_FLIGHT
            && self.circuit.allows(self.in_flight.len())
            && let Some(due) = self.queue.take()
        {
            self.circuit.began();
            let (poster, now) = (Arc::clone(&self.lane.poster.borrow()), (self.lane.clock)());
            let (event, body) = (due.event, Arc::clone(&due.body));
            let task = self.attempts.spawn(async move { poster.post(&event.to_string(), &body, now).await });
            self.in_flight.insert(task.id(), due);
        }
    }

    /// Asks for rows; gives how many at most.
    fn ask(&self) -> Option<u32> {
        if self.paused || self.queue.is_held() {
            return None;
        }
        let limit = u32::try_from(self.queue.tracked() + BATCH).unwrap_or(u32::MAX);
        self.lane.polls.try_send(limit).is_ok().then_some(limit)
    }

    /// Takes rows in; gives how many are new.
    fn admit(&mut self, rows: Vec<Due>) -> usize {
        if self.paused {
            return 0;
        }
        rows.into_iter().map(|row| self.queue.admit(row)).filter(|admitted| *admitted).count()
    }

    fn look_if_paused(&mut self) {
        self.paused = self.lane.disabled.borrow_and_update().contains(&self.lane.endpoint);
        if self.paused {
            self.queue.clear();
        }
    }

    fn stored(&mut self, id: DeliveryId, made: u32) {
        self.queue.stored(id, made);
        if self.gone == Some(id) {
            self.gone = None;
            self.look_if_paused();
        }
    }

    async fn end(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (task, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), AttemptError::Aborted.into()),
        };
        let Some(due) = self.in_flight.remove(&task) else { return };
        let tried = settle(&due, &outcome, (self.lane.clock)(), rand::random());
        self.lane.counters.count(&due, &outcome, &tried);
        let application = &self.lane.application;
        match &outcome {
            Outcome::Delivered(_) => self.circuit.success(),
            Outcome::Failed { error, .. } => {
                if error.is_of_the_event() {
                    self.circuit.success();
                } else if self.circuit.failure() {
                    let endpoint = self.lane.endpoint.public();
                    tracing::info!(application, endpoint, %error, "webhook endpoint fails, it is only probed now");
                }
                let attempts = tried.attempts;
                if tried.next_at.is_some() {
                    tracing::debug!(application, event = %due.event, attempts, %error, "webhook attempt failed");
                } else {
                    tracing::warn!(application, event = %due.event, attempts, %error, "webhook delivery given up");
                }
                if error.is_gone() {
                    self.gone = Some(due.id);
                }
            }
        }
        self.queue.settle(tried.id, tried.attempts);
        // Nobody listens only when the worker itself is gone; the row is due again after the next start.
        let _ = self.lane.settled.send(tried).await;
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
            let metrics = Metrics::new();
            let lane = Lane {
                application: "demo".to_owned(),
                endpoint: endpoint.id,
                poster,
                disabled,
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
            Self { fresh, questions, answers, settled, stored, poster, disabled, metrics, stop, task }
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
            body: "{}".into(),
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_764_000_001)
    }
}
