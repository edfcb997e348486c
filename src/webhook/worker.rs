//! The worker: a lane for each endpoint, and the store behind them.
//!
//! Owns the tasks of webhook delivery and which delivery goes to which lane. Does not try or judge (`lane`, `attempt`).
//! Invariant: it never waits for an endpoint. A lane that cannot take a delivery leaves it to the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::attempt::{Poster, Tls};
use super::lane::{Counters, Lane, Settlement};
use super::queue::UNSTORED;
use super::settings::Endpoint;
use super::{Clock, stopped};
use crate::outbox::delivery::{DeliveryId, Due, EndpointId};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// New deliveries on their way to a lane, whose own queue is behind it.
const HANDED_OVER: usize = 256;

/// Results of one lane on their way to the store.
const SETTLED: usize = 1024;

/// News of stored results on their way to a lane. Room for more than a lane has results that are not stored, so that no
/// news is lost.
const STORED: usize = 2 * UNSTORED;

/// Delivers events to every configured endpoint.
pub struct Worker {
    store: Store,
    endpoints: Vec<Endpoint>,
    fresh: mpsc::Receiver<Due>,
    metrics: Metrics,
    clock: Clock,
    grace: Duration,
}

impl Worker {
    /// Prepares delivery to `endpoints`. `fresh` brings new deliveries right after their commit; `grace` is how long
    /// attempts in flight may take when the worker stops.
    #[must_use]
    pub fn new(
        store: Store,
        endpoints: Vec<Endpoint>,
        fresh: mpsc::Receiver<Due>,
        metrics: Metrics,
        clock: Clock,
        grace: Duration,
    ) -> Self {
        Self { store, endpoints, fresh, metrics, clock, grace }
    }

    /// Works until `stop` turns true or its sender is gone. Every task has ended when this returns; what was not
    /// delivered is due in the store.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let Self { store, endpoints, fresh, metrics, clock, grace } = self;
        let tls = Tls::native();
        let mut tasks = JoinSet::new();
        let mut lanes = HashMap::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let (hand_over, handed_over) = mpsc::channel(HANDED_OVER);
            let (polls, questions) = mpsc::channel(1);
            let (answers, polled) = mpsc::channel(1);
            let (settled, settlements) = mpsc::channel(SETTLED);
            let (tell, stored) = mpsc::channel(STORED);
            lanes.insert(endpoint.id.clone(), hand_over);
            tasks.spawn(record(store.clone(), settlements, tell));
            tasks.spawn(answer(store.clone(), endpoint.id.clone(), clock, questions, answers));
            let lane = Lane {
                application: endpoint.application.clone(),
                counters: Counters::new(&metrics, &endpoint.application),
                poster: Arc::new(Poster::new(endpoint, &tls)),
                clock,
                fresh: handed_over,
                polls,
                polled,
                settled,
                stored,
            };
            tasks.spawn(lane.run(stop.clone(), grace));
        }
        dispatch(fresh, lanes, stop).await;
        while tasks.join_next().await.is_some() {}
    }
}

