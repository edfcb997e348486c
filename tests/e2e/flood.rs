//! Clients that take connections and time, while another one is served.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::{Config, key, phone};
use crate::node::Node;
use crate::receiver::Receiver;
use crate::wait::within;

/// Opens connections that each send this and no more.
async fn crowd(address: SocketAddr, count: usize, beginning: &[u8]) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        crowd.push(stream);
    }
    crowd
}

/// Creates and reads, which must work.
async fn is_served(node: &Node, index: u32) {
    let created = node.api().create(&phone(index)).await;
    assert_eq!(node.api().status(&created.id).await, "pending");
}

#[tokio::test]
async fn slow_and_silent_clients_are_sent_away_and_nobody_waits_for_them() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let key = key("demo");
    let body = format!(
        "POST /v1/verifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"phone\""
    );
    let silent = crowd(node.api, 100, b"").await;
    let headers = crowd(node.api, 100, b"GET /v1/verifications HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    let bodies = crowd(node.api, 100, body.as_bytes()).await;
    let half = crowd(node.api, 100, b"PRI * HTTP/2.0\r\n\r\n").await;
    for index in 0..5 {
        is_served(&node, index).await;
    }
    for mut stream in silent.into_iter().chain(headers).chain(half) {
        let _ = within("an end", stream.read_to_end(&mut Vec::new())).await;
    }
    for mut stream in bodies {
        let mut rest = Vec::new();
        let _ = within("an answer", stream.read_to_end(&mut rest)).await;
        assert!(rest.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&rest));
    }
    let slow = node.metric("ringproof_api_connections_closed_total", &["slow"]).await;
    assert_eq!(slow, 300);
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_and_come_in_when_others_leave() {
    let receiver = Receiver::start().await;
    let config = Config { api: "connections = 16".to_owned(), ..Config::new(&receiver.url()) };
    let node = Node::start(config).await;
    let crowd = crowd(node.api, 16, b"GET /docs HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    let waiting = node.api();
    let waiting = tokio::spawn(async move { waiting.get("/v1/verifications").await.status });
    drop(crowd);
    assert_eq!(within("a place", waiting).await.unwrap(), 200);
}
