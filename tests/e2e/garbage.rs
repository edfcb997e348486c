//! Two thousand datagrams of nonsense, and then a call as if nothing had been.

use std::fs;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::caller::{Caller, Request};
use crate::config::{Config, phone};
use crate::node::Node;
use crate::receiver::Receiver;

const SEED: u64 = 0x0726_1967;
const DATAGRAMS: usize = 2_000;
/// Sent at once, so that the socket's buffer holds them.
const BURST: usize = 50;

#[tokio::test]
async fn garbage_changes_nothing() {
    let receiver = Receiver::start().await;
    let mut node = Node::start(Config { log: "debug", ..Config::new(&receiver.url()) }).await;
    let created = node.api().create(&phone(1)).await;
    let caller = Caller::new(node.sip()).await;
    let messages = messages(&caller, &created.phone, &created.number);
    let mut random = StdRng::seed_from_u64(SEED);
    for burst in 0..DATAGRAMS / BURST {
        for _ in 0..BURST {
            let datagram = if random.random_ratio(1, 4) {
                noise(&mut random)
            } else {
                let message = &messages[random.random_range(0..messages.len())];
                mutated(message, &messages, &mut random)
            };
            caller.send_bytes(&datagram).await;
        }
        // The answer to a ping says that the burst has been read; what else came is of no interest.
        assert_eq!(caller.ask(&Request::new("OPTIONS")).await.code(), 200, "after burst {burst}");
    }
    assert!(node.process.is_running());
    let lines = node.process.stderr().lines().count();
    assert!(lines < 500, "{lines} lines of log for {DATAGRAMS} datagrams");
    assert!(!node.process.stderr().contains("panicked"), "{}", node.process.stderr());
    // Some of the mutations are whole calls, so the first verification may have been called.
    let fresh = node.api().create(&phone(2)).await;
    assert_eq!(Caller::new(node.sip()).await.call(&fresh.phone, &fresh.number).await, 486);
    receiver.event(&fresh.id, "verification.verified").await;
    node.process.signal("INT");
    assert_eq!(node.process.exit_code().await, Some(0));
}

/// What is mutated: requests that would be read, and every fixture.
fn messages(caller: &Caller, phone: &str, number: &str) -> Vec<Vec<u8>> {
    let invite =
        Request::invite(phone, number).with("Privacy: id").with("Require: 100rel").with("Diversion: <sip:a@b>");
    let mut messages = vec![
        invite.bytes(caller.local()),
        invite.cancel().bytes(caller.local()),
        Request::new("OPTIONS").bytes(caller.local()),
    ];
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sip-fixtures");
    let mut paths: Vec<PathBuf> = fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sip"));
    paths.sort();
    assert!(!paths.is_empty());
    messages.extend(paths.iter().map(|path| fs::read(path).unwrap()));
    messages
}

fn noise(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(0..1_500)];
    random.fill_bytes(&mut bytes);
    bytes
}

/// A message with one to eight faults.
fn mutated(message: &[u8], others: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    const TELLING: &[u8] = b"\r\n\0 :;,<>\"\\@%+[]=\t\xff\xc3";
    let mut bytes = message.to_vec();
    for _ in 0..random.random_range(1..=8) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..6) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] = TELLING[random.random_range(0..TELLING.len())],
            2 => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            4 => {
                let end = (at + random.random_range(0..200)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let other = &others[random.random_range(0..others.len())];
                let from = random.random_range(0..other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
    bytes.truncate(60_000);
    bytes
}
