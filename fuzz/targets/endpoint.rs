//! A sequence of messages to the whole of the pure endpoint: each answer is well-formed, belongs to its request, and is
//! the same when the request comes again; a confirmed tag opens for its own transaction alone.
//!
//! Messages are cut at the byte 0x00.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ringproof::sip::message::{Fault, HeaderName, Message, Scanner, StartLine, Via};
use ringproof::sip::transaction::cookie::{self, PAYLOAD};
use ringproof::sip::transaction::key::{HashKey, TagParts};
use ringproof::sip::uas::dispatch::{Dispatch, dispatch};
use ringproof::sip::uas::response::{self, Head, STEP, Status, ToTag};

const NOW: Duration = Duration::from_secs(1_000);

fn answer(bytes: &[u8], key: &HashKey) -> Option<Vec<u8>> {
    let mut scanner = Scanner::default();
    let message = scanner.scan(bytes).ok()?;
    let refusal = Head { code: 486, phrase: "Busy Here", fields: "Reason: Q.850;cause=17\r\n", tag: None, step: STEP };
    match dispatch(message) {
        Dispatch::Drop(_) => None,
        Dispatch::Ack(ack) => {
            let tag = ack.to_tag.unwrap_or(b"");
            assert_eq!(cookie::open(key, TagParts::of(&ack), 0, NOW, tag), None, "nobody guesses a tag");
            None
        }
        Dispatch::Respond(via, status) => Some(written(&message, &via, status.into(), key)),
        Dispatch::Options(request) => Some(written(&message, &request.via, Status::Ok.into(), key)),
        Dispatch::Cancel(request) => Some(written(&message, &request.via, Status::CallDoesNotExist.into(), key)),
        Dispatch::Invite(request, _) => {
            let parts = TagParts::of(&request);
            let tag = cookie::seal(key, parts, 0, NOW, [7; PAYLOAD]);
            assert_eq!(cookie::open(key, parts, 0, NOW, &tag), Some([7; PAYLOAD]));
            let sealed = written(&message, &request.via, Head { tag: Some(ToTag::Text(&tag)), ..refusal }, key);
            assert!(sealed.windows(tag.len()).any(|part| part == tag));
            Some(written(&message, &request.via, refusal, key))
        }
    }
}

fn written(message: &Message<'_>, via: &Via<'_>, head: Head<'_>, key: &HashKey) -> Vec<u8> {
    let mut out = Vec::new();
    let source = "192.0.2.9:5060".parse().expect("an address");
    response::write(&mut out, message, via, source, head, key);
    let _ = response::destination(via, source);
    out
}

fuzz_target!(|bytes: &[u8]| {
    let key = HashKey::new([7; 16]);
    for request in bytes.split(|byte| *byte == 0).take(16) {
        let Some(answer_once) = answer(request, &key) else { continue };
        assert_eq!(answer(request, &key).as_ref(), Some(&answer_once), "a retransmission gets the same bytes");
        let mut scanner = Scanner::default();
        let response = scanner.scan(&answer_once).expect("an answer is a message");
        assert_eq!(response.start_line(), StartLine::Response);
        // As long as its request, it may be as much too long.
        assert_ne!(response.fault(), Some(Fault::Malformed));
        assert_eq!(response.body(), b"");
        let mut of_request = Scanner::default();
        let request = of_request.scan(request).expect("it was read");
        let count = |message: &Message<'_>, name| message.values(name).count();
        for name in [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
            assert_eq!(count(&response, name), count(&request, name), "no field is added or lost");
        }
    }
});
