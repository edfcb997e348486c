//! Ring-back phishing (our own numbers seen as callers) and what carriers and users repeat.

use serde_json::json;

use crate::caller::{Caller, Request};
use crate::config::{Config, application, phone, webhook};
use crate::node::Node;
use crate::receiver::Receiver;
use crate::wait::until;

async fn node(receiver: &Receiver) -> Node {
    let applications = application("demo", "", &[webhook(&receiver.url(), "events = [\"*\"]")]);
    Node::start(Config { applications, ..Config::new("") }).await
}

#[tokio::test]
async fn f48_v02_a_call_with_our_own_number_is_told_and_a_rise_behind_it_too() {
    let receiver = Receiver::start().await;
    let node = node(&receiver).await;
    let caller = Caller::new(node.sip()).await;
    assert_eq!(caller.call("+966115000007", "+966115000008").await, 486);
    let told = receiver.event_of("fraud.own_number").await.event();
    assert_eq!(told["data"], json!({"number": "+966115000008", "trunk": "local"}));
    for index in 0..5 {
        let created = node.api().create(&phone(index)).await;
        assert_eq!(caller.call(&created.phone, &created.number).await, 486);
        let reasons = node.api().verification(&created.id).await["reasons"].clone();
        assert_eq!(reasons, if index < 4 { json!([]) } else { json!(["ringback_suspected"]) }, "{index}");
    }
    let rise = receiver.event_of("fraud.ringback_suspected").await.event();
    assert_eq!((&rise["data"]["signs"], &rise["data"]["verified"]), (&json!(1), &json!(5)));
}

#[tokio::test]
async fn x03_r13_a_carriers_next_try_is_counted_as_such_and_told_once() {
    let receiver = Receiver::start().await;
    let node = node(&receiver).await;
    let caller = Caller::new(node.sip()).await;
    let created = node.api().create_with(&json!({"phone": phone(1), "minimum_assurance": "B"})).await;
    for _ in 0..3 {
        let weak = Request::invite_from_only(&created.phone, &created.number);
        assert_eq!(caller.place(&weak).await.code(), 486);
    }
    receiver.event(&created.id, "verification.call_received").await;
    assert_eq!(node.metric("ringproof_calls_total", &["carrier_retry"]).await, 2);
    // The next way brings what was asked for: it is judged like every call.
    assert_eq!(caller.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.verified").await;
    assert_eq!(receiver.ids(&created.id, "verification.call_received").len(), 1);
}

#[tokio::test]
async fn x04_a_redial_after_the_verification_is_told_as_repeated() {
    let receiver = Receiver::start().await;
    let node = node(&receiver).await;
    let caller = Caller::new(node.sip()).await;
    let created = node.api().create(&phone(1)).await;
    assert_eq!(caller.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.verified").await;
    // The same call again within five seconds is the carrier's; one that is judged otherwise is the user's.
    assert_eq!(caller.call(&created.phone, &created.number).await, 486);
    let redial = Request::invite_from_only(&created.phone, &created.number);
    assert_eq!(caller.place(&redial).await.code(), 486);
    let told = receiver.event(&created.id, "call.repeated").await.event();
    assert_eq!(told["data"]["status"], "verified");
    assert_eq!(node.metric("ringproof_calls_total", &["carrier_retry"]).await, 1);
    assert_eq!(receiver.ids(&created.id, "verification.verified").len(), 1);
}

#[tokio::test]
async fn f49_another_line_on_the_number_of_the_only_verification_is_a_hint() {
    let receiver = Receiver::start().await;
    let node = node(&receiver).await;
    let caller = Caller::new(node.sip()).await;
    let created = node.api().create(&phone(1)).await;
    assert_eq!(caller.call(&phone(2), &created.number).await, 486);
    let told = receiver.event(&created.id, "call.mismatched").await;
    assert!(!told.event().to_string().contains(&phone(2)), "whose line it was is nobody's business");
    assert_eq!(node.api().status(&created.id).await, "pending");
    let calls = until("its record", async || {
        let calls = node.api().get(&format!("/v1/verifications/{}/calls", created.id)).await.json();
        calls["data"][0].is_object().then_some(calls)
    })
    .await;
    assert_eq!(calls["data"][0]["outcome"], "mismatched");
}

#[tokio::test]
async fn f44_a_phone_verifies_in_every_form_of_its_number() {
    for (asked, calls) in [("+5491123456789", "+541123456789"), ("+5511987654321", "+551187654321")] {
        let receiver = Receiver::start().await;
        let node = node(&receiver).await;
        let created = node.api().create(asked).await;
        assert_eq!(Caller::new(node.sip()).await.call(calls, &created.number).await, 486);
        let told = receiver.event(&created.id, "verification.verified").await.event();
        assert_eq!(told["data"]["phone"], asked);
    }
}
