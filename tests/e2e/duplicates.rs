//! Retransmissions, forks, redials and CANCEL: one event a verification, whatever the network repeats.

use std::collections::HashMap;

use crate::caller::{Caller, Request};
use crate::config::{Config, phone};
use crate::http::Created;
use crate::node::Node;
use crate::receiver::{Delivery, Receiver};

#[tokio::test]
async fn t01_t03_t15_a_retransmission_gets_identical_bytes_and_no_second_event_also_after_a_restart() {
    let (receiver, mut node, created) = pending().await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&created.phone, &created.number);
    let first = caller.ask(&invite).await;
    assert_eq!(first.code(), 486);
    assert_eq!(caller.ask(&invite).await, first);
    node.process.kill();
    node.restart().await;
    assert_eq!(caller.ask(&invite).await, first);
    told_once(&receiver, &node, &created).await;
}

#[tokio::test]
async fn t02_an_ack_is_never_answered() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config { workers: 1, ..Config::new(&receiver.url()) }).await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&phone(1), "+966115000001");
    let refusal = caller.ask(&invite).await;
    for _ in 0..3 {
        caller.send(&invite.ack(&refusal)).await;
    }
    // One worker answers in order, so an answer to an ACK would come first.
    let ping = Request::new("OPTIONS");
    caller.send(&ping).await;
    let after = loop {
        let response = caller.receive().await;
        // The INVITE itself may have been sent twice on a slow machine.
        if response.field("CSeq") != "1 INVITE" {
            break response;
        }
    };
    assert_eq!((after.code(), after.field("CSeq")), (200, "1 OPTIONS"));
}

#[tokio::test]
async fn x01_x02_x05_forks_and_second_ways_of_a_call_are_refused_alike_and_told_once() {
    let (receiver, node, created) = pending().await;
    let (first_way, second_way) = (Caller::new(node.sip()).await, Caller::from("127.0.0.9", node.sip()).await);
    let invite = Request::invite(&created.phone, &created.number);
    let fork = invite.fork();
    // Both are under way at once, then more come when all is over.
    first_way.send(&invite).await;
    second_way.send(&fork).await;
    let (one, other) = tokio::join!(first_way.ask(&invite), second_way.ask(&fork));
    assert_eq!((one.code(), other.code()), (486, 486));
    assert_ne!(one.to_tag(), other.to_tag(), "each branch has an answer of its own");
    for _ in 0..3 {
        assert_eq!(second_way.place(&invite.fork()).await.code(), 486);
    }
    told_once(&receiver, &node, &created).await;
}

#[tokio::test]
async fn x03_x04_many_calls_of_one_pair_at_once_verify_it_once() {
    let (receiver, node, created) = pending().await;
    let callers = [Caller::new(node.sip()).await, Caller::new(node.sip()).await, Caller::new(node.sip()).await];
    let invites: Vec<Request> = (0..30).map(|_| Request::invite(&created.phone, &created.number)).collect();
    for (place, invite) in invites.iter().enumerate() {
        callers[place % 3].send(invite).await;
    }
    for (place, invite) in invites.iter().enumerate() {
        assert_eq!(callers[place % 3].ask(invite).await.code(), 486);
    }
    assert_eq!(callers[0].call(&created.phone, &created.number).await, 486, "a redial afterwards");
    told_once(&receiver, &node, &created).await;
    assert_eq!(node.metric("ringproof_calls_total", &["outcome=\"matched\""]).await, 1);
}

#[tokio::test]
async fn one_call_verifies_at_most_one_verification() {
    let (receiver, node, created) = pending().await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&created.phone, &created.number);
    assert_eq!(caller.place(&invite).await.code(), 486);
    // Another one of the same phone: the old call, sent once more and to the new number, does not prove it.
    let second = node.api().create(&created.phone).await;
    assert_ne!(second.number, created.number, "the pair rests");
    let mut again = invite.fork();
    again.uri = format!("sip:{}@127.0.0.1", second.number);
    assert_eq!(caller.place(&again).await.code(), 486);
    assert_eq!(node.api().status(&second.id).await, "pending");
    assert_eq!(caller.call(&second.phone, &second.number).await, 486);
    assert_eq!(node.api().status(&second.id).await, "verified");
    told_once(&receiver, &node, &created).await;
}

