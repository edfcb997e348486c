//! Problems: refusals as `application/problem+json` (RFC 9457).
//!
//! Owns the list of codes with their statuses and titles, and what each refusal of `verify` is to a client.

use std::fmt;
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::limits;
use crate::matcher::verification::Status;
use crate::verify::request::{CancelError, CreateError, LimitState, RequestError};

/// How long until some windows have ended on a node that is full.
const FULL: Duration = Duration::from_secs(5);
/// How long a client should stay away while its application has no number.
const NO_NUMBER: Duration = Duration::from_secs(30);
/// When what is short-lived may have gone.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// What went wrong, as a client's program tells it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    BodyTimeout,
    BodyTooLarge,
    Busy,
    ClientTokenExpired,
    ClientTokenInvalid,
    Draining,
    EndpointDisabled,
    EndpointRemoved,
    IdempotencyKeyInvalid,
    IdempotencyMismatch,
    IdempotencyRunning,
    InsufficientScope,
    Internal,
    InvalidFields,
    IpNotAllowed,
    Malformed,
    MethodNotAllowed,
    NotFound,
    NotInThisVersion,
    NotRecorded,
    NumberPoolExhausted,
    OriginNotAllowed,
    PendingFull,
    PhoneBusy,
    PhoneGone,
    RateLimited,
    SandboxOnly,
    StoreUnavailable,
    TooManyPending,
    TooManyStreams,
    Unauthorized,
    UnsupportedMediaType,
    VerificationEnded,
    VerificationPending,
}

impl Code {
    /// The name in `code` and, behind `urn:ringproof:problem:`, in `type`.
    pub(super) const fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// HTTP status.
    pub(super) const fn status(self) -> StatusCode {
        self.facts().1
    }

    const fn title(self) -> &'static str {
        self.facts().2
    }

    const fn facts(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::BodyTimeout => ("body_timeout", S::REQUEST_TIMEOUT, "The body did not arrive in time"),
            Self::BodyTooLarge => ("body_too_large", S::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::Busy => ("busy", S::SERVICE_UNAVAILABLE, "This node has too many requests"),
            Self::ClientTokenExpired => ("client_token_expired", S::GONE, "The client token has died"),
            Self::ClientTokenInvalid => ("client_token_invalid", S::UNAUTHORIZED, "A valid client token is needed"),
            Self::Draining => ("draining", S::SERVICE_UNAVAILABLE, "This node is about to stop"),
            Self::EndpointDisabled => ("endpoint_disabled", S::CONFLICT, "The webhook endpoint is disabled"),
            Self::EndpointRemoved => {
                ("endpoint_removed", S::CONFLICT, "The webhook endpoint is not configured any more")
            }
            Self::IdempotencyKeyInvalid => {
                ("idempotency_key_invalid", S::BAD_REQUEST, "The Idempotency-Key is not usable")
            }
            Self::IdempotencyMismatch => {
                ("idempotency_mismatch", S::UNPROCESSABLE_ENTITY, "The Idempotency-Key belongs to another request")
            }
            Self::IdempotencyRunning => ("idempotency_running", S::CONFLICT, "The first request is still running"),
            Self::InsufficientScope => ("insufficient_scope", S::FORBIDDEN, "The API key may not do this"),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "This node failed"),
            Self::InvalidFields => ("invalid_fields", S::UNPROCESSABLE_ENTITY, "Fields are not valid"),
            Self::IpNotAllowed => ("ip_not_allowed", S::FORBIDDEN, "The API key may not be used from there"),
            Self::Malformed => ("malformed", S::BAD_REQUEST, "The request cannot be read"),
            Self::MethodNotAllowed => ("method_not_allowed", S::METHOD_NOT_ALLOWED, "Wrong method for this path"),
            Self::NotFound => ("not_found", S::NOT_FOUND, "Nothing is here"),
            Self::NotInThisVersion => ("not_in_this_version", S::NOT_IMPLEMENTED, "Not in this version"),
            Self::NotRecorded => ("not_recorded", S::NOT_FOUND, "No outcome is recorded"),
            Self::NumberPoolExhausted => {
                ("number_pool_exhausted", S::SERVICE_UNAVAILABLE, "The application has no number to call")
            }
            Self::OriginNotAllowed => ("origin_not_allowed", S::FORBIDDEN, "This page's origin is not allowed"),
            Self::PendingFull => {
                ("pending_full", S::SERVICE_UNAVAILABLE, "This node holds as many pending verifications as it may")
            }
            Self::PhoneBusy => ("phone-busy", S::TOO_MANY_REQUESTS, "No number is free for this phone"),
            Self::PhoneGone => ("phone_gone", S::GONE, "The phone is not kept any more"),
            Self::RateLimited => ("rate_limited", S::TOO_MANY_REQUESTS, "A rate limit is used up"),
            Self::SandboxOnly => ("sandbox_only", S::FORBIDDEN, "Only a sandbox application may do this"),
            Self::StoreUnavailable => ("store_unavailable", S::SERVICE_UNAVAILABLE, "The store cannot take this now"),
            Self::TooManyPending => {
                ("too_many_pending", S::TOO_MANY_REQUESTS, "Too many verifications are pending for this phone")
            }
            Self::TooManyStreams => {
                ("too_many_streams", S::TOO_MANY_REQUESTS, "Too many streams of this verification are open")
            }
            Self::Unauthorized => ("unauthorized", S::UNAUTHORIZED, "A valid API key is needed"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", S::UNSUPPORTED_MEDIA_TYPE, "The body must be JSON in UTF-8")
            }
            Self::VerificationEnded => ("verification_ended", S::CONFLICT, "The verification has ended"),
            Self::VerificationPending => ("verification_pending", S::CONFLICT, "The verification has not ended"),
        }
    }
}

