//! The service manager's side of a node: `sd_notify(3)` over a real socket.

use std::path::Path;
use std::process::Command;

use tokio::net::UnixDatagram;

use crate::caller::{Caller, Request};
use crate::config::{Config, phone};
use crate::node::{Node, serve};
use crate::receiver::Receiver;
use crate::wait::{until, within};

/// Listens as a service manager does, and starts a node that it watches.
async fn supervised(receiver: &Receiver) -> (UnixDatagram, Node) {
    let mut socket = None;
    let command = |directory: &Path| -> Command {
        let path = directory.join("notify");
        socket = Some(UnixDatagram::bind(&path).unwrap());
        let mut command = serve(directory);
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "1000000");
        command
    };
    let node = Node::start_with(Config { drain_seconds: 1, ..Config::new(&receiver.url()) }, command).await;
    (socket.unwrap(), node)
}

/// The next message that is not of the watchdog.
async fn told(socket: &UnixDatagram) -> String {
    loop {
        let message = heard(socket).await;
        if message != "WATCHDOG=1" {
            return message;
        }
    }
}

async fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let length = within("a message to the service manager", socket.recv(&mut buffer)).await.unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn a_service_manager_hears_of_the_start_each_reload_and_the_stop() {
    let receiver = Receiver::start().await;
    let (socket, mut node) = supervised(&receiver).await;
    assert_eq!(told(&socket).await, "READY=1\nSTATUS=ready");
    let config = node.directory().join("config.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    let mut moments = Vec::new();
    for (text, status) in [
        (good.clone(), "ready"),
        (good.replace("SA", "XX"), "ready; the file was refused, the one before is in force"),
        (good.clone(), "ready"),
    ] {
        std::fs::write(&config, text).unwrap();
        node.process.signal("HUP");
        let reloading = told(&socket).await;
        let mut lines = reloading.lines();
        assert_eq!(lines.next(), Some("RELOADING=1"));
        moments.push(lines.next().unwrap().strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap());
        assert_eq!(told(&socket).await, format!("READY=1\nSTATUS={status}"));
    }
    assert!(moments.is_sorted() && moments[0] > 0, "{moments:?}");
    node.process.signal("TERM");
    let stopping = told(&socket).await;
    assert!(stopping.starts_with("STOPPING=1\n") && stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
    assert_eq!(node.process.exit_code().await, Some(0));
}

#[tokio::test]
async fn an_idle_node_and_one_whose_disk_hangs_are_alive() {
    let receiver = Receiver::start().await;
    let (socket, node) = supervised(&receiver).await;
    let alive = async |times: usize| {
        for _ in 0..times {
            while heard(&socket).await != "WATCHDOG=1" {}
        }
    };
    alive(5).await;
    let created = node.api().create(&phone(1)).await;
    node.all_delivered().await;
    let database = node.database();
    database.execute_batch("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").unwrap();
    let caller = Caller::new(node.sip()).await;
    caller.send(&Request::invite(&created.phone, &created.number)).await;
    until("a call that waits", async || (node.metric("ringproof_calls_waiting", &[]).await == 1).then_some(())).await;
    // Longer than any part of the node may be without a turn, as long as the store's patience with the lock.
    while caller.received().is_none() {
        alive(1).await;
    }
    database.execute_batch("ROLLBACK").unwrap();
    alive(2).await;
}

#[tokio::test]
async fn a_node_that_is_stopped_in_its_tracks_is_silent() {
    let receiver = Receiver::start().await;
    let (socket, node) = supervised(&receiver).await;
    while heard(&socket).await != "WATCHDOG=1" {}
    node.process.signal("STOP");
    // Everything said before the stop was taken is read; then there is nothing for a whole period.
    let mut buffer = [0; 512];
    let period = std::time::Duration::from_secs(1);
    until("silence", async || tokio::time::timeout(period, socket.recv(&mut buffer)).await.is_err().then_some(()))
        .await;
    node.process.signal("CONT");
    while heard(&socket).await != "WATCHDOG=1" {}
}
