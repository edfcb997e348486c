//! The worker: a lane for each endpoint, and the store behind them.
//!
//! Owns the tasks of webhook delivery, which delivery goes to which lane, and the change of endpoints while all goes on.
//! Does not try or judge (`lane`, `attempt`). Invariant: it never waits for an endpoint. A lane that cannot take a
//! delivery leaves it to the store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use super::attempt::{ATTEMPT, Poster, Tls};
use super::lane::{Counters, Lane};
use super::queue::UNSTORED;
use super::settings::Endpoint;
use super::{Clock, stopped};
use crate::outbox::delivery::{DeliveryId, Due, EndpointId};
use crate::store::{Erasures, Store, Tried};
use crate::telemetry::metrics::Metrics;

/// New deliveries on their way to a lane, whose own queue is behind it.
const HANDED_OVER: usize = 256;

/// Results of one lane on their way to the store.
const SETTLED: usize = 1024;

/// News of stored results on their way to a lane. Room for more than a lane has results that are not stored, so that no
/// news is lost.
const STORED: usize = 2 * UNSTORED;

/// What the attempts in flight to an endpoint that is removed have to end: more than an attempt takes.
const REMOVED: Duration = ATTEMPT.saturating_add(Duration::from_secs(2));

/// What lanes have to end beyond the time for their attempts.
const MARGIN: Duration = Duration::from_secs(1);

/// Delivers events to every configured endpoint.
pub struct Worker {
    store: Store,
    endpoints: watch::Receiver<Arc<Vec<Endpoint>>>,
    fresh: mpsc::Receiver<Due>,
    metrics: Metrics,
    clock: Clock,
    grace: Duration,
}

impl Worker {
    /// Prepares delivery to `endpoints`, of which other ones may be sent while it works: a new one gets its lane, one
    /// that is gone has its attempts in flight ended, and one whose settings changed goes on with the new ones. `fresh`
    /// brings new deliveries right after their commit; `grace` is how long attempts in flight may take when the worker
    /// stops.
    #[must_use]
    pub fn new(
        store: Store,
        endpoints: watch::Receiver<Arc<Vec<Endpoint>>>,
        fresh: mpsc::Receiver<Due>,
        metrics: Metrics,
        clock: Clock,
        grace: Duration,
    ) -> Self {
        Self { store, endpoints, fresh, metrics, clock, grace }
    }

    /// Works until `stop` turns true or its sender is gone. Every task has ended when this returns; what was not
    /// delivered is due in the store.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let Self { store, mut endpoints, mut fresh, metrics, clock, grace } = self;
        let mut erasures = store.erasures();
        let mut lanes = Lanes {
            store,
            metrics,
            clock,
            tls: Tls::native(),
            running: HashMap::new(),
            tasks: JoinSet::new(),
            helpers: JoinSet::new(),
            clear: watch::channel(Erasures::default()).0,
            told: false,
        };
        lanes.follow(&Arc::clone(&endpoints.borrow_and_update()));
        let mut fixed = false;
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                changed = endpoints.changed(), if !fixed => match changed {
                    Ok(()) => lanes.follow(&Arc::clone(&endpoints.borrow_and_update())),
                    // Nobody is left to change them.
                    Err(_) => fixed = true,
                },
                Ok(()) = erasures.changed() => {
                    // What was offered before goes to its lanes first, where it is let go of with the rest.
                    while let Ok(due) = fresh.try_recv() {
                        lanes.hand_over(due);
                    }
                    lanes.clear.send_replace(erasures.borrow_and_update().clone());
                }
                Some(ended) = lanes.tasks.join_next(), if !lanes.tasks.is_empty() => tell_end(ended),
                Some(ended) = lanes.helpers.join_next(), if !lanes.helpers.is_empty() => tell_end(ended),
                Some(due) = fresh.recv() => lanes.hand_over(due),
            }
        }
        lanes.stop(grace).await;
    }
}

