//! Calls of trunks with `confirm = "ack"`: what a refusal's To-tag carries, and the call that its ACK brings back.
//!
//! The ACK has none of the INVITE's identity, so the judgement travels in the tag: the caller, the dialled number, the
//! level and its reasons. Of the evidence only what fits comes back.

use std::time::{Duration, SystemTime};

use crate::call::assurance::{Assurance, Reasons};
use crate::call::event::{CallEvent, CallKey, CallerSource, Presentation, TrunkId};
use crate::call::evidence::{Evidence, Finding, HiddenBy, Proof, Rule};
use crate::call::forwarding::Sign;
use crate::call::line::SpecialLine;
use crate::e164::E164;
use crate::matcher::boot_time::BootTime;
use crate::sip::message::Request;
use crate::sip::transaction::cookie::{self, PAYLOAD, Tag};
use crate::sip::transaction::key::{HashKey, TagParts};

const LEVELS: [Assurance; 4] = [Assurance::A, Assurance::B, Assurance::C, Assurance::D];
const PRESENTATIONS: [Presentation; 3] = [Presentation::Allowed, Presentation::Restricted, Presentation::Unavailable];
const SIGNS: [Sign; 3] = [Sign::Diversion, Sign::HistoryInfo, Sign::Identity];
const LINES: [SpecialLine; 3] = [SpecialLine::Payphone, SpecialLine::Prison, SpecialLine::Operator];
const HIDDEN: [HiddenBy; 3] = [HiddenBy::Privacy, HiddenBy::From, HiddenBy::RemotePartyId];
const RULES: [Rule; 9] = [
    Rule::NoCaller,
    Rule::Presented,
    Rule::NotVouched,
    Rule::NotScreened,
    Rule::OnNet,
    Rule::National,
    Rule::Foreign,
    Rule::NotNational,
    Rule::Verdict,
];

/// The To-tag of the refusal of `request`, which was judged as `call`.
pub fn tag(key: &HashKey, request: &Request<'_>, call: &CallEvent, now: BootTime) -> Tag {
    cookie::seal(key, TagParts::of(request), call.trunk.0, since_boot(now), pack(call))
}

/// The call that `ack` confirms, where its To-tag is that of a refusal of a moment ago.
pub fn call(
    key: &HashKey,
    ack: &Request<'_>,
    trunk: TrunkId,
    call: CallKey,
    now: BootTime,
    received_at: SystemTime,
) -> Option<CallEvent> {
    let payload = cookie::open(key, TagParts::of(ack), trunk.0, since_boot(now), ack.to_tag?)?;
    unpack(payload, trunk, call, received_at)
}

fn since_boot(now: BootTime) -> Duration {
    now.since(BootTime::default())
}

fn pack(call: &CallEvent) -> [u8; PAYLOAD] {
    let mut payload = [0; PAYLOAD];
    let number = |number: Option<E164>| number.map_or(0, E164::as_u64).to_be_bytes();
    payload[..8].copy_from_slice(&number(call.caller));
    payload[8..16].copy_from_slice(&number(call.dialled));
    payload[16..24].copy_from_slice(&number(call.presented));
    payload[24..28].copy_from_slice(&call.reasons.bits().to_be_bytes());
    let evidence = &call.evidence;
    payload[28] = place(&CallerSource::ALL, call.source) | place(&PRESENTATIONS, Some(call.presentation)) << 4;
    payload[29] = place(&LEVELS, Some(call.assurance)) | place(&RULES, Some(evidence.rule)) << 4;
    payload[30] = place(&SIGNS, evidence.forwarded) | place(&LINES, evidence.line) << 2;
    payload[31] = place(&HIDDEN, evidence.hidden_by) | u8::from(evidence.to_differs) << 7;
    payload
}

