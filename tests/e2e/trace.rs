//! The decision trace: over the API, from a message on disk, and of a call that is about to be placed.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::caller::{Caller, Request};
use crate::config::{Config, phone};
use crate::node::{Directory, Node};
use crate::receiver::Receiver;
use crate::wait::until;

#[tokio::test]
async fn every_call_of_a_verification_is_told_step_by_step_with_masked_numbers() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let caller = Caller::new(node.sip()).await;
    let created = node.api().create(&phone(1)).await;
    let forwarded = Request::invite(&created.phone, &created.number).with("Diversion: <sip:+966500000777@c>");
    assert_eq!(caller.place(&forwarded).await.code(), 486);
    let hidden = Request::invite(&created.phone, &created.number).with("Privacy: id");
    assert_eq!(caller.place(&hidden).await.code(), 486);
    let path = format!("/v1/verifications/{}/trace", created.id);
    let trace = until("both calls", async || {
        let trace = node.api().get(&path).await.json();
        (trace["data"].as_array().unwrap().len() == 2).then_some(trace)
    })
    .await;
    let call = |outcome: &str| -> Value {
        trace["data"].as_array().unwrap().iter().find(|call| call["outcome"] == outcome).unwrap().clone()
    };
    let (verified, refused) = (call("verified"), call("refused"));
    assert_eq!((&verified["object"], &verified["trunk"]), (&json!("trace"), &json!("local")));
    let steps = |call: &Value| -> Vec<String> {
        let steps = call["steps"].as_array().unwrap().iter();
        steps.map(|step| format!("{} {}", step["step"].as_str().unwrap(), step["found"].as_str().unwrap())).collect()
    };
    assert!(steps(&refused).contains(&"forwarding forwarded".to_owned()), "{refused}");
    assert_eq!(steps(&refused).last().unwrap(), "result D");
    assert!(steps(&verified).contains(&"level national".to_owned()), "{verified}");
    // The caller is masked, and hidden where it asked to be.
    let text = trace["data"].to_string();
    let steps = format!("{}{}", verified["steps"], refused["steps"]);
    assert!(!steps.contains(&created.phone[4..]), "{text}");
    assert!(verified["steps"].to_string().contains("restricted") && verified["caller"].is_null(), "{text}");
}

#[tokio::test]
async fn there_is_a_trace_of_ones_own_verifications_alone() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let answer = node.api().get("/v1/verifications/ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V/trace").await;
    assert_eq!(answer.status, 404);
}

fn ringproof(directory: &Directory, arguments: &[&str]) -> Output {
    fs::write(directory.0.join("config.toml"), include_str!("../../config.toml")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_ringproof")).args(arguments).current_dir(&directory.0).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_message_on_disk_is_explained_and_what_is_wrong_with_the_command_is_told() {
    let directory = Directory::new();
    let invite = Request::invite("+966500000123", "+966115000042").bytes("127.0.0.1:5999".parse().unwrap());
    fs::write(directory.0.join("call.sip"), invite).unwrap();
    let told = ringproof(&directory, &["explain", "call.sip", "--trunk", "local"]);
    let page = text(&told.stdout);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    assert!(page.contains("answer   486 Busy Here") && page.contains("level B"), "{page}");
    let told = ringproof(&directory, &["explain", "call.sip", "--trunk", "local", "--json"]);
    let json: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&json["assurance"], &json["steps"][1]["number"]), (&json!("B"), &json!("+966500000123")));
    let told = ringproof(&directory, &["explain", "call.sip", "--trunk", "nobody"]);
    assert_eq!(told.status.code(), Some(2));
    assert!(text(&told.stderr).contains("no trunk `nobody`; it has `local`"), "{}", text(&told.stderr));
    let told = ringproof(&directory, &["explain", "nothing.sip", "--trunk", "local"]);
    assert_eq!(told.status.code(), Some(2));
    assert!(text(&told.stderr).contains("nothing.sip cannot be read"), "{}", text(&told.stderr));
}

#[test]
fn our_numbers_are_listed_for_a_registry() {
    let directory = Directory::new();
    let told = ringproof(&directory, &["numbers", "dno"]);
    assert_eq!(text(&told.stdout).lines().count(), 100);
    let told = ringproof(&directory, &["numbers", "dno", "--format", "csv"]);
    assert!(text(&told.stdout).contains("+966115000000,+966115000099,100,demo,false"));
}

#[tokio::test]
async fn a_call_can_be_explained_as_it_is_placed() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let directory = Directory::new();
    let via = format!("udp:{}", node.sip());
    let arguments = [
        "call",
        "--from",
        "+966500000123",
        "--to",
        "+966115000042",
        "--via",
        &via,
        "--explain",
        "--header",
        "Privacy: id",
    ];
    let told = ringproof(&directory, &arguments);
    let page = text(&told.stdout);
    assert_eq!(told.status.code(), Some(0), "{page}{}", text(&told.stderr));
    assert!(page.contains("the caller hides the number") && page.contains("486 Busy Here"), "{page}");
}
