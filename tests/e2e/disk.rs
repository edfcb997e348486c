//! A full disk: what cannot be kept is refused with 503, and space alone heals it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::caller::Caller;
use crate::config::{Config, phone};
use crate::http::{Created, get};
use crate::node::{Node, PROGRAM};
use crate::receiver::Receiver;
use crate::wait::until;

/// A small file system of its own under `data`, seen by the process alone.
const ON_SMALL_DISK: &str =
    r#"mkdir data && chmod 700 data && mount -t tmpfs -o size=16m,mode=700 tmpfs data && exec "$0" "$@""#;

#[tokio::test]
async fn a_full_disk_refuses_with_503_and_heals_by_itself() {
    let Some(unshare) = unshare() else {
        eprintln!("SKIPPED: this machine lets nobody mount a file system");
        return;
    };
    let receiver = Receiver::start().await;
    let command = |directory: &Path| {
        let mut command = Command::new("unshare");
        command.args(unshare).args(["sh", "-c", ON_SMALL_DISK, PROGRAM, "serve", "-c", "config.toml"]);
        command.current_dir(directory);
        command
    };
    let node = Node::start_with(Config::new(&receiver.url()), command).await;
    let filler = small_disk(&node).join("filler");
    let (api, caller) = (node.api(), Caller::new(node.sip()).await);
    let mut waiting = Vec::new();
    for index in 0..10 {
        waiting.push(api.create(&phone(index)).await);
    }
    fill(&filler);

    // The write-ahead log may have a little room left.
    let mut next = 1_000;
    until("a create that is refused", async || {
        next += 1;
        let answer = api.ask(&json!({"phone": phone(next)})).await;
        if answer.status == 201 {
            return None;
        }
        answer.is_problem(503, "store_unavailable");
        assert!(answer.headers.contains_key("retry-after"));
        Some(())
    })
    .await;
    assert_eq!(get(node.admin, "/readyz").await.status, 503);
    assert_eq!(get(node.admin, "/healthz").await.status, 200);
    let mut refused: Vec<Created> = Vec::new();
    for created in waiting {
        match caller.call(&created.phone, &created.number).await {
            486 => assert_eq!(api.status(&created.id).await, "verified"),
            code => {
                assert_eq!(code, 503);
                assert_eq!(api.status(&created.id).await, "pending", "nothing half done");
                refused.push(created);
            }
        }
    }
    assert!(!refused.is_empty());
    assert_eq!(caller.call(&phone(9_999), "+966115000001").await, 486, "a call that needs no room is refused as ever");

    fs::remove_file(&filler).unwrap();
    until("a node that is ready again", async || (get(node.admin, "/readyz").await.status == 200).then_some(())).await;
    for created in &refused {
        assert_eq!(caller.call(&created.phone, &created.number).await, 486);
        receiver.event(&created.id, "verification.verified").await;
    }
    let created = api.create(&phone(5_000)).await;
    assert_eq!(caller.call(&created.phone, &created.number).await, 486);
    receiver.event(&created.id, "verification.verified").await;
    node.all_delivered().await;
    for created in &refused {
        assert_eq!(receiver.ids(&created.id, "verification.verified").len(), 1);
    }
}

/// The options with which `unshare` lets this user mount, if there are any.
fn unshare() -> Option<&'static [&'static str]> {
    let works = |options: &&[&str]| {
        let mut command = Command::new("unshare");
        command.args(*options).args(["sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    let ways: [&[&str]; 2] = [&["-m"], &["-r", "-m"]];
    ways.into_iter().find(works)
}

/// The process's file system, as seen from here.
fn small_disk(node: &Node) -> PathBuf {
    let inside = node.directory().join("data");
    let disk = PathBuf::from(format!("/proc/{}/root{}", node.process.id(), inside.display()));
    assert!(disk.join("ringproof.db").exists(), "{}", disk.display());
    assert!(!inside.join("ringproof.db").exists(), "it is on a file system of its own");
    disk
}

/// Writes until nothing more fits.
fn fill(filler: &Path) {
    let mut file = File::create(filler).unwrap();
    let mut chunk = vec![0; 65_536];
    while !chunk.is_empty() {
        if file.write_all(&chunk).is_err() {
            chunk.truncate(chunk.len() / 2);
        }
    }
}
