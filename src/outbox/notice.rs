//! Events about deliveries themselves, and their bodies. None holds a secret or a phone number.

use std::time::{Duration, SystemTime};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::delivery::{DeliveryId, EndpointId};
use super::endpoint::DisableReason;
use super::event::{EventId, EventType};
use crate::matcher::verification::{Timestamp, VerificationId};

/// An endpoint as applications see it.
#[derive(Debug, Clone, Copy)]
pub struct EndpointName<'a>(pub &'a EndpointId);

impl Serialize for EndpointName<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("id", &self.0.public())?;
        map.serialize_entry("url", &self.0.shown())?;
        map.end()
    }
}

/// How the last try of a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastAttempt {
    /// When, UTC.
    pub at: SystemTime,
    /// HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// What went wrong, at most 200 bytes; `None` of a success.
    pub error: Option<String>,
}

impl Serialize for LastAttempt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("at", &Timestamp(self.at))?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("error", &self.error)?;
        map.end()
    }
}

/// `delivery.exhausted`: the last try failed.
#[derive(Debug)]
pub struct Exhausted<'a> {
    /// The delivery.
    pub id: DeliveryId,
    /// Where to.
    pub endpoint: &'a EndpointId,
    /// How many tries there were.
    pub attempts: u32,
    /// The last of them.
    pub last: &'a LastAttempt,
    /// What was to be told.
    pub event: EventId,
    /// Its type.
    pub kind: EventType,
    /// The verification that it is about, if it is about one.
    pub verification: Option<VerificationId>,
}

impl Exhausted<'_> {
    /// Renders the body: less than a KB and the endpoint's address.
    #[must_use]
    pub fn body(&self) -> String {
        render(EventType::DeliveryExhausted, self.last.at, self)
    }
}

impl Serialize for Exhausted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Delivery<'a>(&'a Exhausted<'a>);
        impl Serialize for Delivery<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(4))?;
                map.serialize_entry("id", &self.0.id.to_string())?;
                map.serialize_entry("endpoint", &EndpointName(self.0.endpoint))?;
                map.serialize_entry("attempts", &self.0.attempts)?;
                map.serialize_entry("last_attempt", self.0.last)?;
                map.end()
            }
        }
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("delivery", &Delivery(self))?;
        map.serialize_entry("event", &EventName { id: self.event, kind: self.kind })?;
        map.serialize_entry("verification", &self.verification.map(|id| id.to_string()))?;
        map.end()
    }
}

/// An event as deliveries name it.
#[derive(Debug, Clone, Copy)]
pub struct EventName {
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub kind: EventType,
}

impl Serialize for EventName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("id", &self.id.to_string())?;
        map.serialize_entry("type", self.kind.as_str())?;
        map.end()
    }
}

/// `endpoint.disabled`: nothing more is sent to it.
#[derive(Debug)]
pub struct Disabled<'a> {
    /// Which.
    pub endpoint: &'a EndpointId,
    /// Why.
    pub reason: DisableReason,
    /// When its tries began to fail, UTC.
    pub failing_since: SystemTime,
    /// When it was disabled, UTC.
    pub at: SystemTime,
}

impl Disabled<'_> {
    /// Renders the body: less than a KB and the endpoint's address.
    #[must_use]
    pub fn body(&self) -> String {
        render(EventType::EndpointDisabled, self.at, self)
    }
}

impl Serialize for Disabled<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Endpoint<'a>(&'a Disabled<'a>);
        impl Serialize for Endpoint<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(5))?;
                map.serialize_entry("id", &self.0.endpoint.public())?;
                map.serialize_entry("url", &self.0.endpoint.shown())?;
                map.serialize_entry("reason", self.0.reason.as_str())?;
                map.serialize_entry("failing_since", &Timestamp(self.0.failing_since))?;
                map.serialize_entry("disabled_at", &Timestamp(self.0.at))?;
                map.end()
            }
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("endpoint", &Endpoint(self))?;
        map.end()
    }
}

