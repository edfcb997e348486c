//! Events that warn an application of what is about no verification of its own, and their bodies. None holds a phone
//! number of anybody's but the node's own.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::event::{CallFacts, EventType};
use crate::e164::E164;
use crate::matcher::verification::Timestamp;

/// What there is to warn of.
#[derive(Debug, Clone, Copy)]
pub enum Alarm<'a> {
    /// A call came whose caller is one of our own numbers: somebody shows them to people, or calls run in a circle.
    OwnNumber {
        /// The number that it called.
        number: E164,
        /// The trunk that carried it.
        trunk: &'a str,
    },
    /// Verified calls to the application's numbers have risen since such calls came.
    Ringback {
        /// Calls with our own numbers as caller within the window.
        signs: u32,
        /// Verified calls since the first of them.
        verified: u32,
        /// Verified calls that the hour before would have led to expect.
        usual: u32,
        /// How long it was looked at.
        window: Duration,
    },
    /// A call that nobody waits for.
    Unmatched {
        /// The number that it called.
        number: E164,
        /// The call.
        call: &'a CallFacts,
    },
    /// Creations were refused because every number is taken or resting for the phone.
    NumberExhausted {
        /// How many numbers the application has.
        numbers: u64,
        /// Creations refused since this was last told.
        refused: u64,
    },
    /// The certificate of the API expires.
    Certificate {
        /// When, UTC.
        expires: SystemTime,
    },
}

impl Alarm<'_> {
    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> EventType {
        match self {
            Self::OwnNumber { .. } => EventType::FraudOwnNumber,
            Self::Ringback { .. } => EventType::FraudRingback,
            Self::Unmatched { .. } => EventType::CallUnmatched,
            Self::NumberExhausted { .. } => EventType::NumberExhausted,
            Self::Certificate { .. } => EventType::CertificateExpiring,
        }
    }

    /// Renders the body.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a struct of texts and numbers always becomes JSON")]
    pub fn body(&self, at: SystemTime) -> String {
        #[derive(Serialize)]
        struct Body<D> {
            r#type: &'static str,
            timestamp: Timestamp,
            data: D,
        }
        #[derive(Serialize)]
        struct OwnNumber<'a> {
            number: String,
            trunk: &'a str,
        }
        #[derive(Serialize)]
        struct Ringback {
            signs: u32,
            verified: u32,
            usual: u32,
            window_seconds: u64,
        }
        #[derive(Serialize)]
        struct Unmatched<'a> {
            number: String,
            call: &'a CallFacts,
        }
        #[derive(Serialize)]
        struct NumberExhausted {
            numbers: u64,
            refused: u64,
        }
        #[derive(Serialize)]
        struct Certificate {
            not_after: Timestamp,
        }
        let (kind, timestamp) = (self.kind().as_str(), Timestamp(at));
        let text = match *self {
            Self::OwnNumber { number, trunk } => {
                let data = OwnNumber { number: number.to_string(), trunk };
                serde_json::to_string(&Body { r#type: kind, timestamp, data })
            }
            Self::Ringback { signs, verified, usual, window } => {
                let data = Ringback { signs, verified, usual, window_seconds: window.as_secs() };
                serde_json::to_string(&Body { r#type: kind, timestamp, data })
            }
            Self::Unmatched { number, call } => {
                let data = Unmatched { number: number.to_string(), call };
                serde_json::to_string(&Body { r#type: kind, timestamp, data })
            }
            Self::NumberExhausted { numbers, refused } => {
                serde_json::to_string(&Body { r#type: kind, timestamp, data: NumberExhausted { numbers, refused } })
            }
            Self::Certificate { expires } => {
                let data = Certificate { not_after: Timestamp(expires) };
                serde_json::to_string(&Body { r#type: kind, timestamp, data })
            }
        };
        text.expect("a struct of texts and numbers always becomes JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_name_what_happened() {
        let number = "+966115000042".parse().unwrap();
        assert_eq!(
            Alarm::OwnNumber { number, trunk: "a" }.body(SystemTime::UNIX_EPOCH),
            r#"{"type":"fraud.own_number","timestamp":"1970-01-01T00:00:00.000Z","data":{"number":"+966115000042","trunk":"a"}}"#
        );
        let ringback = Alarm::Ringback { signs: 2, verified: 9, usual: 1, window: Duration::from_mins(10) };
        assert!(ringback.body(SystemTime::UNIX_EPOCH).contains(r#""usual":1,"window_seconds":600"#));
    }
}
