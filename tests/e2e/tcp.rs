//! Calls over TCP: the same as over UDP, on the connection that they came on.

use std::process::Command;

use crate::caller::{Caller, Request};
use crate::config::{Config, TRUNK, phone};
use crate::http::Created;
use crate::node::{Node, PROGRAM, Process};
use crate::receiver::Receiver;
use crate::slow_commit::{lock, waits};
use crate::stream::{Stream, closed, free_port};
use crate::wait::until;

#[tokio::test]
async fn hits_and_misses_are_refused_and_counted() {
    for listen in ["tcp://127.0.0.1:0", "tcp://[::1]:0"] {
        let (receiver, node) = node_on(&[listen]).await;
        let created = node.api().create(&phone(1)).await;
        let mut gateway = Stream::new(node.tcp[0]).await;
        let hit = gateway.place(&Request::invite(&created.phone, &created.number)).await;
        let miss = gateway.place(&Request::invite(&phone(2), &created.number)).await;
        for answer in [&hit, &miss] {
            assert_eq!(answer.code(), 486);
            let (via, local) = (answer.field("Via"), gateway.local());
            assert!(via.starts_with(&format!("SIP/2.0/TCP {local}")), "{via}");
            assert!(via.contains(&format!(";rport={};", local.port())), "{via}");
            assert!(via.contains(&format!(";received={}", local.ip())), "{via}");
        }
        assert_eq!(gateway.ask(&Request::new("OPTIONS")).await.code(), 200);
        assert!(gateway.is_quiet().await, "an ACK has no answer");
        assert_eq!(node.api().status(&created.id).await, "verified");
        receiver.event(&created.id, "verification.verified").await;
        for (method, count) in [("INVITE", 2), ("ACK", 2), ("OPTIONS", 1)] {
            let labels = ["transport=\"tcp\"", &format!("method=\"{method}\"")];
            assert_eq!(node.metric("ringproof_sip_requests_total", &labels).await, count, "{method}");
        }
        assert_eq!(node.metric("ringproof_sip_requests_total", &["transport=\"udp\""]).await, 0);
    }
}

#[tokio::test]
async fn n04_the_answer_comes_on_the_connection_whatever_via_says() {
    let (_receiver, node) = node().await;
    let mut gateway = Stream::new(node.tcp[0]).await;
    let mut request = Request::new("OPTIONS");
    request.via = ";maddr=127.0.0.77".to_owned();
    let text = String::from_utf8(gateway.bytes(&request)).unwrap();
    let via = format!("SIP/2.0/TCP {}", gateway.local());
    for (host, received) in [("192.0.2.9:5999", true), ("gw.example", true), ("127.0.0.1:1", false)] {
        gateway.send_bytes(text.replace(&via, &format!("SIP/2.0/TCP {host}")).as_bytes()).await;
        let answer = gateway.receive().await;
        assert_eq!(answer.code(), 200);
        // RFC 3261 18.2.1: where sent-by is not the source address.
        assert_eq!(answer.field("Via").contains(";received=127.0.0.1"), received, "{}", answer.field("Via"));
    }
}

#[tokio::test]
async fn udp_and_tcp_may_share_a_port() {
    let receiver = Receiver::start().await;
    let port = free_port();
    let listen = vec![format!("udp://127.0.0.1:{port}"), format!("tcp://127.0.0.1:{port}")];
    let node = Node::start(Config { listen, ..Config::new(&receiver.url()) }).await;
    assert_eq!((node.sip[0], node.tcp[0]), (node.tcp[0], node.sip[0]));
    assert_eq!(Caller::new(node.sip()).await.ask(&Request::new("OPTIONS")).await.code(), 200);
    assert_eq!(Stream::new(node.tcp[0]).await.ask(&Request::new("OPTIONS")).await.code(), 200);
}

#[tokio::test]
async fn n02_many_messages_of_one_segment_are_answered_in_order() {
    let (_receiver, node) = node().await;
    let mut gateway = Stream::new(node.tcp[0]).await;
    let requests: Vec<Request> = (0..200).map(|index| Request::invite(&phone(index), "+966115000001")).collect();
    let segment: Vec<u8> = requests.iter().flat_map(|request| gateway.bytes(request)).collect();
    gateway.send_bytes(&segment).await;
    for request in &requests {
        let answer = gateway.receive().await;
        assert_eq!((answer.code(), answer.field("Call-ID")), (486, request.call_id.as_str()));
    }
}

#[tokio::test]
async fn n02_a_call_that_comes_byte_by_byte_verifies() {
    let (receiver, node) = node().await;
    let created = node.api().create(&phone(1)).await;
    let mut gateway = Stream::new(node.tcp[0]).await;
    let mut invite = Request::invite(&created.phone, &created.number);
    invite.body = "v=0\r\n\r\n".to_owned();
    for byte in gateway.bytes(&invite) {
        gateway.send_bytes(&[byte]).await;
    }
    assert_eq!(gateway.answer_to(&invite).await.code(), 486);
    receiver.event(&created.id, "verification.verified").await;
}

