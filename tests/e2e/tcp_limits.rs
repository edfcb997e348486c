//! TCP peers that send what is no message, too much of it, too slowly, or do not read.

use std::path::Path;
use std::process::Command;

use crate::caller::Request;
use crate::config::{Config, phone};
use crate::node::{Node, PROGRAM};
use crate::receiver::Receiver;
use crate::stream::{Stream, closed};
use crate::wait::until;

/// Short enough for a test, and the shortest that the configuration takes.
const SHORT: &str = "tcp = { idle_seconds = 5, message_seconds = 1 }";

#[tokio::test]
async fn n02_n03_a_missing_or_lying_content_length_gets_400_and_the_end() {
    let (_receiver, node) = node("").await;
    let lengths = ["", "Content-Length: -1", "Content-Length: 4000000000", "l: many", "l: 0\r\nContent-Length: 1"];
    for (length, count) in lengths.into_iter().zip(1..) {
        let mut gateway = Stream::new(node.tcp[0]).await;
        let invite = Request::invite(&phone(1), "+966115000001");
        let line = if length.is_empty() { String::new() } else { format!("{length}\r\n") };
        let text = String::from_utf8(gateway.bytes(&invite)).unwrap().replace("Content-Length: 0\r\n", &line);
        // What stands behind it is not read any more.
        gateway.send_bytes(format!("{text}{text}").as_bytes()).await;
        let answer = gateway.receive().await;
        assert_eq!((answer.code(), answer.field("Call-ID")), (400, invite.call_id.as_str()), "{length}");
        assert_eq!(gateway.end().await, "", "{length}");
        closed(&node, "bad_framing", count).await;
    }
    // Without a way back, or where none may be taken, there is no answer.
    let gateway = Stream::new(node.tcp[0]).await;
    let ack = String::from_utf8(gateway.bytes(&Request::new("ACK"))).unwrap().replace("Content-Length: 0\r\n", "");
    drop(gateway);
    let no_via = "INVITE sip:a@b SIP/2.0\r\nCall-ID: 1\r\n\r\n";
    let bytes = [ack.as_str(), no_via, "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP a\r\n\r\n", "GET / HTTP/1.1\r\n", "\0\n"];
    for text in bytes {
        let mut gateway = Stream::new(node.tcp[0]).await;
        gateway.send_bytes(text.as_bytes()).await;
        assert_eq!(gateway.end().await, "", "{text}");
    }
    closed(&node, "bad_framing", (lengths.len() + bytes.len()) as u64).await;
    assert_eq!(Stream::new(node.tcp[0]).await.ask(&Request::new("OPTIONS")).await.code(), 200);
}

#[tokio::test]
async fn n03_what_is_too_large_gets_513_and_the_end() {
    let (_receiver, node) = node("").await;
    let mut fits = Request::new("OPTIONS");
    fits.body = "x".repeat(60_000);
    let mut gateway = Stream::new(node.tcp[0]).await;
    assert_eq!(gateway.ask(&fits).await.code(), 200);

    let mut large = Request::new("OPTIONS");
    large.body = "x".repeat(65_536);
    let bytes = gateway.bytes(&large);
    gateway.send_bytes(&bytes).await;
    let answer = gateway.receive().await;
    assert_eq!((answer.code(), answer.field("Call-ID")), (513, large.call_id.as_str()));
    assert_eq!(gateway.end().await, "");
    closed(&node, "too_large", 1).await;

    // A header section without end, of many fields and of one.
    for field in ["Subject: x\r\n".to_owned(), "x".repeat(4_000)] {
        let mut gateway = Stream::new(node.tcp[0]).await;
        let request = gateway.bytes(&Request::new("OPTIONS"));
        let head = request.strip_suffix(b"\r\n").unwrap();
        gateway.send_bytes(&[head, b"X: "].concat()).await;
        while gateway.try_send(field.as_bytes()).await {}
        assert!(gateway.end().await.starts_with("SIP/2.0 513 "));
    }
    closed(&node, "too_large", 3).await;
}

#[tokio::test]
async fn n03_a_connection_on_which_nothing_comes_is_closed() {
    let (_receiver, node) = node(SHORT).await;
    let (mut talks, quiet) = (Stream::new(node.tcp[0]).await, Stream::new(node.tcp[0]).await);
    let end = quiet.end();
    tokio::pin!(end);
    let mut pings = 0;
    loop {
        // Each ping is a sign of life.
        talks.send_bytes(b"\r\n\r\n").await;
        assert_eq!(talks.receive_bytes(2).await, b"\r\n");
        pings += 1;
        if tokio::time::timeout(std::time::Duration::from_secs(1), &mut end).await.is_ok() {
            break;
        }
    }
    assert!(pings >= 3, "{pings}");
    closed(&node, "idle", 1).await;
    assert_eq!(talks.ask(&Request::new("OPTIONS")).await.code(), 200);
}

