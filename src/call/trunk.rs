//! What an operator tells of a trunk, as far as a call's judgement and its refusal need it.

use super::dialplan::Dialplan;
use super::event::CallerSource;
use super::evidence::Proof;
use super::verdict::{Attestation, VerdictHeader};

/// One `[[trunk]]`.
#[derive(Debug, Clone)]
pub struct Trunk {
    /// Its name, a metric label.
    pub name: String,
    /// How numbers without `+` are read.
    pub dialplan: Dialplan,
    /// Whose callers it carries.
    pub scope: Scope,
    /// Whether a stranger can send packets with this peer's address.
    pub path: Path,
    /// What has to come back from the peer before a call counts.
    pub confirm: Confirm,
    /// The final response to every call.
    pub reject: Reject,
    /// Which headers name the caller, best first.
    pub sources: Vec<CallerSource>,
    /// Who stands behind an asserted number.
    pub asserted_trust: Trust,
    /// What a restricted number is good for.
    pub restricted: Restricted,
    /// Where the dialled number stands.
    pub did: DidSource,
    /// What becomes of a forwarded call.
    pub forwarded: Forwarded,
    /// Where the carrier tells what its own check of the caller found.
    pub verdict_headers: Vec<VerdictHeader>,
    /// The level of a passed check that names none.
    pub bare_verdict: Option<Attestation>,
    /// What becomes of calls from payphones, prisons and operators.
    pub special_lines: SpecialLines,
    /// Most calls that are taken.
    pub limits: Limits,
}

impl Trunk {
    /// Name of the built-in trunk over which test calls come. No other trunk has it.
    pub const SANDBOX: &'static str = "sandbox";

    /// How a peer of this trunk is proved when its call comes over a connection, or in a datagram.
    #[must_use]
    pub fn proof(&self, connected: bool) -> Proof {
        match (connected, self.confirm, self.path) {
            (true, _, _) | (false, Confirm::Invite, Path::Private) => Proof::Path,
            (false, Confirm::Ack, _) => Proof::Ack,
            (false, Confirm::Invite, Path::Public) => Proof::None,
        }
    }

    /// The built-in trunk: an operator vouches for callers of the dialplan's country, so that a test call can reach
    /// every level but A.
    #[must_use]
    pub fn sandbox(dialplan: Dialplan) -> Self {
        Self {
            name: Self::SANDBOX.to_owned(),
            dialplan,
            scope: Scope::National,
            path: Path::Private,
            confirm: Confirm::Invite,
            reject: Reject { code: 486, phrase: "Busy Here".to_owned(), q850: Some(17) },
            sources: vec![CallerSource::Pai, CallerSource::From],
            asserted_trust: Trust::Operator,
            restricted: Restricted::MatchOnly,
            did: DidSource::RequestUri,
            forwarded: Forwarded::Refuse,
            verdict_headers: Vec::new(),
            bare_verdict: None,
            special_lines: SpecialLines::Refuse,
            limits: Limits::default(),
        }
    }
}

/// Whose callers a trunk carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Callers of the trunk's country.
    National,
    /// Callers from abroad.
    International,
    /// Both.
    Mixed,
}

/// The way packets take from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// A private interconnect or tunnel.
    Private,
    /// The internet: a UDP source address proves nothing.
    Public,
}

/// What makes a call count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirm {
    /// The INVITE.
    Invite,
    /// The ACK to its refusal, which only a party can send that receives at the peer's address. A connection proves
    /// that by itself, so over TCP the INVITE is enough.
    Ack,
}

/// What becomes of a call from a line that is nobody's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialLines {
    /// Level D.
    Refuse,
    /// The reason is told, the level stays.
    Flag,
}

/// Most calls of a trunk; 0 is no cap. What is above gets 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Calls a second of the trunk.
    pub calls_per_second: u32,
    /// Calls of the trunk that wait for their answer at one time.
    pub concurrent: u32,
    /// Calls a second of each peer address.
    pub peer_calls_per_second: u32,
    /// Calls of each peer address that wait at one time.
    pub peer_concurrent: u32,
}

/// Who stands behind a P-Asserted-Identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nobody.
    None,
    /// The caller's own PBX.
    Customer,
    /// An operator.
    Operator,
    /// The operator of the calling number itself.
    OnNet,
}

impl Trust {
    /// Whether an asserted number can be relied on to be the line that calls.
    #[must_use]
    pub const fn is_trusted(self) -> bool {
        matches!(self, Self::Operator | Self::OnNet)
    }
}

/// What a number that the caller withholds is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restricted {
    /// The yes or no of a match; never shown, logged or sent.
    MatchOnly,
    /// Nothing: the call counts as withheld.
    Refuse,
}

/// Where the dialled number stands in an INVITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DidSource {
    /// The Request-URI.
    RequestUri,
    /// The To header.
    To,
    /// P-Called-Party-ID (RFC 7315 4.2).
    PCalledPartyId,
}

/// What becomes of a forwarded call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Level D: it verifies nobody.
    Refuse,
    /// The level is C at most, and the reason is told.
    Flag,
}

/// The final response that refuses a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Status code, 4xx or 6xx.
    pub code: u16,
    /// Reason phrase.
    pub phrase: String,
    /// Q.850 cause of the Reason header (RFC 3326); `None` sends none.
    pub q850: Option<u8>,
}
