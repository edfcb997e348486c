//! Connections as a hostile or an unlucky client has them, and TLS.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::api::tls::{Identity, Tls};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn here() -> Router {
    Router::new().route("/wait", get(async || std::future::pending::<()>().await)).fallback(async || "here")
}

async fn front(bounds: Bounds) -> Node {
    Node::serving(here(), Metrics::new(), bounds).await
}

impl Node {
    /// Waits until so many connections were closed for this reason.
    async fn closed(&self, reason: &str, count: u64) {
        let metric = self.metrics.api_connections_closed.with_label_values(&[reason]);
        let reached = async {
            while metric.get() < count {
                tokio::task::yield_now().await;
            }
        };
        let waited = timeout(PATIENCE, reached).await;
        assert!(waited.is_ok() && metric.get() == count, "{reason}: {} and not {count}", metric.get());
    }
}

async fn is_closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
}

#[tokio::test]
async fn an_address_beyond_its_cap_is_turned_away_and_others_are_served() {
    let bounds = Bounds { connections_per_address: Some(2), uncapped: Vec::new(), ..bounds() };
    let node = front(bounds).await;
    let (mut first, mut second) = (node.connect().await, node.connect().await);
    for stream in [&mut first, &mut second] {
        stream.write_all(GET).await.unwrap();
        assert_eq!(Answer::read(stream).await.status, 200);
    }
    is_closed(&mut node.connect().await).await;
    assert_eq!(node.metrics.api_connections_refused.with_label_values(&["address_full"]).get(), 1);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(node.address).await.unwrap();
    other.write_all(GET).await.unwrap();
    assert_eq!(Answer::read(&mut other).await.status, 200);
    drop(first);
    // The place comes back.
    loop {
        let mut again = node.connect().await;
        let _ = again.write_all(GET).await;
        let mut byte = [0];
        if timeout(PATIENCE, again.read(&mut byte)).await.unwrap().is_ok_and(|read| read == 1) {
            break;
        }
    }
}

#[tokio::test]
async fn loopback_and_trusted_proxies_have_no_cap() {
    let access = Access { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..Access::default() };
    let proxy = Some(Arc::new(ArcSwap::from_pointee(access)));
    for bounds in [bounds(), Bounds { uncapped: Vec::new(), access: proxy, ..bounds() }] {
        let node = front(Bounds { connections_per_address: Some(1), ..bounds }).await;
        let mut streams = Vec::new();
        for _ in 0..5 {
            let mut stream = node.connect().await;
            stream.write_all(GET).await.unwrap();
            assert_eq!(Answer::read(&mut stream).await.status, 200);
            streams.push(stream);
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let node = Node::start().await;
    let mut stream = node.connect().await;
    let requests = "GET /docs HTTP/1.1\r\nHost: x\r\n\r\nGET /none HTTP/1.1\r\nHost: x\r\n\r\nPUT /docs HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(requests.as_bytes()).await.unwrap();
    for status in [501, 404, 405] {
        assert_eq!(Answer::read(&mut stream).await.status, status);
    }
}

#[tokio::test]
async fn a_client_that_leaves_or_half_closes_while_it_waits_gives_its_place_back() {
    let node = front(Bounds { connections: 1, ..bounds() }).await;
    for half in [true, false] {
        let mut waiting = node.connect().await;
        waiting.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        if half {
            waiting.shutdown().await.unwrap();
            is_closed(&mut waiting).await;
        }
        drop(waiting);
        assert_eq!(node.ask("GET / HTTP/1.1\r\nConnection: close\r\n", b"").await.status, 200);
    }
}

#[tokio::test]
async fn headers_that_come_byte_by_byte_end_in_time_and_others_are_served_meanwhile() {
    let node = front(bounds()).await;
    let slow: Vec<_> = (0..50)
        .map(|_| {
            let address = node.address;
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut sent = 0;
                for byte in b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
                    if stream.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    sent += 1;
                    let _ = timeout(Duration::from_millis(10), stream.readable()).await;
                }
                sent
            })
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(node.ask("GET / HTTP/1.1\r\nConnection: close\r\n", b"").await.status, 200);
    }
    for task in slow {
        let sent = timeout(PATIENCE, task).await.expect("a slow client is sent away").unwrap();
        assert!(sent > 5, "{sent}");
    }
    node.closed("slow", 50).await;
}