#[tokio::test]
async fn n02_a_ping_gets_its_pong_and_stray_line_ends_get_nothing() {
    let (_receiver, node) = node().await;
    let mut gateway = Stream::new(node.tcp[0]).await;
    for _ in 0..3 {
        gateway.send_bytes(b"\r\n\r\n").await;
        assert_eq!(gateway.receive_bytes(2).await, b"\r\n");
    }
    gateway.send_bytes(b"\r\n").await;
    assert!(gateway.is_quiet().await);
    let ping = Request::new("OPTIONS");
    assert_eq!(gateway.ask(&ping).await.code(), 200);
    // Between two messages, in one segment with them.
    let bytes = [gateway.bytes(&ping), b"\r\n\r\n".to_vec(), gateway.bytes(&ping)].concat();
    gateway.send_bytes(&bytes).await;
    assert_eq!(gateway.receive().await.code(), 200);
    assert_eq!(gateway.receive_bytes(2).await, b"\r\n");
    assert_eq!(gateway.receive().await.code(), 200);
}

#[tokio::test]
async fn a_cancel_on_the_connection_of_its_invite_gets_200_and_the_invite_487_once_it_is_durable() {
    let (receiver, node) = node().await;
    let created = pending(&node).await;
    let mut gateway = Stream::new(node.tcp[0]).await;
    let invite = Request::invite(&created.phone, &created.number);
    let lock = lock(&node);
    gateway.send(&invite).await;
    waits(&node).await;
    gateway.send(&invite).await;
    let canceled = gateway.ask(&invite.cancel()).await;
    assert_eq!((canceled.code(), canceled.field("CSeq")), (200, "1 CANCEL"));
    // Others are answered meanwhile, on this connection too.
    assert_eq!(gateway.call(&phone(77), &created.number).await, 486);
    assert!(gateway.is_quiet().await, "neither the INVITE nor its copy has an answer");
    lock.execute_batch("ROLLBACK").unwrap();
    let end = gateway.receive().await;
    assert_eq!((end.code(), end.field("CSeq")), (487, "1 INVITE"));
    assert_eq!(end.to_tag(), canceled.to_tag());
    assert!(gateway.is_quiet().await, "one answer");
    assert_eq!(gateway.ask(&invite.cancel()).await.code(), 200, "its INVITE is known");
    assert_eq!(node.api().status(&created.id).await, "verified");
    receiver.event(&created.id, "verification.verified").await;
}

#[tokio::test]
async fn a_call_whose_commit_is_undone_gets_503_and_the_next_one_verifies() {
    let (receiver, node) = node().await;
    let created = pending(&node).await;
    let mut gateway = Stream::new(node.tcp[0]).await;
    let invite = Request::invite(&created.phone, &created.number);
    let lock = lock(&node);
    assert_eq!(gateway.place(&invite).await.code(), 503);
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(gateway.place(&invite.fork()).await.code(), 486);
    receiver.event(&created.id, "verification.verified").await;
}

#[tokio::test]
async fn a_connection_that_is_gone_before_its_answer_loses_the_answer_and_nothing_else() {
    let (receiver, node) = node().await;
    let created = pending(&node).await;
    let mut gateway = Stream::new(node.tcp[0]).await;
    let invite = Request::invite(&created.phone, &created.number);
    let lock = lock(&node);
    gateway.send(&invite).await;
    waits(&node).await;
    gateway.reset();
    closed(&node, "lost", 1).await;
    // A redial waits for the same commit and is answered.
    let mut redial = Stream::new(node.tcp[0]).await;
    redial.send(&invite).await;
    until("two that wait", async || (node.metric("ringproof_calls_waiting", &[]).await == 2).then_some(())).await;
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(redial.answer_to(&invite).await.code(), 486);
    assert!(redial.is_quiet().await);
    assert_eq!(node.metric("ringproof_sip_dropped_total", &["reason=\"unsent\""]).await, 1);
    assert_eq!(node.metric("ringproof_calls_waiting", &[]).await, 0);
    assert_eq!(node.api().status(&created.id).await, "verified");
    receiver.event(&created.id, "verification.verified").await;
    node.all_delivered().await;
    assert_eq!(receiver.ids(&created.id, "verification.verified").len(), 1);
}

