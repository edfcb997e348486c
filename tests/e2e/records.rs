//! What is kept for others to rely on: receipts, erasure, tests to endpoints, ranges sent again; and the commands beside
//! a node that runs.

use std::process::{Command, Output};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::caller::Caller;
use crate::config::{Config, application, phone, webhook};
use crate::node::{Node, PROGRAM};
use crate::receiver::{Receiver, Reply};
use crate::wait::until;

#[tokio::test]
async fn a_receipt_tells_how_it_ended_and_is_genuine_by_the_keys_of_the_node() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let api = node.api();
    let created = api.create(&phone(1)).await;
    let path = format!("/v1/verifications/{}/receipt", created.id);
    api.get(&path).await.is_problem(409, "verification_pending");
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    until("the end", async || (api.status(&created.id).await == "verified").then_some(())).await;

    let answer = api.get(&path).await;
    assert_eq!(answer.status, 200);
    let receipt = answer.json();
    assert_eq!(receipt["statement"]["status"], "verified");
    assert_eq!(receipt["statement"]["number"], created.number);
    assert!(!answer.text().contains(&created.phone), "the phone is told by wish alone");
    let disclosed = api.get(&format!("{path}?phone=true")).await.json();
    assert_eq!(disclosed["statement"]["phone"], created.phone);
    api.get(&format!("{path}?phone=1")).await.is_problem(422, "invalid_fields");
    let unknown = "/v1/verifications/ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V/receipt";
    api.get(unknown).await.is_problem(404, "not_found");

    let keys = crate::http::get(node.api, "/.well-known/jwks.json").await;
    assert_eq!((keys.status, keys.json()["keys"][0]["crv"].as_str()), (200, Some("Ed25519")));
    write(&node, "keys.json", &keys.text());
    write(&node, "receipt.json", &disclosed.to_string());
    let verified = run(&node, &["receipt", "verify", "receipt.json", "--keys", "keys.json"]);
    assert!(verified.status.success() && text(&verified.stdout).contains(&created.phone));
    let jws = disclosed["jws"].as_str().unwrap();
    let (head, signature) = jws.rsplit_once('.').unwrap();
    write(&node, "forged.jws", &format!("{}.{signature}", head.replace('x', "y")));
    let forged = run(&node, &["receipt", "verify", "forged.jws", "--keys", "keys.json"]);
    assert_eq!(forged.status.code(), Some(1), "{}", text(&forged.stdout));

    // Another key signs after a reload, and what the first has signed stays good.
    assert!(run(&node, &["key", "rotate"]).status.success());
    node.process.signal("HUP");
    until("two keys", async || {
        let keys = crate::http::get(node.api, "/.well-known/jwks.json").await.json();
        (keys["keys"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    let again = api.get(&path).await.json();
    assert_ne!(again["jws"].as_str().unwrap().split('.').next(), jws.split('.').next());
    assert_eq!(again["statement"]["audit"], disclosed["statement"]["audit"]);
    assert!(run(&node, &["receipt", "verify", "receipt.json"]).status.success());
}

#[tokio::test]
async fn an_erasure_ends_what_is_pending_and_leaves_neither_the_phone_nor_its_events() {
    let receiver = Receiver::start().await;
    let mut config = Config::new(&receiver.url());
    config.applications = application("demo", "", &[webhook(&receiver.url(), "events = [\"verification.*\"]")]);
    let node = Node::start(config).await;
    let api = node.api();
    let (ended, other) = (api.create(&phone(1)).await, api.create(&phone(2)).await);
    let caller = Caller::new(node.sip()).await;
    assert_eq!(caller.call(&ended.phone, &ended.number).await, 486);
    receiver.event(&ended.id, "verification.verified").await;
    // Nothing of the next one is delivered any more.
    receiver.usually(Reply::Status(500));
    let pending = api.create(&phone(1)).await;
    receiver.event(&pending.id, "verification.created").await;

    api.post("/v1/erasures", &json!({"phone": "x"})).await.is_problem(422, "invalid_fields");
    let erased = api.post("/v1/erasures", &json!({"phone": phone(1)})).await;
    assert_eq!(erased.status, 200);
    let erased = erased.json();
    assert_eq!(erased["erased"]["verifications"], 2);
    assert_eq!((&erased["erased"]["ended"], &erased["log_emptied"]), (&json!(1), &json!(true)));
    for id in [&ended.id, &pending.id] {
        api.get(&format!("/v1/verifications/{id}")).await.is_problem(404, "not_found");
    }
    assert_eq!(api.status(&other.id).await, "pending");
    assert_eq!(caller.call(&pending.phone, &pending.number).await, 486, "a call that nobody waits for any more");
    let feed = api.get("/v1/events?limit=100").await.text();
    assert!(!feed.contains(&phone(1)) && feed.contains(&phone(2)) && feed.contains(&pending.id), "{feed}");

    // That it has ended is told, without a word of whom.
    receiver.usually(Reply::Status(204));
    let told = receiver.event(&pending.id, "verification.canceled").await;
    assert_eq!(told.event()["data"]["erased"], true);
    let receipt = api.get(&format!("/v1/verifications/{}/receipt", ended.id)).await;
    assert_eq!(receipt.json()["statement"]["status"], "verified");
    api.get(&format!("/v1/verifications/{}/receipt?phone=true", ended.id)).await.is_problem(410, "phone_gone");

    // The operator's command, of whatever application, beside the node.
    let done = run(&node, &["erase", "--phone", &phone(2)]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("verifications  1"), "{}", text(&done.stdout));
    let log = run(&node, &["audit", "verify"]);
    assert!(log.status.success() && text(&log.stdout).contains("the log is whole"), "{}", text(&log.stdout));
    let entries = text(&run(&node, &["audit", "export", "--kind", "phone.erased"]).stdout);
    assert_eq!(entries.lines().count(), 2, "{entries}");
    assert!(!entries.contains(&phone(1)[1..]) && entries.contains(&ended.id));
}

#[tokio::test]
async fn a_test_is_sent_to_an_endpoint_and_a_range_is_sent_again() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let api = node.api();
    let endpoint = api.get("/v1/endpoints").await.json()["data"][0]["id"].as_str().unwrap().to_owned();
    let tested = api.post(&format!("/v1/endpoints/{endpoint}/test"), &json!({})).await;
    assert_eq!(tested.status, 200);
    assert_eq!((&tested.json()["delivered"], &tested.json()["status"]), (&json!(true), &json!(204)));
    let sent = receiver.event_of("endpoint.test").await;
    assert_eq!(sent.id(), tested.json()["id"].as_str().unwrap());
    receiver.next(Reply::Status(500));
    let failed = api.post(&format!("/v1/endpoints/{endpoint}/test"), &json!({})).await.json();
    assert_eq!((&failed["delivered"], &failed["error"]), (&json!(false), &json!("status 500")));
    api.post("/v1/endpoints/whe_1/test", &json!({})).await.is_problem(404, "not_found");

    let created = api.create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.verified").await;
    node.all_delivered().await;
    let path = format!("/v1/endpoints/{endpoint}/replay");
    let missing = api.post(&path, &json!({})).await.is_problem(422, "invalid_fields");
    assert_eq!(missing["errors"][0]["pointer"], "/created_after");
    let answer = api.post(&path, &json!({"created_after": "2020-01-01T00:00:00Z", "state": "delivered"})).await;
    assert_eq!((answer.status, &answer.json()["replayed"]), (202, &json!(1)));
    let both = receiver.wait_about(&created.id, 2).await;
    assert_eq!((both[0].id(), &both[0].body), (both[1].id(), &both[1].body), "the same event, byte for byte");
    let later = api.post(&path, &json!({"created_after": "2099-01-01T00:00:00Z"})).await.json();
    assert_eq!((&later["replayed"], &later["has_more"]), (&json!(0), &json!(false)));
    let wrong: Value =
        json!({"created_after": "2026-01-02T00:00:00Z", "created_before": "2026-01-01T00:00:00Z", "state": "parked"});
    let wrong = api.post(&path, &wrong).await.is_problem(422, "invalid_fields");
    assert_eq!(wrong["errors"].as_array().unwrap().len(), 2);
    let unknown = json!({"created_after": "2020-01-01T00:00:00Z", "after": "dlv_00000000000G1"});
    let unknown = api.post(&path, &unknown).await.is_problem(422, "invalid_fields");
    assert_eq!(unknown["errors"][0]["code"], "unknown_cursor");
    let get = api.request(Method::GET, &path, &[], None).await;
    get.is_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn a_backup_of_a_running_node_is_put_back_without_what_was_erased_since() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    let (kept, erased) = (node.api().create(&phone(1)).await, node.api().create(&phone(2)).await);
    let made = run(&node, &["backup", "copy"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(run(&node, &["backup", "copy"]).status.code(), Some(1), "it is there already");
    let after = node.api().create(&phone(3)).await;
    assert!(run(&node, &["erase", "--phone", &phone(2)]).status.success());
    assert_eq!(run(&node, &["restore", "copy", "--replace"]).status.code(), Some(1), "the node runs");
    node.process.kill();
    assert_eq!(run(&node, &["restore", "copy"]).status.code(), Some(1), "a state is there");
    let restored = run(&node, &["restore", "copy", "--replace"]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    assert!(text(&restored.stdout).contains("1 verifications erased again"), "{}", text(&restored.stdout));

    // One that broke off between its last moves: no node starts, and the same once more heals it, the erasure too.
    let mark = node.directory().join("data").join("restore-unfinished.mark");
    std::fs::write(&mark, "").unwrap();
    let refused = run(&node, &["serve", "-c", "config.toml"]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("run `ringproof restore` once more"));
    std::fs::remove_file(node.directory().join("data").join("ringproof.db")).unwrap();
    let again = run(&node, &["restore", "copy"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(text(&again.stdout).contains("1 verifications erased again"), "{}", text(&again.stdout));
    assert!(!mark.exists());
    let nowhere = run(&node, &["erase", "--phone", &phone(2), "--app", "nope"]);
    assert!(text(&nowhere.stderr).contains("no application has this name"), "{}", text(&nowhere.stderr));
    node.restart().await;
    assert_eq!(node.api().status(&kept.id).await, "pending");
    for gone in [&erased.id, &after.id] {
        node.api().get(&format!("/v1/verifications/{gone}")).await.is_problem(404, "not_found");
    }
    let log = run(&node, &["audit", "verify"]);
    assert!(log.status.success(), "{}", text(&log.stdout));
}

#[tokio::test]
async fn kill_9_leaves_the_audit_log_whole_with_every_end_that_was_answered() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    for round in 0..3 {
        let created = node.api().create(&phone(round)).await;
        assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
        node.process.kill();
        node.restart().await;
        let receipt = node.api().get(&format!("/v1/verifications/{}/receipt", created.id)).await;
        assert_eq!(receipt.json()["statement"]["status"], "verified");
    }
    let log = run(&node, &["audit", "verify"]);
    assert!(log.status.success(), "{}", text(&log.stdout));
}

#[tokio::test]
async fn askers_that_say_nothing_hold_no_stop_up() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config { drain_seconds: 0, ..Config::new(&receiver.url()) }).await;
    let path = node.directory().join("data").join("control.sock");
    let mut silent = Vec::new();
    for _ in 0..9 {
        silent.push(UnixStream::connect(&path).await.unwrap());
    }
    node.process.signal("TERM");
    // Their lines could be on their way for ten seconds, four at a time.
    let end = until("the end", async || (!node.process.is_running()).then_some(()));
    timeout(Duration::from_secs(8), end).await.unwrap();
    assert!(!node.printed().contains("not everything was settled"), "{}", node.printed());
    for mut asker in silent {
        assert_eq!(asker.read(&mut [0; 9]).await.unwrap_or_default(), 0);
    }
}

fn run(node: &Node, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).current_dir(node.directory()).output().unwrap()
}

fn write(node: &Node, name: &str, text: &str) {
    std::fs::write(node.directory().join(name), text).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
