//! The whole loop against a node in miniature: it creates, refuses calls over UDP, and sends signed webhooks.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, UdpSocket};

use super::*;
use crate::load::target::parse_via;
use crate::webhook::signature::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, parse_secret, sign};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const FOREIGN: &str = "whsec_HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const AT: u64 = 1_764_000_000;
const KEY: &str = "rp_test_x";
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn every_verification_ends_with_its_webhook() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let node = Node::start(SECRET).await;
        let outcome = node.loaded(node.settings(protocol, KEY, 100)).await.unwrap();
        let tally = &outcome.tally;
        assert_eq!((tally.begun, tally.ended, tally.lost), (100, 100, 0), "{protocol:?}: {:?}", tally.codes);
        assert_eq!(tally.codes.get("final 486"), Some(&100));
        assert!(tally.latencies.iter().all(|latency| latency.histogram.len() == 100));
        assert!(!outcome.elapsed.is_zero());
    }
}

#[tokio::test]
async fn a_webhook_signed_by_another_ends_nothing() {
    let node = Node::start(FOREIGN).await;
    let settings = node.settings(Protocol::Http1, KEY, 5);
    let tally = node.loaded_by(until_five_are_refused, settings).await.unwrap().tally;
    assert_eq!((tally.ended, tally.lost), (0, 5), "{:?}", tally.codes);
    assert_eq!(tally.codes.get("no webhook"), Some(&5));
    assert_eq!(tally.codes.get("bad signature"), Some(&5));
}

#[tokio::test]
async fn a_connection_that_ends_loses_the_call_on_it_at_once() {
    let node = Node::start(SECRET).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = node.settings(Protocol::Http1, KEY, 1);
    settings.via = parse_via(&format!("tcp:{}", listener.local_addr().unwrap())).unwrap();
    let closing = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        listener
    });
    let tally = node.loaded(settings).await.unwrap().tally;
    assert_eq!((tally.lost, tally.codes.get("connection lost")), (1, Some(&1)), "{:?}", tally.codes);
    timeout(DEADLINE, closing).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wrong_key_ends_the_load_at_once() {
    let node = Node::start(SECRET).await;
    let error = node.loaded(node.settings(Protocol::Http1, "rp_test_y", 100)).await.unwrap_err();
    assert!(error.is_misuse());
    let told = error.to_string();
    assert!(told.contains("status 401: A valid API key is needed: \\u{1b}[2J; look at --key"), "{told}");
}

#[tokio::test]
async fn an_api_that_is_not_there_is_told() {
    let node = Node::start(SECRET).await;
    let mut settings = node.settings(Protocol::Http1, KEY, 1);
    let (_refusing, address) = refusing();
    settings.api = parse_api(&format!("http://{address}")).unwrap();
    let error = node.loaded(settings).await.unwrap_err();
    assert!(matches!(error, VerifyError::Connect { .. }) && error.is_misuse(), "{error}");
}

#[tokio::test]
async fn a_listener_that_takes_no_connection_is_told() {
    let node = Node::start(SECRET).await;
    let mut settings = node.settings(Protocol::Http1, KEY, 1);
    let (_refusing, address) = refusing();
    settings.via = parse_via(&format!("tcp:{address}")).unwrap();
    let error = node.loaded(settings).await.unwrap_err();
    assert!(matches!(error, VerifyError::Way { .. }) && !error.is_misuse(), "{error}");
}

/// How many webhooks were answered 400.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Where the miniature listens, and where it sends webhooks.
struct Node {
    api: SocketAddr,
    sip: SocketAddr,
    webhooks: std::net::TcpListener,
}

/// The ids by phone, of those whose webhook is not sent.
type Ids = Arc<Mutex<HashMap<String, String>>>;

impl Node {
    async fn start(secret: &'static str) -> Self {
        let ids = Ids::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let webhooks = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        webhooks.set_nonblocking(true).unwrap();
        let hook = webhooks.local_addr().unwrap();
        let node = Self { api: listener.local_addr().unwrap(), sip: socket.local_addr().unwrap(), webhooks };
        tokio::spawn(serve(listener, ids.clone()));
        tokio::spawn(refuse(socket, ids, hook, secret));
        node
    }

    async fn loaded(&self, settings: Settings) -> Result<Outcome, VerifyError> {
        self.loaded_by(now, settings).await
    }

