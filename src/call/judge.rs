//! The judgement of a call: identity, forwarding and the trunk's standing make a level of proof with its reasons.

use std::time::SystemTime;

use super::assurance::{Assurance, Reason, Reasons};
use super::event::{CallEvent, CallKey, CallerSource, Presentation, TrunkId};
use super::forwarding;
use super::identity::{self, Identity};
use super::number;
use super::trunk::{DidSource, Forwarded, Path, Scope, Trunk, Trust};
use crate::e164::E164;
use crate::sip::message::{HeaderName, Message, NameAddr, Uri};

/// The parts of an INVITE that are judged.
#[derive(Clone, Copy)]
pub struct Invite<'a> {
    /// The message.
    pub message: Message<'a>,
    /// Its Request-URI.
    pub uri: &'a [u8],
    /// Its From.
    pub from: NameAddr<'a>,
    /// Its To.
    pub to: NameAddr<'a>,
    /// What tells the call from another.
    pub key: CallKey,
    /// When it came in, UTC.
    pub received_at: SystemTime,
}

/// Judges a call that came over `trunk`. `is_own` knows the numbers that people call.
pub fn judge(invite: &Invite<'_>, id: TrunkId, trunk: &Trunk, is_own: impl Fn(E164) -> bool) -> CallEvent {
    let identity = identity::read(&invite.message, &invite.from, trunk);
    let mut reasons = Reasons::NONE;
    let mut caller = identity.caller;
    if caller.is_ok_and(|(number, _)| is_own(number)) {
        // One of our numbers as a caller is a forgery or a loop, the sign of ring-back phishing.
        caller = Err(Reason::OwnNumber);
    }
    let mut assurance = match caller {
        Ok((number, source)) => level(trunk, number, source),
        Err(reason) => {
            reasons = reasons.with(reason);
            Assurance::D
        }
    };
    if trunk.path == Path::Public {
        // Over UDP a stranger can send with the peer's address.
        assurance = assurance.min(Assurance::C);
    }
    let mut presented = None;
    if let Ok((number, source)) = caller
        && let Some(difference) = difference(&identity, number, source, trunk.asserted_trust)
    {
        reasons = reasons.with(difference.reason);
        presented = difference.presented;
        if difference.reason != Reason::PresentedDiffers {
            assurance = Assurance::D;
        }
    }
    if forwarding::is_forwarded(&invite.message) {
        reasons = reasons.with(Reason::Forwarded);
        assurance = match trunk.forwarded {
            Forwarded::Refuse => Assurance::D,
            Forwarded::Flag => assurance.min(Assurance::C),
        };
    }
    CallEvent {
        key: invite.key,
        trunk: id,
        only: None,
        caller: caller.ok().map(|(number, _)| number),
        presented,
        source: caller.ok().map(|(_, source)| source),
        presentation: if caller.is_ok() { identity.presentation } else { Presentation::Unavailable },
        dialled: dialled(invite, trunk, is_own),
        assurance,
        reasons,
        received_at: invite.received_at,
    }
}

/// The level before contrary signs: From alone is C; an asserted number is worth what stands behind the trunk.
fn level(trunk: &Trunk, caller: E164, source: CallerSource) -> Assurance {
    match (source, trunk.asserted_trust) {
        (CallerSource::From, _) | (_, Trust::None | Trust::Customer) => Assurance::C,
        (CallerSource::Pai, Trust::OnNet) => Assurance::A,
        (CallerSource::Pai, Trust::Operator) => {
            let domestic = trunk.scope == Scope::National && trunk.dialplan.is_domestic(caller);
            if domestic { Assurance::B } else { Assurance::C }
        }
    }
}

/// Where From and the asserted identity are at odds.
struct Difference {
    reason: Reason,
    /// The number of the two that does not count.
    presented: Option<E164>,
}

/// Compares From with the asserted identity. A network that is trusted to assert may let its customer present another
/// number; anywhere else another number, or an asserted identity that is unusable beside From, is a contrary sign.
fn difference(identity: &Identity, caller: E164, source: CallerSource, trust: Trust) -> Option<Difference> {
    let (other, reason) = match source {
        CallerSource::Pai if trust.is_trusted() => (identity.presented?, Reason::PresentedDiffers),
        CallerSource::Pai => (identity.presented?, Reason::FromPaiMismatch),
        CallerSource::From => match identity.asserted {
            Ok(asserted) => (asserted?, Reason::FromPaiMismatch),
            Err(reason) => return Some(Difference { reason, presented: None }),
        },
    };
    (other != caller).then_some(Difference { reason, presented: Some(other) })
}

/// The dialled number: the reading that is one of our numbers, else the dialplan's.
fn dialled(invite: &Invite<'_>, trunk: &Trunk, is_own: impl Fn(E164) -> bool) -> Option<E164> {
    let uri = match trunk.did {
        DidSource::RequestUri => invite.uri,
        DidSource::To => invite.to.uri,
        DidSource::PCalledPartyId => NameAddr::parse(invite.message.only(HeaderName::PCalledPartyId)?)?.uri,
    };
    let mut candidates = number::candidates(&Uri::parse(uri)?, &trunk.dialplan);
    let first = candidates.next()?;
    if is_own(first) { Some(first) } else { candidates.find(|number| is_own(*number)).or(Some(first)) }
}
