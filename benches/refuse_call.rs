//! The steps of a call that nobody waits for: read the INVITE, judge its caller, write the refusal. Time per call.

#![allow(missing_docs, reason = "the macros of the harness make undocumented items")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::hint::black_box;
use std::time::SystemTime;

use criterion::{Criterion, criterion_group, criterion_main};
use ringproof::call::event::{CallKey, TrunkId};
use ringproof::call::judge::{Invite, judge};
use ringproof::config::parse;
use ringproof::sip::message::{HeaderName, Scanner, Via};
use ringproof::sip::transaction::key::HashKey;
use ringproof::sip::uas::dispatch::{Dispatch, dispatch};
use ringproof::sip::uas::response::{Head, write};

/// What a carrier sends: P-Asserted-Identity and From, SDP behind it.
const INVITE: &[u8] = include_bytes!("../sip-fixtures/f02-pai-sip.sip");
const CONFIGURATION: &str = include_str!("../config.toml");

fn scan(bench: &mut Criterion) {
    let mut scanner = Scanner::default();
    bench.bench_function("scan_invite", |timer| {
        timer.iter(|| black_box(scanner.scan(black_box(INVITE)).is_ok()));
    });
}

fn judge_caller(bench: &mut Criterion) {
    let configuration = parse(CONFIGURATION, "config.toml", &|_| None).unwrap();
    let trunk = &configuration.trunks[0];
    let mut scanner = Scanner::default();
    let Dispatch::Invite(request) = dispatch(scanner.scan(INVITE).unwrap()) else { panic!("the fixture is a call") };
    let invite = Invite::of(&request, trunk.proof(false), CallKey(0), SystemTime::UNIX_EPOCH);
    let is_own = |number| configuration.verify.numbers.find(number).is_some();
    bench.bench_function("judge_invite", |timer| {
        timer.iter(|| black_box(judge(black_box(&invite), TrunkId(0), trunk, is_own)));
    });
}

fn refuse(bench: &mut Criterion) {
    let mut scanner = Scanner::default();
    let message = scanner.scan(INVITE).unwrap();
    let via = Via::parse(message.values(HeaderName::Via).next().unwrap()).unwrap();
    let head =
        Head { code: 486, phrase: "Busy Here", fields: "Reason: Q.850;cause=17;text=\"User busy\"\r\n", tag: None };
    let (key, source) = (HashKey::new([7; 16]), "198.51.100.14:5060".parse().unwrap());
    let mut out = Vec::with_capacity(2048);
    bench.bench_function("write_refusal", |timer| {
        timer.iter(|| {
            out.clear();
            write(&mut out, &message, &via, source, head, &key);
            black_box(out.len())
        });
    });
}

criterion_group!(benches, scan, judge_caller, refuse);
criterion_main!(benches);
