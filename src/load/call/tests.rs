//! Calls to a peer that answers by script.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::join;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::*;

/// Bytes of a datagram.
const MAX_DATAGRAM: usize = 65_535;

#[tokio::test]
async fn a_refused_call_is_acknowledged_and_shown() {
    let peer = Peer::bind("127.0.0.1:0").await;
    let settings = settings(&peer);
    let mut out = Vec::new();
    let script = async {
        let invite = peer.request().await;
        peer.answer(&invite, "486 Busy Here", "Reason: Q.850;cause=17;text=\"User busy\"\r\n").await;
        (invite, peer.request().await)
    };
    let (code, (invite, ack)) = join!(place(&settings, now, &mut out), script);

    let code = code.unwrap();
    assert_eq!((code.code(), code.is_refusal(), code.is_answer()), (486, true, false));
    assert!(invite.text.starts_with(&format!("INVITE sip:+966115000042@{} SIP/2.0\r\n", settings.via.address)));
    assert_eq!(invite.field("P-Asserted-Identity"), "<sip:+966500000123@127.0.0.1>");
    assert_eq!(ack.field("CSeq"), "1 ACK");
    assert_eq!(ack.field("Via"), invite.field("Via"));
    assert_eq!(ack.field("To"), format!("{};tag=peer", invite.field("To")));

    let shown = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].ends_with(&format!(" ms  ->  INVITE sip:+966115000042@{}", settings.via.address)), "{shown}");
    assert!(lines[1].ends_with(" ms  <-  486 Busy Here   Reason: Q.850;cause=17;text=\"User busy\""), "{shown}");
    assert!(lines[2].ends_with(" ms  ->  ACK"), "{shown}");
    assert!(lines[3].starts_with("486 Busy Here after ") && lines[3].ends_with(" ms"), "{shown}");
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn a_provisional_response_ends_the_repetition() {
    let peer = Peer::bind("127.0.0.1:0").await;
    // Short enough that a repetition would come while the peer waits, long enough to be cancelled much later.
    let settings = Settings { t1: Duration::from_millis(100), ..settings(&peer) };
    let mut out = Vec::new();
    let script = async {
        let invite = peer.request().await;
        peer.answer(&invite, "100 Trying", "").await;
        let silence = timeout(Duration::from_millis(300), peer.request()).await;
        peer.answer(&invite, "603 Decline", "").await;
        (silence.is_err(), peer.request().await)
    };
    let (code, (silent, ack)) = join!(place(&settings, now, &mut out), script);
    assert_eq!(code.unwrap().code(), 603);
    assert!(silent);
    assert!(ack.text.starts_with("ACK "));
    let shown = String::from_utf8(out).unwrap();
    assert!(shown.contains("<-  100 Trying\n") && shown.contains("<-  603 Decline\n"), "{shown}");
}

#[tokio::test]
async fn a_silent_peer_hears_the_invite_again_until_timer_b() {
    let peer = Peer::bind("127.0.0.1:0").await;
    let t1 = Duration::from_millis(5);
    let settings = Settings { t1, timeout: 64 * t1, ..settings(&peer) };
    let mut out = Vec::new();
    let error = place(&settings, now, &mut out).await.unwrap_err();
    assert!(matches!(error, CallError::NoFinalResponse { waited } if waited >= 64 * t1), "{error}");

    let first = peer.request().await;
    let mut copies = 1;
    while let Ok(copy) = timeout(Duration::from_millis(50), peer.request()).await {
        assert_eq!(copy.text, first.text);
        copies += 1;
    }
    // At 0, 1, 3, 7, 15, 31 and 63 times T1; a busy machine may come late for the last.
    assert!((6..=7).contains(&copies), "{copies}");
}

