//! What one INVITE means to the rest of the program: who called which number over which trunk, and how sure that is.

use std::fmt;
use std::time::SystemTime;

use ulid::Ulid;

use super::assurance::{Assurance, Reasons};
use super::evidence::Evidence;
use crate::e164::E164;

/// Place of a trunk in the configuration in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrunkId(pub u16);

/// Keyed hash of Call-ID and From-tag: the same for retransmissions and forks of one call (RFC 3261 8.2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallKey(pub u64);

/// Id of a stored call: `call_` and a ULID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallRecordId(pub Ulid);

impl fmt::Display for CallRecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call_{}", self.0)
    }
}

/// The header that gave the caller's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallerSource {
    /// P-Asserted-Identity (RFC 3325 9.1).
    Pai,
    /// Remote-Party-ID.
    Rpid,
    /// P-Preferred-Identity (RFC 3325 9.2).
    Ppi,
    /// From (RFC 3261 20.20).
    From,
    /// The display name of From.
    Display,
}

impl CallerSource {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::Pai, Self::Rpid, Self::Ppi, Self::From, Self::Display];

    /// The name in configuration, events and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pai => "pai",
            Self::Rpid => "rpid",
            Self::Ppi => "ppi",
            Self::From => "from",
            Self::Display => "display",
        }
    }

    /// The header field as people write it.
    #[must_use]
    pub const fn header(self) -> &'static str {
        match self {
            Self::Pai => "P-Asserted-Identity",
            Self::Rpid => "Remote-Party-ID",
            Self::Ppi => "P-Preferred-Identity",
            Self::From => "From",
            Self::Display => "From (display name)",
        }
    }
}

/// Whether the caller allows the number to be shown (RFC 3323, RFC 3325 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presentation {
    /// May be shown.
    Allowed,
    /// Usable for the yes or no of a match; never shown, logged or sent.
    Restricted,
    /// There is no number to show.
    Unavailable,
}

/// One INVITE, read and judged.
#[derive(Debug, Clone)]
pub struct CallEvent {
    /// What tells this call from another one.
    pub key: CallKey,
    /// The trunk that sent it.
    pub trunk: TrunkId,
    /// Place of the sandbox application that placed it as a test; it can meet that one's sandbox verifications alone.
    /// `None` for a call from outside.
    pub only: Option<u16>,
    /// The caller's number that counts, where there is a usable one.
    pub caller: Option<E164>,
    /// The number that From presents where it differs from `caller`: never verified, only told about.
    pub presented: Option<E164>,
    /// The header that gave `caller`.
    pub source: Option<CallerSource>,
    /// Whether `caller` may be shown.
    pub presentation: Presentation,
    /// The dialled number, where it is readable.
    pub dialled: Option<E164>,
    /// Level of proof.
    pub assurance: Assurance,
    /// What speaks against the call, or is worth telling.
    pub reasons: Reasons,
    /// What its header fields said, and which rule followed.
    pub evidence: Evidence,
    /// When the INVITE came in, UTC.
    pub received_at: SystemTime,
}
