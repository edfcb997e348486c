//! Starts that must fail and say why, and what does not stop a node.

use std::fs;
use std::process::Command;

use crate::caller::{Caller, Request};
use crate::config::{Config, TRUNK, application, phone, webhook};
use crate::node::{Directory, Node, PROGRAM, Process, serve};
use crate::receiver::Receiver;
use crate::wait::until;

#[tokio::test]
async fn a_second_serve_on_one_data_dir_ends_with_2_and_says_why() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    let mut second = Process::spawn(&mut serve(node.directory()));
    assert_eq!(second.exit_code().await, Some(2));
    let why = second.stderr();
    assert!(why.contains("data is in use by another ringproof"), "{why}");
    assert!(!second.stdout().contains("listening"));
    assert!(node.process.is_running());
    let created = node.api().create(&phone(1)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    // The lock goes with its process, however that ends.
    node.process.kill();
    node.restart().await;
}

#[tokio::test]
async fn a_port_that_is_taken_ends_a_start_with_1_and_its_name() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let sip = format!("\"udp://{}\"", node.sip());
    let text = node.config.text(&[]);
    for (taken, free, name) in [
        (sip.as_str(), "\"udp://127.0.0.1:0\"", node.sip().to_string()),
        (&format!("[api]\nlisten = \"{}\"", node.api), "[api]\nlisten = \"127.0.0.1:0\"", node.api.to_string()),
        (&format!("[admin]\nlisten = \"{}\"", node.admin), "[admin]\nlisten = \"127.0.0.1:0\"", node.admin.to_string()),
    ] {
        let directory = Directory::new();
        assert!(text.contains(free));
        fs::write(directory.0.join("config.toml"), text.replace(free, taken)).unwrap();
        let mut second = Process::spawn(&mut serve(&directory.0));
        assert_eq!(second.exit_code().await, Some(1), "{name}");
        assert!(second.stderr().contains(&name), "{name}: {}", second.stderr());
        assert!(!second.stdout().contains("ready"));
    }
}

#[tokio::test]
async fn a_broken_file_ends_serve_and_check_with_2_and_the_place_of_every_fault() {
    let directory = Directory::new();
    let text = Config { trunks: TRUNK.replace("national", "natoinal"), ..Config::new("ftp://x/") }.text(&[]);
    fs::write(directory.0.join("config.toml"), &text).unwrap();
    for command in ["serve", "check"] {
        let mut process =
            Process::spawn(Command::new(PROGRAM).args([command, "-c", "config.toml"]).current_dir(&directory.0));
        assert_eq!(process.exit_code().await, Some(2), "{command}");
        for wrong in ["\"natoinal\"", "\"ftp://x/\""] {
            let at = text.find(wrong).unwrap();
            let line = text[..at].lines().count();
            let column = at - text[..at].rfind('\n').unwrap();
            let place = format!("config.toml:{line}:{column}: ");
            assert!(process.stderr().contains(&place), "{place} in {}", process.stderr());
        }
    }
    assert!(!directory.0.join("data").exists(), "nothing is made for a file that is broken");
    let mut absent =
        Process::spawn(Command::new(PROGRAM).args(["serve", "-c", "absent.toml"]).current_dir(&directory.0));
    assert_eq!(absent.exit_code().await, Some(2));
    assert!(absent.stderr().contains("absent.toml"));
}

#[tokio::test]
async fn a_log_filter_that_cannot_be_read_ends_a_start_with_2() {
    let directory = Directory::new();
    fs::write(directory.0.join("config.toml"), Config::new("http://127.0.0.1:9/").text(&[])).unwrap();
    let mut process = Process::spawn(serve(&directory.0).env("RINGPROOF_LOG", "ringproof=loud"));
    assert_eq!(process.exit_code().await, Some(2));
    assert!(process.stderr().contains("RINGPROOF_LOG"), "{}", process.stderr());
}

#[tokio::test]
async fn an_application_that_is_removed_has_its_pending_verifications_canceled() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    let created = node.api().create(&phone(1)).await;
    node.process.kill();
    let before = node.config.applications.clone();
    node.config.applications = application("other", "", &[webhook(&receiver.url(), "")]);
    node.restart().await;
    until("its cancel", async || {
        (node.metric("ringproof_verifications_total", &["status=\"canceled\""]).await == 1).then_some(())
    })
    .await;
    assert_eq!(Caller::new(node.sip()).await.call(&created.phone, &created.number).await, 486);
    node.process.kill();
    node.config.applications = before;
    node.restart().await;
    assert_eq!(node.api().status(&created.id).await, "canceled");
}

#[tokio::test]
async fn sighup_does_not_stop_a_node() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    let created = node.api().create(&phone(1)).await;
    node.process.signal("HUP");
    until("a word about it", async || node.process.stderr().contains("reload").then_some(())).await;
    assert!(node.process.is_running());
    let caller = Caller::new(node.sip()).await;
    assert_eq!(caller.ask(&Request::new("OPTIONS")).await.code(), 200);
    assert_eq!(caller.call(&created.phone, &created.number).await, 486);
    assert_eq!(node.api().status(&created.id).await, "verified");
}

#[tokio::test]
async fn a_node_goes_on_when_nobody_reads_what_it_prints_any_more() {
    let receiver = Receiver::start().await;
    // Everything is printed, so there is no lack of lines to fail at.
    let mut node = Node::start(Config { log: "trace", ..Config::new(&receiver.url()) }).await;
    node.process.stop_reading();
    node.process.signal("HUP");
    let caller = Caller::new(node.sip()).await;
    for index in 0..10 {
        let created = node.api().create(&phone(index)).await;
        assert_eq!(caller.call(&created.phone, &created.number).await, 486);
        receiver.event(&created.id, "verification.verified").await;
    }
    assert!(node.process.is_running());
    node.process.signal("INT");
    assert_eq!(node.process.exit_code().await, Some(0));
}

#[tokio::test]
async fn the_nodes_files_are_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    node.api().create(&phone(1)).await;
    let data = node.directory().join("data");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in fs::read_dir(&data).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}
