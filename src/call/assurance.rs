//! How far a call proves its caller, and the reasons that speak against it.

use std::fmt;

use serde::{Serialize, Serializer};

/// Level of proof that a call carries, from D (never verifies) to A (the number's own operator vouches).
///
/// Ordered: `Assurance::D < Assurance::A`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Assurance {
    /// A contrary sign: forwarded, mismatch, failed verdict.
    D,
    /// From alone, or vouched for by nobody who can know the caller.
    C,
    /// Asserted by an operator on a national trunk for a caller of that country.
    B,
    /// Vouched for by the operator of the number itself.
    A,
}

impl Assurance {
    /// `"A"` to `"D"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
        }
    }

    /// Reads `"A"` to `"D"`; anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::A, Self::B, Self::C, Self::D].into_iter().find(|level| level.as_str() == text)
    }
}

impl Serialize for Assurance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why a call did not verify, or why a verification ended as it did. An open list: clients must expect new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No caller number came with the call.
    CliWithheld,
    /// What came is not a number that E.164 can hold.
    CliInvalid,
    /// Two different numbers are asserted (RFC 3325 9.1 allows one number in two forms).
    CliAmbiguous,
    /// From names the number, the asserted identity another one.
    FromPaiMismatch,
    /// The asserted number differs from the one presented; the asserted one counts.
    PresentedDiffers,
    /// The call was forwarded on its way (Diversion, History-Info).
    Forwarded,
    /// The level is below what the verification asks.
    AssuranceTooLow,
    /// The call came after the window.
    LateCall,
    /// The call came over a trunk that does not carry the dialled number.
    WrongTrunk,
    /// Ended for a newer verification of the same phone.
    Superseded,
    /// Ended by the application.
    ClientCanceled,
    /// The caller's number is one of our own.
    OwnNumber,
    /// The carrier's check of the caller failed (RFC 8224 6.2.2).
    StirFailed,
    /// A verdict stands in a header field from which the trunk takes none.
    VerdictIgnored,
    /// Remote-Party-ID says that the network has not checked it.
    NotScreened,
    /// A payphone calls.
    CpcPayphone,
    /// A telephone of a prison calls.
    CpcPrison,
    /// An operator's position calls.
    CpcOperator,
    /// A caller of the trunk's own country came over a trunk for callers from abroad.
    RoamingSuspected,
    /// The same caller had called the same number a moment before: the carrier tries again.
    CarrierRetry,
    /// Verified calls to the application's numbers rise while calls come that carry its numbers as caller.
    RingbackSuspected,
    /// Ended because the data of its phone was erased.
    Erased,
}

impl Reason {
    const ALL: [Self; 22] = [
        Self::CliWithheld,
        Self::CliInvalid,
        Self::CliAmbiguous,
        Self::FromPaiMismatch,
        Self::PresentedDiffers,
        Self::Forwarded,
        Self::AssuranceTooLow,
        Self::LateCall,
        Self::WrongTrunk,
        Self::Superseded,
        Self::ClientCanceled,
        Self::OwnNumber,
        Self::StirFailed,
        Self::VerdictIgnored,
        Self::NotScreened,
        Self::CpcPayphone,
        Self::CpcPrison,
        Self::CpcOperator,
        Self::RoamingSuspected,
        Self::CarrierRetry,
        Self::RingbackSuspected,
        Self::Erased,
    ];

    /// The name in API responses and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CliWithheld => "cli_withheld",
            Self::CliInvalid => "cli_invalid",
            Self::CliAmbiguous => "cli_ambiguous",
            Self::FromPaiMismatch => "from_pai_mismatch",
            Self::PresentedDiffers => "presented_differs",
            Self::Forwarded => "forwarded",
            Self::AssuranceTooLow => "assurance_too_low",
            Self::LateCall => "late_call",
            Self::WrongTrunk => "wrong_trunk",
            Self::Superseded => "superseded",
            Self::ClientCanceled => "client_canceled",
            Self::OwnNumber => "own_number",
            Self::StirFailed => "stir_failed",
            Self::VerdictIgnored => "verdict_ignored",
            Self::NotScreened => "not_screened",
            Self::CpcPayphone => "cpc_payphone",
            Self::CpcPrison => "cpc_prison",
            Self::CpcOperator => "cpc_operator",
            Self::RoamingSuspected => "roaming_suspected",
            Self::CarrierRetry => "carrier_retry",
            Self::RingbackSuspected => "ringback_suspected",
            Self::Erased => "erased",
        }
    }
}

/// A set of reasons. Its bits are what the database holds, so a reason keeps its place in [`Reason`] for good.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Reasons(u32);

impl Reasons {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// The set with one reason.
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        Self(1 << reason as u8)
    }

    /// This set and one reason more.
    #[must_use]
    pub const fn with(self, reason: Reason) -> Self {
        Self(self.0 | 1 << reason as u8)
    }

    /// This set without one reason.
    #[must_use]
    pub const fn without(self, reason: Reason) -> Self {
        Self(self.0 & !(1 << reason as u8))
    }

    /// Everything in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `reason` is in the set.
    #[must_use]
    pub const fn contains(self, reason: Reason) -> bool {
        self.0 & (1 << reason as u8) != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The reasons, always in the same order.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }

    /// The stored form.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Reads the stored form. Bits of a later version are kept but not shown.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Reason::as_str)).finish()
    }
}

impl Serialize for Reasons {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Reason::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_read_back() {
        assert!(Assurance::D < Assurance::C && Assurance::C < Assurance::B && Assurance::B < Assurance::A);
        assert_eq!(Assurance::parse("B"), Some(Assurance::B));
        assert_eq!(Assurance::parse("b"), None);
    }

    #[test]
    fn reasons_survive_storage_in_their_order() {
        let reasons = Reasons::of(Reason::Forwarded).with(Reason::CliWithheld);
        let stored = Reasons::from_bits(reasons.bits());
        assert_eq!(serde_json::to_string(&stored).unwrap(), r#"["cli_withheld","forwarded"]"#);
        assert_eq!(Reason::ALL.map(|reason| Reasons::of(reason).iter().next()), Reason::ALL.map(Some));
    }
}