/// What is wrong with one field.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(super) struct FieldFault {
    /// JSON Pointer into the body (RFC 6901); `?name` for a query parameter.
    pub(super) pointer: String,
    /// The kind of fault.
    pub(super) code: &'static str,
    /// What is wrong and an example of what would be right.
    pub(super) detail: String,
}

impl fmt::Debug for FieldFault {
    // The detail may repeat what the client sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pointer, self.code)
    }
}

/// A refusal. As a response it has status and headers; `observe` writes its body, which names the request.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldFault>,
    ended: Option<Status>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification_status: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldFault],
}

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), ended: None, headers: Vec::new() }
    }

    /// 401 with its challenge (RFC 6750 3).
    pub(super) fn unauthorized(challenge: &'static str, detail: impl Into<String>) -> Self {
        Self::new(Code::Unauthorized, detail).with(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// 422 with every fault that was found.
    pub(super) fn fields(errors: Vec<FieldFault>) -> Self {
        let names = errors.iter().take(8).map(|fault| fault.pointer.as_str()).collect::<Vec<_>>().join(", ");
        let more = if errors.len() > 8 { " and others" } else { "" };
        Self { errors, ..Self::new(Code::InvalidFields, format!("look at {names}{more}; errors tells each")) }
    }

    /// 422 for one field.
    pub(super) fn field(pointer: &str, code: &'static str, detail: String) -> Self {
        Self::fields(vec![FieldFault { pointer: pointer.to_owned(), code, detail }])
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn retry_after(self, wait: Duration) -> Self {
        let seconds = limits::whole_seconds(wait).max(1);
        self.with(RETRY_AFTER, HeaderValue::from(seconds))
    }

    fn rate_limits(mut self, states: &[LimitState]) -> Self {
        self.headers.extend(limits::headers(states));
        self
    }

    pub(super) const fn code(&self) -> Code {
        self.code
    }

    /// The document, naming the request that was refused.
    pub(super) fn document(&self, request_id: &str) -> Vec<u8> {
        let document = Document {
            r#type: format!("urn:ringproof:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            code: self.code.as_str(),
            request_id,
            verification_status: self.ended.map(Status::as_str),
            errors: &self.errors,
        };
        serde_json::to_vec(&document).expect("texts and numbers always serialize")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        let detail = error.to_string();
        match error {
            CreateError::RateLimited { exceeded, limits } => {
                Self::new(Code::RateLimited, detail).retry_after(exceeded.reset).rate_limits(&limits)
            }
            CreateError::TooManyPending { retry_after, .. } => {
                Self::new(Code::TooManyPending, detail).retry_after(retry_after)
            }
            CreateError::PhoneBusy { retry_after } => Self::new(Code::PhoneBusy, detail).retry_after(retry_after),
            CreateError::NoNumber => Self::new(Code::NumberPoolExhausted, detail).retry_after(NO_NUMBER),
            CreateError::AssuranceLowered(least) => Self::field(
                "/minimum_assurance",
                "assurance_lowered",
                format!("may not be lower than the application's own, \"{0}\"; for example \"{0}\"", least.as_str()),
            ),
            CreateError::ReplacesUnknown => Self::field(
                "/replaces",
                "replaces_unknown",
                format!("{detail}; leave it out, or give the id of the one to be replaced"),
            ),
            CreateError::PendingFull { .. } => Self::new(Code::PendingFull, detail).retry_after(FULL),
            CreateError::Draining { retry_after } => Self::new(Code::Draining, detail).retry_after(retry_after),
            CreateError::Request(error) => error.into(),
        }
    }
}

impl From<CancelError> for Problem {
    fn from(error: CancelError) -> Self {
        let detail = error.to_string();
        match error {
            CancelError::NotFound => no_such_verification(),
            CancelError::Ended(status) => Self { ended: Some(status), ..Self::new(Code::VerificationEnded, detail) },
            CancelError::Request(error) => error.into(),
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let detail = error.to_string();
        match error {
            RequestError::IdempotencyMismatch => Self::new(Code::IdempotencyMismatch, detail),
            RequestError::IdempotencyRunning => Self::new(Code::IdempotencyRunning, detail).retry_after(SOON),
            RequestError::Unavailable => Self::new(Code::StoreUnavailable, detail).retry_after(SOON),
        }
    }
}

/// Too many bodies are being read at once.
pub(super) fn busy() -> Problem {
    Problem::new(Code::Busy, "too many request bodies are being read at once").retry_after(SOON)
}

/// Too many streams and long polls wait at once.
pub(super) fn too_many_waits() -> Problem {
    Problem::new(Code::Busy, "this node has as many streams and long polls open as it takes").retry_after(SOON)
}

/// The same answer for an unknown, a malformed and another application's id.
pub(super) fn no_such_verification() -> Problem {
    Problem::new(Code::NotFound, "no verification of this application has this id")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(problem: &Problem) -> Value {
        serde_json::from_slice(&problem.document("req_1")).unwrap()
    }

    fn header(problem: Problem, name: &str) -> Option<String> {
        let response = problem.into_response();
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn document_has_the_members_of_rfc_9457_and_ours() {
        assert_eq!(
            shown(&no_such_verification()),
            json!({
                "type": "urn:ringproof:problem:not_found",
                "title": "Nothing is here",
                "status": 404,
                "detail": "no verification of this application has this id",
                "code": "not_found",
                "request_id": "req_1",
            })
        );
    }

    #[test]
    fn create_refusals_have_their_status_code_and_wait() {
        let wait = Duration::from_millis(2500);
        let limit = LimitState {
            name: "creates_per_phone",
            quota: 5,
            window: Duration::from_mins(10),
            remaining: 0,
            reset: Duration::from_millis(29_001),
        };
        let cases = [
            (
                CreateError::RateLimited { exceeded: limit.clone(), limits: vec![limit] },
                429,
                "rate_limited",
                Some("30"),
            ),
            (CreateError::TooManyPending { limit: 3, retry_after: wait }, 429, "too_many_pending", Some("3")),
            (CreateError::PhoneBusy { retry_after: Duration::ZERO }, 429, "phone-busy", Some("1")),
            (CreateError::NoNumber, 503, "number_pool_exhausted", Some("30")),
            (CreateError::PendingFull { limit: 5_000_000 }, 503, "pending_full", Some("5")),
            (CreateError::Draining { retry_after: wait }, 503, "draining", Some("3")),
            (CreateError::Request(RequestError::Unavailable), 503, "store_unavailable", Some("1")),
            (CreateError::Request(RequestError::IdempotencyRunning), 409, "idempotency_running", Some("1")),
            (CreateError::Request(RequestError::IdempotencyMismatch), 422, "idempotency_mismatch", None),
        ];
        for (error, status, code, wait) in cases {
            let problem = Problem::from(error);
            let document = shown(&problem);
            assert_eq!((document["status"].as_u64(), document["code"].as_str()), (Some(status), Some(code)));
            assert_eq!(header(problem, "retry-after").as_deref(), wait, "{code}");
        }
    }

    #[test]
    fn a_limit_that_refuses_is_told_in_the_headers() {
        let limit = LimitState {
            name: "creates_per_phone",
            quota: 5,
            window: Duration::from_mins(10),
            remaining: 0,
            reset: Duration::from_secs(30),
        };
        let problem = Problem::from(CreateError::RateLimited { exceeded: limit.clone(), limits: vec![limit] });
        assert_eq!(header(problem.clone(), "ratelimit").as_deref(), Some(r#""creates_per_phone";r=0;t=30"#));
        assert_eq!(header(problem, "ratelimit-policy").as_deref(), Some(r#""creates_per_phone";q=5;w=600"#));
    }

    #[test]
    fn refusals_of_a_field_point_at_it() {
        use crate::verify::request::Assurance;
        let lowered = shown(&CreateError::AssuranceLowered(Assurance::B).into());
        assert_eq!(lowered["status"], 422);
        assert_eq!(lowered["errors"][0]["pointer"], "/minimum_assurance");
        assert_eq!(shown(&CreateError::ReplacesUnknown.into())["errors"][0]["pointer"], "/replaces");
    }

    #[test]
    fn an_ended_verification_tells_its_status() {
        let document = shown(&CancelError::Ended(Status::Expired).into());
        assert_eq!((&document["status"], &document["code"]), (&json!(409), &json!("verification_ended")));
        assert_eq!(document["verification_status"], "expired");
        assert!(document["detail"].as_str().unwrap().contains("expired"));
    }
}