/// The body of a test to an endpoint, which is no event and has no type of [`EventType`].
#[must_use]
pub fn test_body(endpoint: &EndpointId, at: SystemTime) -> String {
    #[derive(Serialize)]
    struct Data<'a> {
        endpoint: EndpointName<'a>,
    }
    render_as("endpoint.test", at, &Data { endpoint: EndpointName(endpoint) })
}

/// What came of a test to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// The `webhook-id`.
    pub id: String,
    /// HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// What went wrong; `None` of a 2xx.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
}

fn render(kind: EventType, at: SystemTime, data: &impl Serialize) -> String {
    render_as(kind.as_str(), at, data)
}

fn render_as(kind: &'static str, at: SystemTime, data: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Body<'a, D> {
        r#type: &'static str,
        timestamp: Timestamp,
        data: &'a D,
    }
    serde_json::to_string(&Body { r#type: kind, timestamp: Timestamp(at), data })
        .expect("a map with text keys always becomes JSON")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::{Value, json};
    use ulid::Ulid;

    use super::*;

    #[test]
    fn bodies_have_the_documented_shape_and_no_secret() {
        let endpoint = EndpointId::new("demo", "https://receiver.example/hook?token=abc");
        let at = UNIX_EPOCH + Duration::from_millis(1_764_000_000_125);
        let last = LastAttempt { at, status: Some(500), error: Some("status 500".into()) };
        let verification = Some("ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V".parse().unwrap());
        let (event, kind) = (EventId(Ulid(1)), EventType::Verified);
        let id = DeliveryId(42);
        let exhausted =
            Exhausted { id, endpoint: &endpoint, attempts: 12, last: &last, event, kind, verification }.body();
        let name = json!({"id": endpoint.public(), "url": "https://receiver.example/hook"});
        assert_eq!(
            serde_json::from_str::<Value>(&exhausted).unwrap(),
            json!({
                "type": "delivery.exhausted",
                "timestamp": "2025-11-24T16:00:00.125Z",
                "data": {
                    "delivery": {
                        "id": "dlv_000000000001A",
                        "endpoint": name,
                        "attempts": 12,
                        "last_attempt": {"at": "2025-11-24T16:00:00.125Z", "status": 500, "error": "status 500"},
                    },
                    "event": {"id": event.to_string(), "type": "verification.verified"},
                    "verification": "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V",
                },
            })
        );
        let reason = DisableReason::Gone;
        let disabled = Disabled { endpoint: &endpoint, reason, failing_since: UNIX_EPOCH, at }.body();
        assert_eq!(
            serde_json::from_str::<Value>(&disabled).unwrap(),
            json!({
                "type": "endpoint.disabled",
                "timestamp": "2025-11-24T16:00:00.125Z",
                "data": {"endpoint": {
                    "id": endpoint.public(),
                    "url": "https://receiver.example/hook",
                    "reason": "gone",
                    "failing_since": "1970-01-01T00:00:00.000Z",
                    "disabled_at": "2025-11-24T16:00:00.125Z",
                }},
            })
        );
        assert!(!exhausted.contains("token") && !disabled.contains("token"));
    }

    #[test]
    fn longest_bodies_stay_under_20_kb() {
        // An address may have 2048 bytes, an error 200, which JSON may write six times as long.
        let endpoint = EndpointId::new(&"a".repeat(64), &format!("https://h/{}", "\u{1}".repeat(2_038)));
        let last = LastAttempt { at: UNIX_EPOCH, status: None, error: Some("\u{1}".repeat(200)) };
        let verification = Some("ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V".parse().unwrap());
        let (event, kind) = (EventId(Ulid(u128::MAX)), EventType::CallReceived);
        let id = DeliveryId(i64::MAX);
        let exhausted =
            Exhausted { id, endpoint: &endpoint, attempts: u32::MAX, last: &last, event, kind, verification };
        let disabled =
            Disabled { endpoint: &endpoint, reason: DisableReason::Failing, failing_since: UNIX_EPOCH, at: UNIX_EPOCH };
        assert!(exhausted.body().len() < 20_000 && disabled.body().len() < 20_000);
    }
}
