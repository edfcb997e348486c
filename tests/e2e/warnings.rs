//! Events that are about no verification: what an application is warned of.

use std::fs;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::json;

use crate::caller::Caller;
use crate::config::{Config, NUMBER, ONE_NUMBER, application, phone, webhook};
use crate::node::{Node, serve};
use crate::receiver::Receiver;

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_told_where_that_is_subscribed() {
    let receiver = Receiver::start().await;
    let applications = application("demo", "", &[webhook(&receiver.url(), "events = [\"call.unmatched\"]")]);
    let node = Node::start(Config { applications, ..Config::new("") }).await;
    assert_eq!(Caller::new(node.sip()).await.call(&phone(1), "+966115000007").await, 486);
    let told = receiver.event_of("call.unmatched").await.event();
    assert_eq!(told["data"]["number"], "+966115000007");
    assert_eq!((&told["data"]["call"]["assurance"], &told["data"]["call"]["trunk"]), (&json!("B"), &json!("local")));
    assert!(!told.to_string().contains(&phone(1)), "who called is nobody's business");
}

#[tokio::test]
async fn a_phone_without_a_free_number_is_told_once_in_a_while() {
    let receiver = Receiver::start().await;
    let applications = application("demo", "", &[webhook(&receiver.url(), "events = [\"number.exhausted\"]")]);
    let node = Node::start(Config { numbers: ONE_NUMBER.to_owned(), applications, ..Config::new("") }).await;
    assert_eq!(node.api().create(&phone(1)).await.number, NUMBER);
    for _ in 0..3 {
        node.api().ask(&json!({"phone": phone(1)})).await.is_problem(429, "phone-busy");
    }
    let told = receiver.event_of("number.exhausted").await.event();
    assert_eq!(told["data"], json!({"numbers": 1, "refused": 1}));
    node.all_delivered().await;
    assert_eq!(receiver.deliveries().len(), 1, "the rest is told with the next");
}

#[tokio::test]
async fn a_certificate_that_expires_soon_is_told() {
    let receiver = Receiver::start().await;
    let key = KeyPair::generate().unwrap();
    let mut wish = CertificateParams::new(vec!["verify.example".to_owned()]).unwrap();
    wish.not_after = date_time_ymd(2026, 11, 1);
    let certificate = wish.self_signed(&key).unwrap();
    let applications = application("demo", "", &[webhook(&receiver.url(), "events = [\"certificate.expiring\"]")]);
    let api = "tls = { cert = \"cert.pem\", key = \"key.pem\" }".to_owned();
    let node = Node::start_with(Config { applications, api, ..Config::new("") }, |directory| {
        fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
        serve(directory)
    })
    .await;
    let told = receiver.event_of("certificate.expiring").await.event();
    assert_eq!(told["data"], json!({"not_after": "2026-11-01T00:00:00.000Z"}));
    assert!(node.printed().contains("the API's certificate expires soon"), "{}", node.printed());
}
