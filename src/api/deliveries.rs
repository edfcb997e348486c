//! The endpoints of deliveries: list, read, replay.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use ulid::Ulid;

use super::auth::authenticate;
use super::fields::Faults;
use super::problem::{Code, Problem};
use super::query::Parameters;
use super::scope::Scope;
use super::verifications::json;
use super::{Shared, body};
use crate::matcher::verification::Timestamp;
use crate::verify::deliveries::{
    DeliveryFilter, DeliveryId, DeliveryRow, DeliveryState, EndpointName, EventId, EventName, ReplayError,
};
use crate::verify::settings::ApplicationId;

/// `GET` lists.
pub(super) const ALL: &str = "/v1/deliveries";
/// `GET` reads.
pub(super) const ONE: &str = "/v1/deliveries/{id}";
/// `POST` sends again.
pub(super) const REPLAY: &str = "/v1/deliveries/{id}/replay";

const PARAMETERS: [&str; 6] = ["state", "endpoint", "event", "created_after", "limit", "after"];

/// `GET /v1/deliveries`
pub(super) async fn list(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::VerificationsRead)?;
    let mut parameters = Parameters::new(request.uri());
    let limit = parameters.limit();
    let after = parameters.take("after", "write an id such as dlv_00000000000G1", |text| text.parse().ok());
    let filter = filter(&shared, caller.application, &mut parameters).await?;
    parameters.finish(&PARAMETERS)?;
    let page = shared.verify.deliveries(caller.application, filter, after, limit).await?;
    let data = page.entries.iter().map(Shown).collect();
    let list = List { object: "list", data, has_more: page.next.is_some(), next_cursor: page.next };
    Ok(json(StatusCode::OK, list.to_json()))
}

async fn filter(
    shared: &Shared,
    application: ApplicationId,
    parameters: &mut Parameters,
) -> Result<DeliveryFilter, Problem> {
    let states = DeliveryState::ALL.map(DeliveryState::as_str).join(", ");
    let mut filter = DeliveryFilter {
        state: parameters.take("state", &format!("write one of {states}"), DeliveryState::parse),
        event: parameters.take("event", "write an id such as evt_01JD7Z3W5K8Q2M4N6P8R0S2T4V", event_id),
        created_after: parameters.time("created_after"),
        endpoint: None,
    };
    if let Some(id) = parameters.take("endpoint", "", |text| Some(text.to_owned())) {
        match shared.verify.endpoint(application, &id).await? {
            Some(row) => filter.endpoint = Some(row.endpoint),
            None => parameters.fault(
                "endpoint",
                "invalid",
                "no endpoint of this application has this id; GET /v1/endpoints lists them, for example \
                 whe_7JD7Z3W5K8Q2M4N6P8R0S2T4VA",
            ),
        }
    }
    Ok(filter)
}

fn event_id(text: &str) -> Option<EventId> {
    let id = Ulid::from_string(text.strip_prefix("evt_")?).ok().map(EventId)?;
    (id.to_string() == text).then_some(id)
}

/// `GET /v1/deliveries/{id}`
pub(super) async fn read(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::VerificationsRead)?;
    Parameters::new(request.uri()).finish(&[])?;
    let id = id_in(request.uri().path()).ok_or_else(no_such_delivery)?;
    let row = shared.verify.delivery(caller.application, id).await?.ok_or_else(no_such_delivery)?;
    Ok(json(StatusCode::OK, Shown(&row).to_json()))
}

/// `POST /v1/deliveries/{id}/replay`
pub(super) async fn replay(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(&shared, &request)?;
    caller.require(Scope::DeliveriesWrite)?;
    let (parts, body) = request.into_parts();
    Parameters::new(&parts.uri).finish(&[])?;
    let id = id_in(parts.uri.path()).ok_or_else(no_such_delivery)?;
    body::read_empty(&shared, caller.application, &parts, body).await?;
    let row = shared.verify.replay(caller.application, id, &caller.key).await?;
    Ok(json(StatusCode::ACCEPTED, Shown(&row).to_json()))
}

/// The id in a path of [`ONE`] or [`REPLAY`]; a malformed one is an unknown one.
fn id_in(path: &str) -> Option<DeliveryId> {
    path.strip_prefix(ALL)?.strip_prefix('/')?.split('/').next()?.parse().ok()
}

/// The same answer for an unknown, a malformed and another application's id.
fn no_such_delivery() -> Problem {
    Problem::new(Code::NotFound, "no delivery of this application has this id")
}

impl From<ReplayError> for Problem {
    fn from(error: ReplayError) -> Self {
        let detail = error.to_string();
        match error {
            ReplayError::NotFound => no_such_delivery(),
            ReplayError::Disabled(_) => Self::new(Code::EndpointDisabled, detail),
            ReplayError::Removed(_) => Self::new(Code::EndpointRemoved, detail),
            ReplayError::UnknownAfter => {
                let mut faults = Faults::default();
                faults.add("/after", "unknown_cursor", detail);
                Self::fields(faults.into_vec())
            }
            ReplayError::Request(error) => error.into(),
        }
    }
}

/// One page.
#[derive(Serialize)]
pub(super) struct List<T> {
    pub(super) object: &'static str,
    pub(super) data: Vec<T>,
    pub(super) has_more: bool,
    pub(super) next_cursor: Option<String>,
}

/// What is shown as JSON: texts, numbers and lists of them.
pub(super) trait ToJson: Serialize {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a map with text keys always becomes JSON")
    }
}

impl<T: Serialize> ToJson for T {}

/// A delivery as the API shows it.
struct Shown<'a>(&'a DeliveryRow);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = self.0;
        let delivered = row.last.as_ref().filter(|_| row.state == DeliveryState::Delivered);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &row.id.to_string())?;
        map.serialize_entry("object", "delivery")?;
        map.serialize_entry("event", &EventName { id: row.event, kind: row.kind })?;
        map.serialize_entry("verification", &row.verification.map(|id| id.to_string()))?;
        map.serialize_entry("endpoint", &EndpointName(&row.endpoint))?;
        map.serialize_entry("state", row.state.as_str())?;
        map.serialize_entry("attempts", &row.attempts)?;
        map.serialize_entry("created_at", &Timestamp(row.event_at))?;
        map.serialize_entry("next_attempt_at", &row.next_at.map(Timestamp))?;
        map.serialize_entry("delivered_at", &delivered.map(|last| Timestamp(last.at)))?;
        map.serialize_entry("last_attempt", &row.last)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_both_paths() {
        for path in ["/v1/deliveries/dlv_00000000000G1", "/v1/deliveries/dlv_00000000000G1/replay"] {
            assert_eq!(id_in(path), Some(DeliveryId(513)));
        }
        for path in ["/v1/deliveries", "/v1/deliveries/", "/v1/deliveries/513", "/v1/deliveries/%00"] {
            assert_eq!(id_in(path), None, "{path}");
        }
    }

    #[test]
    fn ids_of_events_are_read_in_their_one_form() {
        assert!(event_id("evt_01JD7Z3W5K8Q2M4N6P8R0S2T4V").is_some());
        for text in
            ["01JD7Z3W5K8Q2M4N6P8R0S2T4V", "evt_01jd7z3w5k8q2m4n6p8r0s2t4v", "evt_", "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V"]
        {
            assert_eq!(event_id(text), None, "{text}");
        }
    }
}
