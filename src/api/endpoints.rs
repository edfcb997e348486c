//! The endpoints of webhook endpoints: list them, enable one, test one, send what it had again.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::auth::authenticate;
use super::create::BodyFault;
use super::deliveries::{List, ToJson};
use super::fields::{Faults, Fields};
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::scope::Scope;
use super::verifications::json;
use super::{Shared, body, json as read_json};
use crate::matcher::verification::Timestamp;
use crate::verify::deliveries::{DeliveryId, DeliveryState, EndpointRow, EventType, ReplayError, ReplayWish};
use crate::verify::records::Kind;

/// `GET` lists.
pub(super) const ALL: &str = "/v1/endpoints";
/// `POST` enables.
pub(super) const ENABLE: &str = "/v1/endpoints/{id}/enable";
/// `POST` sends a range of its deliveries again.
pub(super) const REPLAY: &str = "/v1/endpoints/{id}/replay";
/// `POST` sends a test.
pub(super) const TEST: &str = "/v1/endpoints/{id}/test";

/// `GET /v1/endpoints`: all of them on one page, for an application has few.
pub(super) async fn list(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::VerificationsRead)?;
    Parameters::new(request.uri()).finish(&[])?;
    let rows = shared.verify.endpoints(caller.application).await?;
    let data = rows.iter().map(Shown).collect();
    Ok(json(StatusCode::OK, List { object: "list", data, has_more: false, next_cursor: None }.to_json()))
}

/// `POST /v1/endpoints/{id}/enable`
pub(super) async fn enable(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::DeliveriesWrite)?;
    let (parts, body) = request.into_parts();
    Parameters::new(&parts.uri).finish(&[])?;
    body::read_empty(&shared, caller.application, &parts, body).await?;
    let row = shared.verify.enable(caller.application, id_in(parts.uri.path()), &caller.key).await?;
    let row = row.ok_or_else(no_such_endpoint)?;
    Ok(json(StatusCode::OK, Shown(&row).to_json()))
}

/// `POST /v1/endpoints/{id}/replay`
pub(super) async fn replay(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::DeliveriesWrite)?;
    let (parts, body) = request.into_parts();
    Parameters::new(&parts.uri).finish(&[])?;
    body::require_json(&parts.headers)?;
    let body = body::read(&shared, caller.application, body).await?;
    let range = parse_range(&body)?;
    let (replayed, next) = shared
        .verify
        .replay_many(ReplayWish {
            application: caller.application,
            endpoint: id_in(parts.uri.path()).to_owned(),
            state: range.state,
            kind: range.kind,
            from: range.from,
            until: range.until,
            after: range.after,
            key: caller.key,
        })
        .await
        .map_err(|error| match error {
            ReplayError::NotFound => no_such_endpoint(),
            other => other.into(),
        })?;
    let text = serde_json::json!({
        "object": "replay",
        "replayed": replayed,
        "has_more": next.is_some(),
        "next_cursor": next.map(|id| id.to_string()),
    });
    Ok(json(StatusCode::ACCEPTED, text.to_string()))
}

/// What of an endpoint's deliveries is to be sent again.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    from: SystemTime,
    until: Option<SystemTime>,
    state: Option<DeliveryState>,
    kind: Option<EventType>,
    after: Option<DeliveryId>,
}

