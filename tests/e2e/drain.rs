//! SIGTERM: no new work, but nothing that was begun is dropped.

use serde_json::json;

use crate::caller::{Caller, Request};
use crate::config::{Config, phone};
use crate::http::get;
use crate::node::Node;
use crate::receiver::{Receiver, Reply};
use crate::wait::until;

#[tokio::test]
async fn n06_a_draining_node_takes_no_creations_yet_calls_still_verify() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config { drain_seconds: 600, ..Config::new(&receiver.url()) }).await;
    let created = node.api().create(&phone(1)).await;
    assert_eq!(get(node.admin, "/readyz").await.status, 200);
    let caller = Caller::new(node.sip()).await;
    node.process.signal("TERM");
    until("a node that is not ready", async || (get(node.admin, "/readyz").await.status == 503).then_some(())).await;
    assert_eq!(get(node.admin, "/readyz").await.text(), "draining\n");
    assert_eq!(get(node.admin, "/healthz").await.status, 200);

    let ping = caller.ask(&Request::new("OPTIONS")).await;
    assert_eq!(ping.code(), 503);
    // What is left of the drain, and some seconds to start again.
    assert!((540..=605).contains(&ping.field("Retry-After").parse::<u32>().unwrap()));
    let refused = node.api().ask(&json!({"phone": phone(2)})).await;
    refused.is_problem(503, "draining");
    assert!((540..=605).contains(&refused.header("retry-after").parse::<u32>().unwrap()));

    assert_eq!(caller.call(&created.phone, &created.number).await, 486);
    assert_eq!(node.api().status(&created.id).await, "verified", "reads go on");
    receiver.event(&created.id, "verification.verified").await;
    // A second signal ends the wait.
    node.process.signal("TERM");
    assert_eq!(node.process.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_drain_ends_by_itself() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config { drain_seconds: 1, ..Config::new(&receiver.url()) }).await;
    node.api().create(&phone(1)).await;
    node.process.signal("TERM");
    assert_eq!(node.process.exit_code().await, Some(0));
    let log = node.database().query_row("PRAGMA wal_checkpoint", [], |row| row.get::<_, i64>(1)).unwrap();
    assert_eq!(log, 0, "nothing is left in the write-ahead log");
}

#[tokio::test]
async fn a_stop_while_no_commit_goes_through_ends_in_time() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config { drain_seconds: 0, ..Config::new(&receiver.url()) }).await;
    let created = node.api().create(&phone(1)).await;
    node.all_delivered().await;
    let database = node.database();
    database.execute_batch("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").unwrap();
    let caller = Caller::new(node.sip()).await;
    caller.send(&Request::invite(&created.phone, &created.number)).await;
    until("a call that waits", async || (node.metric("ringproof_calls_waiting", &[]).await == 1).then_some(())).await;
    node.process.signal("TERM");
    assert_eq!(caller.receive().await.code(), 503);
    assert_eq!(node.process.exit_code().await, Some(0));
    database.execute_batch("ROLLBACK").unwrap();
    node.restart().await;
    assert_eq!(node.api().status(&created.id).await, "pending", "nothing half done");
}

#[tokio::test]
async fn what_was_not_delivered_at_the_stop_comes_after_the_next_start() {
    let receiver = Receiver::start().await;
    receiver.usually(Reply::Hang);
    let mut node = Node::start(Config { drain_seconds: 0, ..Config::new(&receiver.url()) }).await;
    let created = node.api().create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    let first = receiver.event(&created.id, "verification.verified").await;
    node.process.signal("TERM");
    assert_eq!(node.process.exit_code().await, Some(0));
    receiver.usually(Reply::Status(204));
    node.restart().await;
    let tries = receiver.wait_about(&created.id, 2).await;
    assert_eq!((tries[1].id(), &tries[1].body), (first.id(), &first.body));
    node.all_delivered().await;
}
