use proptest::prelude::*;

use super::*;
use crate::sip::message::Scanner;

const INVITE: &str = "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP c;branch=z9hG4bK1\r\nContent-Length: 4\r\n\r\nbody";

/// What a stream gives: messages, `PING` for each ping, and at last what ended it, if anything did.
fn frames(reads: &[&[u8]]) -> (Vec<Vec<u8>>, Result<Vec<u8>, FrameError>) {
    let (mut framer, mut held, mut found) = (Framer::default(), Vec::new(), Vec::new());
    for read in reads {
        held.extend_from_slice(read);
        loop {
            match framer.cut(&held) {
                Ok(Cut::Wait) => break,
                Ok(Cut::Blank(length)) => drop(held.drain(..length)),
                Ok(Cut::Ping(length)) => {
                    held.drain(..length);
                    found.push(b"PING".to_vec());
                }
                Ok(Cut::Message(length)) => found.push(held.drain(..length).collect()),
                Err(error) => return (found, Err(error)),
            }
        }
    }
    (found, Ok(held))
}

fn whole(stream: &str) -> (Vec<String>, Result<Vec<u8>, FrameError>) {
    let (found, end) = frames(&[stream.as_bytes()]);
    (found.into_iter().map(|frame| String::from_utf8(frame).unwrap()).collect(), end)
}

fn fault(head: &str) -> Option<FrameError> {
    whole(&format!("INVITE sip:a@b SIP/2.0\r\n{head}\r\n\r\nxxxxxxxxxxxx")).1.err()
}

#[test]
fn messages_are_cut_one_behind_the_other() {
    let second = "SIP/2.0 200 OK\r\nl:0\r\n\r\n";
    let (found, end) = whole(&format!("{INVITE}{second}{INVITE}INV"));
    assert_eq!(found, [INVITE, second, INVITE]);
    assert_eq!(end, Ok(b"INV".to_vec()));
}

#[test]
fn content_length_is_read_in_every_form() {
    for field in [
        "Content-Length: 4",
        "CONTENT-LENGTH:4",
        "l: 4",
        "L  \t: 4",
        "Content-Length :\r\n 4",
        "Content-Length:\r\n\t4 \r\n ",
        "Content-Length: 0000000000000000004",
        "X: y\r\nContent-Length: 4\r\nl: 04",
        "Subject: l: 9\r\nl: 4\r\nLanguage: 7",
        "X: y\r\n l: 9\r\nl: 4",
    ] {
        let message = format!("INVITE sip:a@b SIP/2.0\r\n{field}\r\n\r\nbody");
        assert_eq!(whole(&format!("{message}rest")), (vec![message.clone()], Ok(b"rest".to_vec())), "{field}");
    }
}

#[test]
fn lf_alone_ends_lines_too() {
    let message = "ACK sip:a@b SIP/2.0\nContent-Length: 2\n\nok";
    assert_eq!(whole(&format!("{message}\n\n{message}")).0, [message, message]);
    // A body may begin with anything.
    let message = "ACK sip:a@b SIP/2.0\r\nContent-Length: 4\r\n\r\n \r\n\r";
    assert_eq!(whole(message).0, [message]);
}

#[test]
fn a_lying_or_missing_length_is_a_fault() {
    assert_eq!(fault("X: y"), Some(FrameError::NoLength));
    assert_eq!(whole("INVITE sip:a@b SIP/2.0\r\n\r\n").1, Err(FrameError::NoLength));
    for value in ["", "-1", "+4", "4.0", "4 4", "4, 4", "0x4", "four", "4000000000", "99999999999999999999", "4\0"] {
        assert_eq!(fault(&format!("Content-Length: {value}")), Some(FrameError::Length), "{value}");
    }
    assert_eq!(fault("Content-Length: 4\r\nl: 5"), Some(FrameError::Length));
    assert_eq!(fault("l: x\r\nContent-Length: 4"), Some(FrameError::Length));
}

#[test]
fn what_is_too_large_is_told_before_it_has_come() {
    let head = "INVITE sip:a@b SIP/2.0\r\nContent-Length: ";
    let fits = MAX_MESSAGE - head.len() - "65000\r\n\r\n".len();
    let message = format!("{head}{fits}\r\n\r\n{}", "x".repeat(fits));
    assert_eq!((message.len(), whole(&message).0), (MAX_MESSAGE, vec![message]));
    assert_eq!(whole(&format!("{head}{}\r\n\r\n", fits + 1)).1, Err(FrameError::TooLarge));
    assert_eq!(whole(&format!("{head}2147483647\r\n\r\n")).1, Err(FrameError::TooLarge));
    let endless = format!("INVITE sip:a@b SIP/2.0\r\n{}", "X: y\r\n".repeat(20_000));
    assert_eq!(whole(&endless).1, Err(FrameError::TooLarge));
    assert_eq!(whole(&"x".repeat(MAX_MESSAGE + 1)).1, Err(FrameError::TooLarge));
}

