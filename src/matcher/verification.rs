//! The verification: one wish of an application to see a phone proven, and its states.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use ulid::Ulid;

use super::client_access::ClientAccess;
use super::phone_key::PhoneKey;
use crate::call::assurance::{Assurance, Reasons};
use crate::e164::E164;

/// Id of a verification: `ver_` and a ULID, sortable by creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerificationId(pub Ulid);

impl VerificationId {
    const PREFIX: &'static str = "ver_";
}

impl fmt::Display for VerificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

/// The text is not `ver_` and 26 characters of Crockford base 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a verification id such as ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V")]
pub struct VerificationIdError;

impl FromStr for VerificationId {
    type Err = VerificationIdError;

    fn from_str(text: &str) -> Result<Self, VerificationIdError> {
        let ulid = text.strip_prefix(Self::PREFIX).ok_or(VerificationIdError)?;
        let parsed = Ulid::from_string(ulid).map_err(|_| VerificationIdError)?;
        // Crockford base 32 reads lower case and l for 1: only the printed form is an id.
        if parsed.to_string() == ulid { Ok(Self(parsed)) } else { Err(VerificationIdError) }
    }
}

/// `pending`, then one terminal state for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Waits for its call.
    Pending,
    /// The phone called.
    Verified,
    /// The window passed.
    Expired,
    /// Ended by the application, or by a newer verification that replaces it.
    Canceled,
    /// Ended by policy.
    Denied,
    /// No way is left to verify it.
    Failed,
}

impl Status {
    /// Every state, `Pending` first.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Verified, Self::Expired, Self::Canceled, Self::Denied, Self::Failed];

    /// The name in API responses and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Verified => "verified",
            Self::Expired => "expired",
            Self::Canceled => "canceled",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }

    /// Reads the name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// What the application verifies for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A new account.
    Registration,
    /// Signing in.
    Login,
    /// Switching something on.
    Activation,
    /// Agreeing to a document.
    Consent,
    /// Checking that a number is right.
    Validation,
    /// Getting back into an account.
    Recovery,
}

impl Purpose {
    /// Every purpose, for messages that list them.
    pub const ALL: [Self; 6] =
        [Self::Registration, Self::Login, Self::Activation, Self::Consent, Self::Validation, Self::Recovery];

    /// The name in the API and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Login => "login",
            Self::Activation => "activation",
            Self::Consent => "consent",
            Self::Validation => "validation",
            Self::Recovery => "recovery",
        }
    }

    /// Reads the name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text)
    }
}

/// The document that a `consent` verification agrees to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Consent {
    /// Name or address of the document, at most 512 bytes.
    pub document: String,
    /// SHA-256 of the document, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// A verification as it is stored and shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Verification {
    /// Its id.
    pub id: VerificationId,
    /// Name of the application that asked for it.
    pub application: String,
    /// Whether the application is a live one, not a sandbox.
    pub livemode: bool,
    /// Pending, or how it ended.
    pub status: Status,
    /// The phone to be proven.
    pub phone: E164,
    /// The number that the phone is to call.
    pub number: E164,
    /// What for, where the application said so.
    pub purpose: Option<Purpose>,
    /// The document agreed to: there exactly for `Purpose::Consent`.
    pub consent: Option<Consent>,
    /// The application's own name for it, at most 128 bytes.
    pub reference: Option<String>,
    /// The application's own pairs: at most 40, 4 KiB in all.
    pub metadata: BTreeMap<String, String>,
    /// Lowest level of proof that verifies it.
    pub minimum_assurance: Assurance,
    /// BCP 47 tag of the user's language.
    pub locale: Option<String>,
    /// Address of the user's own device, as the application saw it.
    pub client_ip: Option<String>,
    /// The application's name for the user's device.
    pub client_device_id: Option<String>,
    /// Level of the call that verified it.
    pub assurance: Option<Assurance>,
    /// Why calls did not verify it, and why it ended.
    pub reasons: Reasons,
    /// UTC.
    pub created_at: SystemTime,
    /// End of the window, UTC.
    pub expires_at: SystemTime,
    /// When it left `pending`, UTC.
    pub ended_at: Option<SystemTime>,
    /// How many events it has had: the `sequence` of the newest.
    pub sequence: u32,
    /// Names its phone in records that outlive it; `None` of what ended before there were such.
    pub phone_key: Option<PhoneKey>,
    /// Id of the API key that began it.
    pub api_key: Option<String>,
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification")
            .field("id", &format_args!("{}", self.id))
            .field("application", &self.application)
            .field("status", &self.status)
            .field("phone", &self.phone)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Verification {
    /// The record as the API shows it: a JSON object in one line.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a map with text keys always becomes JSON")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a map with text keys always becomes JSON")
    }

    /// As [`Verification::to_json`], with what its end user's browser may have.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a map with text keys always becomes JSON")]
    pub fn to_json_with(&self, client: &ClientAccess) -> String {
        serde_json::to_string(&WithClient { verification: self, client })
            .expect("a map with text keys always becomes JSON")
    }

    /// Writes its fields into an open JSON object, so that an event can add its own beside them.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize_fields<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("id", &Text(self.id))?;
        map.serialize_entry("object", "verification")?;
        map.serialize_entry("livemode", &self.livemode)?;
        map.serialize_entry("status", self.status.as_str())?;
        map.serialize_entry("phone", &Text(self.phone))?;
        map.serialize_entry("purpose", &self.purpose.map(Purpose::as_str))?;
        if let Some(consent) = &self.consent {
            map.serialize_entry("consent", consent)?;
        }
        map.serialize_entry("dial", &Dial(self.number))?;
        map.serialize_entry("channel", "missed_call")?;
        map.serialize_entry("minimum_assurance", &self.minimum_assurance)?;
        map.serialize_entry("assurance", &self.assurance)?;
        map.serialize_entry("reasons", &self.reasons)?;
        map.serialize_entry("locale", &self.locale)?;
        map.serialize_entry("created_at", &Timestamp(self.created_at))?;
        map.serialize_entry("expires_at", &Timestamp(self.expires_at))?;
        let verified_at = self.ended_at.filter(|_| self.status == Status::Verified);
        map.serialize_entry("verified_at", &verified_at.map(Timestamp))?;
        map.serialize_entry("reference", &self.reference)?;
        map.serialize_entry("metadata", &self.metadata)
    }
}

impl Serialize for Verification {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_fields(&mut map)?;
        map.end()
    }
}

struct WithClient<'a> {
    verification: &'a Verification,
    client: &'a ClientAccess,
}

impl Serialize for WithClient<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.verification.serialize_fields(&mut map)?;
        map.serialize_entry("client", self.client)?;
        map.end()
    }
}

/// A UTC time as JSON shows it: RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Timestamp(pub SystemTime);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(self.0))
    }
}

struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct Dial(E164);

impl Serialize for Dial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("number", &Text(self.0))?;
        map.serialize_entry("national", &self.0.national_format())?;
        map.serialize_entry("tel_uri", &Text(format_args!("tel:{}", self.0)))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_other_texts_are_refused() {
        let text = "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V";
        assert_eq!(text.parse::<VerificationId>().unwrap().to_string(), text);
        for wrong in
            ["01JD7Z3W5K8Q2M4N6P8R0S2T4V", "ver_01jd7z3w5k8q2m4n6p8r0s2t4v", "ver_", "evt_01JD7Z3W5K8Q2M4N6P8R0S2T4V"]
        {
            assert_eq!(wrong.parse::<VerificationId>(), Err(VerificationIdError), "{wrong}");
        }
    }
}
