//! A whole verification: created, called, refused, told.

use serde_json::{Value, json};

use crate::caller::{Caller, Request};
use crate::config::{Config, SECRET, application, phone, webhook};
use crate::node::Node;
use crate::receiver::{Receiver, Reply};

#[tokio::test]
async fn a_call_verifies_and_its_event_comes_again_byte_for_byte() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let (api, phone) = (node.api(), phone(1));
    let asked = json!({
        "phone": phone, "ttl_seconds": 90, "purpose": "login", "reference": "signup-88", "metadata": {"step": "é 2"},
        "minimum_assurance": "B", "locale": "ar", "client": {"ip": "192.0.2.7", "device_id": "d-1"},
    });
    let answer = api.ask(&asked).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let created = answer.json();
    let id = created["id"].as_str().unwrap();
    let number = created["dial"]["number"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/v1/verifications/{id}"));
    assert!(id.starts_with("ver_") && answer.headers.contains_key("x-request-id"));
    for (field, value) in [
        ("object", json!("verification")),
        ("livemode", json!(false)),
        ("status", json!("pending")),
        ("phone", json!(phone)),
        ("purpose", json!("login")),
        ("channel", json!("missed_call")),
        ("assurance", Value::Null),
        ("reasons", json!([])),
        ("verified_at", Value::Null),
        ("reference", json!("signup-88")),
        ("metadata", json!({"step": "é 2"})),
    ] {
        assert_eq!(created[field], value, "{field}");
    }
    assert_eq!(created["dial"]["tel_uri"], format!("tel:{number}"));
    assert_eq!(seconds(&created["expires_at"]) - seconds(&created["created_at"]), 90);

    receiver.next(Reply::Status(500));
    assert_eq!(Caller::new(node.sip()).await.call(&phone, number).await, 486);
    // The answer to the call is the promise that this reads so.
    let mut verified = api.verification(id).await;
    let client = verified.as_object_mut().unwrap().remove("client");
    assert_eq!(client.as_ref(), Some(&created["client"]), "for the application alone");
    assert_eq!((&verified["status"], &verified["assurance"]), (&json!("verified"), &json!("B")));
    assert!(verified["verified_at"].is_string());
    assert_eq!(verified["reasons"], json!([]));

    let tries = receiver.wait_about(id, 2).await;
    assert_eq!(tries[0].id(), tries[1].id());
    assert!(tries[0].id().starts_with("evt_"));
    assert_eq!(tries[0].body, tries[1].body);
    let event = tries[0].event();
    assert_eq!(event["type"], "verification.verified");
    assert_eq!(event["timestamp"], verified["verified_at"]);
    let mut data = event["data"].as_object().unwrap().clone();
    assert_eq!(data.remove("sequence"), Some(json!(2)), "the first was verification.created");
    let call = data.remove("call").unwrap();
    assert_eq!(Value::Object(data), verified, "beside sequence and call the data is the verification without client");
    let mut names: Vec<&String> = call.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["assurance", "caller_source", "id", "reasons", "received_at", "trunk"]);
    assert_eq!(
        (&call["caller_source"], &call["trunk"], &call["assurance"]),
        (&json!("pai"), &json!("local"), &json!("B"))
    );
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
    node.all_delivered().await;
    assert_eq!(receiver.about(id).len(), 2, "what was taken is not sent again");
}

#[tokio::test]
async fn every_event_of_a_verification_is_numbered_in_its_order() {
    let receiver = Receiver::start().await;
    let all = webhook(&receiver.url(), "events = [\"verification.*\"]");
    let config = Config { applications: application("demo", "", &[all]), ..Config::new("") };
    let node = Node::start(config).await;
    let created = node.api().create_with(&json!({"phone": phone(1), "minimum_assurance": "B"})).await;
    let caller = Caller::new(node.sip()).await;
    // Too little proof first, then enough.
    let weak = caller.place(&Request::invite_from_only(&created.phone, &created.number)).await;
    assert_eq!(weak.code(), 486);
    receiver.event(&created.id, "verification.call_received").await;
    assert_eq!(caller.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.verified").await;
    let mut events: Vec<(u64, String)> = receiver
        .about(&created.id)
        .iter()
        .map(|delivery| (delivery.event()["data"]["sequence"].as_u64().unwrap(), delivery.kind()))
        .collect();
    events.sort();
    events.dedup();
    let expected = ["verification.created", "verification.call_received", "verification.verified"];
    assert_eq!(events, (1..).zip(expected.map(str::to_owned)).collect::<Vec<_>>());
}

#[tokio::test]
async fn v14_two_secrets_sign_side_by_side_while_they_rotate() {
    let receiver = Receiver::start().await;
    let other = format!("whsec_{}", "B".repeat(40));
    let both =
        format!("\n[[application.webhook]]\nurl = \"{}\"\nsecrets = [\"{other}\", \"{SECRET}\"]\n", receiver.url());
    let config = Config { applications: application("demo", "", &[both]), ..Config::new("") };
    let node = Node::start(config).await;
    let created = node.api().create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    // The receiver knows the second secret alone.
    let delivery = receiver.event(&created.id, "verification.verified").await;
    assert_eq!(delivery.header("webhook-signature").split(' ').count(), 2);
}

/// Seconds since 1970 UTC.
fn seconds(timestamp: &Value) -> i64 {
    let time = timestamp.as_str().unwrap().parse::<humantime::Timestamp>().unwrap();
    let since = std::time::SystemTime::from(time).duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}
