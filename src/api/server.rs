//! The HTTP server: one listener, its connections, their bounds, and the stop.
//!
//! HTTP/1.1 (RFC 9112) and HTTP/2 with prior knowledge (RFC 9113 3.3) on the same port. Each connection is a task of its
//! own, so that what goes wrong in one, a panic included, ends that one alone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use prometheus::{IntCounter, IntGauge};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::opening::Opening;
use crate::telemetry::metrics::Metrics;

/// What one listener allows.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once; the next one waits in the listener's queue.
    pub connections: usize,
    /// How long a request's header section may take, and how long a connection may idle between requests.
    pub headers: Duration,
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
}

impl Counts {
    /// The API's, which are metrics.
    #[must_use]
    pub fn of_api(metrics: &Metrics) -> Self {
        let not_accepted = metrics.api_connections_refused.with_label_values(&["not_accepted"]);
        Self { open: metrics.api_connections.clone(), not_accepted }
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
        }
    }
}

/// A connection's place among those that are open.
struct Place {
    _permit: OwnedSemaphorePermit,
    open: IntGauge,
}

impl Place {
    fn take(permit: OwnedSemaphorePermit, open: &IntGauge) -> Self {
        open.inc();
        Self { _permit: permit, open: open.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 4096, headers: Duration::from_secs(10), stop: Duration::from_secs(5) }
    }
}

/// Most header fields of a request.
const MAX_HEADERS: usize = 64;
/// Most bytes of a request's header section, and of the buffer it is read into.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// HTTP/2 peers are asked this often whether they are still there, and have this long to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that takes nothing of an answer for this long is gone.
const UNREAD: Duration = Duration::from_secs(30);
/// Pause after a failure to accept, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Serves `router` on `listener` until `stop` turns true or its sender is gone; then lets requests in progress finish
/// within [`Bounds::stop`] and closes what remains.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
    bounds: Bounds,
    counts: Counts,
) {
    let builder = builder(bounds);
    let places = Arc::new(Semaphore::new(bounds.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let permit = Arc::clone(&places).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            _ = stop.wait_for(|stopped| *stopped) => break,
            next = next => next,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { break };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    counts.not_accepted.inc();
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let place = Place::take(permit, &counts.open);
        prepare(&stream);
        let io = TokioIo::new(Opening::new(stream, bounds.headers));
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(builder.serve_connection(io, service).into_owned());
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(error = %error.to_string().escape_debug(), "connection ended");
            }
        });
    }
    drop(listener);
    if timeout(bounds.stop, graceful.shutdown()).await.is_err() {
        tracing::warn!(open = connections.len(), "connections closed before their requests were done");
    }
    connections.shutdown().await;
}

fn builder(bounds: Bounds) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.headers)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
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