#[tokio::test]
async fn t05_t06_cancel_after_the_final_response_gets_200_every_time_and_changes_nothing() {
    let (receiver, node, created) = pending().await;
    let caller = Caller::new(node.sip()).await;
    for invite in [Request::invite(&created.phone, &created.number), Request::invite(&phone(2), &created.number)] {
        let refusal = caller.place(&invite).await;
        for _ in 0..2 {
            let answer = caller.ask(&invite.cancel()).await;
            assert_eq!((answer.code(), answer.field("CSeq")), (200, "1 CANCEL"));
            assert_eq!(answer.to_tag(), refusal.to_tag());
        }
    }
    assert_eq!(node.api().status(&created.id).await, "verified");
    told_once(&receiver, &node, &created).await;
    // No 487 came in the meantime, nor anything else but repetitions.
    while let Some(response) = caller.received() {
        assert!([200, 486].contains(&response.code()), "{}", response.text);
    }
}

#[tokio::test]
async fn t07_t08_cancel_of_an_unknown_call_gets_481_and_its_invite_still_counts() {
    let (receiver, node, created) = pending().await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&created.phone, &created.number);
    assert_eq!(caller.ask(&invite.cancel()).await.code(), 481);
    let refusal = caller.place(&invite).await;
    assert_eq!(refusal.code(), 486);
    told_once(&receiver, &node, &created).await;
    // A fork's CANCEL names another transaction (RFC 3261 17.2.3).
    assert_eq!(caller.ask(&invite.fork().cancel()).await.code(), 481);
}

#[tokio::test]
async fn t16_cancel_right_behind_its_invite_gets_200_and_the_verification_stands() {
    let (receiver, node, created) = pending().await;
    let caller = Caller::new(node.sip()).await;
    let invite = Request::invite(&created.phone, &created.number);
    caller.send(&invite).await;
    caller.send(&invite.cancel()).await;
    let mut answers: HashMap<String, (u16, String)> = HashMap::new();
    while answers.len() < 2 {
        let response = caller.receive().await;
        answers.insert(response.field("CSeq").to_owned(), (response.code(), response.to_tag().to_owned()));
    }
    let (invite_answer, cancel_answer) = (&answers["1 INVITE"], &answers["1 CANCEL"]);
    // Two workers read them: the CANCEL may even come first, and whether the commit is faster is open.
    match cancel_answer.0 {
        200 => assert!([486, 487].contains(&invite_answer.0), "{answers:?}"),
        code => assert_eq!((code, invite_answer.0), (481, 486), "{answers:?}"),
    }
    assert_eq!(invite_answer.1, cancel_answer.1, "one To-tag for both");
    told_once(&receiver, &node, &created).await;
}

#[tokio::test]
async fn t09_t10_calls_of_rfc_2543_peers_verify_and_are_told_apart() {
    let (receiver, node, created) = pending().await;
    let caller = Caller::new(node.sip()).await;
    let mut invite = Request::invite(&created.phone, &created.number);
    // Such a branch is no transaction's name, and From has no tag.
    invite.branch = "1".to_owned();
    invite.from = invite.from.split(";tag=").next().unwrap().to_owned();
    let first = caller.ask(&invite).await;
    assert_eq!(first.code(), 486);
    assert_eq!(caller.ask(&invite).await, first);
    let cancel = caller.ask(&invite.cancel()).await;
    assert_eq!((cancel.code(), cancel.to_tag()), (200, first.to_tag()));
    let other = Request { call_id: "another@127.0.0.1".to_owned(), ..invite.cancel() };
    assert_eq!(caller.ask(&other).await.code(), 481);
    told_once(&receiver, &node, &created).await;
}

async fn pending() -> (Receiver, Node, Created) {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let created = node.api().create(&phone(1)).await;
    (receiver, node, created)
}

/// The verification is verified, and exactly one event says so.
async fn told_once(receiver: &Receiver, node: &Node, created: &Created) {
    assert_eq!(node.api().status(&created.id).await, "verified");
    receiver.event(&created.id, "verification.verified").await;
    node.all_delivered().await;
    assert_eq!(receiver.ids(&created.id, "verification.verified").len(), 1);
    let kinds: Vec<String> = receiver.about(&created.id).iter().map(Delivery::kind).collect();
    assert!(kinds.iter().all(|kind| kind == "verification.verified"), "{kinds:?}");
}
