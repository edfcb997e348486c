//! Loads against a peer in the same test.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::*;
use crate::sip::flow::Transport;
use crate::sip::framing::{Cut, Framer};

const CALLS: u64 = 60;
/// Longer than any of these loads takes.
const DEADLINE: Duration = Duration::from_mins(1);
/// The fixtures, the refusal that each expects, and what all its calls count together.
const FIXTURES: [(&str, &str, &[&str]); 4] = [
    ("caller", "486 Busy Here", &["486"]),
    ("caller-603", "603 Decline", &["603"]),
    ("cancel", "486 Busy Here", &["200", "486"]),
    ("options", "486 Busy Here", &["200"]),
];

#[tokio::test]
async fn every_fixture_is_played_over_udp() {
    for (name, refusal, codes) in FIXTURES {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let files = Files::of_fixture(name);
        let settings = files.settings(Transport::Udp, socket.local_addr().unwrap());
        check(&outcome(&settings, serve_socket(&socket, refusal)).await, name, codes);
    }
}

#[tokio::test]
async fn every_fixture_is_played_over_tcp() {
    for (name, refusal, codes) in FIXTURES {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let files = Files::of_fixture(name);
        let settings = files.settings(Transport::Tcp, listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            serve_stream(&mut stream, refusal).await;
            pending::<()>().await;
        };
        check(&outcome(&settings, serve).await, name, codes);
    }
}

#[tokio::test]
async fn a_closed_connection_loses_its_calls_and_the_load_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let files = Files::of_fixture("caller");
    let settings = Settings {
        pace: Pace::Closed { window: 1 },
        bounds: Bounds { duration: DEADLINE, calls: Some(3) },
        ..files.settings(Transport::Tcp, listener.local_addr().unwrap())
    };
    let serve = async {
        let (mut first, _) = listener.accept().await.unwrap();
        first.read_u8().await.unwrap();
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        serve_stream(&mut second, "486 Busy Here").await;
        pending::<()>().await;
    };
    let tally = outcome(&settings, serve).await.tally;
    assert_eq!((tally.begun, tally.ended, tally.lost), (3, 2, 1));
    assert_eq!(tally.codes, BTreeMap::from([("486".to_owned(), 2), ("connection".to_owned(), 1)]));
}

#[tokio::test]
async fn a_peer_that_stays_away_ends_the_load() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let files = Files::of_fixture("caller");
    let settings = Settings {
        pace: Pace::Closed { window: 1 },
        bounds: Bounds { duration: Duration::from_hours(24), calls: Some(1_000_000) },
        timeout: Duration::from_hours(24),
        ..files.settings(Transport::Tcp, listener.local_addr().unwrap())
    };
    let serve = async {
        let (mut only, _) = listener.accept().await.unwrap();
        only.read_u8().await.unwrap();
        drop((only, listener));
        pending::<()>().await;
    };
    let tally = outcome_by(leaping, &settings, serve).await.tally;
    assert!(tally.begun < 100 && tally.lost == tally.begun, "{tally:?}");
    assert!(tally.codes.contains_key("connection"), "{:?}", tally.codes);
}

#[tokio::test]
async fn a_peer_that_takes_no_connection_is_told() {
    // A socket that is bound and does not listen: nobody else gets its port.
    let refusing = TcpSocket::new_v4().unwrap();
    refusing.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let files = Files::of_fixture("caller");
    let settings = files.settings(Transport::Tcp, refusing.local_addr().unwrap());
    let error = play(&settings, read(&settings).unwrap(), now, None, pending()).await.unwrap_err();
    assert!(matches!(error, PlayError::Link { .. }) && !error.is_misuse(), "{error}");
}

#[test]
fn files_that_cannot_be_played_are_told_apart() {
    let files = Files::of_fixture("caller");
    let settings = files.settings(Transport::Udp, ([127, 0, 0, 1], 5060).into());
    let fault = |scenario: PathBuf, fields: Option<PathBuf>| {
        let error = read(&Settings { scenario, fields, ..settings.clone() }).unwrap_err();
        assert!(error.is_misuse(), "{error}");
        error
    };
    let (good, csv) = (settings.scenario.clone(), settings.fields.clone());
    let missing = files.directory.path().join("missing");
    assert!(matches!(fault(missing.clone(), csv.clone()), PlayError::Read { path, .. } if path == missing));
    let directory = files.directory.path().to_owned();
    assert!(matches!(fault(directory, csv.clone()), PlayError::NoFile { most: MAX_SCENARIO, .. }));
    assert!(matches!(fault(files.write("large", &vec![b' '; 1 + (1 << 20)]), csv.clone()), PlayError::NoFile { .. }));
    assert!(matches!(fault(files.write("latin", b"\xe9"), csv.clone()), PlayError::NoText { .. }));
    assert!(matches!(fault(files.write("broken", b"<scenario>"), csv), PlayError::Scenario { .. }));
    assert!(matches!(fault(good.clone(), Some(files.write("user", b"USER\na\n"))), PlayError::Fields { .. }));
    let error = fault(good, None).to_string();
    assert!(error.contains("caller.xml, line 14, column ") && error.ends_with("give one with --csv"), "{error}");
}

