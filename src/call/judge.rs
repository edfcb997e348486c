//! The judgement of a call: identity, forwarding and the trunk's standing make a level of proof with its reasons.

use std::time::SystemTime;

use super::address::Address;
use super::asserted::Asserted;
use super::assurance::{Assurance, Reason, Reasons};
use super::event::{CallEvent, CallKey, CallerSource, Presentation, TrunkId};
use super::evidence::{Evidence, Finding, Proof, Rule};
use super::identity::{self, Identity};
use super::line::SpecialLine;
use super::trunk::{DidSource, Forwarded, Scope, SpecialLines, Trunk, Trust};
use super::verdict::{self, Attestation, Verdict};
use super::{forwarding, number};
use crate::e164::E164;
use crate::sip::message::{HeaderName, Message, NameAddr, Request, Uri};

/// The parts of an INVITE that are judged.
#[derive(Clone, Copy)]
pub struct Invite<'a> {
    /// The message.
    pub message: Message<'a>,
    /// Its Request-URI.
    pub uri: Uri<'a>,
    /// Its From.
    pub from: NameAddr<'a>,
    /// Its To.
    pub to: NameAddr<'a>,
    /// How the peer is proved: [`Trunk::proof`].
    pub proof: Proof,
    /// What tells the call from another.
    pub key: CallKey,
    /// When it came in, UTC.
    pub received_at: SystemTime,
}

impl<'a> Invite<'a> {
    /// The parts of this request.
    #[must_use]
    pub const fn of(
        (request, uri): (&Request<'a>, Uri<'a>),
        proof: Proof,
        key: CallKey,
        received_at: SystemTime,
    ) -> Self {
        let Request { message, from, to, .. } = *request;
        Self { message, uri, from, to, proof, key, received_at }
    }
}

/// Judges a call that came over `trunk`. `is_own` knows the numbers that people call.
pub fn judge(invite: &Invite<'_>, id: TrunkId, trunk: &Trunk, is_own: impl Fn(E164) -> bool) -> CallEvent {
    let from = Address::of(invite.from);
    let signs = from.signs();
    let asserted = Asserted::read(&invite.message, trunk);
    let identity = identity::read(&invite.message, &from, asserted.number, trunk);
    let mut caller = identity.caller;
    if caller.is_ok_and(|(number, _)| is_own(number)) {
        // One of our numbers as a caller is a forgery or a loop, the sign of ring-back phishing.
        caller = Err(Reason::OwnNumber);
    }
    let verstat = asserted.verstat.or_else(|| signs.verstat.map(|value| verdict::verstat(value, trunk.bare_verdict)));
    let verdicts = verdict::read(&invite.message, verstat, trunk);
    let rule = caller.map_or(Rule::NoCaller, |(number, source)| {
        // Carriers check the asserted identity, else From; no other header's number.
        let passed = matches!(verdicts.told, Some((Verdict::Passed(Some(Attestation::A)), _)))
            && matches!(source, CallerSource::Pai | CallerSource::From);
        if passed { Rule::Verdict } else { level(trunk, number, source, identity.screened) }
    });
    let dialled = match trunk.did {
        DidSource::RequestUri => dialled(Some(invite.uri), trunk, &is_own),
        DidSource::To => dialled(Uri::parse(invite.to.uri), trunk, &is_own),
        DidSource::PCalledPartyId => {
            let value = invite.message.only(HeaderName::PCalledPartyId).and_then(NameAddr::parse);
            dialled(value.and_then(|value| Uri::parse(value.uri)), trunk, &is_own)
        }
    };
    let evidence = Evidence {
        findings: identity.findings,
        screened: identity.screened,
        hidden_by: identity.hidden_by,
        verdict: verdicts.told,
        line: asserted.line.or(signs.line).or(signs.line_behind),
        forwarded: forwarding::sign(&invite.message, |uri| {
            let readings = Uri::parse(uri).map(|uri| number::candidates(&uri, &trunk.dialplan));
            dialled.zip(readings).is_some_and(|(dialled, mut readings)| readings.any(|number| number == dialled))
        }),
        dialled: dialled.map_or(Finding::Nothing, Finding::Number),
        // Only a hint: many networks rewrite one of them with every call.
        to_differs: invite.uri.user() != Uri::user_of(invite.to.uri),
        rule,
        proof: invite.proof,
    };
    let mut level = rule.level();
    let mut reasons = Reasons::NONE;
    let mut cap = |at_most: Assurance, reason: Option<Reason>| {
        level = level.min(at_most);
        reasons = reason.map_or(reasons, |reason| reasons.with(reason));
    };
    if let Err(reason) = caller {
        cap(Assurance::D, Some(reason));
    }
    if evidence.proof == Proof::None {
        cap(Assurance::C, None);
    }
    let mut presented = None;
    if let Ok((number, source)) = caller {
        if let Some(difference) = difference(&identity, number, source, trunk.asserted_trust) {
            presented = difference.presented;
            let own_choice = difference.reason == Reason::PresentedDiffers;
            cap(if own_choice { Assurance::A } else { Assurance::D }, Some(difference.reason));
        }
        if source == CallerSource::Rpid && identity.screened == Some(false) {
            cap(Assurance::C, Some(Reason::NotScreened));
        }
    }
    if trunk.scope == Scope::International && roams(caller, trunk) {
        cap(Assurance::C, Some(Reason::RoamingSuspected));
    }
    if matches!(verdicts.told, Some((Verdict::Failed, _))) {
        cap(Assurance::D, Some(Reason::StirFailed));
    }
    if verdicts.ignored {
        cap(Assurance::A, Some(Reason::VerdictIgnored));
    }
    if let Some(line) = evidence.line {
        let at_most = if trunk.special_lines == SpecialLines::Refuse { Assurance::D } else { Assurance::A };
        cap(at_most, Some(reason_of(line)));
    }
    if evidence.forwarded.is_some() {
        let at_most = if trunk.forwarded == Forwarded::Refuse { Assurance::D } else { Assurance::C };
        cap(at_most, Some(Reason::Forwarded));
    }
    CallEvent {
        key: invite.key,
        trunk: id,
        only: None,
        caller: caller.ok().map(|(number, _)| number),
        presented,
        source: caller.ok().map(|(_, source)| source),
        presentation: if caller.is_ok() { identity.presentation } else { Presentation::Unavailable },
        dialled,
        assurance: level,
        reasons,
        evidence,
        received_at: invite.received_at,
    }
}

