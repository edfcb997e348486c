//! Windows that end. None is waited for: the shortest lasts a minute, so the row's end is moved while the node is down.

use serde_json::json;

use crate::caller::{Caller, Request};
use crate::config::{Config, application, phone, webhook};
use crate::http::Created;
use crate::node::Node;
use crate::receiver::Receiver;

#[tokio::test]
async fn what_expired_while_the_node_was_down_expires_at_the_start_before_any_call_matches() {
    let scene = Scene::start("").await;
    let (mut node, receiver, created) = (scene.node, scene.receiver, scene.created);
    node.process.kill();
    end_window(&node, &created, 1);
    // The call is on its way before the node is up, so it is among the first that it reads.
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&created.phone, &created.number);
    let (refusal, ()) = tokio::join!(caller.place(&invite), node.restart());
    assert_eq!(refusal.code(), 486);
    let event = receiver.event(&created.id, "verification.expired").await.event();
    assert_eq!((&event["data"]["status"], &event["data"]["verified_at"]), (&json!("expired"), &json!(null)));
    assert_eq!(node.api().status(&created.id).await, "expired");
    node.all_delivered().await;
    assert_eq!(receiver.ids(&created.id, "verification.verified").len(), 0);
}

#[tokio::test]
async fn x09_a_late_call_is_told_to_those_who_ask_and_changes_nothing() {
    let scene = Scene::start("").await;
    let (mut node, receiver, created) = (scene.node, scene.receiver, scene.created);
    node.process.kill();
    end_window(&node, &created, 1);
    node.restart().await;
    receiver.event(&created.id, "verification.expired").await;
    let before = node.api().verification(&created.id).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    let late = receiver.event(&created.id, "verification.late_call").await.event();
    assert_eq!(late["data"]["status"], "expired");
    assert_eq!(late["data"]["call"]["reasons"], json!(["late_call"]));
    assert_eq!(late["data"]["sequence"], 3, "created, expired, late_call");
    assert_eq!(node.api().verification(&created.id).await, before);
    // Its pair rests: another verification of the phone gets another number.
    assert_ne!(node.api().create(&created.phone).await.number, created.number);
}

#[tokio::test]
async fn x09_a_call_is_late_within_a_minute_also_where_pairs_do_not_rest() {
    let scene = Scene::start("cool_down_seconds = 0\n").await;
    let (mut node, receiver, created) = (scene.node, scene.receiver, scene.created);
    node.process.kill();
    end_window(&node, &created, 1);
    node.restart().await;
    receiver.event(&created.id, "verification.expired").await;
    // Once more, for what is free is not brought back as resting.
    node.process.kill();
    node.restart().await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.late_call").await;
}

#[tokio::test]
async fn x09_a_call_long_after_its_window_is_not_late_however_short_the_node_is_up() {
    let scene = Scene::start("").await;
    let (mut node, receiver, long_over) = (scene.node, scene.receiver, scene.created);
    let just_over = node.api().create(&phone(2)).await;
    node.process.kill();
    end_window(&node, &long_over, 300);
    end_window(&node, &just_over, 1);
    node.restart().await;
    receiver.event(&long_over.id, "verification.expired").await;
    receiver.event(&just_over.id, "verification.expired").await;
    let caller = Caller::new(node.sip()).await;
    assert_eq!(caller.call(&long_over.phone, &long_over.number).await, 486);
    assert_eq!(caller.call(&just_over.phone, &just_over.number).await, 486);
    receiver.event(&just_over.id, "verification.late_call").await;
    node.all_delivered().await;
    assert_eq!(receiver.ids(&long_over.id, "verification.late_call").len(), 0);
}

#[tokio::test]
async fn a_window_that_is_open_is_open_after_a_restart() {
    let scene = Scene::start("").await;
    let (mut node, receiver, created) = (scene.node, scene.receiver, scene.created);
    let before = node.api().verification(&created.id).await;
    node.process.kill();
    node.restart().await;
    assert_eq!(node.api().verification(&created.id).await, before);
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.verified").await;
}

struct Scene {
    node: Node,
    receiver: Receiver,
    created: Created,
}

impl Scene {
    /// A node with a pending verification; `numbers` are more settings of its numbers.
    async fn start(numbers: &str) -> Self {
        let receiver = Receiver::start().await;
        let all = webhook(&receiver.url(), "events = [\"verification.*\"]");
        let mut config = Config { applications: application("demo", "", &[all]), ..Config::new("") };
        config.numbers.push_str(numbers);
        let node = Node::start(config).await;
        let created = node.api().create(&phone(1)).await;
        Self { node, receiver, created }
    }
}

/// Lets a window have ended so many seconds ago.
pub fn end_window(node: &Node, created: &Created, seconds_ago: i64) {
    let sql = "UPDATE verifications SET expires_at = 1000 * (unixepoch() - ?2) WHERE id = ?1 AND status = 'pending'";
    assert_eq!(node.database().execute(sql, (&created.id, seconds_ago)).unwrap(), 1);
}
