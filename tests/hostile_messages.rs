//! Whatever bytes come, the SIP path neither panics nor lets a peer write header fields of its own into an answer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;

use proptest::prelude::*;
use ringproof::call::event::{CallKey, TrunkId};
use ringproof::call::judge::{Invite, judge};
use ringproof::call::trunk::Trunk;
use ringproof::config::parse;
use ringproof::sip::message::{Fault, HeaderName, Message, Scanner, Via};
use ringproof::sip::transaction::key::HashKey;
use ringproof::sip::uas::dispatch::{Dispatch, dispatch};
use ringproof::sip::uas::response::{Head, STEP, Status, write};

static FIXTURES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/sip-fixtures"));
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "sip")).collect();
    files.sort();
    files.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
});

static TRUNK: LazyLock<Trunk> = LazyLock::new(|| {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml")).unwrap();
    parse(&text, "config.toml", &|_| None).unwrap().trunks.remove(0)
});

/// Header fields that an answer has, and no other.
const FIELDS: [&str; 9] =
    ["Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: ", "Allow: ", "Unsupported: ", "Reason: ", "Content-Length: 0"];

/// One change to a message.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Cut(usize, usize),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..12),
        prop::sample::select(vec![
            &b"\r\n"[..],
            b"\r",
            b"\n",
            b"\r\n ",
            b"\"",
            b"<",
            b">",
            b";",
            b",",
            b":",
            b"@",
            b"%",
            b"%00",
            b"\\",
            b"[",
            b"]",
            b"\0",
            b"\r\nX-Evil: 1",
            b"\rX-Evil: 1",
            b"\nVia: SIP/2.0/UDP x",
            b";tag=",
            b";rport",
            b";received=",
            b"\xff",
        ])
        .prop_map(<[u8]>::to_vec),
    ];
    let place = 0usize..4096;
    prop_oneof![
        (place.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (place.clone(), piece).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (place.clone(), 0usize..64).prop_map(|(at, length)| Change::Cut(at, length)),
        (place, 0usize..64).prop_map(|(at, length)| Change::Repeat(at, length)),
    ]
}

fn apply(message: &mut Vec<u8>, change: &Change) {
    let within = |at: usize| at % (message.len() + 1);
    match change {
        Change::Set(at, byte) => {
            let at = within(*at);
            if let Some(place) = message.get_mut(at) {
                *place = *byte;
            }
        }
        Change::Insert(at, bytes) => {
            let at = within(*at);
            message.splice(at..at, bytes.iter().copied());
        }
        Change::Cut(at, length) => {
            let at = within(*at);
            message.drain(at..(at + length).min(message.len()));
        }
        Change::Repeat(at, length) => {
            let at = within(*at);
            let piece = message[at..(at + length).min(message.len())].to_vec();
            message.splice(at..at, piece);
        }
    }
}

/// Takes a message through the whole path; the answer, if it gets one.
fn answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut scanner = Scanner::default();
    let message = scanner.scan(bytes).ok()?;
    let key = HashKey::new([3; 16]);
    let refusal = Head { code: 486, phrase: "Busy Here", fields: "Reason: Q.850;cause=17\r\n", tag: None, step: STEP };
    match dispatch(message) {
        Dispatch::Drop(_) | Dispatch::Ack(_) => None,
        Dispatch::Respond(via, status) => Some(response(&message, &via, status.into(), &key)),
        Dispatch::Options(request) => Some(response(&message, &request.via, Status::Ok.into(), &key)),
        Dispatch::Cancel(request) => {
            let _ = key.transaction(&request);
            Some(response(&message, &request.via, Status::CallDoesNotExist.into(), &key))
        }
        Dispatch::Invite(request, uri) => {
            let _ = key.transaction(&request);
            let invite =
                Invite::of((&request, uri), TRUNK.proof(false), CallKey(key.call(&request)), SystemTime::UNIX_EPOCH);
            judge(&invite, TrunkId(0), &TRUNK, |_| true);
            Some(response(&message, &request.via, refusal, &key))
        }
    }
}

fn response(message: &Message<'_>, via: &Via<'_>, head: Head<'_>, key: &HashKey) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, message, via, "192.0.2.1:5060".parse().unwrap(), head, key);
    out
}

/// An answer is one status line and known header fields, each on a line of its own, and can be read back.
fn is_well_formed(answer: &[u8]) -> Result<(), String> {
    let shown = || answer.escape_ascii().to_string();
    let head = answer.strip_suffix(b"\r\n\r\n").ok_or_else(|| format!("no end: {}", shown()))?;
    let mut lines = head.split(|&byte| byte == b'\n');
    let status = lines.next().unwrap_or_default();
    // Always a final response, and never one that sends the caller elsewhere.
    if !["2", "4", "5", "6"].iter().any(|class| status.starts_with(format!("SIP/2.0 {class}").as_bytes())) {
        return Err(format!("status line: {}", shown()));
    }
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.contains(&b'\r') || !FIELDS.iter().any(|field| line.starts_with(field.as_bytes())) {
            return Err(format!("line {:?} in {}", line.escape_ascii().to_string(), shown()));
        }
    }
    let mut scanner = Scanner::default();
    let message = scanner.scan(answer).map_err(|error| format!("{error}: {}", shown()))?;
    // As long as its request, an answer may be as much too long.
    let fault = message.fault().filter(|fault| *fault != Fault::TooLarge);
    match (fault, message.values(HeaderName::Via).next()) {
        (None, Some(_)) => Ok(()),
        other => Err(format!("{other:?}: {}", shown())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn changed_messages_get_a_well_formed_answer_or_none(
        fixture in any::<prop::sample::Index>(),
        changes in proptest::collection::vec(change(), 1..8),
    ) {
        let mut message = fixture.get(&FIXTURES).clone();
        for change in &changes {
            apply(&mut message, change);
        }
        if let Some(answer) = answer(&message) {
            prop_assert_eq!(is_well_formed(&answer), Ok(()));
        }
    }

    #[test]
    fn arbitrary_bytes_behind_a_request_line_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut message = b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP x;branch=z9hG4bK1\r\n".to_vec();
        message.extend_from_slice(&bytes);
        if let Some(answer) = answer(&message) {
            prop_assert_eq!(is_well_formed(&answer), Ok(()));
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_message(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(answer(&bytes).is_none());
    }
}

#[test]
fn d07_r12_every_fixture_that_is_answered_gets_a_well_formed_final_answer() {
    let answered = FIXTURES.iter().filter_map(|message| answer(message));
    let wrong: Vec<String> = answered.filter_map(|answer| is_well_formed(&answer).err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