/// The lanes that work, and those that are ending.
struct Lanes {
    store: Store,
    metrics: Metrics,
    clock: Clock,
    tls: Tls,
    running: HashMap<EndpointId, Running>,
    tasks: JoinSet<()>,
    /// The ways between lanes and store; they end with their lane.
    helpers: JoinSet<()>,
    /// Has every lane let go of what it holds, behind what was handed over to it before.
    clear: watch::Sender<Erasures>,
    /// A delivery without a lane was told of.
    told: bool,
}

/// What the worker holds of a lane.
struct Running {
    endpoint: Endpoint,
    hand_over: mpsc::Sender<Due>,
    poster: watch::Sender<Arc<Poster>>,
    stop: watch::Sender<Option<Duration>>,
}

impl Lanes {
    /// Has the lanes be those of `endpoints`.
    fn follow(&mut self, endpoints: &[Endpoint]) {
        let wanted: HashSet<&EndpointId> = endpoints.iter().map(|endpoint| &endpoint.id).collect();
        self.running.retain(|id, lane| {
            let stays = wanted.contains(id);
            if !stays {
                lane.stop.send_replace(Some(REMOVED));
            }
            stays
        });
        for endpoint in endpoints {
            match self.running.get_mut(&endpoint.id) {
                Some(lane) => {
                    if !lane.endpoint.sends_like(endpoint) {
                        lane.poster.send_replace(Arc::new(Poster::new(endpoint, &self.tls)));
                    }
                    lane.endpoint = endpoint.clone();
                }
                None => self.begin(endpoint),
            }
        }
    }

    fn begin(&mut self, endpoint: &Endpoint) {
        let (hand_over, handed_over) = mpsc::channel(HANDED_OVER);
        let (polls, questions) = mpsc::channel(1);
        let (answers, polled) = mpsc::channel(1);
        let (settled, tried) = mpsc::channel(SETTLED);
        let (tell, stored) = mpsc::channel(STORED);
        let (set_poster, poster) = watch::channel(Arc::new(Poster::new(endpoint, &self.tls)));
        let (stop, stopping) = watch::channel(None);
        self.helpers.spawn(record(self.store.clone(), tried, tell));
        self.helpers.spawn(answer(self.store.clone(), endpoint.id.clone(), self.clock, questions, answers));
        let lane = Lane {
            application: endpoint.application.clone(),
            endpoint: endpoint.id.clone(),
            poster,
            disabled: self.store.disabled(),
            clear: self.clear.subscribe(),
            counters: Counters::new(&self.metrics, &endpoint.application),
            clock: self.clock,
            fresh: handed_over,
            polls,
            polled,
            settled,
            stored,
        };
        self.tasks.spawn(lane.run(stopping));
        let running = Running { endpoint: endpoint.clone(), hand_over, poster: set_poster, stop };
        self.running.insert(endpoint.id.clone(), running);
    }

    /// Gives a new delivery to its lane. One that finds no room, or no lane, is in the store.
    fn hand_over(&mut self, due: Due) {
        match self.running.get(&due.endpoint) {
            Some(lane) => {
                if lane.hand_over.try_send(due).is_err() {
                    tracing::debug!("webhook lane is full; the delivery is left to polling");
                }
            }
            None if self.told => {}
            None => {
                self.told = true;
                tracing::warn!("a delivery names an endpoint that is not configured; such ones stay in the store");
            }
        }
    }

    /// Ends all lanes. Those of endpoints that were removed have no longer than the others.
    async fn stop(mut self, grace: Duration) {
        for lane in self.running.values() {
            lane.stop.send_replace(Some(grace));
        }
        let ending = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(grace + MARGIN, ending).await.is_err() {
            self.tasks.shutdown().await;
        }
        while self.helpers.join_next().await.is_some() {}
    }
}

fn tell_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task of webhook delivery ended by a panic");
    }
}

/// Answers one lane's questions for rows that are due.
async fn answer(
    store: Store,
    endpoint: EndpointId,
    clock: Clock,
    mut questions: mpsc::Receiver<u32>,
    answers: mpsc::Sender<Vec<Due>>,
) {
    let mut failing = false;
    while let Some(limit) = questions.recv().await {
        let rows = match store.due(&endpoint, clock(), limit).await {
            Ok(rows) => {
                failing = false;
                rows
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "due deliveries cannot be read");
                }
                failing = true;
                Vec::new()
            }
        };
        if answers.send(rows).await.is_err() {
            return;
        }
    }
}

