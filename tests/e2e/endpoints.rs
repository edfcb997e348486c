//! Endpoints that are disabled, what becomes of their events, and how they are enabled again.

use serde_json::{Value, json};

use crate::caller::Caller;
use crate::config::{Config, NUMBERS, application, key, phone, webhook};
use crate::http::{Api, Created};
use crate::node::Node;
use crate::receiver::{Receiver, Reply};
use crate::wait::until;

const ALL: &str = r#"events = ["verification.verified", "delivery.*", "endpoint.*"]"#;

#[tokio::test]
async fn gone_disables_at_once_and_nothing_is_lost_until_it_is_enabled() {
    let (gone, other) = (Receiver::start().await, Receiver::start().await);
    gone.usually(Reply::Status(410));
    let webhooks = [webhook(&format!("{}?token=secret", gone.url()), ALL), webhook(&other.url(), ALL)];
    let mut node = Node::start(Config { applications: application("demo", "", &webhooks), ..Config::new("") }).await;
    let first = verified(&node, 1).await;
    gone.event(&first.id, "verification.verified").await;
    let told = other.event_of("endpoint.disabled").await.event();
    let endpoint = endpoints(&node.api()).await.remove(0);
    assert_eq!(
        (&endpoint["object"], &endpoint["state"], &endpoint["reason"]),
        (&json!("endpoint"), &json!("disabled"), &json!("gone"))
    );
    assert_eq!((&endpoint["url"], &endpoint["backlog"]), (&json!(gone.url()), &json!(1)));
    assert_eq!(endpoint["events"], json!(["verification.verified", "delivery.exhausted", "endpoint.disabled"]));
    for field in ["id", "url", "reason", "disabled_at", "failing_since"] {
        assert_eq!(told["data"]["endpoint"][field], endpoint[field], "{field}");
    }
    assert!(!told.to_string().contains("token"));

    // Nothing more is sent to it, and a restart changes nothing.
    let second = verified(&node, 2).await;
    other.event(&second.id, "verification.verified").await;
    node.process.kill();
    node.restart().await;
    let third = verified(&node, 3).await;
    other.event(&third.id, "verification.verified").await;
    node.all_delivered().await;
    assert_eq!(gone.deliveries().len(), 1);
    assert_eq!(node.metric("ringproof_webhook_endpoints_disabled", &[]).await, 1);
    let now = endpoints(&node.api()).await.remove(0);
    assert_eq!((&now["backlog"], &now["disabled_at"]), (&json!(3), &endpoint["disabled_at"]));

    gone.usually(Reply::Status(204));
    let id = now["id"].as_str().unwrap();
    let enabled = node.api().post(&format!("/v1/endpoints/{id}/enable"), &json!({})).await;
    assert_eq!(enabled.status, 200, "{}", enabled.text());
    assert_eq!((&enabled.json()["state"], &enabled.json()["failing_since"]), (&json!("enabled"), &Value::Null));
    for one in [&first, &second, &third] {
        let theirs = gone.wait_about(&one.id, if one.id == first.id { 2 } else { 1 }).await;
        assert_eq!(theirs[0].id(), other.about(&one.id)[0].id());
    }
    node.all_delivered().await;
    assert_eq!(endpoints(&node.api()).await[0]["backlog"], 0);
    let again = node.api().post(&format!("/v1/endpoints/{id}/enable"), &json!({})).await;
    assert_eq!(again.status, 200, "enabling what is enabled changes nothing");
    let log = node.printed();
    assert!(log.contains("webhook endpoint disabled") && !log.contains("token=secret"), "{log}");
}

#[tokio::test]
async fn a_day_of_failures_disables() {
    let (failing, other) = (Receiver::start().await, Receiver::start().await);
    failing.usually(Reply::Status(500));
    let webhooks = [webhook(&failing.url(), ""), webhook(&other.url(), ALL)];
    let mut node = Node::start(Config { applications: application("demo", "", &webhooks), ..Config::new("") }).await;
    let first = verified(&node, 1).await;
    failing.wait_about(&first.id, 2).await;
    until("since when it fails", async || endpoints(&node.api()).await[0]["failing_since"].as_str().map(str::to_owned))
        .await;
    node.process.kill();
    node.database().execute("UPDATE endpoints SET failing_since = failing_since - 86400000, failures = 3", []).unwrap();
    node.restart().await;
    verified(&node, 2).await;
    let told = other.event_of("endpoint.disabled").await.event();
    assert_eq!(told["data"]["endpoint"]["reason"], "failing");
    assert_eq!(endpoints(&node.api()).await[0]["state"], "disabled");
    let disabled = node.metric("ringproof_webhook_endpoint_disabled_total", &["reason=\"failing\""]).await;
    assert_eq!(disabled, 1);

    // Another address is another endpoint.
    node.process.kill();
    let new = Receiver::start().await;
    node.config.applications = application("demo", "", &[webhook(&new.url(), ALL), webhook(&other.url(), ALL)]);
    node.restart().await;
    let third = verified(&node, 3).await;
    new.event(&third.id, "verification.verified").await;
    assert_eq!(endpoints(&node.api()).await[0]["state"], "enabled");
}

#[tokio::test]
async fn a_success_ends_the_time_of_failing() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    receiver.next(Reply::Status(500));
    let created = verified(&node, 1).await;
    receiver.wait_about(&created.id, 2).await;
    node.all_delivered().await;
    let endpoint = endpoints(&node.api()).await.remove(0);
    assert_eq!((&endpoint["state"], &endpoint["failing_since"]), (&json!("enabled"), &Value::Null));
}

#[tokio::test]
async fn endpoints_are_those_of_the_callers_application() {
    let (mine, theirs) = (Receiver::start().await, Receiver::start().await);
    let applications =
        application("demo", "", &[webhook(&mine.url(), "")]) + &application("shop", "", &[webhook(&theirs.url(), "")]);
    let numbers = format!("{NUMBERS}applications = [\"demo\", \"shop\"]\n");
    let node = Node::start(Config { numbers, applications, ..Config::new("") }).await;
    let own = endpoints(&node.api()).await;
    assert_eq!(own.len(), 1);
    assert_eq!(own[0]["url"], mine.url());
    let path = format!("/v1/endpoints/{}/enable", own[0]["id"].as_str().unwrap());
    let other = node.api_of(&key("shop"));
    other.post(&path, &json!({})).await.is_problem(404, "not_found");
    node.api().post("/v1/endpoints/whe_1/enable", &json!({})).await.is_problem(404, "not_found");
    other.get("/v1/endpoints?limit=1").await.is_problem(422, "invalid_fields");
    node.api_of("rp_test_other").get("/v1/endpoints").await.is_problem(401, "unauthorized");
}

/// A phone verified by its call.
async fn verified(node: &Node, index: u32) -> Created {
    let created = node.api().create(&phone(index)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    created
}

async fn endpoints(api: &Api) -> Vec<Value> {
    let answer = api.get("/v1/endpoints").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let list = answer.json();
    assert_eq!((&list["object"], &list["has_more"]), (&json!("list"), &json!(false)));
    list["data"].as_array().unwrap().clone()
}