#[tokio::test]
async fn n03_a_message_that_does_not_come_whole_in_time_ends_its_connection() {
    let (_receiver, node) = node(SHORT).await;
    let mut gateway = Stream::new(node.tcp[0]).await;
    // The first is whole, the second begins and goes on in drips.
    let request = gateway.bytes(&Request::new("OPTIONS"));
    gateway.send_bytes(&request).await;
    assert_eq!(gateway.receive().await.code(), 200);
    for byte in &request[..60] {
        gateway.try_send(&[*byte]).await;
        if !gateway.is_quiet().await {
            break;
        }
    }
    assert_eq!(gateway.end().await, "");
    closed(&node, "slow_message", 1).await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_closed_and_no_other_waits_for_it() {
    let (_receiver, node) = node(SHORT).await;
    let mut deaf = Stream::from("127.0.0.1", node.tcp[0], true).await;
    let burst: Vec<u8> = (0..500).flat_map(|_| deaf.bytes(&Request::new("OPTIONS"))).collect();
    let mut other = Stream::new(node.tcp[0]).await;
    loop {
        let taken = deaf.try_send(&burst).await;
        assert_eq!(other.ask(&Request::new("OPTIONS")).await.code(), 200);
        if !taken {
            break;
        }
    }
    closed(&node, "slow_reader", 1).await;
    assert!(node.metric("ringproof_sip_dropped_total", &["reason=\"unsent\""]).await > 0);
    assert_eq!(other.ask(&Request::new("OPTIONS")).await.code(), 200);
}

#[tokio::test]
async fn connections_over_a_cap_are_refused_while_others_are_served() {
    let (_receiver, node) = node("tcp = { connections = 3, connections_per_peer = 2 }").await;
    let mut first = Stream::new(node.tcp[0]).await;
    let mut second = Stream::new(node.tcp[0]).await;
    assert_eq!(second.ask(&Request::new("OPTIONS")).await.code(), 200);
    assert_eq!(Stream::new(node.tcp[0]).await.end().await, "", "the third from one address");
    let mut other = Stream::from("127.0.0.2", node.tcp[0], false).await;
    assert_eq!(other.ask(&Request::new("OPTIONS")).await.code(), 200);
    assert_eq!(Stream::from("127.0.0.3", node.tcp[0], false).await.end().await, "", "the fourth of all");
    closed(&node, "over_cap", 2).await;
    assert_eq!(node.metric("ringproof_sip_connections", &[]).await, 3);
    assert_eq!(first.ask(&Request::new("OPTIONS")).await.code(), 200);
    drop(first);
    closed(&node, "peer", 1).await;
    assert_eq!(Stream::new(node.tcp[0]).await.ask(&Request::new("OPTIONS")).await.code(), 200);
}

#[tokio::test]
async fn a_flood_on_one_connection_does_not_starve_another() {
    let (_receiver, node) = node("").await;
    let flood = Stream::new(node.tcp[0]).await;
    let burst: Vec<u8> = (0..1_000).flat_map(|_| flood.bytes(&Request::new("OPTIONS"))).collect();
    let mut floods = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (mut flood, burst) = (Stream::new(node.tcp[0]).await, burst.clone());
        floods.spawn(async move {
            loop {
                flood.send_bytes(&burst).await;
                for _ in 0..1_000 {
                    flood.receive().await;
                }
            }
        });
    }
    let mut gateway = Stream::new(node.tcp[0]).await;
    for index in 0..50 {
        assert_eq!(gateway.call(&phone(index), "+966115000001").await, 486);
    }
    floods.shutdown().await;
}

#[tokio::test]
async fn a_node_with_few_descriptors_takes_as_many_connections_as_fit_and_serves_them() {
    let receiver = Receiver::start().await;
    let command = |directory: &Path| {
        let mut command = Command::new("sh");
        command.args(["-c", r#"ulimit -n 80 && exec "$0" serve -c config.toml"#, PROGRAM]).current_dir(directory);
        command
    };
    let listen = vec!["tcp://127.0.0.1:0".to_owned()];
    let mut node = Node::start_with(Config { listen, ..Config::new(&receiver.url()) }, command).await;
    let mut gateway = Stream::new(node.tcp[0]).await;
    assert_eq!(gateway.ask(&Request::new("OPTIONS")).await.code(), 200);
    let mut many = Vec::new();
    for _ in 0..100 {
        many.push(Stream::new(node.tcp[0]).await);
    }
    assert!(node.process.stderr().contains("few file descriptors"));
    let over = [r#"reason="over_cap""#];
    until("refused connections", async || {
        (node.metric("ringproof_sip_connections_closed_total", &over).await > 0).then_some(())
    })
    .await;
    assert_eq!(gateway.ask(&Request::new("OPTIONS")).await.code(), 200);
    drop(many);
    until("room for another", async || {
        let open = [r#"transport="tcp""#];
        (node.metric("ringproof_sip_connections", &open).await == 1).then_some(())
    })
    .await;
    assert_eq!(Stream::new(node.tcp[0]).await.ask(&Request::new("OPTIONS")).await.code(), 200);
    assert_eq!(node.metric("ringproof_sip_accept_failures_total", &[]).await, 0);
    assert!(node.process.is_running());
}

/// A node that is called over TCP alone, with more of `[sip]`.
async fn node(sip: &str) -> (Receiver, Node) {
    let receiver = Receiver::start().await;
    let listen = vec!["tcp://127.0.0.1:0".to_owned()];
    let node = Node::start(Config { listen, sip: sip.to_owned(), ..Config::new(&receiver.url()) }).await;
    (receiver, node)
}
