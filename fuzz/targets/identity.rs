//! Every call is judged without panic on every kind of trunk, its trace hides what it must, and a call with a contrary
//! sign is never worth more than D.

#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use ringproof::call::assurance::{Assurance, Reason};
use ringproof::call::dialplan::{Dialplan, NumberFormat, Repair};
use ringproof::call::event::{CallKey, CallerSource, Presentation, TrunkId};
use ringproof::call::judge::{Invite, judge};
use ringproof::call::trace;
use ringproof::call::trunk::{DidSource, Scope, Trunk, Trust};
use ringproof::call::verdict::{Attestation, VerdictHeader};
use ringproof::e164::E164;
use ringproof::sip::message::Scanner;
use ringproof::sip::uas::dispatch::{Dispatch, dispatch};

static TRUNKS: LazyLock<Vec<Trunk>> = LazyLock::new(|| {
    let plan = |country, format| Dialplan::for_country(country, format).expect("a country with a plan");
    let usual = Trunk::sandbox(plan("GB", NumberFormat::Auto));
    let everything = Trunk {
        sources: CallerSource::ALL.to_vec(),
        verdict_headers: VerdictHeader::ALL.to_vec(),
        bare_verdict: Some(Attestation::A),
        dialplan: plan("SA", NumberFormat::Nsn).with_habits("9#", Repair::ALL.to_vec()),
        scope: Scope::International,
        did: DidSource::To,
        ..usual.clone()
    };
    let backwards = Trunk {
        sources: CallerSource::ALL.into_iter().rev().collect(),
        asserted_trust: Trust::Customer,
        dialplan: plan("US", NumberFormat::E164NoPlus),
        did: DidSource::PCalledPartyId,
        ..usual.clone()
    };
    vec![usual, everything, backwards]
});

fuzz_target!(|bytes: &[u8]| {
    let mut scanner = Scanner::default();
    let Ok(message) = scanner.scan(bytes) else { return };
    let Dispatch::Invite(request, uri) = dispatch(message) else { return };
    let own: E164 = "+442079460200".parse().expect("a number");
    for trunk in TRUNKS.iter() {
        let invite = Invite::of((&request, uri), trunk.proof(false), CallKey(0), SystemTime::UNIX_EPOCH);
        let call = judge(&invite, TrunkId(0), trunk, |number| number == own);
        assert_eq!(call.caller.is_some(), call.source.is_some());
        assert_ne!(call.caller, Some(own));
        let contrary = [Reason::FromPaiMismatch, Reason::Forwarded, Reason::StirFailed, Reason::OwnNumber];
        if call.caller.is_none() || contrary.iter().any(|reason| call.reasons.contains(*reason)) {
            assert_eq!(call.assurance, Assurance::D);
        }
        let shown = trace::steps(&call, &|number| number.to_string());
        if call.presentation == Presentation::Restricted {
            let caller = call.caller.expect("a restricted caller").to_string();
            let dialled = call.dialled.map(|number| number.to_string());
            let tells = shown.iter().any(|step| step.number.as_ref() == Some(&caller) && step.number != dialled);
            assert!(!tells);
        }
    }
});
