use std::time::Duration;

use super::*;
use crate::load::scenario::fields::Fields;
use crate::sip::flow::Transport;

const BUSY: &[u8] =
    b"SIP/2.0 486 Busy Here\r\nVia: SIP/2.0/UDP a\r\nTo: <sip:b@c>;tag=9\r\nt2: a\r\nT2:b\r\nCSeq: 7 INVITE\r\n\r\n";
const WORDS: Words<'static> = Words { service: "service", keys: &[], columns: Some(2) };

#[test]
fn each_keyword_is_what_sipp_makes_of_it() {
    let fields = Fields::parse("SEQUENTIAL\n+1;+2\n+3;+4".to_owned()).unwrap();
    let cases = [
        ("sip:[service]@[remote_ip]:[remote_port]", "sip:service@127.0.0.1:5060"),
        ("[transport] [local_ip]:[local_port+1] IP[local_ip_type]", "UDP 127.0.0.2:4001 IP4"),
        ("c=IN IP[media_ip_type] [media_ip] [media_port+4]", "c=IN IP4 127.0.0.2 6004"),
        ("[call_id] [call_number] [pid]SIPpTag00[call_number]", "3-77@127.0.0.2 3 77SIPpTag003"),
        ("[branch] [branch-2] [msg_index]", "z9hG4bK-77-3-2 z9hG4bK-77-3-0 2"),
        ("[cseq] [cseq+2] [last_cseq_number+1]", "1 3 8"),
        ("[field0];[field1 file=\"calls.csv\"]", "+3;+4"),
        ("[last_Via:]|[last_to]|[last_t2:]|[last_Missing:]|", "Via: SIP/2.0/UDP a|To: <sip:b@c>;tag=9|t2: a, b||"),
        ("[last_Request_URI][peer_tag_param]", "sip:b@c;tag=9"),
        ("[timestamp]", "1970-01-02\t00:00:01.000250\t86401.000250"),
        (r"\x41\x5B \xZZ", r"A[ \xZZ"),
    ];
    for (text, rendered) in cases {
        assert_eq!(render(&[text], &fields), rendered, "{text}");
    }
}

#[test]
fn the_length_is_that_of_the_body() {
    let fields = Fields::parse("SEQUENTIAL\na;b".to_owned()).unwrap();
    assert_eq!(render(&["A: [len]", "", "v=0", ""], &fields), "A:     5\r\n\r\nv=0\r\n");
    assert_eq!(render(&["A: [len+1]", "", ""], &fields), "A:     1\r\n\r\n");
}

#[test]
fn a_line_of_a_missing_field_is_left_out() {
    let fields = Fields::parse("SEQUENTIAL\na;b".to_owned()).unwrap();
    let lines = ["A: 1", "[last_X:]", "[last_Y:]", "B: [last_X:]", "[last_Via:]", "[last_X:]", "", ""];
    assert_eq!(render(&lines, &fields), "A: 1\r\nB: \r\nVia: SIP/2.0/UDP a\r\n\r\n");
}

#[test]
fn a_word_of_the_users_own_stands_before_all() {
    let keys = [("cseq".to_owned(), "nine".to_owned())];
    let mut template = Template::default();
    template.push("[cseq]", &Words { keys: &keys, ..WORDS }).unwrap();
    assert_eq!(template.pieces, [Piece::Text(b"nine".to_vec())]);
}

#[test]
fn what_is_not_supported_is_told_with_its_place() {
    let unsupported = |keyword: &str| KeywordError::Unsupported { keyword: keyword.to_owned() };
    let cases = [
        ("a [call_id", 2, KeywordError::Unclosed),
        ("[authentication]", 0, unsupported("authentication")),
        ("é[$1]", 2, unsupported("$1")),
        ("[call_id][last_message]", 9, KeywordError::LastMessage),
        ("[field0 line=\"1\"]", 0, unsupported("field0 line=\"1\"")),
        ("[]", 0, unsupported("")),
        ("[pid+1]", 0, KeywordError::Offset { keyword: "pid".to_owned() }),
        ("[field2]", 0, KeywordError::NoField { field: 2, columns: 2 }),
    ];
    for (text, place, error) in cases {
        assert_eq!(Template::default().push(text, &WORDS), Err((place, error)), "{text}");
    }
    let without = Words { columns: None, ..WORDS };
    assert_eq!(Template::default().push("[field0]", &without), Err((0, KeywordError::NoFile { field: 0 })));
}

#[test]
fn a_message_longer_than_one_can_be_is_refused() {
    let mut template = Template::default();
    for _ in 0..10 {
        template.push("[last_X]", &WORDS).unwrap();
    }
    let last = [&b"SIP/2.0 200 OK\r\nX: "[..], &[b'x'; 10_000], b"\r\n\r\n"].concat();
    let fields = Fields::parse("SEQUENTIAL\na;b".to_owned()).unwrap();
    let ends = ends();
    let view = View { last: &last, ..view(&ends, &fields) };
    assert_eq!(template.render(&view, &mut Vec::new()), Err(TooLong));
}

fn render(lines: &[&str], fields: &Fields) -> String {
    let mut template = Template::default();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            template.push_line_end();
        }
        template.push(line, &WORDS).unwrap();
    }
    let mut out = Vec::new();
    template.render(&view(&ends(), fields), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn ends() -> Ends {
    let (local, remote) = (([127, 0, 0, 2], 4000).into(), ([127, 0, 0, 1], 5060).into());
    Ends { transport: Transport::Udp, local, remote }
}

fn view<'a>(ends: &'a Ends, fields: &'a Fields) -> View<'a> {
    View {
        ends,
        run: 77,
        number: 3,
        index: 2,
        cseq: 1,
        peer_tag: b";tag=9",
        last: BUSY,
        line: Some((fields, fields.line_of(1, 0))),
        time: Duration::new(86_401, 250_000),
    }
}
