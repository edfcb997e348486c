//! The way of a call that nobody waits for: read the INVITE, judge its caller, write the refusal.

use std::hint::black_box;
use std::time::SystemTime;

use ringproof::call::event::{CallKey, TrunkId};
use ringproof::call::judge::{Invite, judge};
use ringproof::config::parse;
use ringproof::sip::message::Scanner;
use ringproof::sip::transaction::key::HashKey;
use ringproof::sip::uas::dispatch::{Dispatch, dispatch};
use ringproof::sip::uas::response::{Head, STEP, ToTag, write};

/// What a carrier sends: P-Asserted-Identity and From, SDP behind it.
const INVITE: &[u8] = include_bytes!("../../sip-fixtures/f02-pai-sip.sip");
const CONFIGURATION: &str = include_str!("../../config.toml");

/// Finds the header fields.
pub fn scan() -> Box<dyn FnMut()> {
    let mut scanner = Scanner::default();
    Box::new(move || {
        black_box(scanner.scan(black_box(INVITE)).is_ok());
    })
}

/// Reads and judges who calls whom.
pub fn identity() -> Box<dyn FnMut()> {
    let configuration = parse(CONFIGURATION, "config.toml", &|_| None).unwrap();
    let scanner = Box::leak(Box::<Scanner>::default());
    let message = scanner.scan(INVITE).unwrap();
    Box::new(move || {
        let trunk = &configuration.trunks[0];
        let Dispatch::Invite(request, uri) = dispatch(black_box(message)) else { panic!("the fixture is a call") };
        let invite = Invite::of((&request, uri), trunk.proof(false), CallKey(0), SystemTime::UNIX_EPOCH);
        let is_own = |number| configuration.verify.numbers.find(number).is_some();
        black_box(judge(&invite, TrunkId(0), trunk, is_own));
    })
}

/// Hashes the call for the tables and its tag, and writes the 486.
pub fn refuse() -> Box<dyn FnMut()> {
    let scanner = Box::leak(Box::<Scanner>::default());
    let message = scanner.scan(INVITE).unwrap();
    let Dispatch::Invite(request, _) = dispatch(message) else { panic!("the fixture is a call") };
    let head = Head {
        code: 486,
        phrase: "Busy Here",
        fields: "Reason: Q.850;cause=17;text=\"User busy\"\r\n",
        tag: None,
        step: STEP,
    };
    let (key, source) = (HashKey::new([7; 16]), "198.51.100.14:5060".parse().unwrap());
    let mut out = Vec::with_capacity(2048);
    Box::new(move || {
        out.clear();
        let tag = Some(ToTag::Hash(key.hashes(black_box(&request)).tag));
        write(&mut out, &message, &request.via, source, Head { tag, ..head }, &key);
        black_box(out.len());
    })
}
