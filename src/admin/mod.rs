//! The operator's side: metrics and health over HTTP.
//!
//! Owns `/metrics` (Prometheus text format 0.0.4), `/healthz` and `/readyz`. Decides nothing: `telemetry` holds the
//! numbers and the flags. Invariant: where a token is configured, nobody reads a metric without it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

struct Shared {
    metrics: Metrics,
    health: Arc<Health>,
    token: Arc<Token>,
}

/// The bearer token in force, or that there is none. A reload may replace it.
pub struct Token {
    /// SHA-256 of it, so that comparing tells nothing of its length either.
    hash: ArcSwapOption<[u8; 32]>,
}

impl Token {
    /// Asks for `token`, or for none.
    #[must_use]
    pub fn new(token: Option<&SecretString>) -> Self {
        let empty = Self { hash: ArcSwapOption::empty() };
        empty.replace(token);
        empty
    }

    /// Asks for another one from the next request on.
    pub fn replace(&self, token: Option<&SecretString>) {
        self.hash.store(token.map(|token| Arc::new(Sha256::digest(token.expose_secret()).into())));
    }
}

/// The endpoints as a service; other paths are 404.
pub fn router(metrics: Metrics, health: Arc<Health>, token: Arc<Token>) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(async || (StatusCode::NOT_FOUND, "not here: /metrics, /healthz and /readyz are\n"))
        .with_state(Arc::new(Shared { metrics, health, token }))
}

async fn metrics_text(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if shared.token.hash.load().as_deref().is_some_and(|token| !is_allowed(token, &headers)) {
        let challenge = [(WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge, "send the token as Authorization: Bearer\n").into_response();
    }
    shared.metrics.ready.set(shared.health.not_ready().is_none().into());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render()).into_response()
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    match shared.health.not_ready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn is_allowed(token: &[u8; 32], headers: &HeaderMap) -> bool {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = value
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, given)| given.trim_matches(' '));
    given.is_some_and(|given| <[u8; 32]>::from(Sha256::digest(given)).ct_eq(token).into())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn get(router: &Router, path: &str, token: Option<&str>) -> (u16, String, String) {
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers().get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap()).to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_health_and_liveness_does_not() {
        let health = Arc::new(Health::default());
        let router = router(Metrics::new(), Arc::clone(&health), Arc::new(Token::new(None)));
        assert_eq!(get(&router, "/readyz", None).await, (503, "text/plain; charset=utf-8".into(), "starting\n".into()));
        assert!(get(&router, "/metrics", None).await.2.contains("\nringproof_ready 0\n"));
        health.set_started();
        assert!(get(&router, "/metrics", None).await.2.contains("\nringproof_ready 1\n"));
        assert_eq!(get(&router, "/readyz", None).await.0, 200);
        health.set_store_failed(true);
        assert_eq!(get(&router, "/readyz", None).await.2, "the store cannot write\n");
        assert_eq!(get(&router, "/healthz", None).await.0, 200);
        assert_eq!(get(&router, "/", None).await.0, 404);
    }

    #[tokio::test]
    async fn metrics_have_their_media_type() {
        let router = router(Metrics::new(), Arc::default(), Arc::new(Token::new(None)));
        let (status, kind, body) = get(&router, "/metrics", None).await;
        assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        assert!(body.contains("ringproof_build_info{version="), "{body}");
    }

    #[tokio::test]
    async fn a_token_guards_the_metrics_alone() {
        let token = Arc::new(Token::new(Some(&SecretString::from("s3cret"))));
        let router = router(Metrics::new(), Arc::default(), Arc::clone(&token));
        for wrong in [None, Some("Bearer s3cre"), Some("Bearer s3crets"), Some("s3cret"), Some("Basic s3cret")] {
            assert_eq!(get(&router, "/metrics", wrong).await.0, 401, "{wrong:?}");
        }
        assert_eq!(get(&router, "/metrics", Some("Bearer s3cret")).await.0, 200);
        assert_eq!(get(&router, "/healthz", None).await.0, 200);
        assert_eq!(get(&router, "/readyz", None).await.0, 503);
        token.replace(Some(&SecretString::from("n3w")));
        assert_eq!(get(&router, "/metrics", Some("Bearer s3cret")).await.0, 401);
        assert_eq!(get(&router, "/metrics", Some("Bearer n3w")).await.0, 200);
        token.replace(None);
        assert_eq!(get(&router, "/metrics", None).await.0, 200);
    }
}