fn unpack(payload: [u8; PAYLOAD], trunk: TrunkId, key: CallKey, received_at: SystemTime) -> Option<CallEvent> {
    let number = |from: usize| {
        let bytes = payload.get(from..)?.first_chunk().copied()?;
        E164::from_u64(u64::from_be_bytes(bytes)).ok()
    };
    let (caller, dialled, presented) = (number(0), number(8), number(16));
    let source = at(&CallerSource::ALL, payload[28] & 0xf);
    let mut findings = [Finding::Unread; CallerSource::ALL.len()];
    if let Some(number) = presented {
        findings[CallerSource::From as usize] = Finding::Number(number);
    }
    if let (Some(number), Some(source)) = (caller, source) {
        findings[source as usize] = Finding::Number(number);
    }
    let evidence = Evidence {
        findings,
        hidden_by: at(&HIDDEN, payload[31] & 0x7f),
        line: at(&LINES, payload[30] >> 2),
        forwarded: at(&SIGNS, payload[30] & 3),
        dialled: dialled.map_or(Finding::Nothing, Finding::Number),
        to_differs: payload[31] & 0x80 != 0,
        rule: at(&RULES, payload[29] >> 4)?,
        proof: Proof::Ack,
        ..Evidence::default()
    };
    Some(CallEvent {
        key,
        trunk,
        only: None,
        caller,
        presented,
        source,
        presentation: at(&PRESENTATIONS, payload[28] >> 4)?,
        dialled,
        assurance: at(&LEVELS, payload[29] & 0xf)?,
        reasons: Reasons::from_bits(u32::from_be_bytes(payload[24..].first_chunk().copied()?)),
        evidence,
        received_at,
    })
}

/// Place in `all` counted from 1; 0 for none.
fn place<T: PartialEq>(all: &[T], one: Option<T>) -> u8 {
    let place = one.and_then(|one| all.iter().position(|other| *other == one));
    place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(0)
}

fn at<T: Copy>(all: &[T], place: u8) -> Option<T> {
    all.get(usize::from(place).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::assurance::Reason;

    #[test]
    fn a_call_comes_back_as_it_was_judged() {
        let evidence = Evidence {
            rule: Rule::National,
            proof: Proof::Ack,
            hidden_by: Some(HiddenBy::RemotePartyId),
            forwarded: Some(Sign::Identity),
            line: Some(SpecialLine::Operator),
            to_differs: true,
            ..Evidence::default()
        };
        let call = CallEvent {
            key: CallKey(7),
            trunk: TrunkId(3),
            only: None,
            caller: "+966500000123".parse().ok(),
            presented: "+442079460123".parse().ok(),
            source: Some(CallerSource::Display),
            presentation: Presentation::Restricted,
            dialled: "+966115000042".parse().ok(),
            assurance: Assurance::B,
            reasons: Reasons::of(Reason::PresentedDiffers).with(Reason::RingbackSuspected),
            evidence,
            received_at: SystemTime::UNIX_EPOCH,
        };
        let back = unpack(pack(&call), TrunkId(3), CallKey(7), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!((back.caller, back.dialled, back.presented), (call.caller, call.dialled, call.presented));
        assert_eq!((back.source, back.presentation, back.assurance), (call.source, call.presentation, call.assurance));
        assert_eq!(back.reasons, call.reasons);
        let told = |evidence: &Evidence| {
            (evidence.rule, evidence.proof, evidence.hidden_by, evidence.forwarded, evidence.line, evidence.to_differs)
        };
        assert_eq!(told(&back.evidence), told(&evidence));
    }

    #[test]
    fn a_call_without_a_caller_comes_back_without_one() {
        let call = unpack(
            pack(&CallEvent {
                key: CallKey(1),
                trunk: TrunkId(0),
                only: None,
                caller: None,
                presented: None,
                source: None,
                presentation: Presentation::Unavailable,
                dialled: None,
                assurance: Assurance::D,
                reasons: Reasons::of(Reason::CliWithheld),
                evidence: Evidence::default(),
                received_at: SystemTime::UNIX_EPOCH,
            }),
            TrunkId(0),
            CallKey(1),
            SystemTime::UNIX_EPOCH,
        );
        let call = call.unwrap();
        assert_eq!((call.caller, call.source, call.dialled), (None, None, None));
        assert_eq!(call.evidence.hidden_by, None);
    }
}
