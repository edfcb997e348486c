//! `ringproof doctor`: what it finds on a machine that is well, and what it makes of everything that is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use ringproof::engine::clock;
use serde_json::Value;

use crate::config::{Config, phone};
use crate::node::{Directory, Node, PROGRAM, Process};
use crate::receiver::Receiver;

/// What the doctor said.
struct Said {
    code: Option<i32>,
    report: Value,
}

impl Said {
    /// Level and words of each finding of a check.
    fn of(&self, check: &str) -> Vec<(&str, &str)> {
        let findings = self.report["findings"].as_array().unwrap().iter();
        let of_check = findings.filter(|finding| finding["check"] == check);
        of_check.map(|finding| (finding["level"].as_str().unwrap(), finding["found"].as_str().unwrap())).collect()
    }

    fn failed(&self) -> Vec<String> {
        let findings = self.report["findings"].as_array().unwrap().iter();
        findings.filter(|finding| finding["level"] == "fail").map(Value::to_string).collect()
    }
}

async fn doctor(directory: &Path) -> Said {
    let mut process = run(directory, &["--json"]);
    let code = process.exit_code().await;
    let report =
        serde_json::from_str(&process.stdout()).unwrap_or_else(|error| panic!("{error}: {}", process.stdout()));
    Said { code, report }
}

fn run(directory: &Path, more: &[&str]) -> Process {
    Process::spawn(Command::new(PROGRAM).args(["doctor", "-c", "config.toml"]).args(more).current_dir(directory))
}

fn write(directory: &Path, text: &str) {
    fs::write(directory.join("config.toml"), text).unwrap();
}

#[tokio::test]
async fn a_healthy_machine_has_no_failure_and_nothing_is_left_or_sent() {
    let receiver = Receiver::start().await;
    let directory = Directory::new();
    write(&directory.0, &Config::new(&receiver.url()).text(&[]));
    fs::create_dir(directory.0.join("data")).unwrap();
    fs::set_permissions(directory.0.join("data"), fs::Permissions::from_mode(0o700)).unwrap();
    let said = doctor(&directory.0).await;
    assert_eq!((said.code, said.failed()), (Some(0), Vec::new()));
    assert_eq!(said.of("port").len(), 3);
    for check in ["receive_buffer", "descriptors", "memory", "clock", "data_dir", "disk_room", "disk_sync", "database"]
    {
        assert!(!said.of(check).is_empty(), "{check}: {}", said.report);
    }
    let (level, found) = said.of("webhook")[0];
    assert!(level == "ok" && found.contains("nothing was sent"), "{found}");
    assert!(receiver.deliveries().is_empty());
    assert_eq!(fs::read_dir(directory.0.join("data")).unwrap().count(), 0);

    let mut lines = run(&directory.0, &[]);
    assert_eq!(lines.exit_code().await, Some(0));
    let text = lines.stdout();
    assert!(!text.contains('\u{1b}'), "coloured on a terminal alone");
    assert!(text.lines().any(|line| line.starts_with("ok    port sip udp://127.0.0.1:0 ")), "{text}");
    assert!(text.lines().last().unwrap().ends_with(" 0 fail"), "{text}");
}

#[tokio::test]
async fn a_port_of_another_program_fails_and_that_of_the_running_node_does_not() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    node.api().create(&phone(1)).await;
    let listening: Vec<String> = node.sip.iter().map(|address| format!("udp://{address}")).collect();
    let text = Config::new(&receiver.url()).text(&listening);
    let text = text.replace("[api]\nlisten = \"127.0.0.1:0\"", &format!("[api]\nlisten = \"{}\"", node.api));
    let text = text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{}\"", node.admin));
    write(node.directory(), &text);
    let own = doctor(node.directory()).await;
    assert_eq!((own.code, own.failed()), (Some(0), Vec::new()));
    assert!(own.of("port").iter().all(|(_, found)| found.contains("running node")), "{}", own.report);
    assert!(own.of("database").iter().any(|(_, found)| *found == "sound"), "{}", own.report);

    // The same ports, seen from another data directory.
    let stranger = Directory::new();
    write(&stranger.0, &text);
    let other = doctor(&stranger.0).await;
    assert_eq!(other.code, Some(1));
    assert_eq!(other.of("port"), [("fail", "held by another program"); 3]);
    // The node has not noticed anything.
    node.api().create(&phone(2)).await;
    assert!(!stranger.0.join("data").exists(), "the doctor makes nothing");
}

#[tokio::test]
async fn a_webhook_that_nobody_answers_fails_within_its_time() {
    let freed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let directory = Directory::new();
    write(&directory.0, &Config::new(&format!("http://{freed}/hook?token=s3cret")).text(&[]));
    let said = doctor(&directory.0).await;
    assert_eq!(said.code, Some(1));
    assert_eq!(said.of("webhook"), [("fail", "no connection: connection refused")]);
    assert!(!said.report.to_string().contains("s3cret"));
}

#[tokio::test]
async fn a_data_dir_that_cannot_be_written_fails() {
    let receiver = Receiver::start().await;
    let directory = Directory::new();
    let text = Config::new(&receiver.url()).text(&[]);
    // A file in its place, and one in place of its parent: not even root writes there.
    for place in ["config.toml", "config.toml/data"] {
        write(&directory.0, &text.replace("data_dir = \"data\"", &format!("data_dir = \"{place}\"")));
        let said = doctor(&directory.0).await;
        assert_eq!(said.code, Some(1), "{place}");
        assert_eq!(said.of("data_dir")[0].0, "fail", "{place}: {}", said.report);
    }
}

#[tokio::test]
async fn a_clock_behind_the_newest_event_is_a_warning() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    node.api().create(&phone(1)).await;
    node.process.kill();
    let later = clock::utc().duration_since(UNIX_EPOCH).unwrap() + Duration::from_hours(2);
    let later = i64::try_from(later.as_millis()).unwrap();
    assert_eq!(node.database().execute("UPDATE events SET at = ?1", [later]).unwrap(), 1);
    let said = doctor(node.directory()).await;
    assert_eq!((said.code, said.report["result"].as_str()), (Some(0), Some("warn")));
    let warned: Vec<_> =
        said.of("clock").into_iter().filter(|(_, found)| found.contains("newest stored event")).collect();
    assert_eq!(warned.len(), 1, "{}", said.report);
    assert_eq!(warned[0].0, "warn");
}

#[tokio::test]
async fn a_database_of_a_later_version_or_a_damaged_one_fails() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config::new(&receiver.url())).await;
    node.api().create(&phone(1)).await;
    node.process.kill();
    node.database().pragma_update(None, "user_version", 4711).unwrap();
    let said = doctor(node.directory()).await;
    assert_eq!(said.code, Some(1));
    assert!(said.of("database")[0].1.contains("schema version 4711"), "{}", said.report);
    let path = node.directory().join("data/ringproof.db");
    fs::write(&path, vec![0x55; 20_000]).unwrap();
    let said = doctor(node.directory()).await;
    assert_eq!((said.code, said.of("database")[0].0), (Some(1), "fail"));
}

#[tokio::test]
async fn a_broken_configuration_ends_with_2_and_its_faults() {
    let directory = Directory::new();
    write(&directory.0, &Config::new("ftp://x/").text(&[]));
    for more in [&[][..], &["--json"]] {
        let mut process = run(&directory.0, more);
        assert_eq!(process.exit_code().await, Some(2));
        assert!(process.stderr().contains("config.toml:"), "{}", process.stderr());
        assert!(process.stdout().is_empty());
    }
}