#[tokio::test]
async fn an_http_2_client_that_only_answers_pings_is_sent_away() {
    let bounds = Bounds { idle: Duration::from_millis(200), ping: Duration::from_millis(20), ..bounds() };
    let node = front(bounds).await;
    let stream = TokioIo::new(node.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let ask =
        |path: &str| hyper::Request::get(format!("http://x{path}")).body(Full::<bytes::Bytes>::default()).unwrap();
    // While a request waits, nothing ends.
    let waiting = sender.send_request(ask("/wait"));
    assert_eq!(sender.clone().send_request(ask("/")).await.unwrap().status(), 200);
    assert!(timeout(Duration::from_millis(600), waiting).await.is_err(), "the request still waits");
    assert!(!connection.is_finished());
    // The wait is over now, for the timeout has dropped its stream.
    timeout(PATIENCE, connection).await.expect("an idle connection ends").unwrap().unwrap();
    node.closed("idle", 1).await;
}

#[tokio::test]
async fn a_thousand_requests_may_wait_on_one_http_2_connection() {
    let (go, _) = watch::channel(false);
    let waiting = go.subscribe();
    let wait = async move || {
        let _ = waiting.clone().wait_for(|go| *go).await;
        "done"
    };
    let node = Node::serving(Router::new().fallback(wait), Metrics::new(), bounds()).await;
    let stream = TokioIo::new(node.connect().await);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let asked: Vec<_> = (0..1000)
        .map(|_| {
            let mut sender = sender.clone();
            let request = hyper::Request::get("http://x/").body(Full::<bytes::Bytes>::default()).unwrap();
            tokio::spawn(async move { sender.send_request(request).await.unwrap().status().as_u16() })
        })
        .collect();
    let all = async {
        while go.receiver_count() < 1001 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, all).await.expect("all of them wait at once");
    go.send(true).unwrap();
    for answer in asked {
        assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap(), 200);
    }
}

#[tokio::test]
async fn rapid_resets_are_met_with_go_away() {
    let node = front(bounds()).await;
    let mut stream = node.connect().await;
    let mut flood = PREFACE.to_vec();
    flood.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for stream in (1..2001u32).step_by(2) {
        // HEADERS with END_STREAM and END_HEADERS: GET, http, /, :authority x; then RST_STREAM with CANCEL.
        let head = [0x82, 0x86, 0x84, 0x01, 0x01, b'x'];
        flood.extend_from_slice(&[0, 0, 6, 1, 5]);
        flood.extend_from_slice(&stream.to_be_bytes());
        flood.extend_from_slice(&head);
        flood.extend_from_slice(&[0, 0, 4, 3, 0]);
        flood.extend_from_slice(&stream.to_be_bytes());
        flood.extend_from_slice(&[0, 0, 0, 8]);
    }
    let _ = stream.write_all(&flood).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    let mut frames = &answer[..];
    let mut goodbye = None;
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = frames {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if *kind == 7 {
            goodbye = Some(rest[4..8].to_vec());
        }
        frames = &rest[length.min(rest.len())..];
    }
    assert_eq!(goodbye, Some(vec![0, 0, 0, 0xb]), "GOAWAY with ENHANCE_YOUR_CALM");
    node.closed("broken", 1).await;
    assert_eq!(node.ask("GET / HTTP/1.1\r\n", b"").await.status, 200);
}