fn parse_range(body: &[u8]) -> Result<Range, BodyFault> {
    let mut fields = Fields::new(read_json::object(body).map_err(BodyFault::Malformed)?, "");
    let mut faults = Faults::default();
    let f = &mut faults;
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok().map(SystemTime::from);
    let (a_time, example) = ("a time in RFC 3339", "2026-01-31T08:00:00Z");
    if !fields.has("created_after") {
        f.add("/created_after", "missing", format!("is missing; events from this time on, for example \"{example}\""));
    }
    let from = fields.parsed("created_after", a_time, example, f, time);
    let until = fields.parsed("created_before", a_time, example, f, time);
    if let (Some(from), Some(until)) = (from, until)
        && from >= until
    {
        f.add("/created_before", "out_of_range", "is not after created_after");
    }
    let state = fields.parsed("state", "delivered or exhausted (both without it)", "exhausted", f, |text| {
        let over = [DeliveryState::Delivered, DeliveryState::Exhausted];
        DeliveryState::parse(text).filter(|state| over.contains(state))
    });
    let kind = fields.parsed("type", "a type of event", EventType::Verified.as_str(), f, EventType::parse);
    let after =
        fields.parsed("after", "the next_cursor of an answer", "dlv_00000000000G1", f, |text| text.parse().ok());
    fields.finish("created_after, created_before, state, type, after", f);
    match from {
        Some(from) if faults.is_empty() => Ok(Range { from, until, state, kind, after }),
        _ => Err(BodyFault::Invalid(faults.into_vec())),
    }
}

/// `POST /v1/endpoints/{id}/test`
pub(super) async fn test(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::DeliveriesWrite)?;
    let (parts, body) = request.into_parts();
    Parameters::new(&parts.uri).finish(&[])?;
    body::read_empty(&shared, caller.application, &parts, body).await?;
    let row = shared.verify.endpoint(caller.application, id_in(parts.uri.path())).await?;
    let row = row.ok_or_else(no_such_endpoint)?;
    shared.tests.count(caller.application)?;
    let wish = serde_json::json!({
        "application": caller.name, "key": caller.key, "endpoint": row.endpoint.public(), "url": row.endpoint.shown(),
    });
    shared.verify.audit(Kind::EndpointTested, &wish).await?;
    // As a task of its own: it is in the log already, so it is sent whether or not the client waits.
    let tested = tokio::spawn((shared.tests.send)(row.endpoint)).await;
    let tested = tested.map_err(|_| Problem::new(Code::Internal, "the test was not finished"))?;
    let tested = tested.ok_or_else(no_such_endpoint)?;
    let text = serde_json::json!({
        "object": "endpoint_test",
        "id": tested.id,
        "delivered": tested.error.is_none(),
        "status": tested.status,
        "error": tested.error,
        "duration_ms": u64::try_from(tested.took.as_millis()).unwrap_or(u64::MAX),
    });
    Ok(json(StatusCode::OK, text.to_string()))
}

fn no_such_endpoint() -> Problem {
    Problem::new(Code::NotFound, "no webhook endpoint of this application has this id")
}

fn id_in(path: &str) -> &str {
    path.strip_prefix(ALL).and_then(|rest| rest.split('/').nth(1)).unwrap_or_default()
}

/// An endpoint as the API shows it.
struct Shown<'a>(&'a EndpointRow);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = self.0;
        let events: Vec<&str> = row.events.iter().copied().map(EventType::as_str).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &row.endpoint.public())?;
        map.serialize_entry("object", "endpoint")?;
        map.serialize_entry("url", &row.endpoint.shown())?;
        map.serialize_entry("events", &events)?;
        map.serialize_entry("state", if row.disabled.is_some() { "disabled" } else { "enabled" })?;
        map.serialize_entry("failing_since", &row.failing_since.map(Timestamp))?;
        map.serialize_entry("disabled_at", &row.disabled.map(|(at, _)| Timestamp(at)))?;
        map.serialize_entry("reason", &row.disabled.map(|(_, reason)| reason.as_str()))?;
        map.serialize_entry("backlog", &row.backlog)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_read_from_the_path() {
        assert_eq!(id_in("/v1/endpoints/whe_7JD7Z3W5K8Q2M4N6P8R0S2T4VA/enable"), "whe_7JD7Z3W5K8Q2M4N6P8R0S2T4VA");
        for path in ["/v1/endpoints", "/v1/endpoints//enable", "/other"] {
            assert_eq!(id_in(path), "", "{path}");
        }
    }
}
