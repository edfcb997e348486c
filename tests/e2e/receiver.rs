//! An application's webhook endpoint: checks signatures, keeps what comes, answers as told.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use ringproof::engine::clock;
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::SECRET;
use crate::wait::until;

/// How far `webhook-timestamp` may be from now, in seconds.
const TOLERANCE: u64 = 300;

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    Status(u16),
    /// 302 to this address.
    Redirect(String),
    /// Takes the request and never answers.
    Hang,
    /// Takes the request and closes the connection.
    Close,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Delivery {
    /// `webhook-id`.
    pub fn id(&self) -> String {
        self.header("webhook-id").to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn kind(&self) -> String {
        self.event()["type"].as_str().unwrap().to_owned()
    }

    /// The verification that it tells of; none where it is about a delivery or an endpoint.
    pub fn verification(&self) -> Option<String> {
        self.event()["data"]["id"].as_str().map(str::to_owned)
    }

    /// Fails unless the delivery is what Standard Webhooks 1.0 says, signed with [`SECRET`] now.
    fn check(&self) {
        let timestamp = self.header("webhook-timestamp");
        let now = clock::utc().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(timestamp.parse::<u64>().unwrap().abs_diff(now) < TOLERANCE, "webhook-timestamp is {timestamp}");
        let expected = sign(&self.id(), timestamp, &self.body);
        assert!(self.header("webhook-signature").split(' ').any(|one| one == expected), "{:?}", self.headers);
        assert_eq!(self.header("content-type"), "application/json");
        assert!(self.body.len() < 20_000);
    }
}

/// `v1,` and the HMAC-SHA256 of `id.timestamp.body` under [`SECRET`].
fn sign(id: &str, timestamp: &str, body: &[u8]) -> String {
    let secret = BASE64_STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[derive(Default)]
struct State {
    deliveries: Mutex<Vec<Delivery>>,
    /// Of the next requests; afterwards `usual`.
    next: Mutex<VecDeque<Reply>>,
    usual: Mutex<Option<Reply>>,
    connections: AtomicUsize,
}

/// The endpoint. It ends when dropped.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Answers 204.
    pub async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// As [`Receiver::start`], at this address.
    pub async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let task = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Does this with the next request that is not spoken for.
    pub fn next(&self, reply: Reply) {
        self.state.next.lock().push_back(reply);
    }

    /// Does this with every request that `next` does not speak for.
    pub fn usually(&self, reply: Reply) {
        *self.state.usual.lock() = Some(reply);
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// What has come, each with a valid signature.
    pub fn deliveries(&self) -> Vec<Delivery> {
        let deliveries = self.state.deliveries.lock().clone();
        deliveries.iter().for_each(Delivery::check);
        deliveries
    }

    /// What has come about one verification.
    pub fn about(&self, verification: &str) -> Vec<Delivery> {
        self.deliveries()
            .into_iter()
            .filter(|delivery| delivery.verification().as_deref() == Some(verification))
            .collect()
    }

    /// The `webhook-id`s that have come about one verification with this type.
    pub fn ids(&self, verification: &str, kind: &str) -> HashSet<String> {
        self.about(verification).iter().filter(|delivery| delivery.kind() == kind).map(Delivery::id).collect()
    }

    /// Waits until so many deliveries about one verification have come.
    pub async fn wait_about(&self, verification: &str, count: usize) -> Vec<Delivery> {
        until(&format!("{count} deliveries about {verification}"), async || {
            Some(self.about(verification)).filter(|found| found.len() >= count)
        })
        .await
    }

    /// Waits for the first event of this type, whatever it is about.
    pub async fn event_of(&self, kind: &str) -> Delivery {
        until(kind, async || self.deliveries().into_iter().find(|delivery| delivery.kind() == kind)).await
    }

    /// Waits for the first event of this type about one verification.
    pub async fn event(&self, verification: &str, kind: &str) -> Delivery {
        until(&format!("{kind} of {verification}"), async || {
            self.about(verification).into_iter().find(|delivery| delivery.kind() == kind)
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        state.connections.fetch_add(1, Ordering::SeqCst);
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            // The other side is killed now and then.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, &'static str> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Err("the request broke off") };
    state.deliveries.lock().push(Delivery { headers: head.headers, body: body.to_bytes() });
    let reply = state.next.lock().pop_front().or_else(|| state.usual.lock().clone()).unwrap_or(Reply::Status(204));
    let response = match reply {
        Reply::Status(status) => Response::builder().status(status),
        Reply::Redirect(place) => Response::builder().status(302).header("location", place),
        Reply::Hang => std::future::pending().await,
        // The server closes a connection whose service fails.
        Reply::Close => return Err("closed as told"),
    };
    Ok(response.body(Full::default()).unwrap())
}

#[test]
fn signatures_are_those_of_the_published_vector() {
    let body = concat!(
        r#"{"type":"verification.verified","timestamp":"2025-11-24T16:00:00.125Z","#,
        r#""data":{"id":"ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V","status":"verified"}}"#
    );
    let signature = sign("evt_01JD7Z3W5K8Q2M4N6P8R0S2T4V", "1764000000", body.as_bytes());
    assert_eq!(signature, "v1,0vHhm/XN3fHMFHy5NotvXYafQQuChX+/PQAlJ9Kgocw=");
}
