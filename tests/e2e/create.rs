//! Creating, replacing, canceling and reading verifications over the API.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::caller::Caller;
use crate::config::{Config, NUMBER, ONE_NUMBER, application, key, live_key, phone, webhook};
use crate::http::{Answer, Api, Created};
use crate::node::Node;
use crate::receiver::{Delivery, Receiver};

const PATH: &str = "/v1/verifications";

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_also_after_kill_9() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    let body = json!({"phone": phone(1), "reference": "order-1"});
    let key = [("idempotency-key", "k-1")];
    let first = node.api().post_with(PATH, &key, &body).await;
    assert_eq!(first.status, 201);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    node.process.kill();
    node.restart().await;
    let created = Created::of(&first.json());
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);

    let again = node.api().post_with(PATH, &key, &body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, "true"));
    assert_eq!(again.body, first.body, "as at creation");
    assert_eq!(again.header("location"), first.header("location"));
    let other = node.api().post_with(PATH, &key, &json!({"phone": phone(2)})).await;
    other.is_problem(422, "idempotency_mismatch");
    let fresh = node.api().post_with(PATH, &[("idempotency-key", "k-2")], &body).await;
    assert_eq!(fresh.status, 201);
    assert_ne!(fresh.json()["id"], first.json()["id"]);
}

#[tokio::test]
async fn one_key_used_many_times_at_once_begins_one_verification() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let api = node.api();
            tokio::spawn(async move {
                api.post_with(PATH, &[("idempotency-key", "same")], &json!({"phone": phone(1)})).await
            })
        })
        .collect();
    let mut ids = HashSet::new();
    for answer in asking {
        let answer: Answer = answer.await.unwrap();
        match answer.status {
            201 => drop(ids.insert(answer.json()["id"].to_string())),
            409 => drop(answer.is_problem(409, "idempotency_running")),
            status => panic!("{status}: {}", answer.text()),
        }
    }
    assert_eq!(ids.len(), 1);
    let created = node.metric("ringproof_verifications_total", &["status=\"pending\""]).await;
    assert_eq!(created, 1);
}

#[tokio::test]
async fn a_replacement_ends_the_old_one_and_takes_its_number() {
    let receiver = Receiver::start().await;
    let config = Config { numbers: ONE_NUMBER.to_owned(), ..Config::new(&receiver.url()) };
    let node = Node::start(config).await;
    let (api, caller) = (node.api(), Caller::new(node.sip()).await);
    let old = api.create(&phone(1)).await;
    let busy = api.ask(&json!({"phone": old.phone})).await;
    busy.is_problem(429, "phone-busy");
    let new = api.create_with(&json!({"phone": old.phone, "replaces": old.id})).await;
    assert_eq!((old.number.as_str(), new.number.as_str()), (NUMBER, NUMBER));
    let ended = api.verification(&old.id).await;
    assert_eq!((&ended["status"], &ended["reasons"]), (&json!("canceled"), &json!(["superseded"])));
    receiver.event(&old.id, "verification.canceled").await;
    assert_eq!(caller.call(&new.phone, NUMBER).await, 486);
    assert_eq!((api.status(&old.id).await.as_str(), api.status(&new.id).await.as_str()), ("canceled", "verified"));
    receiver.event(&new.id, "verification.verified").await;

    // What is replaced belongs to the same application and phone.
    for replaces in [new.id.as_str(), "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V"] {
        let problem = api.ask(&json!({"phone": phone(2), "replaces": replaces})).await;
        assert_eq!(problem.is_problem(422, "invalid_fields")["errors"][0]["pointer"], "/replaces");
    }
}

#[tokio::test]
async fn x07_v08_a_phone_is_busy_while_its_only_pair_is_pending_or_rests() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config { numbers: ONE_NUMBER.to_owned(), ..Config::new(&receiver.url()) }).await;
    let first = node.api().create(&phone(1)).await;
    let wait = busy(&node, 120).await;
    assert!(wait > 60, "the window is 120 s, told was {wait}");
    assert_eq!(node.api().create(&phone(2)).await.number, NUMBER, "another phone is not concerned");
    assert_eq!(Caller::new(node.sip()).await.call(&first.phone, NUMBER).await, 486);
    busy(&node, 60).await;
    node.process.kill();
    node.restart().await;
    busy(&node, 60).await;
}

/// A create for the first phone is refused for at most so many seconds; gives what Retry-After says.
async fn busy(node: &Node, most: u64) -> u64 {
    let answer = node.api().ask(&json!({"phone": phone(1)})).await;
    answer.is_problem(429, "phone-busy");
    let wait = answer.header("retry-after").parse().unwrap();
    assert!((1..=most).contains(&wait), "{wait}");
    wait
}

