//! What happens around every request: an id, a count, a log line, the body of a problem.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ulid::Ulid;

use super::connection::NoHost;
use super::problem::{Code, Problem};
use super::{Shared, body};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Runs one request. Its id is made here: a client could put anything into one of its own.
pub(super) async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let began = (shared.clock.instant)();
    let id = format!("req_{}", Ulid::generate());
    // The template, never the path, which is a client's text.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let method = known(request.method());
    let waits_for_continue = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let leave = body.is_end_stream() || waits_for_continue;
    let (lent, rest) = body::lend(body);
    let mut response = match parts.extensions.get::<NoHost>() {
        None => next.run(Request::from_parts(parts, lent)).await,
        Some(NoHost) => {
            Problem::new(Code::Malformed, "send one Host header field, not none and not several").into_response()
        }
    };
    let mut late = false;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        late = problem.code() == Code::BodyTimeout;
        *response.body_mut() = Body::from(problem.document(&id));
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    let status = response.status();
    if (status.is_client_error() || status.is_server_error()) && !leave && !late {
        rest.discard().await;
    }
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    shared.metrics.api_responses.with_label_values(&[route, status.as_str()]).inc();
    let took = (shared.clock.instant)().saturating_duration_since(began);
    shared.metrics.api_request.with_label_values(&[route]).observe(took.as_secs_f64());
    let milliseconds = took.as_millis();
    tracing::debug!(request_id = %id, method, route, status = status.as_u16(), milliseconds, "request");
    response
}

/// Methods of the standard by name; any other is a client's text.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
