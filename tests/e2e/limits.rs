//! How many verifications may be begun, and how a client learns that it is one too many.

use serde_json::json;

use crate::caller::Caller;
use crate::config::{Config, application, phone, webhook};
use crate::node::Node;
use crate::receiver::Receiver;

#[tokio::test]
async fn v07_v08_a_phone_and_a_clients_address_have_limits_with_headers_that_tell() {
    let (_receiver, node) = limited("creates_per_phone = \"2/10m\", creates_per_client_ip = \"3/10m\"").await;
    let api = node.api();
    let ask = async |index, ip: &str| api.ask(&json!({"phone": phone(index), "client": {"ip": ip}})).await;
    let first = ask(1, "192.0.2.1").await;
    assert_eq!(first.status, 201);
    assert_eq!(first.header("ratelimit-policy"), r#""creates_per_phone";q=2;w=600, "creates_per_client_ip";q=3;w=600"#);
    assert_eq!(first.header("ratelimit"), r#""creates_per_phone";r=1, "creates_per_client_ip";r=2"#);
    assert_eq!(ask(1, "192.0.2.1").await.status, 201);
    let third = ask(1, "192.0.2.1").await;
    third.is_problem(429, "rate_limited");
    let wait: u64 = third.header("retry-after").parse().unwrap();
    assert!((1..=300).contains(&wait), "a share of the window is back in {wait} s");
    assert!(third.header("ratelimit").starts_with(r#""creates_per_phone";r=0;t="#), "{}", third.header("ratelimit"));
    // The address has one left, and no other address is touched.
    assert_eq!(ask(2, "192.0.2.1").await.status, 201);
    ask(3, "192.0.2.1").await.is_problem(429, "rate_limited");
    assert_eq!(ask(3, "192.0.2.2").await.status, 201);
    let refused = node.metric("ringproof_creates_refused_total", &["rate_limited"]).await;
    assert_eq!(refused, 2);
    let limits = ["creates_per_phone", "creates_per_client_ip"].map(|limit| format!("limit=\"{limit}\""));
    for limit in &limits {
        assert_eq!(node.metric("ringproof_rate_limited_total", &["application=\"demo\"", limit]).await, 1, "{limit}");
    }
}

#[tokio::test]
async fn a_node_that_holds_as_many_as_it_may_refuses_until_one_ends() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config { store: "max_pending = 3".to_owned(), ..Config::new(&receiver.url()) }).await;
    let mut created = Vec::new();
    for index in 0..3 {
        created.push(node.api().create(&phone(index)).await);
    }
    let refused = node.api().ask(&json!({"phone": phone(3)})).await;
    refused.is_problem(503, "pending_full");
    assert_eq!(refused.header("retry-after"), "5");
    assert_eq!(node.metric("ringproof_creates_refused_total", &["code=\"pending_full\""]).await, 1);
    // One that takes the place of another makes none more.
    let other = node.api().create_with(&json!({"phone": phone(0), "replaces": created[0].id})).await;
    node.api().ask(&json!({"phone": phone(3), "replaces": created[0].id})).await.is_problem(422, "invalid_fields");
    assert_eq!(Caller::new(node.sip()).await.call(&other.phone, &other.number).await, 486);
    node.api().create(&phone(3)).await;
    // A restart brings back all of them, also where the limit is lower now.
    node.process.kill();
    node.config.store = "max_pending = 1".to_owned();
    node.restart().await;
    node.api().ask(&json!({"phone": phone(4)})).await.is_problem(503, "pending_full");
    for left in &created[1..] {
        assert_eq!(node.api().cancel(&left.id).await.status, 200);
    }
    node.api().ask(&json!({"phone": phone(4)})).await.is_problem(503, "pending_full");
}

#[tokio::test]
async fn a_phone_has_so_many_places_for_pending_ones_and_an_end_frees_one() {
    let (_receiver, mut node) = limited("creates_per_phone = 0, pending_per_phone = 2").await;
    let first = node.api().create(&phone(1)).await;
    let second = node.api().create(&phone(1)).await;
    assert_ne!(first.number, second.number, "two pairs");
    let third = node.api().ask(&json!({"phone": phone(1)})).await;
    third.is_problem(429, "too_many_pending");
    assert!(third.headers.contains_key("retry-after"));
    // The places are counted anew at a start.
    node.process.kill();
    node.restart().await;
    node.api().ask(&json!({"phone": phone(1)})).await.is_problem(429, "too_many_pending");
    assert_eq!(Caller::new(node.sip()).await.call(&first.phone, &first.number).await, 486);
    let third = node.api().create(&phone(1)).await;
    node.api().ask(&json!({"phone": phone(1)})).await.is_problem(429, "too_many_pending");
    assert_eq!(node.api().cancel(&third.id).await.status, 200);
    // One that replaces another takes its place.
    let fourth = node.api().create(&phone(1)).await;
    let fifth = node.api().create_with(&json!({"phone": phone(1), "replaces": fourth.id})).await;
    node.api().ask(&json!({"phone": phone(1)})).await.is_problem(429, "too_many_pending");
    assert_eq!(node.api().cancel(&fifth.id).await.status, 200);
    assert_eq!(node.api().cancel(&second.id).await.status, 200);
    node.api().create(&phone(1)).await;
    node.api().create(&phone(1)).await;
    node.api().ask(&json!({"phone": phone(1)})).await.is_problem(429, "too_many_pending");
}

#[tokio::test]
async fn an_application_may_have_a_limit_a_second() {
    let (_receiver, node) = limited("creates_per_phone = 0, creates_per_second = 1").await;
    let mut refused = 0;
    for index in 0..20 {
        let answer = node.api().ask(&json!({"phone": phone(index)})).await;
        assert!(answer.headers.contains_key("ratelimit-policy"));
        if answer.status != 201 {
            answer.is_problem(429, "rate_limited");
            assert_eq!(answer.header("retry-after"), "1");
            refused += 1;
        }
    }
    assert!(refused > 0);
}

async fn limited(limits: &str) -> (Receiver, Node) {
    let receiver = Receiver::start().await;
    let applications = application("demo", &format!("limits = {{ {limits} }}"), &[webhook(&receiver.url(), "")]);
    let node = Node::start(Config { applications, ..Config::new("") }).await;
    (receiver, node)
}