/// A certificate for `x`, and a client that trusts nothing else.
fn certificate() -> (Identity, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
    let identity = Identity::read(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (identity, connector(roots, rustls::ALL_VERSIONS, &[b"http/1.1"]))
}

fn connector(
    roots: RootCertStore,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn encrypted(node: &Node, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("x").unwrap();
    timeout(PATIENCE, connector.connect(name, node.connect().await)).await.expect("a handshake in time")
}

#[tokio::test]
async fn https_is_served_in_both_versions_of_tls_and_of_http() {
    let made = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
    let identity = Identity::read(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap();
    let node = front(Bounds { tls: Some(Tls::new(&identity)), ..bounds() }).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let mut stream = encrypted(&node, &connector(roots.clone(), &[version], &[b"http/1.1"])).await.unwrap();
        stream.write_all(GET).await.unwrap();
        assert_eq!(Answer::read(&mut stream).await.body, b"here");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));

        let stream = encrypted(&node, &connector(roots, &[version], &[b"h2", b"http/1.1"])).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let stream = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get("https://x/").body(Full::<bytes::Bytes>::default()).unwrap();
        let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, hyper::Version::HTTP_2));
    }
}

#[tokio::test]
async fn new_handshakes_get_a_replaced_certificate_and_open_connections_go_on() {
    let ((old, trusts_old), (new, trusts_new)) = (certificate(), certificate());
    let tls = Tls::new(&old);
    let node = front(Bounds { tls: Some(tls.clone()), ..bounds() }).await;
    let mut open = encrypted(&node, &trusts_old).await.unwrap();
    assert!(encrypted(&node, &trusts_new).await.is_err());
    tls.replace(&new);
    assert!(encrypted(&node, &trusts_new).await.is_ok());
    open.write_all(GET).await.unwrap();
    assert_eq!(Answer::read(&mut open).await.status, 200);
}

#[tokio::test]
async fn a_port_with_tls_tells_plain_http_what_it_speaks_and_waits_for_no_handshake() {
    let (identity, trusting) = certificate();
    let node = front(Bounds { tls: Some(Tls::new(&identity)), ..bounds() }).await;
    for request in [GET, PREFACE] {
        let mut plain = node.connect().await;
        plain.write_all(request).await.unwrap();
        let answer = Answer::read(&mut plain).await;
        assert_eq!((answer.status, answer.body.as_slice()), (400, &b"this port speaks TLS; use https://\n"[..]));
        drop(plain);
    }
    node.closed("plain_http", 2).await;
    // Nothing, the beginning of a ClientHello, a whole record of nonsense.
    for beginning in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\x00\x04nope"] {
        let mut stream = node.connect().await;
        stream.write_all(beginning).await.unwrap();
        is_closed(&mut stream).await;
    }
    node.closed("handshake", 3).await;
    // A handshake is not yet a request.
    let mut silent = encrypted(&node, &trusting).await.unwrap();
    is_closed(&mut silent).await;
    node.closed("slow", 1).await;
}

#[tokio::test]
async fn the_stop_ends_handshakes_and_idle_connections_at_once() {
    let (identity, trusting) = certificate();
    let patient = Bounds { headers: PATIENCE, ..Bounds::default() };
    let node = front(Bounds { tls: Some(Tls::new(&identity)), ..patient }).await;
    let mut begun = node.connect().await;
    begun.write_all(b"\x16\x03").await.unwrap();
    let mut idle = encrypted(&node, &trusting).await.unwrap();
    idle.write_all(GET).await.unwrap();
    assert_eq!(Answer::read(&mut idle).await.status, 200);
    node.stop.send(true).unwrap();
    is_closed(&mut begun).await;
    is_closed(&mut idle).await;
    timeout(PATIENCE / 2, node.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_http_1_connection_that_idles_after_its_answer_is_closed_as_idle() {
    let node = front(bounds()).await;
    let mut stream = node.connect().await;
    stream.write_all(GET).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status, 200);
    is_closed(&mut stream).await;
    node.closed("idle", 1).await;
}
