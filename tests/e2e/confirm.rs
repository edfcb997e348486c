//! `confirm = "ack"`: a datagram proves nothing until its refusal is known to have arrived.

use crate::caller::{Caller, Request};
use crate::config::{Config, TRUNK, phone, webhook};
use crate::node::Node;
use crate::receiver::Receiver;
use crate::stream::Stream;
use crate::wait::until;

const PUBLIC: &str = "path = \"public\"\nconfirm = \"ack\"\n";

async fn node(receiver: &Receiver, sip: &[&str]) -> Node {
    // One worker answers in order: what comes behind an answer was read behind its message.
    let applications = crate::config::application("demo", "", &[webhook(&receiver.url(), "events = [\"*\"]")]);
    let listen = sip.iter().map(|&url| url.to_owned()).collect();
    let trunks = format!("{TRUNK}{PUBLIC}");
    Node::start(Config { trunks, applications, listen, workers: 1, ..Config::new("") }).await
}

#[tokio::test]
async fn the_ack_makes_the_call_count_and_lifts_the_cap_of_a_public_path() {
    let receiver = Receiver::start().await;
    let node = node(&receiver, &["udp://127.0.0.1:0"]).await;
    let created = node.api().create(&phone(1)).await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&created.phone, &created.number);
    let refusal = caller.ask(&invite).await;
    assert_eq!(refusal.code(), 486);
    assert_eq!(node.api().status(&created.id).await, "pending");
    caller.send(&invite.ack(&refusal)).await;
    let event = receiver.event(&created.id, "verification.verified").await.event();
    assert_eq!(
        (&event["data"]["call"]["assurance"], &event["data"]["call"]["caller_source"]),
        (&"B".into(), &"pai".into())
    );
    // The ACK again, the whole call again: nothing more.
    caller.send(&invite.ack(&refusal)).await;
    caller.place(&invite).await;
    node.all_delivered().await;
    assert_eq!(receiver.ids(&created.id, "verification.verified").len(), 1);
    let trace = node.api().get(&format!("/v1/verifications/{}/trace", created.id)).await;
    assert!(trace.json()["data"][0]["steps"].to_string().contains("\"ack\""), "{}", trace.text());
}

#[tokio::test]
async fn blind_invites_and_guessed_acks_verify_nothing_and_leave_no_trace() {
    let receiver = Receiver::start().await;
    let node = node(&receiver, &["udp://127.0.0.1:0"]).await;
    let created = node.api().create(&phone(1)).await;
    let (forger, peer) = (Caller::new(node.sip()).await, Caller::new(node.sip()).await);
    for _ in 0..200 {
        let invite = Request::invite(&created.phone, &created.number);
        forger.send(&invite).await;
        // Whoever cannot receive has to guess the tag.
        for tag in ["0123456789abcdef", "A".repeat(54).as_str(), ""] {
            let to = format!("<sip:{}@127.0.0.1;user=phone>;tag={tag}", created.number);
            forger.send(&Request { method: "ACK", to, fields: Vec::new(), ..invite.clone() }).await;
        }
    }
    assert_eq!(peer.ask(&Request::new("OPTIONS")).await.code(), 200);
    assert_eq!(node.api().status(&created.id).await, "pending");
    assert_eq!(node.metric("ringproof_calls_total", &["outcome=\"matched\""]).await, 0);
    assert_eq!(
        node.api().get(&format!("/v1/verifications/{}/calls", created.id)).await.json()["data"],
        serde_json::json!([])
    );
    // Not even a hint that would tell the application of a call that never was.
    assert_eq!(peer.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.verified").await;
    node.all_delivered().await;
    let kinds: Vec<String> = receiver.about(&created.id).iter().map(crate::receiver::Delivery::kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind != "verification.created").count(), 1, "{kinds:?}");
}

#[tokio::test]
async fn a_tag_confirms_its_own_call_alone() {
    let receiver = Receiver::start().await;
    let node = node(&receiver, &["udp://127.0.0.1:0"]).await;
    let (victim, other) = (node.api().create(&phone(1)).await, node.api().create(&phone(2)).await);
    let caller = Caller::new(node.sip()).await;
    let (call, forged) = (Request::invite(&other.phone, &other.number), Request::invite(&victim.phone, &victim.number));
    let refusal = caller.ask(&call).await;
    // The tag of one's own call, sent back for another one.
    caller.send(&forged).await;
    caller.send(&forged.ack(&refusal)).await;
    caller.send(&call.ack(&refusal)).await;
    receiver.event(&other.id, "verification.verified").await;
    assert_eq!(node.api().status(&victim.id).await, "pending");
}

#[tokio::test]
async fn a_retransmission_has_the_same_tag_and_a_cancel_is_known() {
    let receiver = Receiver::start().await;
    let node = node(&receiver, &["udp://127.0.0.1:0"]).await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&phone(1), "+966115000001");
    // Two of three within one epoch, wherever its border is.
    let tags: Vec<String> = [caller.ask(&invite).await, caller.ask(&invite).await, caller.ask(&invite).await]
        .iter()
        .map(|answer| answer.to_tag().to_owned())
        .collect();
    assert!(tags[0] == tags[1] || tags[1] == tags[2], "{tags:?}");
    assert_eq!(tags[0].len(), 54);
    assert_eq!(caller.ask(&invite.cancel()).await.code(), 200);
}

#[tokio::test]
async fn a_connection_proves_its_peer_and_needs_no_ack() {
    let receiver = Receiver::start().await;
    let node = node(&receiver, &["udp://127.0.0.1:0", "tcp://127.0.0.1:0"]).await;
    let created = node.api().create(&phone(1)).await;
    let mut gateway = Stream::new(node.tcp[0]).await;
    let invite = Request::invite(&created.phone, &created.number);
    gateway.send(&invite).await;
    assert_eq!(gateway.answer_to(&invite).await.code(), 486);
    assert_eq!(node.api().verification(&created.id).await["assurance"], "B");
}

#[tokio::test]
async fn nobody_on_a_public_path_gets_more_than_was_sent_in_his_name() {
    let receiver = Receiver::start().await;
    let node = node(&receiver, &["udp://127.0.0.1:0"]).await;
    let caller = Caller::new(node.sip()).await;
    // As short as an INVITE can be: its answer with Reason, tag and `received` would be longer.
    let short = format!(
        "INVITE sip:a@b SIP/2.0\r\nv: SIP/2.0/UDP {};branch=z9hG4bK1;rport\r\nf: <sip:a@b>;tag=1\r\nt: <sip:a@b>\r\n\
         i: 1\r\nCSeq: 1 INVITE\r\n\r\n",
        caller.local()
    );
    caller.send_bytes(short.as_bytes()).await;
    until("an answer that was left out", async || {
        let dropped = node.metric("ringproof_sip_dropped_total", &["larger_than_request"]).await;
        (dropped == 1).then_some(())
    })
    .await;
    // With as much as every real INVITE brings, it is answered, and no answer is longer.
    let invite = Request::invite(&phone(1), "+966115000001");
    let answer = caller.ask(&invite).await;
    assert!(answer.text.len() <= invite.bytes(caller.local()).len());
}
