//! What one INVITE said, header field by header field, and the rule that followed: the facts behind a level of proof.
//!
//! A copy of the readings that the judgement itself made, so that a trace tells what was decided and not what a second
//! reading would decide. Of one size and without text: it is gathered for every call.

use super::assurance::Assurance;
use super::event::CallerSource;
use super::forwarding::Sign;
use super::line::SpecialLine;
use super::verdict::{Verdict, VerdictHeader};
use crate::e164::E164;

/// What a place that can hold a number held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Finding {
    /// The trunk takes nothing from there.
    #[default]
    Unread,
    /// Nothing like a number.
    Nothing,
    /// Something that is no number by the trunk's rules.
    Invalid,
    /// More than one number.
    Ambiguous,
    /// A number.
    Number(E164),
}

impl Finding {
    /// The name in traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::Nothing => "nothing",
            Self::Invalid => "invalid",
            Self::Ambiguous => "ambiguous",
            Self::Number(_) => "number",
        }
    }
}

/// What asked to hide the caller's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HiddenBy {
    /// Privacy (RFC 3323 4.2).
    Privacy,
    /// An anonymous From (RFC 3323 4.1.1.3).
    From,
    /// `privacy` of Remote-Party-ID.
    RemotePartyId,
}

impl HiddenBy {
    /// The header field's name.
    #[must_use]
    pub const fn header(self) -> &'static str {
        match self {
            Self::Privacy => "Privacy",
            Self::From => "From",
            Self::RemotePartyId => "Remote-Party-ID",
        }
    }
}

/// The rule that gave the level before any cap and contrary sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rule {
    /// There is no usable caller.
    #[default]
    NoCaller,
    /// The caller's own word: From, its display name, P-Preferred-Identity.
    Presented,
    /// Asserted by somebody who cannot know the caller (`asserted_trust` none or customer).
    NotVouched,
    /// Asserted in Remote-Party-ID, and not said to be checked.
    NotScreened,
    /// Asserted by the operator of the calling number itself.
    OnNet,
    /// Asserted by an operator on a national trunk, a caller of its country.
    National,
    /// Asserted by an operator on a national trunk, a caller of another country.
    Foreign,
    /// Asserted by an operator on a trunk that carries callers from abroad.
    NotNational,
    /// The carrier's own check passed with full attestation.
    Verdict,
}

impl Rule {
    /// The name in traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCaller => "no_caller",
            Self::Presented => "presented",
            Self::NotVouched => "not_vouched",
            Self::NotScreened => "not_screened",
            Self::OnNet => "on_net",
            Self::National => "national",
            Self::Foreign => "foreign_caller",
            Self::NotNational => "not_national",
            Self::Verdict => "verdict_a",
        }
    }

    /// The level that it gives.
    #[must_use]
    pub const fn level(self) -> Assurance {
        match self {
            Self::NoCaller => Assurance::D,
            Self::Presented | Self::NotVouched | Self::NotScreened | Self::Foreign | Self::NotNational => Assurance::C,
            Self::National => Assurance::B,
            Self::OnNet | Self::Verdict => Assurance::A,
        }
    }
}

/// How the peer's address is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proof {
    /// Nobody else can send from the peer's address: a private path, or a connection.
    #[default]
    Path,
    /// A datagram over a public path: anybody may have sent it.
    None,
    /// The peer has sent our To-tag back.
    Ack,
}

/// The facts of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// By [`CallerSource`].
    pub findings: [Finding; CallerSource::ALL.len()],
    /// What Remote-Party-ID says of its screening, where it was read.
    pub screened: Option<bool>,
    /// What asked to hide the number.
    pub hidden_by: Option<HiddenBy>,
    /// The carrier's own check.
    pub verdict: Option<(Verdict, VerdictHeader)>,
    /// A line that is nobody's own.
    pub line: Option<SpecialLine>,
    /// What tells of a forwarding.
    pub forwarded: Option<Sign>,
    /// What the place of the dialled number held.
    pub dialled: Finding,
    /// To names another number than the Request-URI, which many networks do with every call.
    pub to_differs: bool,
    /// The rule of the level.
    pub rule: Rule,
    /// How the peer is proved.
    pub proof: Proof,
}

impl Evidence {
    /// What `source` held.
    #[must_use]
    pub const fn found(&self, source: CallerSource) -> Finding {
        self.findings[source as usize]
    }
}