/// The rule before caps and contrary signs: what callers say of themselves is C; an asserted number is worth what stands
/// behind the trunk.
fn level(trunk: &Trunk, caller: E164, source: CallerSource, screened: Option<bool>) -> Rule {
    match (source, trunk.asserted_trust) {
        (CallerSource::Ppi | CallerSource::From | CallerSource::Display, _) => Rule::Presented,
        (_, Trust::None | Trust::Customer) => Rule::NotVouched,
        (CallerSource::Rpid, _) if screened != Some(true) => Rule::NotScreened,
        (_, Trust::OnNet) => Rule::OnNet,
        (_, Trust::Operator) if trunk.scope != Scope::National => Rule::NotNational,
        (_, Trust::Operator) if trunk.dialplan.is_domestic(caller) => Rule::National,
        (_, Trust::Operator) => Rule::Foreign,
    }
}

/// Who is at home and calls from abroad roams, hides behind a foreign network, or is forged there.
fn roams(caller: Result<(E164, CallerSource), Reason>, trunk: &Trunk) -> bool {
    match caller {
        Ok((number, _)) => trunk.dialplan.is_domestic(number),
        Err(reason) => reason == Reason::CliWithheld,
    }
}

const fn reason_of(line: SpecialLine) -> Reason {
    match line {
        SpecialLine::Payphone => Reason::CpcPayphone,
        SpecialLine::Prison => Reason::CpcPrison,
        SpecialLine::Operator => Reason::CpcOperator,
    }
}

/// Where From and the asserted identity are at odds.
struct Difference {
    reason: Reason,
    /// The number of the two that does not count.
    presented: Option<E164>,
}

/// Compares what counts with the other word on who calls. A network that is trusted to assert may let its customer
/// present another number; anywhere else another number, or an asserted identity that is unusable, is a contrary sign.
fn difference(identity: &Identity, caller: E164, source: CallerSource, trust: Trust) -> Option<Difference> {
    let vouched = match source {
        CallerSource::Pai => trust.is_trusted(),
        CallerSource::Rpid => trust.is_trusted() && identity.screened == Some(true),
        _ => false,
    };
    if source == CallerSource::Rpid
        && let Finding::Number(asserted) = identity.findings[CallerSource::Pai as usize]
        && trust.is_trusted()
        && asserted.subscriber() != caller.subscriber()
    {
        // Two words of the network that name two lines.
        return Some(Difference { reason: Reason::FromPaiMismatch, presented: Some(asserted) });
    }
    let (other, reason) = match source {
        CallerSource::Pai | CallerSource::Rpid if vouched => (identity.presented?, Reason::PresentedDiffers),
        CallerSource::Pai | CallerSource::Rpid => (identity.presented?, Reason::FromPaiMismatch),
        CallerSource::Ppi | CallerSource::From | CallerSource::Display => match identity.asserted {
            Ok(asserted) => (asserted?, Reason::FromPaiMismatch),
            Err(reason) => return Some(Difference { reason, presented: None }),
        },
    };
    (other.subscriber() != caller.subscriber()).then_some(Difference { reason, presented: Some(other) })
}

/// The dialled number: the reading that is one of our numbers, else the dialplan's.
fn dialled(uri: Option<Uri<'_>>, trunk: &Trunk, is_own: impl Fn(E164) -> bool) -> Option<E164> {
    let mut candidates = number::candidates(&uri?, &trunk.dialplan);
    let first = candidates.next()?;
    if is_own(first) { Some(first) } else { candidates.find(|number| is_own(*number)).or(Some(first)) }
}