#[tokio::test]
async fn a_verification_is_canceled_once() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let api = node.api();
    let created = api.create(&phone(1)).await;
    let canceled = api.cancel(&created.id).await;
    assert_eq!((canceled.status, &canceled.json()["status"]), (200, &json!("canceled")));
    assert_eq!(canceled.json()["reasons"], json!(["client_canceled"]));
    let problem = api.cancel(&created.id).await.is_problem(409, "verification_ended");
    assert_eq!(problem["verification_status"], "canceled");
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    assert_eq!(api.status(&created.id).await, "canceled");
    receiver.event(&created.id, "verification.canceled").await;
    node.all_delivered().await;
    assert_eq!(receiver.about(&created.id).len(), 1);

    let verified = api.create(&phone(2)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&verified.phone, &verified.number).await, 486);
    let problem = api.cancel(&verified.id).await.is_problem(409, "verification_ended");
    assert_eq!(problem["verification_status"], "verified");
}

#[tokio::test]
async fn a_cancel_and_a_call_at_once_leave_one_end_and_one_event() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let caller = Caller::new(node.sip()).await;
    for index in 0..10 {
        let created = node.api().create(&phone(index)).await;
        let api = node.api();
        let (code, canceled) = tokio::join!(caller.call(&created.phone, &created.number), api.cancel(&created.id));
        assert_eq!(code, 486);
        let status = api.status(&created.id).await;
        if canceled.status == 200 {
            assert_eq!(status, "canceled");
        } else {
            canceled.is_problem(409, "verification_ended");
            assert_eq!(status, "verified");
        }
        receiver.event(&created.id, &format!("verification.{status}")).await;
        node.all_delivered().await;
        let kinds: HashSet<String> = receiver.about(&created.id).iter().map(Delivery::kind).collect();
        assert_eq!(kinds.len(), 1, "{kinds:?}");
    }
}

#[tokio::test]
async fn v15_applications_do_not_see_one_another() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let mut config = Config::new(&url);
    config.applications.push_str(&application("shop", "", &[webhook(&url, "")]));
    config.numbers.push_str("applications = [\"demo\", \"shop\"]\n");
    let node = Node::start(config).await;
    let (demo, shop) = (node.api(), node.api_of(&key("shop")));
    let created = demo.create(&phone(1)).await;
    shop.get(&format!("{PATH}/{}", created.id)).await.is_problem(404, "not_found");
    shop.cancel(&created.id).await.is_problem(404, "not_found");
    let replaces = shop.ask(&json!({"phone": created.phone, "replaces": created.id})).await;
    replaces.is_problem(422, "invalid_fields");
    assert_eq!(demo.status(&created.id).await, "pending");
    // Neither may the same Idempotency-Key of another application's key.
    let body = json!({"phone": phone(2)});
    let ids: Vec<Value> = [
        demo.post_with(PATH, &[("idempotency-key", "k")], &body).await,
        shop.post_with(PATH, &[("idempotency-key", "k")], &body).await,
    ]
    .iter()
    .map(|answer| answer.json()["id"].clone())
    .collect();
    assert_ne!(ids[0], ids[1]);
    // An id that nobody has, and what is no id at all, read the same.
    for id in ["ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V", "ver_", "1", "..", "%00"] {
        demo.get(&format!("{PATH}/{id}")).await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_pair_belongs_to_one_verification_whoever_asks() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let applications = application("demo", "", &[webhook(&url, "")]) + &application("shop", "", &[webhook(&url, "")]);
    let numbers = format!("{ONE_NUMBER}applications = [\"demo\", \"shop\"]\n");
    let node = Node::start(Config { numbers, applications, ..Config::new("") }).await;
    let created = node.api().create(&phone(1)).await;
    let shop = node.api_of(&key("shop"));
    shop.ask(&json!({"phone": phone(1)})).await.is_problem(429, "phone-busy");
    // Both phones may be shown the number, for a call names its caller.
    let other = shop.create(&phone(2)).await;
    let caller = Caller::new(node.sip()).await;
    assert_eq!(caller.call(&other.phone, NUMBER).await, 486);
    assert_eq!(
        (shop.status(&other.id).await.as_str(), node.api().status(&created.id).await.as_str()),
        ("verified", "pending")
    );
    assert_eq!(caller.call(&created.phone, NUMBER).await, 486);
    assert_eq!(node.api().status(&created.id).await, "verified");
}

#[tokio::test]
async fn faulty_requests_are_told_every_fault_by_name() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let api = node.api();
    let body =
        json!({"phone": "0500000123", "ttl_seconds": 30, "colour": "red", "metadata": {"a": 1}, "client": {"x": 1}});
    let problem = api.ask(&body).await.is_problem(422, "invalid_fields");
    let mut pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/client/x", "/colour", "/metadata/a", "/phone", "/ttl_seconds"]);
    api.ask(&json!([])).await.is_problem(400, "malformed");
    api.ask(&json!({"phone": phone(1), "x": "y".repeat(70_000)})).await.is_problem(413, "body_too_large");
    let keys = [("idempotency-key", "two words")];
    api.post_with(PATH, &keys, &json!({"phone": phone(1)})).await.is_problem(400, "idempotency_key_invalid");
    let wrong = [String::new(), "sk_1".to_owned(), key("nobody"), live_key("demo")];
    for key in wrong {
        let answer = Api::new(node.api, &key).ask(&json!({"phone": phone(1)})).await;
        answer.is_problem(401, "unauthorized");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    let created = node.metric("ringproof_verifications_total", &[]).await;
    assert_eq!(created, 0);
}