#[tokio::test]
async fn one_call_over_udp_and_tcp_is_answered_on_both_and_counted_once() {
    let (receiver, node) = node_on(&["udp://127.0.0.1:0", "tcp://127.0.0.1:0"]).await;
    let created = pending(&node).await;
    let (caller, mut gateway) = (Caller::new(node.sip()).await, Stream::new(node.tcp[0]).await);
    let invite = Request::invite(&created.phone, &created.number);
    let lock = lock(&node);
    // The same transaction: a gateway that tries UDP and then TCP may well leave the branch as it is.
    let datagram = String::from_utf8(invite.bytes(gateway.local())).unwrap();
    caller.send_bytes(datagram.as_bytes()).await;
    waits(&node).await;
    gateway.send(&invite).await;
    until("two that wait", async || (node.metric("ringproof_calls_waiting", &[]).await == 2).then_some(())).await;
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(caller.receive().await.code(), 486);
    assert_eq!(gateway.answer_to(&invite).await.code(), 486);
    // And once more when all is over.
    assert_eq!(gateway.ask(&invite.fork()).await.code(), 486);
    receiver.event(&created.id, "verification.verified").await;
    node.all_delivered().await;
    assert_eq!(receiver.ids(&created.id, "verification.verified").len(), 1);
    assert_eq!(node.metric("ringproof_calls_total", &["outcome=\"matched\""]).await, 1);
    assert_eq!(node.metric("ringproof_calls_total", &[]).await, 1);
}

#[tokio::test]
async fn kill_9_before_the_commit_leaves_it_pending_and_a_redial_verifies() {
    let (receiver, mut node) = node_on(&[&format!("tcp://127.0.0.1:{}", free_port())]).await;
    let created = pending(&node).await;
    let mut gateway = Stream::new(node.tcp[0]).await;
    let invite = Request::invite(&created.phone, &created.number);
    let lock = lock(&node);
    gateway.send(&invite).await;
    waits(&node).await;
    node.process.kill();
    assert_eq!(gateway.end().await, "", "what is not on disk is not answered");
    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    node.restart().await;
    assert_eq!(node.api().status(&created.id).await, "pending");
    let mut redial = Stream::new(node.tcp[0]).await;
    assert_eq!(redial.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.verified").await;
}

#[tokio::test]
async fn a_stop_answers_what_waits_takes_no_connection_and_closes() {
    let (receiver, mut node) = node_on(&[&format!("tcp://127.0.0.1:{}", free_port())]).await;
    let created = pending(&node).await;
    let (mut gateway, idle) = (Stream::new(node.tcp[0]).await, Stream::new(node.tcp[0]).await);
    let invite = Request::invite(&created.phone, &created.number);
    let lock = lock(&node);
    gateway.send(&invite).await;
    waits(&node).await;
    node.process.signal("INT");
    assert_eq!(idle.end().await, "");
    until("a listener that is gone", async || tokio::net::TcpStream::connect(node.tcp[0]).await.err()).await;
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(gateway.answer_to(&invite).await.code(), 486);
    assert_eq!(gateway.end().await, "");
    assert_eq!(node.process.exit_code().await, Some(0));
    node.restart().await;
    assert_eq!(node.api().status(&created.id).await, "verified");
    receiver.event(&created.id, "verification.verified").await;
}

#[tokio::test]
async fn strangers_are_closed_at_once_and_counted() {
    let receiver = Receiver::start().await;
    let trunks = TRUNK.replace("127.0.0.0/8", "127.0.0.1/32");
    let listen = vec!["tcp://0.0.0.0:0".to_owned()];
    let node = Node::start(Config { listen, trunks, ..Config::new(&receiver.url()) }).await;
    let address = ([127, 0, 0, 1], node.tcp[0].port()).into();
    let stranger = Stream::from("127.0.0.2", address, false).await;
    assert_eq!(stranger.end().await, "");
    closed(&node, "unknown_source", 1).await;
    assert_eq!(node.metric("ringproof_sip_dropped_total", &["reason=\"unknown_source\""]).await, 1);
    let mut peer = Stream::new(address).await;
    assert_eq!(peer.ask(&Request::new("OPTIONS")).await.code(), 200);
    assert_eq!(node.metric("ringproof_sip_connections", &["transport=\"tcp\""]).await, 1);
    assert_eq!(node.metric("ringproof_sip_connections_total", &["transport=\"tcp\""]).await, 2);
}

#[tokio::test]
async fn the_call_command_places_a_call_over_tcp() {
    let (receiver, node) = node().await;
    let created = node.api().create(&phone(1)).await;
    let via = format!("tcp:{}", node.tcp[0]);
    let arguments = ["call", "--from", &created.phone, "--to", &created.number, "--via", &via];
    let mut call = Process::spawn(Command::new(PROGRAM).args(arguments));
    assert_eq!(call.exit_code().await, Some(0), "{}", call.stderr());
    let shown = call.stdout();
    assert!(shown.contains("<-  486 Busy Here") && shown.contains("->  ACK"), "{shown}");
    receiver.event(&created.id, "verification.verified").await;
}

/// A node that is called over TCP alone.
async fn node() -> (Receiver, Node) {
    node_on(&["tcp://127.0.0.1:0"]).await
}

async fn node_on(listen: &[&str]) -> (Receiver, Node) {
    let receiver = Receiver::start().await;
    let listen = listen.iter().map(|url| (*url).to_owned()).collect();
    let node = Node::start(Config { listen, ..Config::new(&receiver.url()) }).await;
    (receiver, node)
}

/// A verification that is pending while nothing else is under way in the store.
async fn pending(node: &Node) -> Created {
    let created = node.api().create(&phone(1)).await;
    node.all_delivered().await;
    created
}
