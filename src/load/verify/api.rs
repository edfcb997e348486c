//! Creating verifications: where the API is, connections that are kept, one request after the other on each.
//!
//! Over HTTP/1.1 a connection has one request at a time, over HTTP/2 up to 64. Invariant: a request that has no answer
//! within the timeout costs its connection and its own verification alone.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::body::{created, problem};
use super::local::Local;
use super::work::{Job, Work};
use super::{Protocol, Refusal, VerifyError};
use crate::load::flood::numbers::Numbers;
use crate::load::slab::Key;

/// Where verifications are created.
const PATH: &str = "/v1/verifications";
/// Requests at once on a connection of HTTP/2.
const STREAMS: usize = 64;
/// Longest answer that is read.
const ANSWER: usize = 64 * 1024;
/// Longest time that a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a connection of HTTP/2 is asked whether it is alive while requests are under way, and how long it has to
/// say so.
const PING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// Pause before a connection that failed is tried again.
const CONNECT_AGAIN: Duration = Duration::from_millis(100);

/// The API of a node.
#[derive(Debug, Clone)]
pub struct Api {
    address: SocketAddr,
    uri: Uri,
    host: HeaderValue,
}

/// Why a text does not say where an API is.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It is no URL, has no host, or a query.
    #[error("is not like http://127.0.0.1:8080")]
    Form,
    /// TLS would be measured with it.
    #[error("is not http://; the load kit speaks to the API without TLS, so give it a listener without")]
    Scheme,
    /// The name is not known.
    #[error("{host} has no address")]
    Unresolved {
        /// The name.
        host: String,
    },
}

/// Reads `http://host[:port]`, with a path before `/v1` where there is one. Blocks while it asks the resolver.
///
/// # Errors
/// An [`ApiError`]: wrong use of the command, or a name without an address.
pub fn parse_api(text: &str) -> Result<Api, ApiError> {
    let base: Uri = text.parse().map_err(|_| ApiError::Form)?;
    match base.scheme_str() {
        Some("http") => {}
        Some(_) => return Err(ApiError::Scheme),
        None => return Err(ApiError::Form),
    }
    let authority = base.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(ApiError::Form)?;
    if base.query().is_some() {
        return Err(ApiError::Form);
    }
    let port = match authority.port_u16() {
        Some(port) => port,
        None if authority.as_str() == authority.host() => 80,
        None => return Err(ApiError::Form),
    };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let mut addresses = (name, port).to_socket_addrs().ok().into_iter().flatten();
    let address = addresses.next().ok_or_else(|| ApiError::Unresolved { host: name.to_owned() })?;
    let path = format!("{}{PATH}", base.path().trim_end_matches('/'));
    let uri = Uri::builder().scheme("http").authority(authority.clone()).path_and_query(path).build();
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| ApiError::Form)?;
    Ok(Api { address, uri: uri.map_err(|_| ApiError::Form)?, host })
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uri)
    }
}

/// Creates verifications, and hands each on to be called.
pub(super) struct Client {
    pub(super) api: Api,
    pub(super) protocol: Protocol,
    authorization: HeaderValue,
    /// The URI as the protocol writes it.
    target: Uri,
    pub(super) phones: Numbers,
    pub(super) timeout: Duration,
    pub(super) work: Rc<Work>,
    pub(super) calls: mpsc::Sender<Key>,
    /// Whether one has been created: before, a refusal ends the load.
    has_created: Cell<bool>,
    /// The traffic of each connection.
    traffic: RefCell<JoinSet<()>>,
}

