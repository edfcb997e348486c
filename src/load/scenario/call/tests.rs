use std::net::SocketAddr;

use super::*;
use crate::load::scenario::parse::parse;
use crate::load::scenario::template::Words;

pub(in crate::load::scenario) const BUSY: &str = "486 Busy Here";
const RINGING: &str = "180 Ringing";
const OK: &str = "200 OK";

const INVITE: &str = r#"<send retrans="500"><![CDATA[
    INVITE sip:a SIP/2.0
    To: <sip:a>[peer_tag_param]
    Call-ID: [call_id]
]]></send>"#;
const ACK: &str = "<send><![CDATA[ACK sip:a SIP/2.0\nTo: <sip:a>[peer_tag_param]\nCall-ID: [call_id]]]></send>";
const PING: &str = r#"<send retrans="500"><![CDATA[OPTIONS sip:a SIP/2.0
    Call-ID: [call_id]
]]></send>"#;

#[test]
fn a_refused_call_ends_well_with_its_ack() {
    let mut played = play(&[INVITE, r#"<recv response="486"/>"#, ACK]);
    assert_eq!(played.sent(), ["INVITE"]);
    assert_eq!(played.call.deadline(), Some(ms(500)));
    played.receive(BUSY, "INVITE", ms(100));
    let Output::Send(ack) = &played.out[1] else { panic!("{:?}", played.out) };
    assert!(String::from_utf8_lossy(ack).contains("\r\nTo: <sip:a>;tag=9\r\n"), "{}", ack.escape_ascii());
    assert_eq!(played.out[0], Output::Final(486));
    assert_eq!(played.out[2], Output::Ended { after: ms(100), failure: None });
    assert!(played.call.has_ended() && played.call.deadline().is_none());
    played.receive(BUSY, "INVITE", ms(101));
    assert!(played.out.is_empty());
}

/// Steps behind the INVITE, what comes, and how the call has ended.
type Case<'c> = (&'c [&'c str], &'c [(&'c str, &'c str)], Option<Result<(), Failure>>);

#[test]
fn responses_meet_the_steps_that_have_them() {
    let mandatory = r#"<recv response="486"/>"#;
    let optional = r#"<recv response="100" optional="true"/><recv response="180" optional="true"/>"#;
    let global = r#"<recv response="180" optional="global"/><recv response="200"/><pause milliseconds="9000"/>"#;
    let ended = Some(Ok(()));
    let failed = |code| Some(Err(Failure::UnexpectedResponse(code)));
    let cases: [Case<'_>; 10] = [
        (&[mandatory], &[(BUSY, "INVITE")], ended),
        (&[mandatory], &[("503 No", "INVITE")], failed(503)),
        (&[mandatory], &[(RINGING, "INVITE")], failed(180)),
        (&[mandatory], &[(BUSY, "BYE")], failed(486)),
        (&[optional, mandatory], &[(BUSY, "INVITE")], ended),
        (&[optional, mandatory], &[("100 Trying", "INVITE"), (RINGING, "INVITE"), (BUSY, "INVITE")], ended),
        (&[optional, mandatory], &[(RINGING, "INVITE"), ("100 Trying", "INVITE")], None),
        (
            &[optional, mandatory, r#"<pause milliseconds="9000"/>"#],
            &[(BUSY, "INVITE"), (RINGING, "INVITE")],
            failed(180),
        ),
        (&[global], &[(OK, "INVITE"), (RINGING, "INVITE")], None),
        (&[global], &[(OK, "INVITE"), (BUSY, "INVITE")], failed(486)),
    ];
    for (steps, messages, end) in cases {
        let mut played = play(&[&[INVITE][..], steps].concat());
        for (index, (line, method)) in (1..).zip(messages) {
            played.receive(line, method, ms(index));
        }
        assert_eq!(played.end(), end, "{steps:?} {messages:?}");
    }
}

#[test]
fn a_request_of_the_peers_is_expected_by_its_method() {
    for (method, end) in [
        ("BYE", Ok(())),
        ("INFO", Err(Failure::UnexpectedRequest("INFO"))),
        ("EVIL", Err(Failure::UnexpectedRequest("request"))),
    ] {
        let mut played = play(&[INVITE, r#"<recv request="BYE"/>"#]);
        let message = format!("{method} sip:b SIP/2.0\r\nCall-ID: 1-7@127.0.0.2\r\nCSeq: 1 {method}\r\n\r\n");
        played.take(message.as_bytes(), ms(1));
        assert_eq!(played.end(), Some(end), "{method}");
    }
}

#[test]
fn an_invite_is_sent_again_five_times_and_then_given_up() {
    let mut played = play(&[INVITE, r#"<recv response="486" timeout="60000"/>"#]);
    let mut at = ms(500);
    for pause in [1_000, 2_000, 4_000, 8_000, 16_000].map(ms) {
        played.expire(at);
        assert_eq!((played.out.first(), played.sent()), (Some(&Output::Repeated), vec!["INVITE"]), "{at:?}");
        at += pause;
        assert_eq!(played.call.deadline(), Some(at));
    }
    played.expire(at);
    assert_eq!(played.end(), Some(Err(Failure::Timeout)));
}

#[test]
fn another_request_is_sent_again_at_most_four_seconds_apart() {
    let mut played = play(&[PING, r#"<recv response="200" timeout="60000"/>"#]);
    let mut at = ms(500);
    for pause in [1_000, 2_000, 4_000, 4_000, 4_000, 4_000, 4_000].map(ms) {
        played.expire(at);
        assert_eq!(played.sent(), ["OPTIONS"], "{at:?}");
        at += pause;
        assert_eq!(played.call.deadline(), Some(at));
    }
    played.expire(at);
    assert_eq!(played.end(), Some(Err(Failure::Timeout)));
}

#[test]
fn a_provisional_response_stops_the_repeating_of_an_invite_alone() {
    let optional = r#"<recv response="180" optional="true"/>"#;
    let mut invite = play(&[INVITE, optional, r#"<recv response="486" timeout="9000"/>"#]);
    invite.receive(RINGING, "INVITE", ms(1));
    assert_eq!(invite.call.deadline(), Some(ms(9_000)), "the timeout behind optional ones counts from the first");
    let mut ping = play(&[PING, optional, r#"<recv response="200"/>"#]);
    ping.receive(RINGING, "OPTIONS", ms(1));
    assert_eq!(ping.call.deadline(), Some(ms(500)));
}

#[test]
fn over_tcp_nothing_is_sent_twice() {
    let mut plan = plan(&[INVITE, r#"<recv response="486"/>"#].concat());
    plan.ends.transport = Transport::Tcp;
    let call = Call::start(&plan, 1, (ms(0), ms(0)), &mut Vec::new());
    assert_eq!(call.deadline(), Some(ms(5_000)));
}

#[test]
fn a_repeated_response_gets_again_what_was_sent_behind_it() {
    let mut played = play(&[INVITE, r#"<recv response="486"/>"#, ACK, PING, r#"<recv response="200"/>"#]);
    played.receive(BUSY, "INVITE", ms(1));
    assert_eq!(played.sent(), ["ACK", "OPTIONS"]);
    played.receive(BUSY, "INVITE", ms(2));
    assert_eq!((played.out.first(), played.sent()), (Some(&Output::Repeated), vec!["ACK"]));
}

#[test]
fn a_copy_of_a_response_before_anything_is_sent_is_nothing() {
    let mut played = play(&[INVITE, r#"<recv response="486"/><pause milliseconds="100"/>"#, ACK]);
    played.receive(BUSY, "INVITE", ms(1));
    played.receive(BUSY, "INVITE", ms(2));
    assert!(played.out.is_empty() && !played.call.has_ended());
    played.expire(ms(101));
    assert_eq!((played.sent(), played.end()), (vec!["ACK"], Some(Ok(()))));
}

#[test]
fn a_timeout_fails_the_call_or_leads_to_its_label() {
    let fails = [INVITE, r#"<recv response="486" timeout="200"/>"#];
    let leads = [
        INVITE,
        r#"<recv response="180" timeout="200" ontimeout="late"/><recv response="486"/><label id="late"/>"#,
        PING,
    ];
    let at_end = [INVITE, r#"<recv response="486" timeout="200" ontimeout="end"/><label id="end"/>"#];
    for (steps, end) in
        [(&fails[..], Some(Err(Failure::Timeout))), (&leads[..], None), (&at_end[..], Some(Err(Failure::Timeout)))]
    {
        let mut played = play(steps);
        assert_eq!(played.call.deadline(), Some(ms(200)));
        played.expire(ms(200));
        assert_eq!(played.end(), end, "{steps:?}");
    }
    assert_eq!(
        play(&[INVITE.replace(" retrans=\"500\"", "").as_str(), r#"<recv response="486"/>"#]).call.deadline(),
        Some(ms(5_000))
    );
}

#[test]
fn a_label_is_where_the_call_goes_on() {
    let skips =
        [INVITE, r#"<recv response="180" optional="true" next="rang"/><recv response="486"/><label id="rang"/>"#, ACK];
    let mut played = play(&skips);
    played.receive(RINGING, "INVITE", ms(1));
    assert_eq!((played.sent(), played.end()), (vec!["ACK"], Some(Ok(()))));
    let mut never = play(&[INVITE, r#"<recv response="486" next="end" chance="0"/>"#, ACK, r#"<label id="end"/>"#]);
    never.receive(BUSY, "INVITE", ms(1));
    assert_eq!(never.sent(), ["ACK"]);
}

#[test]
fn a_circle_without_a_wait_fails() {
    let mut played = play(&[INVITE.replace(" retrans=\"500\"", "").as_str(), r#"<label id="a"/><nop next="a"/>"#]);
    assert_eq!(played.end(), Some(Err(Failure::Loop)));
    played.expire(ms(1));
    assert!(played.out.is_empty());
}

#[test]
fn a_failed_call_leaves_no_transaction_open() {
    let cases: [(&str, &str, &[&str]); 4] = [
        ("503 No", "INVITE", &["ACK"]),
        (OK, "INVITE", &["ACK", "BYE"]),
        (RINGING, "INVITE", &["CANCEL"]),
        ("503 No", "OPTIONS", &[]),
    ];
    for (line, method, sent) in cases {
        let mut played = play(&[INVITE, r#"<recv response="486"/>"#]);
        played.receive(line, method, ms(1));
        assert_eq!(played.sent(), sent, "{line} {method}");
    }
}

#[test]
fn timers_measure_from_the_intended_moment() {
    let timed = INVITE.replace("<send ", r#"<send start_rtd="a" "#);
    let plan = plan(&[timed.as_str(), r#"<recv response="486" rtd="a"/><nop rtd="true"/>"#].concat());
    let mut out = Vec::new();
    let mut call = Call::start(&plan, 1, (ms(30), ms(10)), &mut out);
    assert_eq!(call.deadline(), Some(ms(530)), "timers count from the true moment");
    out.clear();
    let message = response(1, BUSY, "INVITE");
    call.handle_message(&plan, (&message, &Received::parse(&message).unwrap()), ms(40), &mut out);
    let measured = |timer| Output::Measured { timer, time: ms(30) };
    assert_eq!(out, [measured(0), Output::Final(486), measured(1), Output::Ended { after: ms(30), failure: None }]);
}

#[test]
fn messages_are_lost_on_purpose() {
    let lost = INVITE.replace("<send ", r#"<send lost="100" "#);
    let mut played = play(&[lost.as_str(), r#"<recv response="486" lost="100"/>"#]);
    assert!(played.sent().is_empty());
    played.expire(ms(500));
    played.receive(BUSY, "INVITE", ms(501));
    assert!(played.out.is_empty() && !played.call.has_ended());
}

#[test]
fn a_uniform_pause_lies_between_its_bounds() {
    let plan = plan(&[r#"<pause min="10" max="20"/>"#, INVITE].concat());
    for number in 1..50 {
        let call = Call::start(&plan, number, (ms(0), ms(0)), &mut Vec::new());
        assert!(call.deadline().is_some_and(|at| (ms(10)..=ms(20)).contains(&at)), "{:?}", call.deadline());
    }
}

/// A call, and what it wanted last.
struct Played {
    plan: Plan,
    call: Call,
    out: Vec<Output>,
}

fn play(steps: &[&str]) -> Played {
    let plan = plan(&steps.concat());
    let mut out = Vec::new();
    let call = Call::start(&plan, 1, (ms(0), ms(0)), &mut out);
    Played { plan, call, out }
}

impl Played {
    fn receive(&mut self, line: &str, method: &str, now: Duration) {
        self.take(&response(1, line, method), now);
    }

    fn take(&mut self, message: &[u8], now: Duration) {
        self.out.clear();
        let received = Received::parse(message).unwrap();
        self.call.handle_message(&self.plan, (message, &received), now, &mut self.out);
    }

    fn expire(&mut self, now: Duration) {
        self.out.clear();
        self.call.handle_timer(&self.plan, now, &mut self.out);
    }

    /// Methods of what was sent.
    fn sent(&self) -> Vec<&str> {
        self.out.iter().filter_map(method_of).collect()
    }

    fn end(&self) -> Option<Result<(), Failure>> {
        self.out.iter().find_map(|output| match output {
            Output::Ended { failure, .. } => Some(failure.map_or(Ok(()), Err)),
            _ => None,
        })
    }
}

fn method_of(output: &Output) -> Option<&str> {
    let Output::Send(message) = output else { return None };
    std::str::from_utf8(message).unwrap().split(' ').next()
}

/// A scenario of these steps.
pub(in crate::load::scenario) fn plan(steps: &str) -> Plan {
    let words = Words { service: "service", keys: &[], columns: None };
    let address = |host, port| SocketAddr::from(([127, 0, 0, host], port));
    Plan {
        scenario: parse(&format!("<scenario>{steps}</scenario>"), &words).unwrap(),
        fields: None,
        ends: Ends { transport: Transport::Udp, local: address(2, 4_000), remote: address(1, 5_060) },
        run: 7,
        seed: 1,
        timeout: Duration::from_secs(5),
        epoch: Duration::ZERO,
        aborts: Aborts::default(),
    }
}

/// A response to a request of call `number`.
pub(in crate::load::scenario) fn response(number: u64, line: &str, method: &str) -> Vec<u8> {
    format!(
        "SIP/2.0 {line}\r\nVia: SIP/2.0/UDP 127.0.0.2\r\nTo: <sip:a>;tag=9\r\n\
         Call-ID: {number}-7@127.0.0.2\r\nCSeq: 1 {method}\r\n\r\n"
    )
    .into_bytes()
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
