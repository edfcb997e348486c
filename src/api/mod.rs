//! The REST API: JSON over HTTP/1.1 and HTTP/2.
//!
//! Owns routing, keys, the checks of every field, and the form of answers and problems (RFC 9110, RFC 9457). Does not
//! decide anything about a verification: [`Verify`] does. Invariant: what reaches `Verify` is checked, and nothing that
//! a client sends can panic, grow without bound or reach a log.

mod auth;
mod body;
mod client;
mod connection;
mod create;
mod crowd;
mod deliveries;
mod endpoints;
mod fields;
mod idempotency;
mod json;
pub mod key;
mod later;
mod limits;
mod lists;
mod long_poll;
mod observe;
mod opening;
mod phone;
mod prefer;
mod problem;
mod query;
mod records;
mod remote;
pub mod scope;
pub mod send_test;
pub mod server;
pub mod settings;
pub mod test_calls;
pub mod tls;
mod verifications;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use axum::Router;
use axum::http::Uri;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use ipnet::IpNet;
use tokio::sync::watch;

use crate::telemetry::metrics::Metrics;
use crate::verify::Verify;
use crate::verify::settings::ApplicationId;
use problem::{Code, Problem};
use scope::Scopes;
use send_test::SendTest;
use test_calls::{PlaceCall, TestCalls};

/// The keys in force and the applications they belong to.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Every key of every application.
    pub keys: Vec<Key>,
    /// By [`ApplicationId`].
    pub applications: Vec<Application>,
    /// Proxies whose word on a client's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Where clients reach the API from outside, without a slash at its end; for URLs in answers.
    pub public_url: Option<String>,
}

/// One API key, as its hash.
#[derive(Debug, Clone)]
pub struct Key {
    /// Whose it is.
    pub application: ApplicationId,
    /// SHA-256 of the key text.
    pub hash: [u8; 32],
    /// Its id: [`key::id`] of the hash.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it ends, UTC.
    pub expires: Option<SystemTime>,
    /// Where it may be used from; empty: from anywhere.
    pub cidrs: Vec<IpNet>,
}

impl Key {
    /// A key that may do everything from everywhere for good.
    #[must_use]
    pub fn unrestricted(application: ApplicationId, hash: [u8; 32]) -> Self {
        Self { application, hash, name: key::id(&hash), scopes: Scopes::ALL, expires: None, cidrs: Vec::new() }
    }
}

/// The clocks that requests need.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// For how long something takes.
    pub instant: fn() -> Instant,
    /// Time of day, UTC.
    pub utc: fn() -> SystemTime,
}

/// What the API needs to know about an application.
#[derive(Debug, Clone, Default)]
pub struct Application {
    /// Its name, a metric label.
    pub name: String,
    /// Live, not a sandbox: its keys begin `rp_live_`.
    pub live: bool,
    /// Pages that may follow its verifications, each as a browser's `Origin` header writes it.
    pub allowed_origins: Vec<String>,
}

/// What every request shares.
struct Shared {
    verify: Arc<Verify>,
    access: Arc<ArcSwap<Access>>,
    metrics: Metrics,
    clock: Clock,
    bodies: body::Bodies,
    body_deadline: Duration,
    test_calls: TestCalls,
    tests: send_test::Tests,
    tokens: client::Tokens,
    streams: Arc<client::Streams>,
    /// Turns true when what waits is to be answered at once.
    stop: watch::Receiver<bool>,
}

/// Waits until `stop` turns true or its sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stopped| *stopped).await);
}

impl Shared {
    fn new(
        verify: Arc<Verify>,
        access: Arc<ArcSwap<Access>>,
        metrics: Metrics,
        clock: Clock,
        (place_call, send_test): (PlaceCall, SendTest),
        client_key: [u8; 32],
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            verify,
            access,
            clock,
            bodies: body::Bodies::new(),
            body_deadline: body::DEADLINE,
            test_calls: TestCalls::new(place_call),
            tests: send_test::Tests::new(send_test),
            tokens: client::Tokens::new(client_key),
            streams: Arc::new(client::Streams::new(metrics.client_streams.clone())),
            stop,
            metrics,
        }
    }
}

/// The API as a service for [`server::serve`]. `access` may be replaced while it runs; `edge` places test calls and sends
/// tests to endpoints;
/// `client_key` seals client tokens. When `stop` turns true, long polls are answered and streams end; give it the one
/// of [`server::serve`].
pub fn router(
    verify: Arc<Verify>,
    access: Arc<ArcSwap<Access>>,
    metrics: Metrics,
    clock: Clock,
    edge: (PlaceCall, SendTest),
    client_key: [u8; 32],
    stop: watch::Receiver<bool>,
) -> Router {
    routes(Arc::new(Shared::new(verify, access, metrics, clock, edge, client_key, stop)))
}

fn routes(shared: Arc<Shared>) -> Router {
    let router = Router::new()
        .route(verifications::ALL, get(lists::verifications).post(verifications::create))
        .route(verifications::ONE, get(verifications::read))
        .route(verifications::CANCEL, post(verifications::cancel))
        .route(lists::CALLS, get(lists::calls))
        .route(lists::EVENTS, get(lists::events))
        .route(lists::TRACE, get(lists::trace))
        .route(test_calls::ALL, post(test_calls::place))
        .route(deliveries::ALL, get(deliveries::list))
        .route(deliveries::ONE, get(deliveries::read))
        .route(deliveries::REPLAY, post(deliveries::replay))
        .route(endpoints::ALL, get(endpoints::list))
        .route(endpoints::ENABLE, post(endpoints::enable))
        .route(endpoints::REPLAY, post(endpoints::replay))
        .route(endpoints::TEST, post(endpoints::test))
        .route(records::RECEIPT, get(records::receipt))
        .route(records::JWKS, get(records::jwks))
        .route(records::ERASURES, post(records::erase))
        .route(client::EVENTS, get(client::follow).options(client::preflight));
    later::add_routes(router)
        .fallback(async |uri: Uri| {
            let slash = uri.path().len() > 1 && uri.path().ends_with('/');
            let hint = if slash { "no path ends with a slash" } else { "the API's paths begin /v1/" };
            Problem::new(Code::NotFound, format!("no endpoint has this path; {hint}"))
        })
        .method_not_allowed_fallback(async || {
            Problem::new(Code::MethodNotAllowed, "this path does not take this method; Allow names those that it takes")
        })
        .layer(from_fn_with_state(Arc::clone(&shared), observe::observe))
        .with_state(shared)
}
