//! A newcomer's first minutes: the shipped file, the minted key, the two lines to paste.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::caller::Caller;
use crate::config::phone;
use crate::http::{Api, Created, get};
use crate::node::{Directory, Process, serve};
use crate::wait::until;

const SHIPPED: &str = include_str!("../../config.toml");

#[tokio::test]
async fn the_two_printed_lines_verify_by_sh_or_by_our_own_client_where_curl_is_missing() {
    let directory = shipped();
    let mut node = Process::spawn(&mut serve(&directory.0));
    let welcome = welcome(&mut node).await;
    let create = welcome.lines().find(|line| line.starts_with("NUMBER=$(curl ")).unwrap();
    let call = welcome.lines().find(|line| line.contains(" call --from ")).unwrap();
    if Command::new("curl").arg("--version").output().is_ok() {
        let mut shell =
            Process::spawn(Command::new("sh").args(["-c", &format!("{create}\n{call}")]).current_dir(&directory.0));
        assert_eq!(shell.exit_code().await, Some(0), "{}{}", shell.stdout(), shell.stderr());
        assert!(shell.stdout().contains("486 Busy Here"), "{}", shell.stdout());
    } else {
        eprintln!("no curl here: the lines are read instead of run");
        let behind = |mark: &str, text: &str| -> String {
            let rest = &text[text.find(mark).unwrap() + mark.len()..];
            rest.chars().take_while(|character| !" '\"/".contains(*character)).collect()
        };
        let api = Api::new(behind("http://", create).parse().unwrap(), &behind("Bearer ", create));
        let Created { phone, number, .. } = api.create(&behind("\"phone\":\"", create)).await;
        let sip = behind("--via udp:", call).parse().unwrap();
        assert_eq!(Caller::new(sip).await.call(&phone, &number).await, 486);
    }
    // The built-in receiver checks the signature and shows the event.
    until("the event on the terminal", async || node.stdout().contains("verification.verified").then_some(())).await;
    assert!(!node.stdout().contains("no signature fits"), "{}", node.stdout());
    let shown = node.stdout();
    let body = shown.lines().find(|line| line.starts_with('{')).unwrap();
    assert!(body.contains("\"phone\":\"+966*******"), "{body}");
    let shown = node.stdout();
    assert_eq!(shown.matches("rp_test_").count(), 1, "the key is shown once: {shown}");
    assert!(!node.stderr().contains("rp_test_"));
    node.signal("INT");
    assert_eq!(node.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_minted_key_works_after_a_restart_and_is_not_shown_again() {
    let directory = shipped();
    let mut node = Process::spawn(&mut serve(&directory.0));
    let first = welcome(&mut node).await;
    let key: String = first[first.find("rp_test_").unwrap()..].chars().take(8 + 64).collect();
    node.kill();
    for file in fs::read_dir(directory.0.join("ringproof-data")).unwrap() {
        let path = file.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let holds_key = bytes.windows(key.len()).any(|window| window == key.as_bytes());
        assert!(!holds_key, "{} holds the key", path.display());
    }
    let mut node = Process::spawn(&mut serve(&directory.0));
    let second = welcome(&mut node).await;
    assert!(!second.contains("rp_test_") && second.contains("shown at its first start"), "{second}");
    let api = Api::new(listener(&second, "api"), &key);
    let created = api.create("+966512345678").await;
    assert_eq!(Caller::new(listener(&second, "sip")).await.call(&created.phone, &created.number).await, 486);
    assert_eq!(api.status(&created.id).await, "verified");
}

#[tokio::test]
async fn the_built_in_receiver_takes_events_also_when_nobody_reads_them_any_more() {
    let directory = shipped();
    let mut node = Process::spawn(&mut serve(&directory.0));
    let first = welcome(&mut node).await;
    let key: String = first[first.find("rp_test_").unwrap()..].chars().take(8 + 64).collect();
    node.stop_reading();
    let (api, sip, admin) = (listener(&first, "api"), listener(&first, "sip"), listener(&first, "admin"));
    let (api, caller) = (Api::new(api, &key), Caller::new(sip).await);
    for index in 0..3 {
        let created = api.create(&phone(index)).await;
        assert_eq!(caller.call(&created.phone, &created.number).await, 486);
        until("an empty backlog", async || {
            let metrics = get(admin, "/metrics").await.text();
            metrics.lines().any(|line| line == "ringproof_webhook_backlog 0").then_some(())
        })
        .await;
        let metrics = get(admin, "/metrics").await.text();
        assert!(!metrics.contains("result=\"failed\"} 1"), "{metrics}");
    }
}

/// Where a listener is, by what was printed.
fn listener(printed: &str, name: &str) -> SocketAddr {
    let line = printed.lines().find(|line| line.starts_with(&format!("listening  {name} "))).unwrap();
    line.rsplit_once("//").unwrap().1.parse().unwrap()
}

/// A directory with the shipped file, its ports changed to free ones.
fn shipped() -> Directory {
    let directory = Directory::new();
    let text = SHIPPED.replace("127.0.0.1:5060", "127.0.0.1:0").replace(":8080", ":0").replace(":9090", ":0");
    fs::write(directory.0.join("config.toml"), text).unwrap();
    assert!(!Path::new(&directory.0).join("ringproof-data").exists());
    directory
}

/// What is printed up to and with the words to a newcomer.
async fn welcome(node: &mut Process) -> String {
    until("ready and what follows", async || {
        assert!(node.is_running(), "{}", node.stderr());
        let text = node.stdout();
        let follows = text.split("ready\n").nth(1).unwrap_or_default();
        (follows.contains(" call --from ") || follows.contains("start again.")).then_some(text)
    })
    .await
}
