//! The endpoints that give pages: verifications, the calls of one, events.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use ulid::Ulid;

use super::Shared;
use super::auth::authenticate;
use super::problem::{Problem, no_such_verification};
use super::query::Parameters;
use super::scope::Scope;
use super::verifications::{id_in, json};
use crate::e164::E164;
use crate::matcher::verification::{Status, Timestamp, Verification};
use crate::verify::lists::{CallRow, EventRow, EventType, ListError, Page, VerificationFilter, listed};

/// `GET` gives the calls of a verification.
pub(super) const CALLS: &str = "/v1/verifications/{id}/calls";
/// `GET` gives how the calls of a verification were judged.
pub(super) const TRACE: &str = "/v1/verifications/{id}/trace";
/// `GET` gives events.
pub(super) const EVENTS: &str = "/v1/events";

const MAX_REFERENCE: usize = 128;

/// `GET /v1/verifications`
pub(super) async fn verifications(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::VerificationsRead)?;
    let mut given = Parameters::new(request.uri());
    let statuses = Status::ALL.map(Status::as_str).join(", ");
    let status = given.take("status", &format!("one of {statuses}, for example status=pending"), Status::parse);
    let phone = given.take(
        "phone",
        "write E.164 with %2B for its +, which by itself reads as a space, for example phone=%2B966500000123",
        |text| text.parse::<E164>().ok(),
    );
    let accepted = format!("write 1 to {MAX_REFERENCE} bytes, for example reference=signup-88");
    let reference =
        given.take("reference", &accepted, |text| (1..=MAX_REFERENCE).contains(&text.len()).then(|| text.to_owned()));
    let (created_after, created_before) = (given.time("created_after"), given.time("created_before"));
    if created_after.zip(created_before).is_some_and(|(after, before)| after >= before) {
        given.fault(
            "created_before",
            "out_of_range",
            "is not later than created_after; between them nothing is created",
        );
    }
    let limit = given.limit();
    let after = given.take("after", &accepted_id("ver_"), |text| text.parse().ok());
    given.finish(&["status", "phone", "reference", "created_after", "created_before", "limit", "after"])?;

    let filter = VerificationFilter { status, phone, reference, created_after, created_before };
    let page = shared.verify.verifications(caller.application, filter, after, limit).await;
    Ok(shown(&page.map_err(|error| refused(error, "newest"))?, Verification::to_json))
}

/// `GET /v1/verifications/{id}/calls`
pub(super) async fn calls(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    calls_shown(&shared, request, Scope::CallsRead, |row| call(row, |number| number.to_string())).await
}

/// `GET /v1/verifications/{id}/trace`
pub(super) async fn trace(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    calls_shown(&shared, request, Scope::TraceRead, judged).await
}

async fn calls_shown(
    shared: &Shared,
    request: Request,
    scope: Scope,
    entry: impl Fn(&CallRow) -> String,
) -> Result<Response, Problem> {
    let caller = authenticate(shared, &request)?;
    caller.require(scope)?;
    let mut given = Parameters::new(request.uri());
    let limit = given.limit();
    let after = given.take("after", &accepted_id("call_"), |text| id(text, "call_"));
    given.finish(&["limit", "after"])?;

    let verification = id_in(request.uri().path()).ok_or_else(no_such_verification)?;
    let page = shared.verify.calls(caller.application, verification, after, limit).await;
    Ok(shown(&page.map_err(|error| refused(error, "newest"))?, entry))
}

/// `GET /v1/events`
pub(super) async fn events(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::VerificationsRead)?;
    let mut given = Parameters::new(request.uri());
    let types = EventType::ALL.map(EventType::as_str).join(", ");
    let accepted = format!("one of {types}, for example type=verification.verified");
    let kind = given.take("type", &accepted, EventType::parse);
    let limit = given.limit();
    let after = given.take("after", &accepted_id("evt_"), |text| id(text, "evt_"));
    given.finish(&["type", "limit", "after"])?;

    let page = shared.verify.events(caller.application, kind, after, limit).await;
    Ok(shown(&page.map_err(|error| refused(error, "oldest"))?, event))
}

fn accepted_id(prefix: &str) -> String {
    format!("write an id of this list, as next_cursor gives it, for example after={prefix}01JD7Z3W5K8Q2M4N6P8R0S2T4V")
}

/// An id with this prefix in its printed form.
fn id(text: &str, prefix: &str) -> Option<String> {
    let ulid = text.strip_prefix(prefix)?;
    (Ulid::from_string(ulid).ok()?.to_string() == ulid).then(|| text.to_owned())
}

/// `first` is where the list begins.
fn refused(error: ListError, first: &str) -> Problem {
    match error {
        ListError::NotFound => no_such_verification(),
        ListError::UnknownCursor => Problem::field(
            "?after",
            "unknown_cursor",
            format!(
                "no entry of this list has this id, or it is not kept any more; leave after out to start over with the {first} that is kept"
            ),
        ),
        ListError::Request(error) => error.into(),
    }
}

fn shown<T>(page: &Page<T>, entry: impl Fn(&T) -> String) -> Response {
    let entries: Vec<String> = page.entries.iter().map(entry).collect();
    let next = page.next.as_ref().map_or("null".to_owned(), |id| format!("\"{id}\""));
    let text = format!(
        "{{\"object\":\"list\",\"data\":[{}],\"has_more\":{},\"next_cursor\":{next}}}",
        entries.join(","),
        page.next.is_some()
    );
    json(StatusCode::OK, text)
}

/// The stored body with its id before it: what a webhook carries, byte for byte.
fn event(row: &EventRow) -> String {
    listed(&row.id, &row.body)
}

/// A call with the steps of its judgement, which are stored as they are shown.
fn judged(row: &CallRow) -> String {
    let steps = row.trace.as_deref().unwrap_or("[]");
    // Whole numbers are for `calls:read`.
    let call = call(row, |number| number.masked().to_string());
    let members = call.strip_suffix('}').unwrap_or(&call).replacen("\"object\":\"call\"", "\"object\":\"trace\"", 1);
    format!("{members},\"steps\":{steps}}}")
}

fn call(row: &CallRow, caller: impl Fn(E164) -> String) -> String {
    #[derive(Serialize)]
    struct Call<'a, A, R> {
        id: &'a str,
        object: &'static str,
        trunk: &'a str,
        caller: Option<String>,
        caller_source: Option<&'a str>,
        dialled: Option<String>,
        assurance: A,
        reasons: R,
        outcome: &'a str,
        received_at: Timestamp,
    }
    let text = |number: E164| number.to_string();
    let call = Call {
        id: &row.id,
        object: "call",
        trunk: &row.trunk,
        caller: row.caller.map(caller),
        caller_source: row.source.as_deref(),
        dialled: row.dialled.map(text),
        assurance: row.assurance,
        reasons: row.reasons,
        outcome: &row.outcome,
        received_at: Timestamp(row.received_at),
    };
    serde_json::to_string(&call).expect("texts always become JSON")
}
