//! kill -9 at the worst moments: what was promised is kept.

use std::collections::HashSet;

use crate::caller::{Caller, Request};
use crate::config::{Config, phone};
use crate::node::Node;
use crate::receiver::{Receiver, Reply};

/// How often each moment is tried.
const ROUNDS: u32 = 5;

#[tokio::test]
async fn kill_9_right_after_486_loses_neither_the_result_nor_its_event() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    let caller = Caller::new(node.sip()).await;
    for round in 0..ROUNDS {
        let created = node.api().create(&phone(round)).await;
        let invite = Request::invite(&created.phone, &created.number);
        assert_eq!(caller.ask(&invite).await.code(), 486);
        node.process.kill();
        node.restart().await;
        assert_eq!(node.api().status(&created.id).await, "verified");
        receiver.event(&created.id, "verification.verified").await;
        assert_eq!(caller.ask(&invite).await.code(), 486, "a late retransmission");
        node.all_delivered().await;
        assert_eq!(receiver.ids(&created.id, "verification.verified").len(), 1);
        let bodies: HashSet<_> = receiver.about(&created.id).into_iter().map(|delivery| delivery.body).collect();
        assert_eq!(bodies.len(), 1, "the same bytes on every try");
    }
}

#[tokio::test]
async fn kill_9_right_after_201_leaves_it_pending_and_a_call_verifies_it() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    let caller = Caller::new(node.sip()).await;
    for round in 0..ROUNDS {
        let created = node.api().create(&phone(round)).await;
        node.process.kill();
        node.restart().await;
        assert_eq!(node.api().status(&created.id).await, "pending");
        assert_eq!(caller.call(&created.phone, &created.number).await, 486);
        assert_eq!(node.api().status(&created.id).await, "verified");
        receiver.event(&created.id, "verification.verified").await;
    }
}

#[tokio::test]
async fn a_call_under_way_at_kill_9_is_completed_by_its_retransmission() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    let caller = Caller::new(node.sip()).await;
    for round in 0..ROUNDS {
        let created = node.api().create(&phone(round)).await;
        let invite = Request::invite(&created.phone, &created.number);
        // Between its arrival and its answer, or as near as can be.
        caller.send(&invite).await;
        node.process.kill();
        let (refusal, ()) = tokio::join!(caller.place(&invite), node.restart());
        assert_eq!(refusal.code(), 486);
        assert_eq!(node.api().status(&created.id).await, "verified");
        receiver.event(&created.id, "verification.verified").await;
        node.all_delivered().await;
        assert_eq!(receiver.ids(&created.id, "verification.verified").len(), 1);
    }
}

#[tokio::test]
async fn a_delivery_under_way_at_kill_9_comes_again_with_the_same_id_and_bytes() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    receiver.next(Reply::Hang);
    let created = node.api().create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    let first = receiver.event(&created.id, "verification.verified").await;
    node.process.kill();
    node.restart().await;
    let tries = receiver.wait_about(&created.id, 2).await;
    assert_eq!((tries[1].id(), &tries[1].body), (first.id(), &first.body));
    node.all_delivered().await;
}
