//! What an application may ask, already checked field by field, and the answers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use crate::call::assurance::{Assurance, Reason, Reasons};
use crate::e164::E164;
use crate::matcher::verification::{Consent, Purpose, Status, VerificationId};

/// The wish for a verification.
#[derive(Clone)]
pub struct NewVerification {
    /// The phone to be proven.
    pub phone: E164,
    /// Window, 60 to 300 s; the application's own without it.
    pub ttl: Option<Duration>,
    /// What for.
    pub purpose: Option<Purpose>,
    /// The document agreed to: there exactly for `Purpose::Consent`.
    pub consent: Option<Consent>,
    /// The application's own name for it.
    pub reference: Option<String>,
    /// The application's own pairs.
    pub metadata: BTreeMap<String, String>,
    /// A level above the application's own.
    pub minimum_assurance: Option<Assurance>,
    /// BCP 47 tag.
    pub locale: Option<String>,
    /// Address of the user's device.
    pub client_ip: Option<IpAddr>,
    /// Name of the user's device.
    pub client_device_id: Option<String>,
    /// A pending verification of the same phone that ends for this one.
    pub replaces: Option<VerificationId>,
    /// Id of the API key that asks.
    pub api_key: Option<String>,
}

impl fmt::Debug for NewVerification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest is the application's own text and what tells of its user.
        f.debug_struct("NewVerification")
            .field("phone", &self.phone)
            .field("ttl", &self.ttl)
            .field("purpose", &self.purpose)
            .field("minimum_assurance", &self.minimum_assurance)
            .field("locale", &self.locale)
            .field("replaces", &self.replaces)
            .finish_non_exhaustive()
    }
}

/// The client's key for a request that it may send again (`Idempotency-Key`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Idempotency {
    /// Whose: a name of the API key, so that keys do not meet each other's.
    pub scope: String,
    /// The header's value, 1 to 255 visible ASCII characters.
    pub key: String,
    /// SHA-256 of method, path and body.
    pub fingerprint: [u8; 32],
}

/// A request that was done, or was done before.
#[derive(Clone)]
pub struct Answer {
    /// The verification.
    pub id: VerificationId,
    /// HTTP status as at the first time: 201 or 200.
    pub status: u16,
    /// The verification as JSON, byte for byte as at the first time.
    pub body: String,
    /// Whether this repeats an earlier answer.
    pub replayed: bool,
    /// The limits that the creation counted against.
    pub limits: Vec<LimitState>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body names the phone in full.
        f.debug_struct("Answer")
            .field("id", &format_args!("{}", self.id))
            .field("status", &self.status)
            .field("replayed", &self.replayed)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// How a limit stands after a creation was counted or refused (RateLimit header fields).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitState {
    /// Its name in the configuration, such as `creates_per_phone`.
    pub name: &'static str,
    /// How many are allowed in `window`.
    pub quota: u32,
    /// The window.
    pub window: Duration,
    /// How many are left now.
    pub remaining: u32,
    /// When one more will be there; zero while some are left.
    pub reset: Duration,
}

/// Why no verification was made. The API client acts on each.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The phone has begun too many, or the application as a whole: later.
    #[error("{} is used up", .exceeded.name)]
    RateLimited {
        /// The limit that refused.
        exceeded: LimitState,
        /// All limits that were looked at.
        limits: Vec<LimitState>,
    },
    /// As many as allowed are pending for this phone.
    #[error("this phone has as many pending verifications as it may have ({limit})")]
    TooManyPending {
        /// `pending_per_phone`.
        limit: u32,
        /// When the first of them ends at the latest.
        retry_after: Duration,
    },
    /// Every number of the application is pending or resting for this phone.
    #[error("every number is pending or resting for this phone")]
    PhoneBusy {
        /// When one may be free.
        retry_after: Duration,
    },
    /// The application has no number at all.
    #[error("no number is configured for this application")]
    NoNumber,
    /// The request asks for less than the application's own level.
    #[error("minimum_assurance may not be lower than the application's own, {0:?}")]
    AssuranceLowered(Assurance),
    /// `replaces` names nothing of this application and phone.
    #[error("replaces names no verification of this application and phone")]
    ReplacesUnknown,
    /// As many verifications are pending on this node as it may hold.
    #[error("this node holds as many pending verifications as it may ({limit})")]
    PendingFull {
        /// `max_pending`.
        limit: u64,
    },
    /// The node is about to stop.
    #[error("this node is draining")]
    Draining {
        /// When it may have been started again.
        retry_after: Duration,
    },
    /// Shared with the other requests.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// What can stand in the way of any request that changes something.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The same key came with another body.
    #[error("this Idempotency-Key was used with another request")]
    IdempotencyMismatch,
    /// The first request with this key has no answer yet.
    #[error("a request with this Idempotency-Key is still running")]
    IdempotencyRunning,
    /// The store cannot write or read now; nothing was done.
    #[error("the store cannot take this now")]
    Unavailable,
}

/// Why a verification was not canceled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// This application has none with that id.
    #[error("no such verification")]
    NotFound,
    /// It has ended.
    #[error("the verification has ended: {}", .0.as_str())]
    Ended(Status),
    /// Shared with the other requests.
    #[error(transparent)]
    Request(#[from] RequestError),
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    #[test]
    fn debug_shows_neither_numbers_nor_what_tells_of_the_user() {
        let wish = NewVerification {
            phone: "+966500000123".parse().unwrap(),
            ttl: None,
            purpose: None,
            consent: None,
            reference: Some("signup-secret".into()),
            metadata: BTreeMap::from([("plan".into(), "secret".into())]),
            minimum_assurance: None,
            locale: None,
            client_ip: Some("192.0.2.77".parse().unwrap()),
            client_device_id: Some("device-secret".into()),
            replaces: None,
            api_key: None,
        };
        let body = r#"{"phone":"+966500000123"}"#.to_owned();
        let answer = Answer { id: VerificationId(Ulid::nil()), status: 201, body, replayed: false, limits: Vec::new() };
        let text = format!("{wish:?} {answer:?}");
        for hidden in ["966500000123", "192.0.2.77", "secret"] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
}
