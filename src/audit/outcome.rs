//! What an entry tells of a verification that has ended: who, for whom, what for, and how it was proven. A receipt says
//! the same.

use serde::Serialize;
use serde::ser::SerializeMap;

use crate::matcher::verification::{Purpose, Timestamp, Verification};
use crate::outbox::event::CallFacts;

/// The `data` of `verification.ended`: a JSON object. The phone is its HMAC; `call` is the one that verified it.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "a map with text keys always becomes JSON")]
pub fn data(verification: &Verification, call: Option<&CallFacts>) -> String {
    serde_json::to_string(&Outcome { verification, call }).expect("a map with text keys always becomes JSON")
}

struct Outcome<'a> {
    verification: &'a Verification,
    call: Option<&'a CallFacts>,
}

impl Serialize for Outcome<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = self.verification;
        let phone = row.phone_key.map(|key| hex::encode(key.hmac(row.phone)));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("verification", &row.id.to_string())?;
        map.serialize_entry("application", &row.application)?;
        map.serialize_entry("livemode", &row.livemode)?;
        map.serialize_entry("key", &row.api_key)?;
        map.serialize_entry("phone_hmac", &phone)?;
        map.serialize_entry("number", &row.number.to_string())?;
        map.serialize_entry("purpose", &row.purpose.map(Purpose::as_str))?;
        map.serialize_entry("consent_sha256", &row.consent.as_ref().map(|consent| &consent.sha256))?;
        map.serialize_entry("status", row.status.as_str())?;
        map.serialize_entry("assurance", &row.assurance)?;
        map.serialize_entry("reasons", &row.reasons)?;
        map.serialize_entry("created_at", &Timestamp(row.created_at))?;
        map.serialize_entry("expires_at", &Timestamp(row.expires_at))?;
        map.serialize_entry("ended_at", &row.ended_at.map(Timestamp))?;
        if let Some(call) = self.call {
            map.serialize_entry("call", call)?;
        }
        map.end()
    }
}
