//! What each kind of request gets besides a call.

use crate::caller::{Caller, Request};
use crate::config::{Config, phone};
use crate::node::Node;
use crate::receiver::Receiver;

const ALLOW: &str = "INVITE, ACK, CANCEL, OPTIONS, BYE";

#[tokio::test]
async fn n05_n12_requests_get_what_their_method_and_form_deserve() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let caller = Caller::new(node.sip()).await;
    let new = Request::new;
    let tagged = |method| Request { to: "<sip:+966115000042@127.0.0.1>;tag=t1".to_owned(), ..new(method) };
    let uri = |uri: &str| Request { uri: uri.to_owned(), ..new("INVITE") };
    let mut cases = vec![
        ("ping", new("OPTIONS"), 200),
        ("cancel of nothing", new("CANCEL"), 481),
        ("T12", tagged("INVITE"), 481),
        ("end of a call that never was", new("BYE"), 481),
        ("a scheme that nobody knows", uri("mailto:a@example.org"), 416),
        ("tel: is known", uri("tel:+966115000042"), 486),
        ("sips: is known", uri("sips:+966115000042@127.0.0.1"), 486),
        ("R15", new("INVITE").with("Require: 100rel, precondition"), 420),
        ("an extension that may be left", new("INVITE").with("Supported: 100rel, timer"), 486),
        ("N12", new("INVITE").with("Session-Expires: 90"), 486),
        ("T11", new("OPTIONS").with("Max-Forwards: 0"), 200),
        ("a method of another age", new("FLY"), 501),
    ];
    cases.extend(["BYE", "INFO", "UPDATE", "PRACK"].map(|method| ("within a dialog", tagged(method), 481)));
    let refused = ["REGISTER", "SUBSCRIBE", "NOTIFY", "MESSAGE", "PUBLISH", "REFER"];
    cases.extend(refused.map(|method| ("not for us", new(method), 405)));
    for (what, request, code) in cases {
        let answer = caller.ask(&request).await;
        assert_eq!(answer.code(), code, "{what}: {}", answer.text);
        assert_eq!(answer.field("Content-Length"), "0", "{what}");
        let allow = [200, 405, 501].contains(&code).then_some(ALLOW);
        assert_eq!(answer.find("Allow"), allow, "{what}: {}", answer.text);
        let unsupported = (code == 420).then_some("100rel, precondition");
        assert_eq!(answer.find("Unsupported"), unsupported, "{what}");
        assert_eq!(answer.find("Server"), None, "{what}");
        assert!(!answer.to_tag().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn broken_requests_are_told_so_where_there_is_a_way_back() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config { workers: 1, ..Config::new(&receiver.url()) }).await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&phone(1), "+966115000042");
    let text = String::from_utf8(invite.bytes(caller.local())).unwrap();
    let without = |name: &str| -> String {
        text.split_inclusive("\r\n").filter(|line| !line.starts_with(&format!("{name}: "))).collect()
    };
    let cases = [
        ("T14: no From", without("From"), 400),
        ("T14: no To", without("To"), 400),
        ("T14: no Call-ID", without("Call-ID"), 400),
        ("T14: no CSeq", without("CSeq"), 400),
        ("T13: CSeq of another method", text.replace("CSeq: 1 INVITE", "CSeq: 1 OPTIONS"), 400),
        ("T13: a body shorter than it says", text.replace("Content-Length: 0", "Content-Length: 10"), 400),
        ("T13: a body longer than it says", format!("{text}more than it says"), 486),
        ("two Call-IDs", text.replace("CSeq:", "Call-ID: x\r\nCSeq:"), 400),
        ("another version", text.replacen("SIP/2.0", "SIP/3.0", 1), 505),
        ("too many header fields", text.replace("CSeq:", &format!("{}CSeq:", "X: y\r\n".repeat(300))), 513),
    ];
    for (what, message, code) in cases {
        caller.send_bytes(message.as_bytes()).await;
        let answer = caller.receive().await;
        assert_eq!(answer.code(), code, "{what}: {}", answer.text);
    }
    // These are answered by nothing: with one worker an answer would come before the ping's.
    let silent = [
        without("Via"),
        text.replace("Via: SIP/2.0/UDP", "Via: nonsense"),
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKx\r\n\r\n".to_owned(),
        "\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        String::new(),
    ];
    for message in &silent {
        caller.send_bytes(message.as_bytes()).await;
    }
    caller.send(&Request::new("OPTIONS")).await;
    let answer = caller.receive().await;
    assert_eq!(answer.field("CSeq"), "1 OPTIONS", "{}", answer.text);
    let dropped = node.metric("ringproof_sip_dropped_total", &[]).await;
    assert_eq!(dropped, silent.len() as u64, "each is counted");
}

#[tokio::test]
async fn n01_n11_bodies_are_not_read_and_large_calls_verify() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let caller = Caller::new(node.sip()).await;
    let long = "x".repeat(20_000);
    let bodies = [
        ("application/sdp", "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n".to_owned(), "identity"),
        (
            "multipart/mixed;boundary=b",
            "--b\r\nContent-Type: application/isup\r\n\r\n\u{1}\r\n--b--".to_owned(),
            "gzip",
        ),
        ("application/unheard-of", long, "identity"),
    ];
    for (index, (kind, body, coding)) in bodies.into_iter().enumerate() {
        let created = node.api().create(&phone(u32::try_from(index).unwrap())).await;
        let mut invite = Request::invite(&created.phone, &created.number)
            .with(&format!("Content-Type: {kind}"))
            .with(&format!("Content-Encoding: {coding}"))
            .with("Accept: text/nothing")
            .with(&format!("Identity: {}", "y".repeat(2_000)));
        invite.body = body;
        assert_eq!(caller.place(&invite).await.code(), 486, "{kind}");
        assert_eq!(node.api().status(&created.id).await, "verified", "{kind}");
    }
}