/// A connection's end at which requests go in.
pub(super) enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    /// # Errors
    /// `VerifyError::Key` for a key that cannot stand in a header field.
    pub(super) fn new(
        (api, protocol): (Api, Protocol),
        key: &SecretString,
        (phones, timeout): (Numbers, Duration),
        (work, calls): (Rc<Work>, mpsc::Sender<Key>),
    ) -> Result<Self, VerifyError> {
        let text = format!("Bearer {}", key.expose_secret());
        let mut authorization = HeaderValue::from_str(&text).map_err(|_| VerifyError::Key)?;
        authorization.set_sensitive(true);
        let path = api.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static(PATH));
        let target = match protocol {
            Protocol::Http1 => Uri::from(path),
            Protocol::Http2 => api.uri.clone(),
        };
        let (has_created, traffic) = (Cell::new(false), RefCell::default());
        Ok(Self { api, protocol, authorization, target, phones, timeout, work, calls, has_created, traffic })
    }

    /// A new connection. Its traffic runs in a task of its own.
    ///
    /// # Errors
    /// The system's, or what the other end says in place of HTTP/2.
    pub(super) async fn connect(&self) -> io::Result<Sender> {
        timeout(CONNECT, self.open()).await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn open(&self) -> io::Result<Sender> {
        let stream = TcpStream::connect(self.api.address).await?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
                self.carry(connection);
                Ok(Sender::Http1(sender))
            }
            Protocol::Http2 => {
                let mut builder = http2::Builder::new(Local);
                builder.timer(TokioTimer::new()).keep_alive_interval(PING.0).keep_alive_timeout(PING.1);
                let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
                self.carry(connection);
                Ok(Sender::Http2(sender))
            }
        }
    }

    fn carry(&self, connection: impl Future<Output = hyper::Result<()>> + 'static) {
        let mut traffic = self.traffic.borrow_mut();
        while traffic.try_join_next().is_some() {}
        traffic.spawn_local(async move {
            // Whoever waits for an answer on it hears that it failed.
            let _ = connection.await;
        });
    }

    /// Creates one verification after the other on this connection and those that replace it, until none comes any
    /// more.
    pub(super) async fn run(self: Rc<Self>, sender: Sender) {
        let mut sender = Some(sender);
        let mut streams = JoinSet::new();
        while let Some(job) = self.work.next().await {
            let Some(usable) = self.usable(sender.take()).await else {
                self.fail(job, "create error");
                sleep(CONNECT_AGAIN).await;
                continue;
            };
            if !self.work.with(|board| board.request(job.key)) {
                // It has been given up while it waited: nobody would call it.
                sender = Some(usable);
                continue;
            }
            let sent = self.work.now();
            match usable {
                Sender::Http1(mut usable) => {
                    let answer = usable.send_request(self.request(job));
                    if self.create(job, sent, answer).await {
                        sender = Some(Sender::Http1(usable));
                    }
                }
                Sender::Http2(mut usable) => {
                    let answer = usable.send_request(self.request(job));
                    let this = Rc::clone(&self);
                    streams.spawn_local(async move {
                        this.create(job, sent, answer).await;
                    });
                    while streams.try_join_next().is_some() {}
                    if streams.len() >= STREAMS {
                        streams.join_next().await;
                    }
                    sender = Some(Sender::Http2(usable));
                }
            }
        }
        while streams.join_next().await.is_some() {}
    }

    /// The connection, or another one where it is gone; `None` where there is none to be had.
    async fn usable(&self, sender: Option<Sender>) -> Option<Sender> {
        if let Some(mut sender) = sender
            && sender.is_ready().await
        {
            return Some(sender);
        }
        self.connect().await.ok()
    }

    /// One request and its answer. Gives whether the connection is still of use.
    async fn create(
        &self,
        job: Job,
        sent: Duration,
        answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    ) -> bool {
        let read = async {
            let answer = answer.await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER).collect().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, body.to_bytes()))
        };
        match timeout(self.timeout, read).await {
            Ok(Ok((status, body))) => {
                self.judge(job, sent, status, &body).await;
                true
            }
            Ok(Err(_)) => {
                self.fail(job, "create error");
                false
            }
            Err(_elapsed) => {
                self.fail(job, "create timeout");
                false
            }
        }
    }

    async fn judge(&self, job: Job, sent: Duration, status: StatusCode, body: &[u8]) {
        if status != StatusCode::CREATED {
            if !self.has_created.get() && is_final(status) {
                let (title, detail) = problem(body);
                self.work.refuse(VerifyError::Refused(Refusal { status: status.as_u16(), title, detail }));
            }
            return self.fail(job, &format!("create {}", status.as_u16()));
        }
        let Some(made) = created(body) else { return self.fail(job, "create error") };
        self.has_created.set(true);
        let now = self.work.now();
        if self.work.with(|board| board.created(job.key, made, sent, now)) {
            // Nobody takes calls any more only when the load is at its end.
            let _ = self.calls.send(job.key).await;
        }
    }

    fn request(&self, job: Job) -> Request<Full<Bytes>> {
        let body = format!("{{\"phone\":\"+{}\"}}", self.phones.spread(job.number));
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        let headers = request.headers_mut();
        if self.protocol == Protocol::Http1 {
            headers.insert(HOST, self.api.host.clone());
        }
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }

    fn fail(&self, job: Job, code: &str) {
        let now = self.work.now();
        self.work.with(|board| board.fail(job.key, code, now));
    }
}

impl Sender {
    /// Waits until the next request may go in; `false` once the connection is gone.
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }
}

/// Whether every request of this load would be refused likewise.
fn is_final(status: StatusCode) -> bool {
    !status.is_success()
        && !status.is_server_error()
        && !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_a_plain_url() {
        let cases = [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1:8080/v1/verifications"),
            ("http://[::1]:8080/", "[::1]:8080", "http://[::1]:8080/v1/verifications"),
            ("http://127.0.0.1/rp/", "127.0.0.1:80", "http://127.0.0.1/rp/v1/verifications"),
        ];
        for (text, address, uri) in cases {
            let api = parse_api(text).unwrap();
            assert_eq!((api.address.to_string().as_str(), api.to_string().as_str()), (address, uri), "{text}");
        }
        assert!(matches!(parse_api("https://127.0.0.1:8080"), Err(ApiError::Scheme)));
        for text in
            ["", "127.0.0.1:8080", "/v1", "http://127.0.0.1/?x=1", "http://u@127.0.0.1", "http://a:99999", "http://a b"]
        {
            assert!(matches!(parse_api(text), Err(ApiError::Form)), "{text}");
        }
    }

    #[test]
    fn only_what_concerns_every_request_is_final() {
        for status in [400, 401, 403, 404, 421, 422, 301] {
            assert!(is_final(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in [201, 408, 409, 429, 500, 503] {
            assert!(!is_final(StatusCode::from_u16(status).unwrap()), "{status}");
        }
    }
}