#[tokio::test]
async fn responses_to_something_else_are_passed_over() {
    let peer = Peer::bind("127.0.0.1:0").await;
    let settings = settings(&peer);
    let mut out = Vec::new();
    let script = async {
        let invite = peer.request().await;
        let mut stray = invite.clone();
        stray.text = invite.text.replace("branch=z9hG4bK", "branch=z9hG4bKother");
        peer.answer(&stray, "200 OK", "").await;
        stray.text = invite.text.replace("CSeq: 1 INVITE", "CSeq: 2 INVITE");
        peer.answer(&stray, "404 Not Found", "").await;
        peer.socket.send_to(b"\0\xff garbage", invite.sender).await.unwrap();
        peer.socket.send_to(b"", invite.sender).await.unwrap();
        let stranger = Peer::bind("127.0.0.1:0").await;
        stranger.answer(&invite, "404 Not Found", "").await;
        peer.answer(&invite, "603 Decline", "").await;
    };
    let (code, ()) = join!(place(&settings, now, &mut out), script);
    assert_eq!(code.unwrap().code(), 603);
    assert!(!String::from_utf8(out).unwrap().contains("404"));
}

#[tokio::test]
async fn ipv6_is_in_brackets_on_the_wire() {
    let peer = Peer::bind("[::1]:0").await;
    let settings = settings(&peer);
    let mut out = Vec::new();
    let script = async {
        let invite = peer.request().await;
        peer.answer(&invite, "486 Busy Here", "").await;
        invite
    };
    let (code, invite) = join!(place(&settings, now, &mut out), script);
    assert_eq!(code.unwrap().code(), 486);
    assert!(invite.text.starts_with(&format!("INVITE sip:+966115000042@{} SIP/2.0\r\n", settings.via.address)));
    assert!(invite.field("Via").starts_with(&format!("SIP/2.0/UDP {};branch=z9hG4bK", invite.sender)));
    assert!(invite.field("From").starts_with("<sip:+966500000123@[::1];user=phone>;tag="));
}

#[tokio::test]
async fn an_answered_call_is_ended_at_once() {
    let peer = Peer::bind("127.0.0.1:0").await;
    let settings = Settings { t1: Duration::from_millis(20), ..settings(&peer) };
    let mut out = Vec::new();
    let script = async {
        let invite = peer.request().await;
        let contact = "Contact: <sip:robot@127.0.0.1:5099>\r\n";
        peer.answer(&invite, "200 OK", contact).await;
        let (ack, bye) = (peer.request().await, peer.request().await);
        // As if the ACK had been lost, then the BYE.
        peer.answer(&invite, "200 OK", contact).await;
        let (mut acked_again, mut ended_again) = (false, false);
        while !(acked_again && ended_again) {
            let copy = peer.request().await.text;
            assert!(copy == ack.text || copy == bye.text, "{copy}");
            acked_again |= copy == ack.text;
            ended_again |= copy == bye.text;
        }
        peer.answer(&bye, "200 OK", "").await;
        (invite, ack, bye)
    };
    let (code, (invite, ack, bye)) = join!(place(&settings, now, &mut out), script);

    let code = code.unwrap();
    assert_eq!((code.code(), code.is_answer(), code.is_refusal()), (200, true, false));
    assert!(ack.text.starts_with("ACK sip:robot@127.0.0.1:5099 SIP/2.0\r\n"), "{}", ack.text);
    assert_ne!(ack.field("Via"), invite.field("Via"));
    assert!(bye.text.starts_with("BYE sip:robot@127.0.0.1:5099 SIP/2.0\r\n"), "{}", bye.text);
    assert_eq!(bye.field("CSeq"), "2 BYE");
    let shown = String::from_utf8(out).unwrap();
    assert!(shown.contains("<-  200 OK (BYE)\n"), "{shown}");
    assert!(shown.ends_with(" ms: the call was answered, and ended with BYE\n"), "{shown}");
}

