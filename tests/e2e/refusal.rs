//! The refusal: what it holds, and that it tells nobody who is being verified.

use crate::caller::{Caller, Request, Response};
use crate::config::{Config, TRUNK, phone};
use crate::node::Node;
use crate::receiver::Receiver;

#[tokio::test]
async fn v16_a_hit_and_every_kind_of_miss_get_the_same_answer() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let created = node.api().create(&phone(1)).await;
    let strict = node.api().create_with(&serde_json::json!({"phone": phone(2), "minimum_assurance": "B"})).await;
    let (own, other) = (created.number.as_str(), phone(3));
    let caller = Caller::new(node.sip()).await;

    let hit = Request::invite(&created.phone, own);
    let calls = [
        ("a phone that nobody verifies", Request::invite(&other, own)),
        ("too little proof", Request::invite_from_only(&strict.phone, &strict.number)),
        ("a hit", hit.clone()),
        ("the same phone once more", Request::invite(&created.phone, own)),
        ("a number that is not ours", Request::invite(&created.phone, "+966115999999")),
        ("no caller", Request::new("INVITE")),
        ("a caller that is no number", Request::invite_from_only("+0500000123", own)),
        (
            "forwarded",
            Request::invite(&created.phone, own).with("Diversion: <sip:+966500000777@c>;reason=unconditional"),
        ),
        ("our own number calling", Request::invite(own, own)),
    ];
    let mut answers = Vec::new();
    for (what, invite) in calls {
        answers.push((what, common(&caller.place(&invite).await)));
    }
    let expected = "SIP/2.0 486 Busy Here\r\n\
                    CSeq: 1 INVITE\r\n\
                    Reason: Q.850;cause=17;text=\"User busy\"\r\n\
                    Content-Length: 0\r\n\r\n";
    for (what, answer) in answers {
        assert_eq!(answer, expected, "{what}");
    }
    assert_eq!(node.api().status(&created.id).await, "verified");
}

#[tokio::test]
async fn r10_r11_r12_the_answer_repeats_the_request_and_adds_a_tag_of_its_own() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&phone(1), "+966115000001").with("Via: SIP/2.0/TCP far.example;branch=z9hG4bKfar");
    let answer = caller.place(&invite).await;
    let vias: Vec<&str> = answer.fields().filter(|(name, _)| *name == "Via").map(|(_, value)| value).collect();
    assert_eq!(vias.len(), 2);
    assert!(vias[0].contains(&format!("rport={}", caller.local().port())) && vias[0].contains(";received=127.0.0.1"));
    assert_eq!(vias[1], "SIP/2.0/TCP far.example;branch=z9hG4bKfar");
    assert_eq!(answer.field("From"), invite.from);
    assert_eq!(answer.field("Call-ID"), invite.call_id);
    assert!(answer.field("To").starts_with(&invite.to) && answer.to_tag().len() >= 8);
    for absent in ["Server", "Contact", "Retry-After", "Content-Type"] {
        assert_eq!(answer.find(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn r01_r03_a_trunk_refuses_with_the_code_phrase_and_cause_of_its_own() {
    let receiver = Receiver::start().await;
    let trunks = format!("{TRUNK}reject = {{ code = 603, phrase = \"No Thanks\", q850 = 21 }}\n");
    let node = Node::start(Config { trunks, ..Config::new(&receiver.url()) }).await;
    let created = node.api().create(&phone(1)).await;
    let caller = Caller::new(node.sip()).await;
    for phone in [created.phone.as_str(), &phone(2)] {
        let answer = caller.place(&Request::invite(phone, &created.number)).await;
        assert!(answer.text.starts_with("SIP/2.0 603 No Thanks\r\n"), "{}", answer.text);
        assert_eq!(answer.field("Reason"), "Q.850;cause=21;text=\"Call rejected\"");
    }
    assert_eq!(node.api().status(&created.id).await, "verified");
}

/// The bytes of an answer but for the fields that name the call.
fn common(answer: &Response) -> String {
    let names_the_call =
        |line: &str| ["Via: ", "From: ", "To: ", "Call-ID: "].iter().any(|name| line.starts_with(name));
    answer.text.split_inclusive("\r\n").filter(|line| !names_the_call(line)).collect()
}
