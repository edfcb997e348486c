//! The endpoints of verifications: create, read, cancel.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::auth::{Caller, authenticate};
use super::client::lives;
use super::create::{BodyFault, parse_create};
use super::problem::{Code, Problem, no_such_verification};
use super::query::Parameters;
use super::scope::Scope;
use super::{Shared, body, idempotency, limits, long_poll, prefer};
use crate::matcher::client_access::ClientAccess;
use crate::matcher::verification::VerificationId;
use crate::verify::request::{Answer, NewVerification};

/// `POST` creates, `GET` lists.
pub(super) const ALL: &str = "/v1/verifications";
/// `GET` reads.
pub(super) const ONE: &str = "/v1/verifications/{id}";
/// `POST` cancels.
pub(super) const CANCEL: &str = "/v1/verifications/{id}/cancel";

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// `POST /v1/verifications`
pub(super) async fn create(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    begin(&shared, &caller, request).await.inspect_err(|problem| {
        shared.metrics.creates_refused.with_label_values(&[caller.name.as_str(), problem.code().as_str()]).inc();
    })
}

async fn begin(shared: &Arc<Shared>, caller: &Caller, request: Request) -> Result<Response, Problem> {
    caller.require(Scope::VerificationsWrite)?;
    let (parts, body) = request.into_parts();
    Parameters::new(&parts.uri).finish(&[])?;
    body::require_json(&parts.headers)?;
    let body = body::read(shared, caller.application, body).await?;
    let idempotency = idempotency::read(&parts.headers, caller, &parts.method, parts.uri.path(), &body)?;
    let wish = NewVerification { api_key: Some(caller.key.clone()), ..parse_create(&body, caller.live)? };
    let (shared, application) = (Arc::clone(shared), caller.application);
    let change =
        async move { shared.verify.create(application, wish, idempotency, |id| client_access(&shared, id)).await };
    Ok(shown(to_the_end(change).await?))
}

/// `GET /v1/verifications/{id}`
pub(super) async fn read(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::VerificationsRead)?;
    Parameters::new(request.uri()).finish(&[])?;
    let id = id_in(request.uri().path()).ok_or_else(no_such_verification)?;
    let wait = prefer::wait(request.headers());
    let application = caller.application;
    let may_write = caller.require(Scope::VerificationsWrite).is_ok();
    // Thousands may wait: they keep nothing of their request.
    drop((request, caller));
    let (verification, waited) = match wait {
        Some(wait) => long_poll::read(Arc::clone(&shared), application, id, wait).await?,
        None => (long_poll::read_now(&shared, application, id).await?, false),
    };
    // The token lets its holder act for the user, which a key that only reads may not.
    let body = if may_write && lives(&verification, shared.verify.now()) {
        verification.to_json_with(&client_access(&shared, id))
    } else {
        verification.to_json()
    };
    let mut response = json(StatusCode::OK, body);
    response.headers_mut().extend(wait.filter(|_| waited).map(prefer::applied));
    Ok(response)
}

/// `POST /v1/verifications/{id}/cancel`
pub(super) async fn cancel(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::VerificationsWrite)?;
    let (parts, body) = request.into_parts();
    Parameters::new(&parts.uri).finish(&[])?;
    let id = id_in(parts.uri.path()).ok_or_else(no_such_verification)?;
    let body = body::read_empty(&shared, caller.application, &parts, body).await?;
    let idempotency = idempotency::read(&parts.headers, &caller, &parts.method, parts.uri.path(), &body)?;
    let (verify, application) = (Arc::clone(&shared.verify), caller.application);
    Ok(shown(to_the_end(async move { verify.cancel(application, id, idempotency).await }).await?))
}

/// What the application hands on to its user's browser.
fn client_access(shared: &Shared, id: VerificationId) -> ClientAccess {
    shared.tokens.access(id, shared.access.load().public_url.as_deref())
}

/// Runs a change as a task of its own: a client that leaves drops its request, and a change must not stop half way.
async fn to_the_end<E>(change: impl Future<Output = Result<Answer, E>> + Send + 'static) -> Result<Answer, Problem>
where
    E: Into<Problem> + Send + 'static,
{
    match tokio::spawn(change).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(Problem::new(Code::Internal, "the request was begun and its end is not known; ask with GET")),
    }
}

/// The id in a path of [`ONE`] or below it; a malformed one is an unknown one.
pub(super) fn id_in(path: &str) -> Option<VerificationId> {
    path.strip_prefix(ALL)?.strip_prefix('/')?.split('/').next()?.parse().ok()
}

fn shown(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = json(status, answer.body);
    let headers = response.headers_mut();
    if status == StatusCode::CREATED
        && let Ok(place) = HeaderValue::try_from(format!("{ALL}/{}", answer.id))
    {
        headers.insert(LOCATION, place);
    }
    if answer.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    headers.extend(limits::headers(&answer.limits));
    response
}

pub(super) fn json(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from(text)).into_response()
}

impl From<BodyFault> for Problem {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::Malformed(fault) => {
                Self::new(Code::Malformed, format!("line {}, column {}: {}", fault.line, fault.column, fault.detail))
            }
            BodyFault::Invalid(faults) => Self::fields(faults),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::verify::request::{CancelError, LimitState};

    const ID: &str = "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V";

    fn answer(status: u16, replayed: bool, limits: Vec<LimitState>) -> Response {
        shown(Answer { id: ID.parse().unwrap(), status, body: "{}".into(), replayed, limits })
    }

    #[test]
    fn created_has_its_place_and_the_limits() {
        let limit = LimitState {
            name: "creates_per_phone",
            quota: 5,
            window: Duration::from_mins(10),
            remaining: 4,
            reset: Duration::ZERO,
        };
        let response = answer(201, false, vec![limit]);
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["location"], format!("/v1/verifications/{ID}"));
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["ratelimit"], r#""creates_per_phone";r=4"#);
        assert!(!response.headers().contains_key("idempotency-replayed"));
    }

    #[test]
    fn a_replay_says_so() {
        let response = answer(200, true, Vec::new());
        assert_eq!(response.headers()["idempotency-replayed"], "true");
        assert!(!response.headers().contains_key("location") && !response.headers().contains_key("ratelimit"));
    }

    #[tokio::test]
    async fn a_change_goes_on_when_its_client_leaves() {
        let (go, begun) = tokio::sync::oneshot::channel::<()>();
        let (end, ended) = tokio::sync::oneshot::channel();
        let change = to_the_end(async move {
            let _ = begun.await;
            let _ = end.send(());
            Err(CancelError::NotFound)
        });
        let left = tokio::time::timeout(Duration::ZERO, change).await;
        assert!(left.is_err());
        go.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_change_that_panics_is_500() {
        let problem = to_the_end::<CancelError>(async { panic!("as this test asks") }).await.unwrap_err();
        assert_eq!(problem.code(), Code::Internal);
    }

    #[test]
    fn ids_are_read_from_both_paths() {
        assert!(id_in(&format!("/v1/verifications/{ID}")).is_some());
        assert!(id_in(&format!("/v1/verifications/{ID}/cancel")).is_some());
        for path in ["/v1/verifications", "/v1/verifications/", "/v1/verifications/ver_1", "/v1/verifications/%00"] {
            assert!(id_in(path).is_none(), "{path}");
        }
    }
}
