//! The endpoints of webhook endpoints: list them, enable one.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::auth::authenticate;
use super::create::parse_empty;
use super::deliveries::{List, ToJson};
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::scope::Scope;
use super::verifications::json;
use super::{Shared, body};
use crate::matcher::verification::Timestamp;
use crate::verify::deliveries::{EndpointRow, EventType};

/// `GET` lists.
pub(super) const ALL: &str = "/v1/endpoints";
/// `POST` enables.
pub(super) const ENABLE: &str = "/v1/endpoints/{id}/enable";

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
    let body = body::read(&shared, caller.application, body).await?;
    if !body.is_empty() {
        body::require_json(&parts.headers)?;
    }
    parse_empty(&body)?;
    let row = shared.verify.enable(caller.application, id_in(parts.uri.path())).await?;
    let row = row.ok_or_else(|| Problem::new(Code::NotFound, "no webhook endpoint of this application has this id"))?;
    Ok(json(StatusCode::OK, Shown(&row).to_json()))
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