    async fn loaded_by(&self, instant: fn() -> Instant, settings: Settings) -> Result<Outcome, VerifyError> {
        let clocks = Clocks { instant, utc: || UNIX_EPOCH + Duration::from_secs(AT) };
        let listener = self.webhooks.try_clone().unwrap();
        let load = tokio::task::spawn_blocking(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let load = async { load(settings, TcpListener::from_std(listener).unwrap(), clocks).await };
            LocalSet::new().block_on(&runtime, load)
        });
        timeout(DEADLINE, load).await.expect("a load ends in time").unwrap()
    }

    fn settings(&self, protocol: Protocol, key: &str, calls: u64) -> Settings {
        Settings {
            api: parse_api(&format!("http://{}", self.api)).unwrap(),
            key: key.into(),
            protocol,
            connections: 2,
            phones: Numbers::new(&["+966500000000/1000".parse().unwrap()]).unwrap(),
            via: parse_via(&format!("udp:{}", self.sip)).unwrap(),
            listen: self.webhooks.local_addr().unwrap(),
            secrets: vec![parse_secret(SECRET).unwrap()],
            pace: Pace::Closed { window: 16 },
            bounds: Bounds { duration: DEADLINE, calls: Some(calls) },
            timeout: DEADLINE / 2,
        }
    }
}

async fn serve(listener: TcpListener, ids: Ids) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let ids = ids.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let ids = ids.clone();
                async move { Ok::<_, Infallible>(create(request, &ids).await) }
            });
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn create(request: Request<Incoming>, ids: &Ids) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let authorized = head.headers.get("authorization").is_some_and(|value| value == format!("Bearer {KEY}").as_str());
    if !authorized || head.uri.path() != "/v1/verifications" {
        return answer(401, r#"{"title":"A valid API key is needed","detail":"\u001b[2J"}"#.to_owned());
    }
    let body = body.collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let phone = body["phone"].as_str().unwrap().to_owned();
    let id = format!("ver_{phone}");
    ids.lock().unwrap().insert(phone, id.clone());
    answer(201, format!(r#"{{"id":"{id}","status":"pending","dial":{{"number":"+966115000050"}}}}"#))
}

fn answer(status: u16, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

/// Answers each INVITE with 486, and the first ACK of each call with its caller's webhook.
async fn refuse(socket: UdpSocket, ids: Ids, webhooks: SocketAddr, secret: &'static str) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut buffer = vec![0; 65_535];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let request = std::str::from_utf8(&buffer[..length]).unwrap();
        if request.starts_with("INVITE sip:+966115000050@") {
            let kept = ["Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: "];
            let fields: Vec<&str> =
                request.lines().filter(|line| kept.iter().any(|name| line.starts_with(name))).collect();
            let busy = format!("SIP/2.0 486 Busy Here\r\n{}\r\nContent-Length: 0\r\n\r\n", fields.join("\r\n"));
            socket.send_to(busy.as_bytes(), from).await.unwrap();
            continue;
        }
        if !request.starts_with("ACK ") {
            continue;
        }
        let phone = request.split("\r\nFrom: <sip:").nth(1).and_then(|rest| rest.split('@').next()).unwrap();
        let id = ids.lock().unwrap().remove(phone);
        let Some(id) = id else { continue };
        let body = format!(r#"{{"type":"verification.verified","data":{{"id":"{id}"}}}}"#);
        let request = Request::post(format!("http://{webhooks}/hook"))
            .header(WEBHOOK_ID, "evt_1")
            .header(WEBHOOK_TIMESTAMP, AT)
            .header(WEBHOOK_SIGNATURE, sign(&[parse_secret(secret).unwrap()], "evt_1", AT, body.as_bytes()))
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let answer = client.request(request);
        tokio::spawn(async move {
            if answer.await.is_ok_and(|answer| answer.status() == StatusCode::BAD_REQUEST) {
                REFUSED.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// A socket that is bound and does not listen, and its address: nobody else gets its port.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A clock by which the time is over once five webhooks were answered 400.
fn until_five_are_refused() -> Instant {
    now() + if REFUSED.load(Ordering::Relaxed) < 5 { Duration::ZERO } else { 2 * DEADLINE }
}

#[allow(clippy::disallowed_methods, reason = "the clock that the command hands in")]
fn now() -> Instant {
    Instant::now()
}