#[test]
fn what_is_not_sip_is_told_at_its_first_line() {
    for stream in ["GET / HTTP/1.1\r\n", "hello\n", "\u{16}\u{3}\u{1}\n", "INVITE\r\n", "\r\n\r\nx\n"] {
        assert_eq!(whole(stream).1, Err(FrameError::NotSip), "{stream:?}");
    }
}

#[test]
fn pings_are_told_apart_from_stray_line_ends() {
    let pings = |stream: &str| whole(stream).0.iter().filter(|frame| *frame == "PING").count();
    for (stream, count) in
        [("\r\n\r\n", 1), ("\r\n", 0), ("\r\n\r\n\r\n", 1), ("\r\n\r\n\r\n\r\n", 2), ("\n\n\n\n", 0), ("\r\r\n\r\n", 1)]
    {
        assert_eq!(pings(stream), count, "{stream:?}");
        assert_eq!(whole(stream).1, Ok(Vec::new()), "nothing is held of {stream:?}");
    }
    let (found, _) = whole(&format!("\r\n{INVITE}\r\n{INVITE}\r\n\r\n{INVITE}"));
    assert_eq!(found, [INVITE, INVITE, "PING", INVITE]);
}

#[test]
fn no_byte_is_looked_at_twice() {
    let message = format!("INVITE sip:a@b SIP/2.0\r\n{}l: 3\r\n\r\nend", "Subject: y\r\n  z\r\n".repeat(3_000));
    let bytes = message.as_bytes();
    let mut framer = Framer::default();
    for length in 1..bytes.len() {
        assert_eq!(framer.cut(&bytes[..length]), Ok(Cut::Wait));
        if let Part::Start { seen } | Part::Fields { seen, .. } = framer.part {
            assert!(length - seen <= 2, "{} bytes of {length} would be read again", length - seen);
        }
    }
    assert_eq!(framer.cut(bytes), Ok(Cut::Message(bytes.len())));
}

/// A piece of a stream: a message with a body of any bytes, or line ends.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec!["Content-Length: ", "l:", "CONTENT-LENGTH \t:\r\n  "]);
    let field = prop::sample::select(vec!["", "Subject: a\r\n b\r\n", "X:\r\n", "Call-ID: 1\r\nContact: <sip:c>\r\n"]);
    let body = proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n')], 0..40);
    let message = (name, field.clone(), field, body).prop_map(|(name, before, behind, body)| {
        let head = format!("INVITE sip:a@b SIP/2.0\r\n{before}{name}{}\r\n{behind}\r\n", body.len());
        [head.as_bytes(), &body].concat()
    });
    let blank =
        prop::sample::select(vec!["\r\n", "\r\n\r\n", "\n", "\r\n\r"]).prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![4 => message, 1 => blank]
}

/// The stream in reads that end at the given places.
fn reads<'s>(stream: &'s [u8], places: &[prop::sample::Index]) -> Vec<&'s [u8]> {
    let mut ends: Vec<usize> = places.iter().map(|place| place.index(stream.len() + 1)).collect();
    ends.push(stream.len());
    ends.sort_unstable();
    let mut from = 0;
    ends.into_iter().map(|end| &stream[std::mem::replace(&mut from, end)..end]).collect()
}

proptest! {
    #[test]
    fn any_cut_of_a_stream_gives_the_same_messages(
        pieces in proptest::collection::vec(piece(), 0..8),
        places in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let stream = pieces.concat();
        let (found, end) = frames(&[&stream]);
        prop_assert_eq!(end, Ok(Vec::new()));
        let messages: Vec<&Vec<u8>> = pieces.iter().filter(|piece| piece.starts_with(b"INVITE")).collect();
        let cut: Vec<&Vec<u8>> = found.iter().filter(|frame| *frame != b"PING").collect();
        prop_assert_eq!(cut, messages);
        prop_assert_eq!(frames(&reads(&stream, &places)), (found.clone(), Ok(Vec::new())));
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(frames(&bytes), (found, Ok(Vec::new())));
    }

    #[test]
    fn a_message_that_is_cut_has_its_body_where_the_scanner_finds_it(message in piece()) {
        let mut scanner = Scanner::default();
        if let Ok(scanned) = scanner.scan(&message) {
            let length = std::str::from_utf8(scanned.only(HeaderName::ContentLength).unwrap()).unwrap();
            prop_assert_eq!(scanned.body().len().to_string(), length);
        }
    }

    #[test]
    fn any_bytes_in_any_cuts_end_alike(
        noise in proptest::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(b"\r\n\r\n :lL01SIP/2.0 ".to_vec())], 0..300,
        ),
        behind_a_start: bool,
        places in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let start: &[u8] = if behind_a_start { b"ACK sip:a@b SIP/2.0\r\n" } else { b"" };
        let stream = [start, &noise].concat();
        let (found, end) = frames(&[&stream]);
        for frame in found.iter().filter(|frame| *frame != b"PING") {
            prop_assert!(frame.len() <= MAX_MESSAGE && Scanner::default().scan(frame).is_ok());
        }
        // How much is held where an error ends it all is nobody's business.
        prop_assert_eq!(frames(&reads(&stream, &places)), (found, end));
    }
}
