//! The router and the server through real sockets, on every path that ends before `Verify`.

mod connections;

use std::net::SocketAddr;
use std::time::SystemTime;

use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::server::{Bounds, Counts, serve};
use super::*;
use crate::matcher::boot_time::BootTime;
use crate::outbox::delivery::Subscriptions;
use crate::store::Store;
use crate::verify::clock::Clock;
use crate::verify::recent_calls::RecentCalls;

const KEY: &str = "rp_test_0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(10);
const ID: &str = "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V";

#[tokio::test]
async fn a_key_is_needed_and_the_challenge_names_the_scheme() {
    let node = Node::start().await;
    for request in [
        "POST /v1/verifications HTTP/1.1\r\n".to_owned(),
        format!("GET /v1/verifications/{ID} HTTP/1.1\r\n"),
        format!("POST /v1/verifications/{ID}/cancel HTTP/1.1\r\n"),
        "GET /v1/events HTTP/1.1\r\nAuthorization: Bearer rp_test_other\r\n".to_owned(),
    ] {
        let answer = node.ask(&request, b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{request}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
    }
}

#[tokio::test]
async fn every_answer_names_its_request_with_an_id_of_ours() {
    let node = Node::start().await;
    let mut seen = std::collections::BTreeSet::new();
    for line in ["GET / HTTP/1.1", "PUT /v1/verifications HTTP/1.1", "GET /v1/events HTTP/1.1", "GET /docs HTTP/1.1"] {
        let answer = node.ask(&format!("{line}\r\nX-Request-Id: mine\r\n"), b"").await;
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert!(id.starts_with("req_") && id.len() == 30, "{id}");
        assert_eq!(answer.json()["request_id"], id.as_str());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(seen.insert(id));
    }
}

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405_with_allow() {
    let node = Node::start().await;
    for path in ["/", "/v1", "/v2/verifications", "/v1/verifications/", "/v1/verifications/a/b/c", "/v1//verifications"]
    {
        let answer = node.ask(&format!("GET {path} HTTP/1.1\r\n"), b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
    }
    let cases = [
        ("DELETE", "/v1/verifications".to_owned(), vec!["GET", "HEAD", "POST"]),
        ("DELETE", format!("/v1/verifications/{ID}"), vec!["GET", "HEAD"]),
        ("GET", format!("/v1/verifications/{ID}/cancel"), vec!["POST"]),
        ("OPTIONS", "/v1/events".to_owned(), vec!["GET", "HEAD"]),
        ("BREW", "/v1/test/calls".to_owned(), vec!["POST"]),
    ];
    for (method, path, allowed) in cases {
        let answer = node.ask(&format!("{method} {path} HTTP/1.1\r\n"), b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"), "{method} {path}");
        let mut allow: Vec<_> = answer.header("allow").unwrap().split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow, allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn a_request_has_one_host() {
    let node = Node::start().await;
    for (line, hosts, status) in [
        ("GET / HTTP/1.1", "", 400),
        ("GET / HTTP/1.1", "Host: a\r\nHost: b\r\n", 400),
        ("GET http://a/ HTTP/1.1", "", 400),
        ("GET / HTTP/1.0", "Host: a\r\nHost: a\r\n", 400),
        ("GET / HTTP/1.0", "", 404),
        ("GET / HTTP/1.1", "Host: a\r\n", 404),
    ] {
        let mut stream = node.connect().await;
        stream.write_all(format!("{line}\r\n{hosts}\r\n").as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream).await;
        assert_eq!(answer.status, status, "{line} {hosts}");
        assert!(answer.header("x-request-id").is_some());
    }
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    let node = Node::start().await;
    for path in ["/docs", "/v1/events", "/nowhere"] {
        let mut stream = node.connect().await;
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert!(answer.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn endpoints_of_later_versions_are_named_after_the_key_was_checked() {
    let node = Node::start().await;
    for (method, path, needs_key) in later::all() {
        let line = format!("{method} {} HTTP/1.1\r\n", path.replace("{id}", ID));
        let without = node.ask(&line, b"").await;
        assert_eq!(without.status, if needs_key { 401 } else { 501 }, "{line}");
        let answer = node.ask(&format!("{line}Authorization: Bearer {KEY}\r\n"), b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (501, "not_in_this_version"), "{line}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(&format!("{method} {path}")));
    }
}

#[tokio::test]
async fn bodies_other_than_json_are_415() {
    let node = Node::start().await;
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/json; charset=latin1\r\n"] {
        let answer = node.create(kind, b"{}").await;
        assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media_type"), "{kind}");
    }
    let json = "Content-Type: application/json\r\n";
    let answer = node.create(&format!("{json}Content-Encoding: gzip\r\n"), b"{}").await;
    assert_eq!((answer.status, answer.header("accept-encoding")), (415, Some("identity")));
}

#[tokio::test]
async fn malformed_bodies_are_400_with_their_place() {
    let node = Node::start().await;
    let cases: [(&[u8], &str); 4] = [
        (b"", "line 1, column 0"),
        (b"{\"phone\":\n \"+966500000123\",}", "line 2"),
        (b"{\"phone\":\"a\",\"phone\":\"b\"}", "twice"),
        (b"[]", "an array"),
    ];
    for (body, detail) in cases {
        let answer = node.create("Content-Type: application/json; charset=UTF-8\r\n", body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"));
        let document = answer.json();
        assert!(document["detail"].as_str().unwrap().contains(detail), "{document}");
    }
}

#[tokio::test]
async fn faults_of_fields_and_parameters_are_422_and_counted() {
    let node = Node::start().await;
    let json = "Content-Type: application/json\r\n";
    let answer = node.create(json, b"{\"phone\":\"0500\",\"ttl_seconds\":5}").await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "invalid_fields"));
    let document = answer.json();
    assert_eq!(document["errors"][0]["pointer"], "/phone");
    assert_eq!(document["errors"][1]["pointer"], "/ttl_seconds");
    let line = format!("POST /v1/verifications?dry=1 HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\n{json}");
    let answer = node.ask(&line, b"{}").await;
    assert_eq!((answer.status, answer.json()["errors"][0]["pointer"].as_str()), (422, Some("?dry")));
    let answer = node.create(&format!("{json}Idempotency-Key: a b\r\n"), b"{}").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "idempotency_key_invalid"));
    let metrics = node.metrics.render();
    let counted = "ringproof_creates_refused_total{application=\"demo\",code=\"invalid_fields\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
    let counted = "ringproof_api_responses_total{code=\"422\",route=\"/v1/verifications\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn malformed_ids_are_as_unknown_ones() {
    let node = Node::start().await;
    for line in ["GET /v1/verifications/ver_1", "GET /v1/verifications/%ff", "POST /v1/verifications/x/cancel"] {
        let answer = node.ask(&format!("{line} HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\n"), b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{line}");
    }
    let metrics = node.metrics.render();
    assert!(metrics.contains("route=\"/v1/verifications/{id}\"") && !metrics.contains("ver_1"), "{metrics}");
}

#[tokio::test]
async fn oversized_bodies_are_413_declared_or_chunked() {
    let node = Node::start().await;
    let json = "Content-Type: application/json\r\n";
    let answer = node.create(json, &vec![b' '; body::MAX_BYTES + 1]).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    let answer = node.create(json, &vec![b' '; body::MAX_BYTES]).await;
    assert_eq!(answer.status, 400);
    let mut chunked =
        format!("POST /v1/verifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{json}").into_bytes();
    chunked.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    for _ in 0..9 {
        chunked.extend_from_slice(b"2000\r\n");
        chunked.extend_from_slice(&[b' '; 0x2000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let mut stream = node.connect().await;
    stream.write_all(&chunked).await.unwrap();
    let answer = Answer::read(&mut stream).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
}

#[tokio::test]
async fn a_declared_oversized_body_is_refused_before_it_is_asked_for() {
    let node = Node::start().await;
    let mut stream = node.connect().await;
    let head = format!(
        "POST /v1/verifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status, 413);
}

#[tokio::test]
async fn an_unread_body_does_not_cost_the_answer() {
    let node = Node::start().await;
    let mut stream = node.connect().await;
    let head = "POST /v1/verifications HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..20 {
        stream.write_all(&[b' '; 10_000]).await.unwrap();
    }
    assert_eq!(Answer::read(&mut stream).await.status, 401);
    // The connection is still in step and takes the next request.
    stream.write_all(b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status, 501);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_408() {
    let node = Node::start().await;
    let mut stream = node.connect().await;
    let head = format!(
        "POST /v1/verifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{\"phone\""
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = Answer::read(&mut stream).await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
}

#[tokio::test]
async fn silent_slow_and_idle_connections_are_closed_in_time() {
    let node = Node::start().await;
    let beginnings: [&[u8]; 5] = [
        b"",
        b"PRI * HTTP/2.0\r\n",
        b"GET / HT",
        b"GET /v1/verifications HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    for beginning in beginnings {
        let mut stream = node.connect().await;
        stream.write_all(beginning).await.unwrap();
        let mut rest = Vec::new();
        let closed = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after {:?}", String::from_utf8_lossy(beginning));
    }
}

#[tokio::test]
async fn too_many_or_too_long_headers_are_431() {
    let node = Node::start().await;
    let many = "X-Many: 1\r\n".repeat(65);
    assert_eq!(node.ask(&format!("GET /docs HTTP/1.1\r\n{many}"), b"").await.status, 431);
    let long = format!("X-Long: {}\r\n", "x".repeat(17 * 1024));
    assert_eq!(node.ask(&format!("GET /docs HTTP/1.1\r\n{long}"), b"").await.status, 431);
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_served_on_the_same_port() {
    let node = Node::start().await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<bytes::Bytes>>();
    let request = hyper::Request::post(format!("http://{}/v1/verifications", node.address))
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .body(Full::from("{}"))
        .unwrap();
    let response = timeout(PATIENCE, client.request(request)).await.unwrap().unwrap();
    assert_eq!((response.status(), response.version()), (422.try_into().unwrap(), hyper::Version::HTTP_2));
    let document: Value = serde_json::from_slice(&response.collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(document["errors"][0]["code"], "missing");
}

#[tokio::test]
async fn a_connection_beyond_the_bound_waits_for_a_place() {
    let node = Node::with(Bounds { connections: 1, ..bounds() }).await;
    let mut first = node.connect().await;
    first.write_all(b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(Answer::read(&mut first).await.status, 501);
    let mut second = node.connect().await;
    second.write_all(b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(timeout(Duration::from_millis(100), second.read_u8()).await.is_err(), "served beside the first");
    drop(first);
    assert_eq!(Answer::read(&mut second).await.status, 501);
}

#[tokio::test]
async fn a_panic_ends_its_own_connection_alone() {
    async fn fail() -> &'static str {
        panic!("as this test asks")
    }
    let router = Router::new().route("/panic", get(fail)).fallback(async || "here");
    let node = Node::serving(router, Metrics::new(), bounds()).await;
    let mut lost = node.connect().await;
    lost.write_all(b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, lost.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(node.ask("GET / HTTP/1.1\r\n", b"").await.status, 200);
}

#[tokio::test]
async fn the_stop_lets_a_request_finish_and_closes_idle_connections() {
    let router = Router::new().route("/echo", post(async |body: axum::body::Bytes| body)).fallback(async || "here");
    let node = Node::serving(router, Metrics::new(), bounds()).await;
    let mut idle = node.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(Answer::read(&mut idle).await.status, 200);
    let mut busy = node.connect().await;
    let head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    busy.write_all(head).await.unwrap();
    // The interim answer tells that the request has begun.
    assert_eq!(Answer::read(&mut busy).await.status, 100);
    node.stop.send(true).unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut rest)).await.unwrap().unwrap();
    busy.write_all(b"done").await.unwrap();
    assert_eq!(Answer::read(&mut busy).await.body, b"done");
    timeout(PATIENCE, node.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(node.address).await.is_err());
}

#[tokio::test]
async fn the_stop_does_not_wait_for_ever() {
    let router = Router::new().fallback(async || std::future::pending::<()>().await);
    let node = Node::serving(router, Metrics::new(), Bounds { stop: Duration::from_millis(50), ..bounds() }).await;
    let mut stuck = node.connect().await;
    stuck.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    node.stop.send(true).unwrap();
    timeout(PATIENCE, node.task).await.unwrap().unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stuck.read_to_end(&mut rest)).await.unwrap();
}

/// A server on a free port of the loopback.
struct Node {
    address: SocketAddr,
    metrics: Metrics,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn bounds() -> Bounds {
    Bounds { headers: Duration::from_millis(300), ..Bounds::default() }
}

/// No test here reaches it: an application without numbers over an empty store.
fn untouched() -> Arc<Verify> {
    let folder = tempfile::tempdir().unwrap();
    let settings = crate::store::Settings {
        path: folder.path().join("test.db"),
        retention: crate::store::Retention::of_all(Duration::from_hours(1)),
    };
    let (ready, _) = tokio::sync::mpsc::channel(1);
    let (metrics, health) = (Metrics::new(), Arc::default());
    let store = Store::open(&settings, Subscriptions::default(), metrics.clone(), Arc::clone(&health), ready).unwrap();
    let clock = Clock { boot: BootTime::default, utc: || SystemTime::UNIX_EPOCH };
    let recent = Arc::new(RecentCalls::new(1024));
    let keys = crate::receipt::keys::Keys::from_seed(&[1; 32]);
    let signing = crate::verify::records::Signing { keys, issuer: "edge-1".into() };
    let settings = crate::verify::settings::Settings::default();
    Arc::new(Verify::new(settings, [0; 16], clock, store, recent, signing, metrics, health))
}

#[allow(clippy::disallowed_methods, reason = "the clock of the log line")]
const CLOCK: super::Clock = super::Clock { instant: Instant::now, utc: || SystemTime::UNIX_EPOCH };

impl Node {
    async fn start() -> Self {
        Self::with(bounds()).await
    }

    async fn with(bounds: Bounds) -> Self {
        let hash = key::hash(KEY);
        let access = Access {
            keys: vec![Key::unrestricted(ApplicationId(0), hash)],
            applications: vec![Application { name: "demo".into(), ..Application::default() }],
            ..Access::default()
        };
        let metrics = Metrics::new();
        let access = Arc::new(ArcSwap::from_pointee(access));
        let nowhere: PlaceCall = Box::new(|_| Box::pin(async { None }));
        let (_, stop) = watch::channel(false);
        let nobody: SendTest = Box::new(|_| Box::pin(async { None }));
        let mut shared = Shared::new(untouched(), access, metrics.clone(), CLOCK, (nowhere, nobody), [7; 32], stop);
        shared.body_deadline = Duration::from_millis(300);
        Self::serving(routes(Arc::new(shared)), metrics, bounds).await
    }

    async fn serving(router: Router, metrics: Metrics, bounds: Bounds) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(listener, router, stopped, bounds, Counts::of_api(&metrics)));
        Self { address, metrics, stop, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a request line with some headers, and a body, on a connection of its own.
    async fn ask(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        let mut request = format!("{head}Host: x\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(body);
        stream.write_all(&request).await.unwrap();
        Answer::read(&mut stream).await
    }

    async fn create(&self, headers: &str, body: &[u8]) -> Answer {
        self.ask(&format!("POST /v1/verifications HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\n{headers}"), body).await
    }
}

/// One HTTP/1.1 response.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Self {
        timeout(PATIENCE, Self::read_whole(stream)).await.expect("an answer in time")
    }

    async fn read_whole(stream: &mut (impl AsyncRead + Unpin)) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a whole answer"));
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Self { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |value| value.parse().unwrap());
        answer.body.resize(length, 0);
        stream.read_exact(&mut answer.body).await.unwrap();
        answer
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The problem's code, once its other members agree with it.
    fn code(&self) -> String {
        let document = self.json();
        let code = document["code"].as_str().unwrap();
        assert_eq!(document["status"], self.status);
        assert_eq!(document["type"], format!("urn:ringproof:problem:{code}"));
        code.to_owned()
    }
}