/// Passes one lane's results on to the store until the lane has ended, and tells it of those that are stored.
async fn record(store: Store, mut settled: mpsc::Receiver<Tried>, tell: mpsc::Sender<(DeliveryId, u32)>) {
    while let Some(tried) = settled.recv().await {
        let (id, made, tell) = (tried.id, tried.attempts, tell.clone());
        // A result that the store refuses is told as well: the lane then takes the row for what the store says it is.
        store.deliver(tried, move |_| {
            // The lane may have ended.
            let _ = tell.try_send((id, made));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{SystemTime, UNIX_EPOCH};

    use secrecy::SecretSlice;
    use tokio::task::JoinHandle;
    use ulid::Ulid;

    use super::super::local_server::{LocalServer, Reply, SECRET, endpoint, within};
    use super::super::signature::{parse_secret, verify};
    use super::super::signing_key::SigningKey;
    use super::*;
    use crate::outbox::delivery::Subscriptions;
    use crate::outbox::event::{EventId, EventType};
    use crate::outbox::notice::LastAttempt;
    use crate::store::Settings;
    use crate::telemetry::health::Health;

    #[tokio::test]
    async fn hanging_endpoint_delays_no_other() {
        let sick = LocalServer::start(Reply::Hang).await;
        let mut healthy = LocalServer::start(Reply::status(204)).await;
        let node = Node::start("hanging", &[&sick, &healthy].map(|server| endpoint(&server.url(), true)));
        // Far more than the sick lane can hold, and one for an endpoint that is not configured.
        for id in 0..6_000 {
            within(node.fresh.send(due(id, &sick.url()))).await.unwrap();
        }
        node.fresh.send(due(6_000, "http://gone/")).await.unwrap();
        node.fresh.send(due(6_001, &healthy.url())).await.unwrap();
        assert_eq!(healthy.next().await.body, "{}");
        node.stop().await;
    }

    #[tokio::test]
    async fn endpoints_come_and_go_while_it_works() {
        let (mut first, mut second) =
            (LocalServer::start(Reply::status(204)).await, LocalServer::start(Reply::status(204)).await);
        let node = Node::start("following", &[endpoint(&first.url(), true)]);
        node.fresh.send(due(1, &first.url())).await.unwrap();
        first.next().await;

        node.endpoints.send_replace(Arc::new(vec![endpoint(&first.url(), true), endpoint(&second.url(), true)]));
        // The list is looked at before what comes after it.
        node.fresh.send(due(2, &second.url())).await.unwrap();
        second.next().await;
        node.fresh.send(due(3, &first.url())).await.unwrap();
        first.next().await;
        assert_eq!(first.connections(), 1, "the lane that stays is the same");

        node.endpoints.send_replace(Arc::new(vec![endpoint(&second.url(), true)]));
        node.fresh.send(due(4, &first.url())).await.unwrap();
        node.fresh.send(due(5, &second.url())).await.unwrap();
        second.next().await;
        assert_eq!(first.waiting(), 0, "nothing is sent to what is gone");

        node.endpoints.send_replace(Arc::new(vec![endpoint(&first.url(), true)]));
        node.fresh.send(due(6, &first.url())).await.unwrap();
        first.next().await;
        node.stop().await;
    }

    #[tokio::test]
    async fn attempts_to_an_endpoint_that_is_removed_are_settled() {
        let mut server = LocalServer::start(Reply::Hang).await;
        let node = Node::start("removed", &[endpoint(&server.url(), true)]);
        node.fresh.send(due(1, &server.url())).await.unwrap();
        server.next().await;
        node.endpoints.send_replace(Arc::default());
        // The attempt ends when the receiver goes, well before the time that it has.
        drop(server);
        let failed = node.metrics.webhook_attempts.with_label_values(&["demo", "failed"]);
        within(async {
            while failed.get() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        node.stop().await;
    }

    #[tokio::test]
    async fn a_changed_secret_signs_the_next_attempt() {
        let mut server = LocalServer::start(Reply::status(204)).await;
        let old = endpoint(&server.url(), true);
        let new = Endpoint { secrets: vec![SigningKey::Hmac(SecretSlice::from(vec![7; 32]))], ..old.clone() };
        let node = Node::start("rotating", &[old]);
        let keys = [parse_secret(SECRET).unwrap(), SecretSlice::from(vec![7; 32])];
        for (id, key) in (1..).zip(&keys) {
            node.fresh.send(due(id, &server.url())).await.unwrap();
            let request = server.next().await;
            let signed = verify(std::slice::from_ref(key), &request.headers, &request.body, now());
            assert_eq!(signed, Ok(()), "{id}");
            node.endpoints.send_replace(Arc::new(vec![new.clone()]));
        }
        node.stop().await;
    }

    #[tokio::test]
    async fn lane_hears_of_each_result_when_it_is_stored() {
        let (store, _fresh, folder) = store("record", Metrics::new());
        let (settled, settlements) = mpsc::channel(SETTLED);
        let (tell, mut stored) = mpsc::channel(STORED);
        let recording = tokio::spawn(record(store.clone(), settlements, tell));
        let tried = |id, attempts| {
            let last = LastAttempt { at: now(), status: Some(500), error: Some("status 500".to_owned()) };
            Tried { id: DeliveryId(id), attempts, replayed_after: 0, last, next_at: Some(now()) }
        };
        settled.send(tried(1, 3)).await.unwrap();
        settled.send(tried(2, 1)).await.unwrap();
        assert_eq!(within(stored.recv()).await, Some((DeliveryId(1), 3)));
        assert_eq!(within(stored.recv()).await, Some((DeliveryId(2), 1)));
        // A store that takes nothing any more says so too.
        store.close();
        settled.send(tried(3, 2)).await.unwrap();
        assert_eq!(within(stored.recv()).await, Some((DeliveryId(3), 2)));
        drop(settled);
        within(recording).await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// A worker that works.
    struct Node {
        endpoints: watch::Sender<Arc<Vec<Endpoint>>>,
        fresh: mpsc::Sender<Due>,
        metrics: Metrics,
        stop: watch::Sender<bool>,
        task: JoinHandle<()>,
        folder: PathBuf,
    }

    impl Node {
        fn start(name: &str, endpoints: &[Endpoint]) -> Self {
            let metrics = Metrics::new();
            let (store, _, folder) = store(name, metrics.clone());
            let (endpoints, followed) = watch::channel(Arc::new(endpoints.to_vec()));
            let (offer, fresh) = mpsc::channel(16);
            let (stop, stopping) = watch::channel(false);
            let worker = Worker::new(store, followed, fresh, metrics.clone(), now, Duration::ZERO);
            let task = tokio::spawn(worker.run(stopping));
            Self { endpoints, fresh: offer, metrics, stop, task, folder }
        }

        async fn stop(self) {
            self.stop.send(true).unwrap();
            within(self.task).await.unwrap();
            std::fs::remove_dir_all(&self.folder).unwrap();
        }
    }

    fn store(name: &str, metrics: Metrics) -> (Store, mpsc::Receiver<Due>, PathBuf) {
        let folder = std::env::temp_dir().join(format!("ringproof-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = Settings {
            path: folder.join("ringproof.db"),
            retention: crate::store::Retention::of_all(Duration::from_hours(24)),
        };
        let (ready, fresh) = mpsc::channel(1);
        let health = Arc::new(Health::default());
        let store = Store::open(&settings, Subscriptions::default(), metrics, health, ready).unwrap();
        (store, fresh, folder)
    }

    fn due(id: i64, endpoint: &str) -> Due {
        Due {
            id: DeliveryId(id),
            endpoint: EndpointId(endpoint.into()),
            event: EventId(Ulid::nil()),
            kind: EventType::Verified,
            planned_from: now(),
            attempts: 0,
            replayed_after: 0,
            body: "{}".into(),
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_764_000_001)
    }
}
