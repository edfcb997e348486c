//! Whole loads against small peers on the loopback.

use std::collections::HashSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::numbers::Numbers;
use super::*;
use crate::sip::framing::{Cut, Framer};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_loop_over_udp_places_every_call_once() {
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let via = Target { transport: Transport::Udp, address: peer.local_addr().unwrap() };
    let serving = tokio::spawn(serve_datagrams(peer, 500));
    let outcome = load(Settings { threads: 2, ..settings(via, Some(500)) }).await;
    let seen = timeout(DEADLINE, serving).await.unwrap().unwrap();

    let tally = outcome.tally;
    assert_eq!((tally.begun, tally.ended, tally.lost), (500, 500, 0));
    assert_eq!(tally.codes, [("486".to_owned(), 500)].into());
    assert_eq!(tally.latencies[0].histogram.len(), 500);
    assert_eq!((seen.invited.len(), &seen.acknowledged), (500, &seen.invited));
    assert!(!outcome.elapsed.is_zero());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_over_udp_places_the_calls_of_its_rate() {
    let peer = UdpSocket::bind("[::1]:0").await.unwrap();
    let via = Target { transport: Transport::Udp, address: peer.local_addr().unwrap() };
    let serving = tokio::spawn(serve_datagrams(peer, 200));
    let pace = Pace::Open { rate: 2_000.0, ramp: Duration::ZERO };
    let outcome = load(Settings { pace, ..settings(via, Some(200)) }).await;
    let seen = timeout(DEADLINE, serving).await.unwrap().unwrap();
    assert_eq!((outcome.tally.ended, outcome.tally.lost, seen.acknowledged.len()), (200, 0, 200));
    assert!(outcome.elapsed >= Duration::from_millis(99), "the last call is due at {:?}", outcome.elapsed);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_nobody_answers_are_lost() {
    // A socket that is never read: nothing refuses the datagrams, and nothing answers.
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let via = Target { transport: Transport::Udp, address: peer.local_addr().unwrap() };
    let short = Duration::from_millis(50);
    let outcome = load(Settings { timeout: short, ..settings(via, Some(20)) }).await;
    assert_eq!((outcome.tally.lost, outcome.tally.ended), (20, 0));
    assert_eq!(outcome.tally.codes, [("timeout".to_owned(), 20)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_share_a_load_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let via = Target { transport: Transport::Tcp, address: listener.local_addr().unwrap() };
    let serving = tokio::spawn(async move {
        let mut served = Vec::new();
        for _ in 0..3 {
            let (stream, _) = listener.accept().await.unwrap();
            served.push(tokio::spawn(serve_stream(stream, usize::MAX)));
        }
        let mut seen = Seen::default();
        for served in served {
            let part = served.await.unwrap();
            assert!(!part.invited.is_empty());
            seen.invited.extend(part.invited);
            seen.acknowledged.extend(part.acknowledged);
        }
        seen
    });
    let outcome = load(Settings { threads: 2, connections: 3, ..settings(via, Some(500)) }).await;
    let seen = timeout(DEADLINE, serving).await.unwrap().unwrap();
    assert_eq!((outcome.tally.ended, outcome.tally.lost), (500, 0));
    assert_eq!((seen.invited.len(), &seen.acknowledged), (500, &seen.invited));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_loses_its_calls_and_is_opened_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let via = Target { transport: Transport::Tcp, address: listener.local_addr().unwrap() };
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve_stream(stream, 10).await;
        let (stream, _) = listener.accept().await.unwrap();
        serve_stream(stream, usize::MAX).await
    });
    let outcome = load(settings(via, Some(100))).await;
    timeout(DEADLINE, serving).await.unwrap().unwrap();
    let tally = outcome.tally;
    assert_eq!((tally.begun, tally.ended + tally.lost), (100, 100));
    assert_eq!(tally.codes["connection"], tally.lost);
    assert!((1..=8).contains(&tally.lost) && tally.ended >= 92, "{tally:?}");
}

#[test]
fn a_peer_that_takes_no_connection_is_told_at_once() {
    // A socket that is bound and does not listen: nobody else gets its port.
    let refusing = TcpSocket::new_v4().unwrap();
    refusing.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let via = Target { transport: Transport::Tcp, address: refusing.local_addr().unwrap() };
    let error = run(settings(via, None), now).unwrap_err();
    assert!(matches!(error, FloodError::Connect { .. }), "{error}");
}

#[test]
fn a_lack_of_descriptors_is_not_blamed_on_others() {
    let error = FloodError::from(io::Error::from_raw_os_error(libc::EMFILE));
    assert!(matches!(error, FloodError::Descriptors { .. }) && error.to_string().contains("ulimit -n"), "{error}");
    let error = FloodError::from(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    assert!(matches!(error, FloodError::System(_)), "{error}");
}

#[test]
fn an_invite_that_fits_no_datagram_is_told() {
    let via = Target { transport: Transport::Udp, address: "127.0.0.1:5060".parse().unwrap() };
    let mut settings = settings(via, None);
    settings.plot.headers = vec![("X".to_owned(), "y".repeat(1_000)); 70];
    assert!(matches!(run(settings, now), Err(FloodError::TooLong { length: 70_000.. })));
}

/// Call-IDs that a peer has seen.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    invited: HashSet<String>,
    acknowledged: HashSet<String>,
}

impl Seen {
    /// Notes a request, and gives the answer to an INVITE.
    fn take(&mut self, request: &[u8]) -> Option<String> {
        let request = std::str::from_utf8(request).unwrap();
        let field = |name| request.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let call = field("Call-ID: ").to_owned();
        if request.starts_with("ACK ") {
            self.acknowledged.insert(call);
            return None;
        }
        let echoed = ["Via: ", "From: ", "Call-ID: "].map(|name| format!("{name}{}\r\n", field(name))).concat();
        self.invited.insert(call);
        Some(format!(
            "SIP/2.0 486 Busy Here\r\n{echoed}To: {};tag=peer\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n",
            field("To: ")
        ))
    }
}

/// Refuses calls until so many have been acknowledged.
async fn serve_datagrams(socket: UdpSocket, calls: usize) -> Seen {
    let mut seen = Seen::default();
    let mut datagram = [0; 2_048];
    while seen.acknowledged.len() < calls {
        let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
        if let Some(answer) = seen.take(&datagram[..length]) {
            socket.send_to(answer.as_bytes(), from).await.unwrap();
        }
    }
    seen
}

/// Refuses so many calls, then closes the connection, or ends with it.
async fn serve_stream(mut stream: TcpStream, mut calls: usize) -> Seen {
    let (mut seen, mut framer, mut bytes) = (Seen::default(), Framer::default(), Vec::new());
    while calls > 0 {
        match framer.cut(&bytes).unwrap() {
            Cut::Wait => {
                if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            Cut::Blank(length) | Cut::Ping(length) => drop(bytes.drain(..length)),
            Cut::Message(length) => {
                if let Some(answer) = seen.take(&bytes[..length]) {
                    calls -= 1;
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                bytes.drain(..length);
            }
        }
    }
    seen
}

async fn load(settings: Settings) -> Outcome {
    let load = tokio::task::spawn_blocking(move || run(settings, now));
    timeout(DEADLINE, load).await.unwrap().unwrap().unwrap()
}

fn settings(via: Target, calls: Option<u64>) -> Settings {
    let numbers = |text: &str| Numbers::new(&[text.parse().unwrap()]).unwrap();
    let (from, to) = (numbers("+966500000000/1000"), numbers("+966115000000/100"));
    Settings {
        via,
        plot: Plot { from, to, headers: Vec::new(), lengths: Lengths::Varied, seed: 7 },
        pace: Pace::Closed { window: 8 },
        bounds: Bounds { duration: DEADLINE, calls },
        timeout: DEADLINE,
        threads: 1,
        connections: 1,
    }
}

#[expect(clippy::disallowed_methods, reason = "a test on real sockets")]
fn now() -> Instant {
    Instant::now()
}