/// Hands new deliveries to their lanes. Those that find no room, or no lane, are in the store.
async fn dispatch(
    mut fresh: mpsc::Receiver<Due>,
    lanes: HashMap<EndpointId, mpsc::Sender<Due>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            Some(due) = fresh.recv() => match lanes.get(&due.endpoint) {
                Some(lane) => {
                    if lane.try_send(due).is_err() {
                        tracing::debug!("webhook lane is full; the delivery is left to polling");
                    }
                }
                None if told => {}
                None => {
                    told = true;
                    tracing::warn!("a delivery names an endpoint that is not configured; such ones stay in the store");
                }
            },
        }
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
async fn record(store: Store, mut settlements: mpsc::Receiver<Settlement>, tell: mpsc::Sender<(DeliveryId, u32)>) {
    while let Some(settlement) = settlements.recv().await {
        let (id, made, tell) = (settlement.id, settlement.made(), tell.clone());
        // A result that the store refuses is told as well: the lane then takes the row for what the store says it is.
        store.deliver(id, settlement.state, move |_| {
            // The lane may have ended.
            let _ = tell.try_send((id, made));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use rustls::RootCertStore;
    use ulid::Ulid;

    use super::super::local_server::{LocalServer, Reply, endpoint, within};
    use super::*;
    use crate::outbox::delivery::Subscriptions;
    use crate::outbox::event::{EventId, EventType};
    use crate::store::{Delivery, Settings};
    use crate::telemetry::health::Health;

    #[tokio::test]
    async fn hanging_endpoint_delays_no_other() {
        let sick = LocalServer::start(Reply::Hang).await;
        let mut healthy = LocalServer::start(Reply::status(204)).await;
        let (stop, stopping) = watch::channel(false);
        let (settled, mut settlements) = mpsc::channel(SETTLED);
        let mut tasks = JoinSet::new();
        let mut lanes = HashMap::new();
        for server in [&sick, &healthy] {
            let (hand_over, handed_over) = mpsc::channel(HANDED_OVER);
            lanes.insert(EndpointId(server.url().into()), hand_over);
            let lane = Lane {
                application: "demo".to_owned(),
                poster: Arc::new(Poster::new(endpoint(&server.url(), true), &Tls::with_roots(RootCertStore::empty()))),
                counters: Counters::new(&Metrics::new(), "demo"),
                clock: now,
                fresh: handed_over,
                polls: mpsc::channel(1).0,
                polled: mpsc::channel(1).1,
                settled: settled.clone(),
                stored: mpsc::channel(1).1,
            };
            tasks.spawn(lane.run(stopping.clone(), Duration::ZERO));
        }
        let (offer, offered) = mpsc::channel(16);
        tasks.spawn(dispatch(offered, lanes, stopping));

        // Far more than the sick lane can hold, and one for an endpoint that is no longer configured.
        for id in 0..6_000 {
            within(offer.send(due(id, &sick.url()))).await.unwrap();
        }
        offer.send(due(6_000, "http://gone/")).await.unwrap();
        offer.send(due(6_001, &healthy.url())).await.unwrap();
        let state = Delivery::Delivered { at: now(), status: 204 };
        let delivered = Settlement { id: DeliveryId(6_001), state };
        assert_eq!(within(settlements.recv()).await.unwrap(), delivered);
        assert_eq!(healthy.next().await.body, "{}");
        stop.send(true).unwrap();
        within(async { while tasks.join_next().await.is_some() {} }).await;
    }

    #[tokio::test]
    async fn lane_hears_of_each_result_when_it_is_stored() {
        let folder = std::env::temp_dir().join(format!("ringproof-record-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let settings = Settings { path: folder.join("ringproof.db"), retention: Duration::from_hours(24) };
        let (ready, _fresh) = mpsc::channel(1);
        let health = Arc::new(Health::default());
        let store = Store::open(&settings, Subscriptions::default(), Metrics::new(), health, ready).unwrap();
        let (settled, settlements) = mpsc::channel(SETTLED);
        let (tell, mut stored) = mpsc::channel(STORED);
        let recording = tokio::spawn(record(store.clone(), settlements, tell));
        let put_off = Delivery::PutOff { attempts: 3, next_at: now(), error: "status 500".to_owned() };
        settled.send(Settlement { id: DeliveryId(1), state: put_off }).await.unwrap();
        let delivered = Delivery::Delivered { at: now(), status: 204 };
        settled.send(Settlement { id: DeliveryId(2), state: delivered.clone() }).await.unwrap();
        assert_eq!(within(stored.recv()).await, Some((DeliveryId(1), 3)));
        assert_eq!(within(stored.recv()).await, Some((DeliveryId(2), u32::MAX)));
        // A store that takes nothing any more says so too.
        store.close();
        settled.send(Settlement { id: DeliveryId(3), state: delivered }).await.unwrap();
        assert_eq!(within(stored.recv()).await, Some((DeliveryId(3), u32::MAX)));
        drop(settled);
        within(recording).await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }

    fn due(id: i64, endpoint: &str) -> Due {
        Due {
            id: DeliveryId(id),
            endpoint: EndpointId(endpoint.into()),
            event: EventId(Ulid::nil()),
            kind: EventType::Verified,
            planned_from: now(),
            attempts: 0,
            body: "{}".into(),
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_764_000_001)
    }
}
