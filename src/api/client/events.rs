//! `GET /v1/client/events?token=`: the stream of one verification's states (the HTML standard, server-sent events).
//!
//! A browser's `EventSource` comes back by itself after a broken connection, and gives up for good at any status but
//! 200. So what will never work is refused by its status, and 204 tells one that has seen the end to stay away.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::origin::{Page, preflight_headers};
use super::stream::{Seen, Stream};
use super::streams::{MAX_PER_VERIFICATION, Streams};
use super::token::lives;
use crate::api::Shared;
use crate::api::problem::{self, Code, Problem, SOON};
use crate::api::query::Parameters;
use crate::matcher::verification::{Status, Verification, VerificationId};
use crate::verify::Watch;

/// `GET` follows one verification.
pub(in crate::api) const EVENTS: &str = "/v1/client/events";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx and those that learnt from it to hand on each event at once.
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// `GET /v1/client/events`
pub(in crate::api) async fn follow(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    match Visit::of(&shared, &request).await {
        Ok(visit) => {
            let (page, answer) = (visit.page.clone(), visit.begin(&shared, &request.headers));
            for_page(answer.into_response(), &page)
        }
        Err(problem) => for_page(problem.into_response(), &Page::default()),
    }
}

/// `OPTIONS /v1/client/events`: what a browser asks before a request that is no plain `EventSource`.
pub(in crate::api) async fn preflight(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    match Visit::of(&shared, &request).await {
        Ok(visit) => for_page((StatusCode::NO_CONTENT, preflight_headers()).into_response(), &visit.page),
        Err(problem) => for_page(problem.into_response(), &Page::default()),
    }
}

fn for_page(mut response: Response, page: &Page) -> Response {
    response.headers_mut().extend(page.headers());
    response
}

/// A request whose token and origin are good.
struct Visit {
    verification: Verification,
    /// Begun before the verification was read; `None` when there are too many.
    watch: Option<Watch>,
    page: Page,
}

impl Visit {
    async fn of(shared: &Shared, request: &Parts) -> Result<Self, Problem> {
        let id = token_in(shared, request)?;
        let watch = shared.verify.watch(id);
        // A row that is gone was removed with age, long after its token died.
        let verification = shared.verify.verification_of_client(id).await?.ok_or_else(dead)?;
        let access = shared.access.load();
        let application = access.applications.iter().find(|one| one.name == verification.application);
        let page = Page::of(&request.headers, application.map_or(&[], |one| &one.allowed_origins))?;
        Ok(Self { verification, watch, page })
    }

    fn begin(self, shared: &Arc<Shared>, headers: &HeaderMap) -> Result<Response, Problem> {
        let Self { verification, watch, .. } = self;
        if !lives(&verification, shared.verify.now()) {
            return Err(dead());
        }
        let known = headers.get(LAST_EVENT_ID).and_then(Seen::parse);
        if verification.status != Status::Pending && known == Some(Seen::of(&verification)) {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        let place = Streams::take(&shared.streams, verification.id).ok_or_else(|| {
            shared.metrics.waits_refused.with_label_values(&["client_stream", "verification"]).inc();
            Problem::new(
                Code::TooManyStreams,
                format!("{MAX_PER_VERIFICATION} streams of this verification are open; close one"),
            )
            .retry_after(SOON)
        })?;
        let watch = watch.ok_or_else(|| {
            shared.metrics.waits_refused.with_label_values(&["client_stream", "node"]).inc();
            problem::too_many_waits()
        })?;
        let stream = Stream::new(Arc::clone(shared), &verification, watch, place, known);
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
            (NO_BUFFERING, HeaderValue::from_static("no")),
        ];
        Ok((headers, Body::new(stream)).into_response())
    }
}

fn token_in(shared: &Shared, request: &Parts) -> Result<VerificationId, Problem> {
    let mut parameters = Parameters::new(&request.uri);
    // No fault may repeat what stands in the place of a token.
    let token = parameters.take("token", "", |text| Some(text.to_owned()));
    parameters.finish(&["token"])?;
    let token = token.ok_or_else(|| refused("send the client token as ?token=rpc_.."))?;
    shared.tokens.read(&token).ok_or_else(|| {
        refused(if token.starts_with("rp_") {
            "an API key is no client token: keep it on your server, and hand the page client.token of the verification"
        } else {
            "this client token is not known here"
        })
    })
}

fn refused(detail: &str) -> Problem {
    Problem::new(Code::ClientTokenInvalid, detail).with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn dead() -> Problem {
    Problem::new(
        Code::ClientTokenExpired,
        "the client token died: 60 s after the window of its verification, or with its data, which was erased",
    )
}
