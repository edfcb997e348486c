//! Where answers go and where they come from (RFC 3261 18.2.2, RFC 3581).

use crate::caller::{Caller, Request};
use crate::config::{Config, phone};
use crate::node::Node;
use crate::receiver::Receiver;

#[tokio::test]
async fn n04_with_rport_the_answer_returns_to_the_source_port() {
    let (_receiver, node) = node(&["udp://127.0.0.1:0"]).await;
    let caller = Caller::new(node.sip()).await;
    let request = String::from_utf8(Request::new("OPTIONS").bytes("192.0.2.9:5999".parse().unwrap())).unwrap();
    caller.send_bytes(request.as_bytes()).await;
    let answer = caller.receive().await;
    let via = answer.field("Via");
    assert!(via.starts_with("SIP/2.0/UDP 192.0.2.9:5999"), "{via}");
    assert!(via.contains(&format!(";rport={}", caller.local().port())) && via.contains(";received=127.0.0.1"), "{via}");
}

#[tokio::test]
async fn n04_without_rport_the_answer_goes_to_the_port_of_via_at_the_source_address() {
    let (_receiver, node) = node(&["udp://127.0.0.1:0"]).await;
    let (sender, named) = (Caller::new(node.sip()).await, Caller::new(node.sip()).await);
    let port = named.local().port();
    for (host, received) in [("127.0.0.1", false), ("192.0.2.9", true), ("gw.example", true)] {
        let mut request = Request::new("OPTIONS");
        // An maddr is a way to have us send elsewhere: it is not followed.
        request.via = format!(";maddr=127.0.0.77;branch={}", request.branch);
        let text = String::from_utf8(request.bytes(sender.local())).unwrap();
        let via = format!("Via: SIP/2.0/UDP {host}:{port}");
        sender.send_bytes(text.replace(&format!("Via: SIP/2.0/UDP {}", sender.local()), &via).as_bytes()).await;
        let answer = named.receive().await;
        assert_eq!(answer.code(), 200);
        assert_eq!(answer.field("Via").contains(";received=127.0.0.1"), received, "{}", answer.field("Via"));
    }
    assert_eq!(sender.received(), None);
}

#[tokio::test]
async fn f41_calls_over_ipv6_verify() {
    let (receiver, node) = node(&["udp://[::1]:0"]).await;
    assert!(node.sip().is_ipv6());
    let created = node.api().create(&phone(1)).await;
    let caller = Caller::new(node.sip()).await;
    let mut invite = Request::invite(&created.phone, &created.number);
    invite.uri = format!("sip:{}@[::1]:{}", created.number, node.sip().port());
    let answer = caller.place(&invite).await;
    assert_eq!((answer.code(), answer.source), (486, node.sip()));
    assert!(answer.field("Via").contains(";received=::1"), "{}", answer.field("Via"));
    receiver.event(&created.id, "verification.verified").await;
}

#[tokio::test]
async fn a_wildcard_listener_answers_from_the_address_that_was_called() {
    let (receiver, node) = node(&["udp://[::]:0"]).await;
    let port = node.sip().port();
    for (index, (local, target)) in
        [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.5"), ("127.0.0.8", "127.1.2.3"), ("::1", "[::1]")]
            .into_iter()
            .enumerate()
    {
        let target = format!("{target}:{port}").parse().unwrap();
        let caller = Caller::from(local, target).await;
        assert_eq!(caller.ask(&Request::new("OPTIONS")).await.source, target, "a ping of {target}");
        let created = node.api().create(&phone(u32::try_from(index).unwrap())).await;
        // A hit leaves later than a miss and by another way through the program.
        let answer = caller.place(&Request::invite(&created.phone, &created.number)).await;
        assert_eq!((answer.code(), answer.source), (486, target), "a hit at {target}");
        let miss = caller.place(&Request::invite("+966509999999", &created.number)).await;
        assert_eq!(miss.source, target, "a miss at {target}");
        receiver.event(&created.id, "verification.verified").await;
    }
}

#[tokio::test]
async fn several_listeners_serve_one_node() {
    let (_receiver, node) = node(&["udp://127.0.0.1:0", "udp://[::1]:0", "udp://127.0.0.4:0"]).await;
    assert_eq!(node.sip.len(), 3);
    for listener in &node.sip {
        let created = node.api().create(&phone(u32::from(listener.port()))).await;
        let caller = Caller::new(*listener).await;
        let invite = Request::invite(&created.phone, &created.number);
        let answer = caller.place(&invite).await;
        assert_eq!((answer.code(), answer.source), (486, *listener));
        assert_eq!(node.api().status(&created.id).await, "verified");
        assert_eq!(caller.ask(&invite.cancel()).await.code(), 200);
    }
}

async fn node(listen: &[&str]) -> (Receiver, Node) {
    let receiver = Receiver::start().await;
    let listen = listen.iter().map(|&url| url.to_owned()).collect();
    let node = Node::start(Config { listen, ..Config::new(&receiver.url()) }).await;
    (receiver, node)
}
