//! A store that takes its time: another process holds the database's write lock, so that commits wait.

use std::collections::HashSet;

use rusqlite::Connection;
use serde_json::json;

use crate::caller::{Caller, Request};
use crate::config::{Config, phone};
use crate::http::Created;
use crate::node::Node;
use crate::receiver::Receiver;
use crate::wait::until;

#[tokio::test]
async fn r08_t04_t16_a_cancel_while_its_invite_waits_gets_200_and_the_invite_487_once_it_is_durable() {
    let (receiver, node, created) = pending().await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&created.phone, &created.number);
    let lock = lock(&node);
    caller.send(&invite).await;
    waits(&node).await;
    caller.send(&invite).await;
    let canceled = caller.ask(&invite.cancel()).await;
    assert_eq!((canceled.code(), canceled.field("CSeq")), (200, "1 CANCEL"));
    assert!(caller.received().is_none(), "neither the INVITE nor its retransmission has an answer");
    lock.execute_batch("ROLLBACK").unwrap();
    let end = caller.receive().await;
    assert_eq!((end.code(), end.field("CSeq")), (487, "1 INVITE"));
    assert_eq!(end.to_tag(), canceled.to_tag());
    assert_eq!(node.api().status(&created.id).await, "verified", "the call proved the phone before it was hung up");
    receiver.event(&created.id, "verification.verified").await;
}

#[tokio::test]
async fn r07_a_call_whose_commit_is_undone_gets_503_and_the_next_one_verifies() {
    let (receiver, node, created) = pending().await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&created.phone, &created.number);
    let lock = lock(&node);
    // The lock outlasts the store's patience, which undoes the commit.
    assert_eq!(caller.place(&invite).await.code(), 503);
    assert_eq!(caller.ask(&invite.cancel()).await.code(), 481, "a call that was turned away left nothing");
    assert_eq!(node.api().status(&created.id).await, "pending");
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(caller.place(&invite.fork()).await.code(), 486, "the next way of the same call is judged again");
    receiver.event(&created.id, "verification.verified").await;
    assert_eq!(receiver.ids(&created.id, "verification.verified").len(), 1);
}

#[tokio::test]
async fn a_call_during_a_cancel_waits_how_it_ends() {
    let (receiver, node, created) = pending().await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&created.phone, &created.number);
    let lock = lock(&node);
    let (api, id) = (node.api(), created.id.clone());
    let cancel = tokio::spawn(async move { api.cancel(&id).await });
    // The call may come before the cancel has begun, and then wins: it waits either way.
    caller.send(&invite).await;
    waits(&node).await;
    assert!(caller.received().is_none());
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(caller.receive().await.code(), 486);
    let canceled = cancel.await.unwrap();
    let status = node.api().status(&created.id).await;
    assert!(matches!((canceled.status, status.as_str()), (200, "canceled") | (409, "verified")), "{status}");
    receiver.event(&created.id, &format!("verification.{status}")).await;
}

#[tokio::test]
async fn v12_misses_reads_and_pings_do_not_wait_for_a_commit() {
    let (_receiver, node, created) = pending().await;
    let caller = Caller::new(node.sip()).await;
    let lock = lock(&node);
    let invite = Request::invite(&created.phone, &created.number);
    caller.send(&invite).await;
    waits(&node).await;
    assert_eq!(Caller::new(node.sip()).await.call(&phone(77), &created.number).await, 486);
    assert_eq!(Caller::new(node.sip()).await.ask(&Request::new("OPTIONS")).await.code(), 200);
    assert_eq!(node.api().status(&created.id).await, "pending");
    assert!(caller.received().is_none(), "the matched call still waits");
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(caller.receive().await.code(), 486);
}

#[tokio::test]
async fn every_call_that_waited_for_one_commit_is_answered_once_it_is_done() {
    const CALLS: u64 = 150;
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let mut invites = Vec::new();
    for index in 0..CALLS {
        let created = node.api().create(&phone(index.try_into().unwrap())).await;
        invites.push(Request::invite(&created.phone, &created.number));
    }
    let caller = Caller::new(node.sip()).await;
    let lock = lock(&node);
    for invite in &invites {
        caller.send(invite).await;
    }
    until("all of the calls to wait", async || {
        (node.metric("ringproof_calls_waiting", &[]).await == CALLS).then_some(())
    })
    .await;
    lock.execute_batch("ROLLBACK").unwrap();
    let mut answered = HashSet::new();
    for _ in &invites {
        let answer = caller.receive().await;
        assert_eq!(answer.code(), 486);
        answered.insert(answer.field("Call-ID").to_owned());
    }
    assert_eq!(answered.len(), invites.len(), "without a single retransmission");
}

async fn pending() -> (Receiver, Node, Created) {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let created = node.api().create_with(&json!({"phone": phone(1)})).await;
    node.all_delivered().await;
    (receiver, node, created)
}

/// Takes the write lock, as a tool of the operator might.
pub fn lock(node: &Node) -> Connection {
    let database = node.database();
    database.execute_batch("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").unwrap();
    database
}

/// Until a call waits for its commit.
pub async fn waits(node: &Node) {
    until("a call that waits", async || (node.metric("ringproof_calls_waiting", &[]).await == 1).then_some(())).await;
}
