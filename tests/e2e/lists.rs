//! Pages of verifications, of a verification's calls, and of events.

use serde_json::{Value, json};

use crate::caller::{Caller, Request};
use crate::config::{Config, application, key, phone, webhook};
use crate::http::Api;
use crate::node::Node;
use crate::receiver::Receiver;
use crate::wait::until;

/// All entries of a list, page by page. `path` has a query.
async fn all(api: &Api, path: &str) -> Vec<Value> {
    let (mut entries, mut after) = (Vec::new(), String::new());
    loop {
        let answer = api.get(&format!("{path}{after}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page = answer.json();
        assert_eq!(page["object"], "list");
        entries.extend(page["data"].as_array().unwrap().iter().cloned());
        assert_eq!(page["has_more"], json!(!page["next_cursor"].is_null()));
        let Some(next) = page["next_cursor"].as_str() else { return entries };
        after = format!("&after={next}");
    }
}

fn ids(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn verifications_are_listed_newest_first_and_by_every_filter() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let mut config = Config::new(&url);
    config.applications.push_str(&application("shop", "", &[webhook(&url, "")]));
    config.numbers.push_str("applications = [\"demo\", \"shop\"]\n");
    let node = Node::start(config).await;
    let (api, shop) = (node.api(), node.api_of(&key("shop")));
    let mut created = Vec::new();
    for index in 0..7 {
        created
            .push(api.create_with(&json!({"phone": phone(index % 3), "reference": format!("r {}", index % 2)})).await);
    }
    let foreign = shop.create(&phone(0)).await;
    assert_eq!(api.cancel(&created[4].id).await.status, 200);
    let wanted = |chosen: &[usize]| chosen.iter().rev().map(|index| created[*index].id.as_str()).collect::<Vec<_>>();
    let between = api.verification(&created[3].id).await["created_at"].as_str().unwrap().to_owned();
    let earlier = created.iter().take(3).map(|one| one.id.as_str());
    for limit in [1, 3, 100] {
        let list = async |query: &str| all(&api, &format!("/v1/verifications?limit={limit}&{query}")).await;
        assert_eq!(ids(&list("").await), wanted(&[0, 1, 2, 3, 4, 5, 6]));
        assert_eq!(ids(&list("status=canceled").await), wanted(&[4]));
        assert_eq!(ids(&list("status=verified").await), wanted(&[]));
        let phone = phone(1).replace('+', "%2B");
        assert_eq!(ids(&list(&format!("phone={phone}")).await), wanted(&[1, 4]));
        assert_eq!(ids(&list(&format!("phone={phone}&status=pending")).await), wanted(&[1]));
        assert_eq!(ids(&list("reference=r+1").await), wanted(&[1, 3, 5]));
        let before = list(&format!("created_before={between}")).await;
        assert!(earlier.clone().all(|id| before.len() < 3 || ids(&before).contains(&id)));
        let after = list(&format!("created_after={between}")).await;
        assert!(before.len() + after.len() < 7 && !ids(&after).contains(&created[3].id.as_str()));
    }
    let first = api.get("/v1/verifications?limit=1").await.json();
    let mut read = api.verification(&created[6].id).await;
    assert!(read.as_object_mut().unwrap().remove("client").is_some());
    assert_eq!(first["data"][0], read, "as a read shows it, but for the token");
    // Another application's verification is no place to go on from, nor is one that never was.
    for id in [foreign.id.as_str(), "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V"] {
        let problem = api.get(&format!("/v1/verifications?after={id}")).await.is_problem(422, "invalid_fields");
        assert_eq!(problem["errors"][0]["code"], "unknown_cursor");
    }
}

#[tokio::test]
async fn the_calls_of_a_verification_are_shown_without_withheld_numbers() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let (api, caller) = (node.api(), Caller::new(node.sip()).await);
    let created = api.create_with(&json!({"phone": phone(1), "minimum_assurance": "A"})).await;
    assert_eq!(caller.call(&created.phone, &created.number).await, 486);
    let path = format!("/v1/verifications/{}/calls", created.id);
    until("its call", async || (all(&api, &format!("{path}?")).await.len() == 1).then_some(())).await;
    let withheld = Request::invite(&created.phone, &created.number).with("Privacy: id");
    assert_eq!(caller.ask(&withheld).await.code(), 486);
    until("both calls", async || (all(&api, &format!("{path}?")).await.len() == 2).then_some(())).await;
    let calls = all(&api, &format!("{path}?limit=1")).await;
    assert_eq!((&calls[0]["caller"], &calls[1]["caller"]), (&Value::Null, &json!(created.phone)));
    for call in &calls {
        assert!(call["id"].as_str().unwrap().starts_with("call_"));
        assert_eq!(
            (&call["object"], &call["trunk"], &call["dialled"]),
            (&json!("call"), &json!("local"), &json!(created.number))
        );
        assert_eq!((&call["assurance"], &call["outcome"]), (&json!("B"), &json!("refused")));
        assert_eq!(call["reasons"], json!(["assurance_too_low"]));
        assert!(call["received_at"].as_str().unwrap().ends_with('Z') && !call["caller_source"].is_null());
    }
    api.get("/v1/verifications/ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V/calls").await.is_problem(404, "not_found");
    let foreign = api.get(&format!("{path}?after=call_01JD7Z3W5K8Q2M4N6P8R0S2T4V")).await;
    assert_eq!(foreign.is_problem(422, "invalid_fields")["errors"][0]["code"], "unknown_cursor");
}

#[tokio::test]
async fn the_feed_carries_what_webhooks_carry_in_the_order_of_commits() {
    let receiver = Receiver::start().await;
    let mut config = Config::new("");
    config.applications = application("demo", "", &[webhook(&receiver.url(), "events = [\"verification.*\"]")]);
    let mut node = Node::start(config).await;
    let (api, caller) = (node.api(), Caller::new(node.sip()).await);
    for index in 0..3 {
        let created = api.create(&phone(index)).await;
        assert_eq!(caller.call(&created.phone, &created.number).await, 486);
        receiver.event(&created.id, "verification.verified").await;
    }
    node.all_delivered().await;
    let feed = all(&api, "/v1/events?limit=2").await;
    let kinds: Vec<_> = feed.iter().map(|event| event["type"].as_str().unwrap().rsplit('.').next().unwrap()).collect();
    assert_eq!(kinds, ["created", "verified", "created", "verified", "created", "verified"]);
    let raw = api.get("/v1/events").await.text();
    for event in &feed {
        let id = event["data"]["id"].as_str().unwrap();
        let sent = receiver.event(id, event["type"].as_str().unwrap()).await;
        assert_eq!(event["id"], sent.id());
        let body = std::str::from_utf8(&sent.body).unwrap();
        assert!(raw.contains(&format!("{{\"id\":\"{}\",\"object\":\"event\",{}", sent.id(), &body[1..])));
    }
    assert_eq!(all(&api, "/v1/events?type=verification.created").await.len(), 3);
    // Who has read everything goes on behind it, over a restart too.
    let last = feed[5]["id"].as_str().unwrap();
    assert!(all(&api, &format!("/v1/events?after={last}&limit=5")).await.is_empty());
    node.process.kill();
    node.restart().await;
    let api = node.api();
    let created = api.create(&phone(9)).await;
    let more = all(&api, &format!("/v1/events?limit=5&after={last}")).await;
    assert_eq!((more.len(), &more[0]["data"]["id"]), (1, &json!(created.id)));
    let gone = api.get("/v1/events?after=evt_01JD7Z3W5K8Q2M4N6P8R0S2T4V").await.is_problem(422, "invalid_fields");
    let fault = &gone["errors"][0];
    assert_eq!((&fault["pointer"], &fault["code"]), (&json!("?after"), &json!("unknown_cursor")));
    assert!(fault["detail"].as_str().unwrap().contains("leave after out to start over with the oldest"));
}

#[tokio::test]
async fn a_national_number_is_read_where_its_country_is_named() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    for written in ["0500000123", "٠٥٠ ٠٠٠ ٠١٢٣"] {
        let created = node.api().create_with(&json!({"phone": written, "country": "SA"})).await;
        assert_eq!(created.phone, "+966500000123");
    }
}
