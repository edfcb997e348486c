//! Deliveries as an application sees them: listed, read, given up, sent again.

use serde_json::{Value, json};

use crate::caller::Caller;
use crate::config::{Config, NUMBERS, application, key, phone, webhook};
use crate::http::{Answer, Api};
use crate::node::Node;
use crate::receiver::{Receiver, Reply};
use crate::wait::until;

#[tokio::test]
async fn deliveries_are_listed_newest_first_by_page_and_filter() {
    let (healthy, failing) = (Receiver::start().await, Receiver::start().await);
    failing.usually(Reply::Status(500));
    let events = r#"events = ["verification.*"]"#;
    let webhooks = [webhook(&healthy.url(), events), webhook(&failing.url(), "")];
    let node = Node::start(Config { applications: application("demo", "", &webhooks), ..Config::new("") }).await;
    let api = node.api();
    let mut created = Vec::new();
    for index in 0..3 {
        created.push(api.create(&phone(index)).await);
    }
    assert_eq!(Caller::new(node.sip()).await.call(&created[0].phone, &created[0].number).await, 486);
    until("all settled", async || {
        let done = page(&api, "state=delivered").await["data"].as_array().unwrap().len() == 4;
        let tried = page(&api, "state=pending").await["data"][0]["last_attempt"].is_object();
        (done && tried).then_some(())
    })
    .await;

    let all = page(&api, "").await;
    assert_eq!((&all["object"], &all["has_more"], &all["next_cursor"]), (&json!("list"), &json!(false), &Value::Null));
    let all = all["data"].as_array().unwrap().clone();
    assert_eq!(all.len(), 5);
    let ids: Vec<&str> = all.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
    let first = page(&api, "limit=2").await;
    assert_eq!((&first["has_more"], &first["next_cursor"]), (&json!(true), &first["data"][1]["id"]));
    let next = page(&api, &format!("limit=2&after={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!(next["data"].as_array().unwrap(), &all[2..4]);

    let delivered = &page(&api, "state=delivered").await["data"][0];
    assert_eq!(delivered["event"]["type"], "verification.verified");
    assert_eq!(delivered["event"]["id"], healthy.event(&created[0].id, "verification.verified").await.id());
    assert_eq!((&delivered["verification"], &delivered["attempts"]), (&json!(created[0].id), &json!(1)));
    assert_eq!((&delivered["endpoint"]["url"], &delivered["next_attempt_at"]), (&json!(healthy.url()), &Value::Null));
    assert_eq!(delivered["last_attempt"], json!({"at": delivered["delivered_at"], "status": 204, "error": null}));
    let pending = page(&api, "state=pending").await["data"][0].clone();
    assert_eq!((&pending["object"], &pending["delivered_at"]), (&json!("delivery"), &Value::Null));
    assert_eq!(
        (&pending["last_attempt"]["status"], &pending["last_attempt"]["error"]),
        (&json!(500), &json!("status 500"))
    );
    assert!(pending["next_attempt_at"].as_str() > pending["last_attempt"]["at"].as_str());
    let endpoint = pending["endpoint"]["id"].as_str().unwrap();
    assert_eq!(page(&api, &format!("endpoint={endpoint}")).await["data"].as_array().unwrap().len(), 1);
    let event = pending["event"]["id"].as_str().unwrap();
    assert_eq!(page(&api, &format!("event={event}")).await["data"].as_array().unwrap().len(), 2);
    assert_eq!(page(&api, "created_after=2099-01-01T00:00:00Z").await["data"], json!([]));
    let id = delivered["id"].as_str().unwrap();
    assert_eq!(&api.get(&format!("/v1/deliveries/{id}")).await.json(), delivered);

    let wrong = "state=sent&endpoint=whe_1&event=1&after=2&limit=0&created_after=now&x=1";
    let problem = api.get(&format!("/v1/deliveries?{wrong}")).await.is_problem(422, "invalid_fields");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 7, "{problem}");
}

#[tokio::test]
async fn a_delivery_that_is_given_up_tells_of_itself_and_can_be_sent_again() {
    let (failing, other) = (Receiver::start().await, Receiver::start().await);
    failing.usually(Reply::Status(500));
    let webhooks = [webhook(&failing.url(), ""), webhook(&other.url(), r#"events = ["delivery.exhausted"]"#)];
    let mut node = Node::start(Config { applications: application("demo", "", &webhooks), ..Config::new("") }).await;
    let created = node.api().create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    let first = failing.event(&created.id, "verification.verified").await;
    node.process.kill();
    node.database().execute("UPDATE deliveries SET attempts = 11, next_at = 0", []).unwrap();
    node.restart().await;

    let told = other.event_of("delivery.exhausted").await.event();
    let row = page(&node.api(), "state=exhausted").await["data"][0].clone();
    let data = &told["data"];
    assert_eq!((&data["delivery"]["id"], &data["delivery"]["attempts"]), (&row["id"], &json!(12)));
    assert_eq!(
        (&data["delivery"]["endpoint"], &data["delivery"]["last_attempt"]),
        (&row["endpoint"], &row["last_attempt"])
    );
    assert_eq!((&data["event"], &data["verification"]), (&row["event"], &json!(created.id)));
    assert_eq!(row["event"]["id"], first.id());
    node.all_delivered().await;
    assert_eq!(node.metric("ringproof_webhook_attempts_total", &["result=\"exhausted\""]).await, 1);

    failing.usually(Reply::Status(204));
    let tries = failing.about(&created.id).len();
    let replayed = replay(&node.api(), &row).await;
    assert_eq!(replayed.status, 202, "{}", replayed.text());
    assert_eq!((&replayed.json()["state"], &replayed.json()["id"]), (&json!("pending"), &row["id"]));
    let again = failing.wait_about(&created.id, tries + 1).await;
    assert_eq!((again[tries].id(), &again[tries].body), (first.id(), &first.body));
    node.all_delivered().await;
    let done = node.api().get(&format!("/v1/deliveries/{}", row["id"].as_str().unwrap())).await.json();
    assert_eq!((&done["state"], &done["attempts"]), (&json!("delivered"), &json!(1)));

    // What was delivered may be sent again as well, at once.
    assert_eq!(replay(&node.api(), &row).await.status, 202);
    failing.wait_about(&created.id, tries + 2).await;
}

#[tokio::test]
async fn a_replay_that_cannot_be_says_what_to_do() {
    let gone = Receiver::start().await;
    gone.usually(Reply::Status(410));
    let applications =
        application("demo", "", &[webhook(&gone.url(), "")]) + &application("shop", "", &[webhook(&gone.url(), "")]);
    let numbers = format!("{NUMBERS}applications = [\"demo\", \"shop\"]\n");
    let mut node = Node::start(Config { numbers, applications, ..Config::new("") }).await;
    let created = node.api().create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    let row =
        until("a parked delivery", async || page(&node.api(), "state=parked").await["data"].get(0).cloned()).await;
    assert_eq!(row["next_attempt_at"], Value::Null);
    let problem = replay(&node.api(), &row).await.is_problem(409, "endpoint_disabled");
    let enable = format!("POST /v1/endpoints/{}/enable", row["endpoint"]["id"].as_str().unwrap());
    assert!(problem["detail"].as_str().unwrap().contains(&enable), "{problem}");

    let theirs = node.api_of(&key("shop"));
    replay(&theirs, &row).await.is_problem(404, "not_found");
    theirs.get(&format!("/v1/deliveries/{}", row["id"].as_str().unwrap())).await.is_problem(404, "not_found");
    assert_eq!(page(&theirs, "").await["data"], json!([]));
    node.api().get("/v1/deliveries/dlv_1").await.is_problem(404, "not_found");

    node.process.kill();
    node.config.applications = application("demo", "", &[webhook(&format!("{}2", gone.url()), "")])
        + &application("shop", "", &[webhook(&gone.url(), "")]);
    node.restart().await;
    replay(&node.api(), &row).await.is_problem(409, "endpoint_removed");
}

async fn page(api: &Api, query: &str) -> Value {
    let answer = api.get(&format!("/v1/deliveries?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn replay(api: &Api, row: &Value) -> Answer {
    api.post(&format!("/v1/deliveries/{}/replay", row["id"].as_str().unwrap()), &json!({})).await
}