#[tokio::test]
async fn a_peer_that_only_rings_is_cancelled() {
    let peer = Peer::bind("127.0.0.1:0").await;
    let settings = Settings { t1: Duration::from_millis(50), timeout: Duration::from_millis(800), ..settings(&peer) };
    let mut out = Vec::new();
    let script = async {
        let invite = peer.request().await;
        peer.answer(&invite, "180 Ringing", "").await;
        let cancel = peer.request_other_than(&invite).await;
        assert_eq!(peer.request().await.text, cancel.text);
        peer.answer(&cancel, "200 OK", "").await;
        peer.answer(&invite, "487 Request Terminated", "").await;
        let ack = peer.request_other_than(&cancel).await;
        (invite, cancel, ack)
    };
    let (code, (invite, cancel, ack)) = join!(place(&settings, now, &mut out), script);
    assert_eq!(code.unwrap().code(), 487);
    assert_eq!(cancel.field("CSeq"), "1 CANCEL");
    assert_eq!(cancel.field("Via"), invite.field("Via"));
    assert!(ack.text.starts_with("ACK "));
    assert!(String::from_utf8(out).unwrap().contains("<-  200 OK (CANCEL)\n"));
}

#[tokio::test]
async fn a_closed_port_is_told_at_once() {
    let peer = Peer::bind("127.0.0.1:0").await;
    let settings = settings(&peer);
    drop(peer);
    let error = place(&settings, now, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { via, .. } if via == settings.via), "{error}");
}

#[tokio::test]
async fn a_peer_cannot_steer_the_terminal() {
    let peer = Peer::bind("127.0.0.1:0").await;
    let settings = settings(&peer);
    let mut out = Vec::new();
    let script = async {
        let invite = peer.request().await;
        peer.answer(&invite, "486 \u{1b}[31mBusy", "Reason: \u{1b}]0;x\u{7}\r\n").await;
    };
    let (code, ()) = join!(place(&settings, now, &mut out), script);
    assert_eq!(code.unwrap().code(), 486);
    assert!(out.iter().all(|byte| *byte == b'\n' || !byte.is_ascii_control()));
}

#[tokio::test]
async fn a_flood_of_responses_ends_the_call() {
    let peer = Peer::bind("127.0.0.1:0").await;
    let settings = settings(&peer);
    let mut out = Vec::new();
    let script = async {
        let invite = peer.request().await;
        loop {
            peer.answer(&invite, "180 Ringing", "").await;
            tokio::task::yield_now().await;
        }
    };
    let error = tokio::select! {
        outcome = place(&settings, now, &mut out) => outcome.unwrap_err(),
        () = script => unreachable!("the script has no end"),
    };
    assert!(matches!(error, CallError::TooManyResponses), "{error}");
}

#[tokio::test]
async fn over_tcp_a_call_takes_one_connection_and_repeats_nothing() {
    let (listener, settings) = tcp_peer().await;
    // The pause before a repetition is over long before the answer.
    let settings = Settings { t1: Duration::from_millis(5), ..settings };
    let mut out = Vec::new();
    let script = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let invite = heard(&mut stream, "INVITE ").await;
        let silence = timeout(Duration::from_millis(100), stream.readable()).await;
        assert!(silence.is_err(), "the INVITE came again");
        let busy = response(&invite, "486 Busy Here");
        // A pong, a provisional response, and the final one in two pieces.
        stream.write_all(format!("\r\n{}", response(&invite, "100 Trying")).as_bytes()).await.unwrap();
        let (first, second) = busy.as_bytes().split_at(40);
        stream.write_all(first).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(second).await.unwrap();
        (invite, heard(&mut stream, "ACK ").await)
    };
    let (code, (invite, ack)) = join!(place(&settings, now, &mut out), script);
    assert_eq!(code.unwrap().code(), 486);
    assert!(invite.field("Via").starts_with("SIP/2.0/TCP 127.0.0.1:"));
    assert_eq!(ack.field("Via"), invite.field("Via"));
    let shown = String::from_utf8(out).unwrap();
    assert_eq!(shown.lines().count(), 5, "{shown}");
}

