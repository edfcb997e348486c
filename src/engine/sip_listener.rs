//! The TCP listeners: who gets a connection, and a task for each that has one.

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

use super::sip_answer::SipShared;
use super::sip_connection::SipConnection;
use crate::sip::flow::{Flow, Transport};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use crate::transport::TransportError;
use crate::transport::tcp::{BoundListener, CloseReason, Connection, Listener, Places, Settings};

/// One listener's loop.
struct SipListener {
    shared: Arc<SipShared>,
    listener: Listener,
    settings: Settings,
    places: Places,
    /// What connections of all kinds share.
    descriptors: Arc<Semaphore>,
    counters: Arc<Counters>,
}

struct Counters {
    open: IntGauge,
    came: IntCounter,
    /// By [`CloseReason`].
    closed: [IntCounter; CloseReason::ALL.len()],
    failures: IntCounter,
}

/// Counts a connection as open until it is dropped, however it ends.
struct Open(IntGauge);

/// Starts the listeners on the runtime of the caller. Each ends when `stop` turns true and its last connection has.
///
/// # Errors
/// `TransportError::Register`.
pub fn spawn(
    shared: &Arc<SipShared>,
    listeners: Vec<BoundListener>,
    (settings, descriptors): (Settings, Arc<Semaphore>),
    metrics: &Metrics,
    health: &Arc<Health>,
    stop: &watch::Receiver<bool>,
) -> Result<JoinSet<()>, TransportError> {
    let counters = Arc::new(Counters::new(metrics));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let (shared, counters) = (Arc::clone(shared), Arc::clone(&counters));
        let (places, listener) = (Places::new(&settings), listener.register()?);
        let descriptors = Arc::clone(&descriptors);
        let listener = SipListener { shared, listener, settings, places, descriptors, counters };
        let (health, stop) = (Arc::clone(health), stop.clone());
        tasks.spawn(async move {
            let end = tokio::spawn(listener.run(stop.clone())).await;
            if end.is_err() || !*stop.borrow() {
                tracing::error!(panicked = end.is_err(), "a SIP listener accepts no more; restart the node");
                health.set_worker_failed();
            }
        });
    }
    Ok(tasks)
}

impl SipListener {
    async fn run(self, mut stop: watch::Receiver<bool>) {
        let (mut open, theirs) = (JoinSet::new(), stop.clone());
        let mut ailing = false;
        loop {
            let failures = &self.counters.failures;
            let failed = |error: &std::io::Error| {
                failures.inc();
                if !std::mem::replace(&mut ailing, true) {
                    tracing::warn!(%error, "the system gives no more SIP connections; raise the limit of open files");
                }
            };
            tokio::select! {
                (stream, flow) = self.listener.accept(failed) => {
                    ailing = false;
                    self.admit(stream, flow, &mut open, &theirs);
                }
                Some(end) = open.join_next() => tell(&end),
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        drop(self.listener);
        while let Some(end) = open.join_next().await {
            tell(&end);
        }
    }

    /// Gives a connection its task, or lets it go at once.
    fn admit(&self, stream: TcpStream, flow: Flow, open: &mut JoinSet<()>, stop: &watch::Receiver<bool>) {
        self.counters.came.inc();
        if !self.shared.knows(flow.remote) {
            return self.counters.close(CloseReason::UnknownSource);
        }
        let place = self.places.take(flow.remote.ip());
        let (Some(place), Ok(descriptor)) = (place, Arc::clone(&self.descriptors).try_acquire_owned()) else {
            return self.counters.close(CloseReason::OverCap);
        };
        let mut connection =
            SipConnection::new(Arc::clone(&self.shared), Connection::new(stream, flow, &self.settings));
        let (counters, counted, stop) = (Arc::clone(&self.counters), Open::new(&self.counters.open), stop.clone());
        open.spawn(async move {
            let _held = (place, descriptor, counted);
            counters.close(connection.run(stop).await);
        });
    }
}

fn tell(end: &Result<(), JoinError>) {
    if end.is_err() {
        tracing::error!("a SIP connection ended by a panic");
    }
}

impl Counters {
    fn new(metrics: &Metrics) -> Self {
        let transport = [Transport::Tcp.label()];
        Self {
            open: metrics.sip_connections.with_label_values(&transport),
            came: metrics.sip_connections_total.with_label_values(&transport),
            closed: CloseReason::ALL.map(|reason| metrics.sip_connections_closed.with_label_values(&[reason.label()])),
            failures: metrics.sip_accept_failures.clone(),
        }
    }

    fn close(&self, reason: CloseReason) {
        self.closed[reason as usize].inc();
    }
}

impl Open {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
