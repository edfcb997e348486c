//! Few file descriptors: fewer connections, and a node that never runs out of them.

use std::path::Path;
use std::process::Command;

use tokio::net::TcpStream;

use crate::caller::Caller;
use crate::config::{Config, phone};
use crate::http::get;
use crate::node::{Node, PROGRAM};
use crate::receiver::Receiver;
use crate::wait::until;

#[tokio::test]
async fn more_connections_than_descriptors_leave_calls_admin_and_webhooks_alone() {
    let receiver = Receiver::start().await;
    let command = |directory: &Path| {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"ulimit -Sn 100 && ulimit -Hn 300 && exec "$0" "$@""#,
            PROGRAM,
            "serve",
            "-c",
            "config.toml",
        ]);
        command.current_dir(directory);
        command
    };
    let node = Node::start_with(Config::new(&receiver.url()), command).await;
    assert_eq!(node.metric("process_max_fds", &[]).await, 300, "the soft limit is raised");
    let cap = node.metric("ringproof_api_connections_limit", &[]).await;
    assert!((16..100).contains(&cap), "{cap}");
    assert!(node.process.stderr().contains("file descriptors"), "{}", node.process.stderr());
    let created = node.api().create(&phone(1)).await;

    let mut crowd = Vec::new();
    // No more than wait in the kernel beside those that are taken.
    for _ in 0..cap + 100 {
        crowd.push(TcpStream::connect(node.api).await.unwrap());
    }
    until("as many connections as there may be", async || {
        (node.metric("ringproof_api_connections", &[]).await == cap).then_some(())
    })
    .await;
    assert!(node.metric("process_open_fds", &[]).await < 300);
    assert_eq!(get(node.admin, "/readyz").await.status, 200);
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.verified").await;
    assert_eq!(node.metric("ringproof_api_connections_refused_total", &[]).await, 0);
    drop(crowd);
    assert_eq!(node.api().status(&created.id).await, "verified");
}
