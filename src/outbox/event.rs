//! Events: what happened, and the body that tells what happened to a verification (Standard Webhooks 1.0, payload
//! structure).

use std::fmt;
use std::time::SystemTime;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use ulid::Ulid;

use crate::call::event::{CallEvent, CallRecordId, CallerSource};
use crate::call::trace;
use crate::matcher::verification::{Timestamp, Verification};

/// Id of an event: `evt_` and a ULID. It is the `webhook-id`, the same on every try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(pub Ulid);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evt_{}", self.0)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A verification began.
    Created,
    /// A call named the pair and did not verify it.
    CallReceived,
    /// The phone called: terminal.
    Verified,
    /// The window passed: terminal.
    Expired,
    /// Ended by the application: terminal.
    Canceled,
    /// Ended by policy: terminal.
    Denied,
    /// No way is left to verify it: terminal.
    Failed,
    /// The phone called within a minute after the window.
    LateCall,
    /// The phone called again after it was verified.
    CallRepeated,
    /// Another phone called the number of the only verification that is pending on it.
    CallMismatched,
    /// A call that nobody waits for came for a number of one application.
    CallUnmatched,
    /// The certificate of the API is about to expire.
    CertificateExpiring,
    /// A call came whose caller is one of our own numbers.
    FraudOwnNumber,
    /// Verified calls have risen since such calls came.
    FraudRingback,
    /// Every number of an application is taken or resting for a phone.
    NumberExhausted,
    /// The last try of a delivery failed.
    DeliveryExhausted,
    /// An endpoint is sent nothing any more until it is enabled again.
    EndpointDisabled,
}

impl EventType {
    /// Every type there is, for configuration that names them.
    pub const ALL: [Self; 17] = [
        Self::Created,
        Self::CallReceived,
        Self::Verified,
        Self::Expired,
        Self::Canceled,
        Self::Denied,
        Self::Failed,
        Self::LateCall,
        Self::CallRepeated,
        Self::CallMismatched,
        Self::CallUnmatched,
        Self::CertificateExpiring,
        Self::FraudOwnNumber,
        Self::FraudRingback,
        Self::NumberExhausted,
        Self::DeliveryExhausted,
        Self::EndpointDisabled,
    ];

    /// The `type` of the body.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "verification.created",
            Self::CallReceived => "verification.call_received",
            Self::Verified => "verification.verified",
            Self::Expired => "verification.expired",
            Self::Canceled => "verification.canceled",
            Self::Denied => "verification.denied",
            Self::Failed => "verification.failed",
            Self::LateCall => "verification.late_call",
            Self::CallRepeated => "call.repeated",
            Self::CallMismatched => "call.mismatched",
            Self::CallUnmatched => "call.unmatched",
            Self::CertificateExpiring => "certificate.expiring",
            Self::FraudOwnNumber => "fraud.own_number",
            Self::FraudRingback => "fraud.ringback_suspected",
            Self::NumberExhausted => "number.exhausted",
            Self::DeliveryExhausted => "delivery.exhausted",
            Self::EndpointDisabled => "endpoint.disabled",
        }
    }

    /// Reads the name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether it tells of deliveries themselves. If one of its own is exhausted, no event follows: that would have no end.
    #[must_use]
    pub const fn is_of_delivery(self) -> bool {
        matches!(self, Self::DeliveryExhausted | Self::EndpointDisabled)
    }

    /// Whether it is kept only where an endpoint subscribes it: anybody who calls can bring it about.
    #[must_use]
    pub const fn is_for_subscribers(self) -> bool {
        matches!(self, Self::CallMismatched | Self::CallUnmatched)
    }

    /// Whether it tells of a terminal state: the default subscription.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Verified | Self::Expired | Self::Canceled | Self::Denied | Self::Failed)
    }
}

/// What an event tells of the call behind it. A restricted number is never in it, nor any other.
#[derive(Debug, Clone)]
pub struct CallFacts {
    /// Id of the stored call.
    pub id: CallRecordId,
    /// Name of the trunk that carried it.
    pub trunk: String,
    /// What the call said.
    pub event: CallEvent,
}

impl CallFacts {
    /// The decision trace as JSON, its numbers masked.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "texts always become JSON")]
    pub fn trace(&self) -> String {
        let steps = trace::steps(&self.event, &|number| number.masked().to_string());
        serde_json::to_string(&steps).expect("texts always become JSON")
    }
}

impl Serialize for CallFacts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id.to_string())?;
        map.serialize_entry("caller_source", &self.event.source.map(CallerSource::as_str))?;
        map.serialize_entry("assurance", &self.event.assurance)?;
        map.serialize_entry("reasons", &self.event.reasons)?;
        map.serialize_entry("trunk", &self.trunk)?;
        map.serialize_entry("received_at", &Timestamp(self.event.received_at))?;
        map.end()
    }
}

/// An event as lists show it: its id, and the members of its body.
#[must_use]
pub fn listed(id: &str, body: &str) -> String {
    let members = body.strip_prefix('{').unwrap_or(body);
    format!("{{\"id\":\"{id}\",\"object\":\"event\",{members}")
}

/// What stays of the body of an event once the data of its verification was erased: what it told, when, of which
/// verification, and its place among that one's events.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "a map with text keys always becomes JSON")]
pub fn erased_body(kind: EventType, at: SystemTime, verification: &str, body: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Whole {
        data: Numbered,
    }
    #[derive(serde::Deserialize)]
    struct Numbered {
        sequence: u32,
    }
    let sequence = serde_json::from_str::<Whole>(body).ok().map(|whole| whole.data.sequence);
    let data = serde_json::json!({"id": verification, "object": "verification", "sequence": sequence, "erased": true});
    serde_json::to_string(&serde_json::json!({
        "type": kind.as_str(),
        "timestamp": Timestamp(at),
        "data": data,
    }))
    .expect("a map with text keys always becomes JSON")
}

/// Renders the body of an event. `verification` is the record as the event leaves it; its `sequence` numbers the
/// event. Metadata and reference have caps, so the body stays under 20 KB.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "a map with text keys always becomes JSON")]
pub fn body(kind: EventType, at: SystemTime, verification: &Verification, call: Option<&CallFacts>) -> String {
    serde_json::to_string(&Body { kind, at, data: Data { verification, call } })
        .expect("a map with text keys always becomes JSON")
}

struct Body<'a> {
    kind: EventType,
    at: SystemTime,
    data: Data<'a>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("type", self.kind.as_str())?;
        map.serialize_entry("timestamp", &Timestamp(self.at))?;
        map.serialize_entry("data", &self.data)?;
        map.end()
    }
}

struct Data<'a> {
    verification: &'a Verification,
    call: Option<&'a CallFacts>,
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.verification.serialize_fields(&mut map)?;
        map.serialize_entry("sequence", &self.verification.sequence)?;
        if let Some(call) = self.call {
            map.serialize_entry("call", call)?;
        }
        map.end()
    }
}
