//! Caps of a trunk and of its peers: what is above gets 503, and what is below is served.

use crate::caller::{Caller, Request};
use crate::config::{Config, TRUNK, phone};
use crate::node::Node;
use crate::receiver::Receiver;

async fn node(receiver: &Receiver, limits: &str) -> Node {
    let trunks = format!("{TRUNK}limits = {limits}\n");
    Node::start(Config { trunks, ..Config::new(&receiver.url()) }).await
}

/// How many of so many calls at once are refused as calls, and how many get 503.
async fn burst(caller: &Caller, count: u32) -> (usize, usize) {
    let invites: Vec<Request> = (0..count).map(|n| Request::invite(&phone(n), "+966115000001")).collect();
    let mut codes = Vec::new();
    for invite in &invites {
        codes.push(caller.place(invite).await.code());
    }
    let of = |code| codes.iter().filter(|seen| **seen == code).count();
    assert_eq!(of(486) + of(503), codes.len(), "{codes:?}");
    (of(486), of(503))
}

#[tokio::test]
async fn r07_a_trunk_above_its_rate_gets_503_and_the_call_may_come_again() {
    let receiver = Receiver::start().await;
    let node = node(&receiver, "{ calls_per_second = 5 }").await;
    let caller = Caller::new(node.sip()).await;
    let (refused, limited) = burst(&caller, 60).await;
    assert!(refused >= 5 && limited > 0, "{refused} {limited}");
    assert_eq!(node.metric("ringproof_calls_limited_total", &["local"]).await, limited as u64);
    // Other requests are no calls.
    assert_eq!(caller.ask(&Request::new("OPTIONS")).await.code(), 200);
    // What got 503 left nothing behind: the next try is a call like every other.
    let created = node.api().create(&phone(77)).await;
    loop {
        if caller.call(&created.phone, &created.number).await == 486 {
            break;
        }
    }
    assert_eq!(node.api().verification(&created.id).await["reasons"], serde_json::json!([]));
}

#[tokio::test]
async fn n14_a_peer_above_its_rate_leaves_the_others_alone() {
    let receiver = Receiver::start().await;
    let node = node(&receiver, "{ peer_calls_per_second = 2 }").await;
    let (one, other) = (Caller::from("127.0.0.5", node.sip()).await, Caller::from("127.0.0.6", node.sip()).await);
    assert!(burst(&one, 40).await.1 > 0);
    assert_eq!(other.call(&phone(1), "+966115000001").await, 486);
}

#[tokio::test]
async fn a_retransmission_of_what_was_answered_is_answered_alike_above_the_rate() {
    let receiver = Receiver::start().await;
    let node = node(&receiver, "{ calls_per_second = 1 }").await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&phone(1), "+966115000001");
    let first = caller.ask(&invite).await;
    for _ in 0..10 {
        assert_eq!(caller.ask(&invite).await, first);
    }
}
