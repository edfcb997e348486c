//! Webhooks as the configuration has them, at the start and when it changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::clock;
use crate::api::send_test::SendTest;
use crate::outbox::delivery::{Due, Subscription, Subscriptions};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::webhook::attempt::Tls;
use crate::webhook::settings::Endpoint;
use crate::webhook::test_send;
use crate::webhook::worker::Worker;

/// How long attempts in flight may take when the node stops.
const GRACE: Duration = Duration::from_secs(5);

/// The endpoints in force.
pub struct Webhooks {
    store: Store,
    endpoints: watch::Sender<Arc<Vec<Endpoint>>>,
}

impl Webhooks {
    /// Prepares delivery to `endpoints`: the worker is to be run. `fresh` brings new deliveries from the store.
    #[must_use]
    pub fn new(store: Store, endpoints: Vec<Endpoint>, fresh: mpsc::Receiver<Due>, metrics: Metrics) -> (Self, Worker) {
        let (endpoints, followed) = watch::channel(Arc::new(endpoints));
        let worker = Worker::new(store.clone(), followed, fresh, metrics, clock::utc, GRACE);
        (Self { store, endpoints }, worker)
    }

    /// How the API has tests sent to endpoints, whichever are in force then.
    #[must_use]
    pub fn sending_tests(&self) -> SendTest {
        let (endpoints, tls) = (self.endpoints.subscribe(), Arc::new(Tls::native()));
        Box::new(move |id| {
            let (endpoints, tls) = (Arc::clone(&endpoints.borrow()), Arc::clone(&tls));
            Box::pin(async move {
                let endpoint = endpoints.iter().find(|endpoint| endpoint.id == id)?;
                Some(test_send::send(endpoint, &tls, clock::utc(), clock::instant).await)
            })
        })
    }

    /// Puts other endpoints in force, all of them. Events that are told from now on go to them; what waits for one that
    /// is gone is parked.
    pub fn replace(&self, endpoints: Vec<Endpoint>) {
        let subscriptions = subscriptions(&endpoints);
        // The worker first: an endpoint has its lane when its first event comes.
        self.endpoints.send_replace(Arc::new(endpoints));
        self.store.subscribe(subscriptions);
    }
}

/// Which of the endpoints want what.
#[must_use]
pub fn subscriptions(endpoints: &[Endpoint]) -> Subscriptions {
    let subscription = |endpoint: &Endpoint| Subscription {
        application: endpoint.application.clone(),
        endpoint: endpoint.id.clone(),
        events: endpoint.events.clone(),
    };
    Subscriptions(endpoints.iter().map(subscription).collect())
}