fn check(outcome: &Outcome, name: &str, codes: &[&str]) {
    let tally = &outcome.tally;
    assert_eq!((tally.begun, tally.ended, tally.lost), (CALLS, CALLS, 0), "{name}: {:?}", tally.codes);
    let expected: BTreeMap<_, _> = codes.iter().map(|code| ((*code).to_owned(), CALLS)).collect();
    assert_eq!(tally.codes, expected, "{name}");
    assert!(tally.latencies.iter().all(|latency| latency.histogram.len() == CALLS), "{name}");
    assert_eq!(tally.latencies[0].name, "call");
}

/// Plays the load while the peer serves.
async fn outcome(settings: &Settings, serve: impl Future<Output = ()>) -> Outcome {
    outcome_by(now, settings, serve).await
}

async fn outcome_by(clock: fn() -> Instant, settings: &Settings, serve: impl Future<Output = ()>) -> Outcome {
    let files = read(settings).unwrap();
    let both = async {
        tokio::select! {
            outcome = play(settings, files, clock, None, pending()) => outcome.unwrap(),
            () = serve => panic!("the peer serves as long as the load lasts"),
        }
    };
    timeout(DEADLINE, both).await.expect("the load ends in time")
}

async fn serve_socket(socket: &UdpSocket, refusal: &str) {
    let mut buffer = vec![0; 65_535];
    loop {
        let (length, sender) = socket.recv_from(&mut buffer).await.unwrap();
        if let Some(response) = response(&buffer[..length], refusal) {
            socket.send_to(&response, sender).await.unwrap();
        }
    }
}

async fn serve_stream(stream: &mut TcpStream, refusal: &str) {
    let (mut framer, mut bytes) = (Framer::default(), Vec::new());
    loop {
        match framer.cut(&bytes).unwrap() {
            Cut::Wait => {
                if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                    return;
                }
            }
            Cut::Blank(length) | Cut::Ping(length) => drop(bytes.drain(..length)),
            Cut::Message(length) => {
                let message: Vec<u8> = bytes.drain(..length).collect();
                if let Some(response) = response(&message, refusal) {
                    stream.write_all(&response).await.unwrap();
                }
            }
        }
    }
}

/// What the peer says to a request: nothing to an ACK, the refusal to an INVITE, 200 to others.
fn response(request: &[u8], refusal: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(request).unwrap();
    let status = match text.split(' ').next() {
        Some("ACK") => return None,
        Some("INVITE") => refusal,
        _ => "200 OK",
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut response = format!("SIP/2.0 {status}\r\n");
    for line in head.lines() {
        match line.split_once(": ") {
            Some(("Via" | "From" | "Call-ID" | "CSeq", _)) => response.extend([line, "\r\n"]),
            Some(("To", _)) => response.extend([line, ";tag=peer\r\n"]),
            Some(("Content-Length", length)) => assert_eq!(length.trim(), body.len().to_string(), "{text}"),
            _ => {}
        }
    }
    Some((response + "Content-Length: 0\r\n\r\n").into_bytes())
}

/// A scenario of the fixtures with a CSV for it.
struct Files {
    directory: tempfile::TempDir,
    scenario: PathBuf,
    csv: PathBuf,
}

impl Files {
    fn of_fixture(name: &str) -> Self {
        let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("sip-fixtures/scenarios/{name}.xml"));
        let mut files = Self { directory: tempfile::tempdir().unwrap(), scenario, csv: PathBuf::new() };
        files.csv = files.write("calls.csv", b"SEQUENTIAL\n+966500000001;+966115000001\n+966500000002;+966115000002\n");
        files
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn settings(&self, transport: Transport, address: std::net::SocketAddr) -> Settings {
        Settings {
            scenario: self.scenario.clone(),
            fields: Some(self.csv.clone()),
            via: Target { transport, address },
            service: "service".to_owned(),
            keys: Vec::new(),
            pace: Pace::Closed { window: 8 },
            bounds: Bounds { duration: DEADLINE, calls: Some(CALLS) },
            timeout: DEADLINE,
            seed: 0x1234_5678_9abc_def0,
        }
    }
}

/// A clock that is ten seconds further each time.
fn leaping() -> Instant {
    static LEAPS: AtomicU32 = AtomicU32::new(0);
    now() + Duration::from_secs(10) * LEAPS.fetch_add(1, Ordering::Relaxed)
}

#[allow(clippy::disallowed_methods, reason = "the clock that the command hands in")]
fn now() -> Instant {
    Instant::now()
}