#[tokio::test]
async fn over_tcp_a_peer_that_hangs_up_or_is_no_sip_ends_the_call() {
    let (listener, settings) = tcp_peer().await;
    let mut out = Vec::new();
    let script = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        heard(&mut stream, "INVITE ").await;
    };
    let (end, ()) = join!(place(&settings, now, &mut out), script);
    assert!(matches!(end.unwrap_err(), CallError::Closed { .. }));
    let script = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        heard(&mut stream, "INVITE ").await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    };
    let (end, _stream) = join!(place(&settings, now, &mut out), script);
    assert!(matches!(end.unwrap_err(), CallError::Framing { source: FrameError::NotSip, .. }));
    drop(listener);
    let end = place(&settings, now, &mut out).await;
    assert!(matches!(end.unwrap_err(), CallError::Unreachable { .. }));
}

async fn tcp_peer() -> (TcpListener, Settings) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let via = Target { transport: Transport::Tcp, address: listener.local_addr().unwrap() };
    let (from, to) = ("+966500000123".parse().unwrap(), "+966115000042".parse().unwrap());
    (listener, Settings::new(from, to, via))
}

/// A request without a body, or an INVITE with its offer.
async fn heard(stream: &mut TcpStream, method: &str) -> Request {
    let mut bytes = Vec::new();
    let end = if method == "INVITE " { "PCMU/8000\r\n" } else { "\r\n\r\n" };
    while !bytes.ends_with(end.as_bytes()) {
        let read = timeout(Duration::from_secs(5), stream.read_buf(&mut bytes)).await;
        assert!(read.expect("a request arrives in time").unwrap() > 0);
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with(method), "{text}");
    Request { text, sender: stream.peer_addr().unwrap() }
}

/// A SIP peer of a few lines: hands out requests, answers as it is told.
struct Peer {
    socket: UdpSocket,
}

#[derive(Clone)]
struct Request {
    text: String,
    sender: SocketAddr,
}

impl Peer {
    async fn bind(address: &str) -> Self {
        Self { socket: UdpSocket::bind(address).await.unwrap() }
    }

    async fn request(&self) -> Request {
        let mut buffer = vec![0; MAX_DATAGRAM];
        let received = timeout(Duration::from_secs(5), self.socket.recv_from(&mut buffer)).await;
        let (length, sender) = received.expect("a request arrives in time").unwrap();
        buffer.truncate(length);
        Request { text: String::from_utf8(buffer).unwrap(), sender }
    }

    /// The next request that is no copy of `last`.
    async fn request_other_than(&self, last: &Request) -> Request {
        loop {
            let request = self.request().await;
            if request.text != last.text {
                return request;
            }
        }
    }

    async fn answer(&self, request: &Request, status: &str, more: &str) {
        let text = response(request, status).replace("Content-Length", &format!("{more}Content-Length"));
        self.socket.send_to(text.as_bytes(), request.sender).await.unwrap();
    }
}

fn response(request: &Request, status: &str) -> String {
    let field = |name| request.field(name);
    format!(
        "SIP/2.0 {status}\r\nVia: {};received=127.0.0.1\r\nFrom: {}\r\nTo: {};tag=peer\r\nCall-ID: {}\r\nCSeq: {}\r\n\
         Content-Length: 0\r\n\r\n",
        field("Via"),
        field("From"),
        field("To"),
        field("Call-ID"),
        field("CSeq"),
    )
}

impl Request {
    fn field(&self, name: &str) -> &str {
        let value = self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_else(|| panic!("{name} is missing in {}", self.text))
    }
}

fn settings(peer: &Peer) -> Settings {
    let (from, to) = ("+966500000123".parse().unwrap(), "+966115000042".parse().unwrap());
    let address = peer.socket.local_addr().unwrap();
    Settings::new(from, to, Target { transport: Transport::Udp, address })
}

#[allow(clippy::disallowed_methods, reason = "the clock that the command hands in")]
fn now() -> Instant {
    Instant::now()
}
