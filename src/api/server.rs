//! The HTTP server: one listener, the places of its connections, and the stop.
//!
//! Each connection is a task of its own, so that what goes wrong in one, a panic included, ends that one alone.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use ipnet::{IpNet, Ipv4Net};
use prometheus::{IntCounter, IntCounterVec, IntGauge};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Access;
use super::connection::{Closed, Front};
use super::crowd::Crowd;
use super::remote::Remote;
use super::tls::Tls;
use crate::telemetry::metrics::Metrics;

/// What one listener allows.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at once; the next one waits in the listener's queue.
    pub connections: usize,
    /// What connections of all kinds share; a connection waits for one of it too.
    pub descriptors: Option<Arc<Semaphore>>,
    /// Connections at once from one address (of IPv6: one /64); `None` is no cap.
    pub connections_per_address: Option<usize>,
    /// Networks whose addresses have no cap of their own.
    pub uncapped: Vec<IpNet>,
    /// Its trusted proxies have none either.
    pub access: Option<Arc<ArcSwap<Access>>>,
    /// What the listener speaks below HTTP; `None` is nothing.
    pub tls: Option<Tls>,
    /// How long a TLS handshake and a request's header section may take each, how long an HTTP/1.1 connection may idle
    /// between requests, and how long an HTTP/2 client may take to answer a ping.
    pub headers: Duration,
    /// How often an HTTP/2 client is asked whether it is still there.
    pub ping: Duration,
    /// A connection without a request is closed after once to twice this time.
    pub idle: Duration,
    /// How long requests in progress have at the stop.
    pub stop: Duration,
}

/// What is counted of one listener's connections.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Those that are open.
    pub open: IntGauge,
    /// Those that the system did not hand over, for want of descriptors mostly.
    pub not_accepted: IntCounter,
    /// Those of an address that had as many as it may.
    pub address_full: IntCounter,
    /// Those that were ended by this side, by reason; a listener that no metric tells of has none.
    pub closed: Option<IntCounterVec>,
}

impl Counts {
    /// The API's, which are metrics.
    #[must_use]
    pub fn of_api(metrics: &Metrics) -> Self {
        let refused = |reason| metrics.api_connections_refused.with_label_values(&[reason]);
        Self {
            open: metrics.api_connections.clone(),
            not_accepted: refused("not_accepted"),
            address_full: refused("address_full"),
            closed: Some(metrics.api_connections_closed.clone()),
        }
    }

    /// Those of a listener that no metric tells of.
    ///
    /// # Panics
    /// Never: both names are valid.
    #[must_use]
    pub fn untold() -> Self {
        const VALID: &str = "a valid name";
        Self {
            open: IntGauge::new("open", "connections").expect(VALID),
            not_accepted: IntCounter::new("not_accepted", "connections").expect(VALID),
            address_full: IntCounter::new("address_full", "connections").expect(VALID),
            closed: None,
        }
    }

    fn closed(&self, reason: Closed) {
        if let Some(closed) = &self.closed {
            closed.with_label_values(&[reason.as_str()]).inc();
        }
    }
}

/// A connection's place among those that are open.
struct Place {
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
    open: IntGauge,
}

impl Place {
    fn take(permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>), open: &IntGauge) -> Self {
        open.inc();
        Self { _permits: permits, open: open.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: None,
            uncapped: vec![
                Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
                IpAddr::from(Ipv6Addr::LOCALHOST).into(),
            ],
            descriptors: None,
            access: None,
            tls: None,
            headers: Duration::from_secs(10),
            ping: Duration::from_secs(20),
            idle: Duration::from_mins(1),
            stop: Duration::from_secs(5),
        }
    }
}

/// A peer that takes nothing of an answer for this long is gone.
const UNREAD: Duration = Duration::from_secs(30);
/// Pause after a failure to accept, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Serves `router` on `listener` until `stop` turns true or its sender is gone; then lets requests in progress finish
/// within [`Bounds::stop`] and closes what remains.
///
/// # Panics
/// Never: the crypto provider has the versions of TLS that are asked of it.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
    bounds: Bounds,
    counts: Counts,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let crowd = bounds.connections_per_address.map(Crowd::new);
    let tls = bounds.tls.as_ref().map(|tls| tls.acceptor().expect("the provider has TLS 1.2 and 1.3"));
    let front = Arc::new(Front::new(router, bounds.clone(), tls));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let permit = Arc::clone(&places).acquire_owned().await;
            let descriptor = match &bounds.descriptors {
                Some(all) => Arc::clone(all).acquire_owned().await.ok(),
                None => None,
            };
            (permit, descriptor, listener.accept().await)
        };
        let (permit, descriptor, accepted) = tokio::select! {
            biased;
            _ = stop.wait_for(|stopped| *stopped) => break,
            next = next => next,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { break };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    counts.not_accepted.inc();
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let remote = Remote::of(peer);
        let guest = match crowd.as_ref().filter(|_| !is_exempt(&bounds, remote)) {
            None => None,
            Some(crowd) => {
                let guest = crowd.enter(remote.0);
                if guest.is_none() {
                    counts.address_full.inc();
                    continue;
                }
                guest
            }
        };
        let place = Place::take((permit, descriptor), &counts.open);
        prepare(&stream);
        let (front, stop, counts) = (Arc::clone(&front), stop.clone(), counts.clone());
        connections.spawn(async move {
            let _held = (place, guest);
            if let Err(reason) = front.serve(stream, remote, stop).await {
                counts.closed(reason);
            }
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(bounds.stop, all).await.is_err() {
        tracing::warn!(open = connections.len(), "connections closed before their requests were done");
    }
    connections.shutdown().await;
}

/// Whether the cap for one address is not for this one.
fn is_exempt(bounds: &Bounds, remote: Remote) -> bool {
    let holds = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&remote.0));
    holds(&bounds.uncapped) || bounds.access.as_ref().is_some_and(|access| holds(&access.load().trusted_proxies))
}

/// Answers leave at once, and a peer that stops reading does not keep its place. Both are improvements only.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD));
}

/// Faults of a connection that was gone before it was accepted; the listener itself is well.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::Interrupted
    )
}
