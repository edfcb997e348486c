//! Who may call: the trunk of a source address, and silence for everybody else.

use crate::caller::{Caller, Request};
use crate::config::{Config, TRUNK, phone};
use crate::node::Node;
use crate::receiver::Receiver;
use crate::wait::until;

#[tokio::test]
async fn n13_strangers_get_silence_whatever_they_send() {
    let receiver = Receiver::start().await;
    let trunks = TRUNK.replace("127.0.0.0/8", "127.0.0.1/32");
    let node = Node::start(Config { trunks, workers: 1, ..Config::new(&receiver.url()) }).await;
    let created = node.api().create(&phone(1)).await;
    let stranger = Caller::from("127.0.0.2", node.sip()).await;
    let invite = Request::invite(&created.phone, &created.number);
    let sent =
        [invite.clone(), invite.cancel(), Request::new("OPTIONS"), Request::new("REGISTER"), Request::new("BYE")];
    for request in &sent {
        stranger.send(request).await;
    }
    stranger.send_bytes(b"garbage").await;
    // The kernel drops them, or, where it takes no socket filter, the node.
    let dropped = until("all of them counted", async || {
        let by_node = node.metric("ringproof_sip_dropped_total", &["reason=\"unknown_source\""]).await;
        let dropped = by_node + node.metric("ringproof_sip_socket_drops_total", &[]).await;
        (dropped > sent.len() as u64).then_some(dropped)
    })
    .await;
    assert_eq!(dropped, sent.len() as u64 + 1);
    // A peer's answer comes from the same worker later than any to the stranger would.
    let peer = Caller::new(node.sip()).await;
    assert_eq!(peer.ask(&Request::new("OPTIONS")).await.code(), 200);
    assert_eq!(stranger.received(), None);
    assert_eq!(node.api().status(&created.id).await, "pending");
    assert_eq!(peer.place(&invite).await.code(), 486);
    assert_eq!(node.api().status(&created.id).await, "verified");
}

#[tokio::test]
async fn the_longest_prefix_names_the_trunk() {
    let receiver = Receiver::start().await;
    let trunks = format!(
        "{TRUNK}{}reject = 603\n",
        TRUNK.replace("\"local\"", "\"inner\"").replace("\"127.0.0.0/8\", \"::1\"", "\"127.0.0.2\"")
    );
    let numbers = "[[number]]\ne164 = \"+966115000042\"\ntrunks = [\"local\", \"inner\"]\n".to_owned();
    let node = Node::start(Config { trunks, numbers, ..Config::new(&receiver.url()) }).await;
    for (source, code, trunk) in [("127.0.0.1", 486, "local"), ("127.0.0.2", 603, "inner"), ("127.0.0.3", 486, "local")]
    {
        let created = node.api().create(&phone(u32::from(code) + u32::from(source.as_bytes()[8]))).await;
        let caller = Caller::from(source, node.sip()).await;
        assert_eq!(caller.call(&created.phone, &created.number).await, code, "{source}");
        let event = receiver.event(&created.id, "verification.verified").await.event();
        assert_eq!(event["data"]["call"]["trunk"], trunk, "{source}");
    }
}
