//! One connection: TLS where the listener has it, HTTP with its bounds, and its end.
//!
//! HTTP/1.1 (RFC 9112), and HTTP/2 (RFC 9113) by ALPN or with prior knowledge. Invariant: a connection that does
//! nothing ends by itself, whatever keeps it busy below HTTP: half a handshake, half a header section, pings.

use std::error::Error;
use std::iter::successors;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::{fmt, io};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::HOST;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use super::opening::Opening;
use super::remote::Remote;
use super::server::Bounds;

/// Most header fields of a request.
const MAX_HEADERS: usize = 64;
/// Most bytes of a request's header section, and of the buffer it is read into.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Requests at once on one HTTP/2 connection: a backend waits for many verifications over a few connections.
const MAX_STREAMS: u32 = 1024;
/// What a client may send ahead of its being read, on one HTTP/2 stream and on the whole connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// What of an answer waits in memory for an HTTP/2 client to take it.
const MAX_UNSENT: usize = 64 * 1024;
/// Streams that a client opens and resets before they are looked at, and those that it breaks: a client beyond these
/// is sent away with `ENHANCE_YOUR_CALM` (RFC 9113 10.5).
const MAX_RESETS: usize = 20;
const MAX_BROKEN: usize = 100;
/// TLS handshakes at once: each takes memory and time before anybody is known.
const MAX_HANDSHAKES: usize = 512;
/// The first byte of a TLS handshake (RFC 8446 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// How much of a request in the clear is let go, so that its sender can read the answer.
const MAX_DISCARDED: u64 = 64 * 1024;

const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\
    Content-Length: 35\r\n\r\nthis port speaks TLS; use https://\n";

/// What the connections of one listener share.
pub(super) struct Front {
    http: Builder<TokioExecutor>,
    http_1: Builder<TokioExecutor>,
    http_2: Builder<TokioExecutor>,
    router: Router,
    bounds: Bounds,
    tls: Option<TlsAcceptor>,
    handshakes: Semaphore,
}

/// Why this side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// Plain HTTP where TLS is spoken.
    PlainHttp,
    /// No handshake came about in time, or none that fits.
    Handshake,
    /// No whole header section came in time.
    Slow,
    /// It carried no request for a while.
    Idle,
    /// The client broke the rules of HTTP, or left within an exchange.
    Broken,
}

impl Closed {
    /// The label of the metric.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::PlainHttp => "plain_http",
            Self::Handshake => "handshake",
            Self::Slow => "slow",
            Self::Idle => "idle",
            Self::Broken => "broken",
        }
    }
}

impl Front {
    pub(super) fn new(router: Router, bounds: Bounds, tls: Option<TlsAcceptor>) -> Self {
        let http = builder(&bounds);
        let (http_1, http_2) = (http.clone().http1_only(), http.clone().http2_only());
        Self { http, http_1, http_2, router, bounds, tls, handshakes: Semaphore::new(MAX_HANDSHAKES) }
    }

    /// Serves one connection to its end, or until `stop` turns true and its requests are done.
    pub(super) async fn serve(
        &self,
        stream: TcpStream,
        remote: Remote,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Closed> {
        let deadline = self.bounds.headers;
        let Some(acceptor) = &self.tls else {
            let http = tokio::select! {
                biased;
                () = stopped(&mut stop) => return Ok(()),
                http = timeout(deadline, version(&stream)) => http.map_err(|_| Closed::Slow)?,
            };
            return self.http(http, stream, remote, stop).await;
        };
        let begun = tokio::select! {
            biased;
            () = stopped(&mut stop) => return Ok(()),
            begun = timeout(deadline, self.handshake(acceptor, stream)) => begun,
        };
        let stream = begun.map_err(|_| Closed::Handshake)??;
        let http = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Http::Two,
            Some(_) => Http::One,
            None => Http::Either,
        };
        self.http(http, stream, remote, stop).await
    }

    async fn handshake(&self, acceptor: &TlsAcceptor, stream: TcpStream) -> Result<Box<TlsStream<TcpStream>>, Closed> {
        let mut first = [0];
        // Whoever sends nothing keeps no place among the handshakes.
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == TLS_HANDSHAKE => {}
            Ok(1) => {
                refuse_plain(stream).await;
                return Err(Closed::PlainHttp);
            }
            _ => return Err(Closed::Handshake),
        }
        let _place = self.handshakes.acquire().await.map_err(|_| Closed::Handshake)?;
        acceptor.accept(stream).await.map(Box::new).map_err(|error| {
            told(&error);
            Closed::Handshake
        })
    }

    /// HTTP/1.1 has its own deadline for a first request; HTTP/2 and what is not known yet have none.
    async fn http<S>(&self, http: Http, stream: S, remote: Remote, stop: watch::Receiver<bool>) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opening = |stream| Opening::new(stream, self.bounds.headers);
        match http {
            Http::One => self.run(&self.http_1, stream, remote, stop).await,
            Http::Two => self.run(&self.http_2, opening(stream), remote, stop).await,
            Http::Either => self.run(&self.http, opening(stream), remote, stop).await,
        }
    }

    async fn run<S>(
        &self,
        http: &Builder<TokioExecutor>,
        stream: S,
        remote: Remote,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let requests = Arc::new(Requests::default());
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(remote);
            if is_without_one_host(&request) {
                request.extensions_mut().insert(NoHost);
            }
            let open = Requests::begin(&requests);
            let answer = self.router.clone().oneshot(request);
            async move { answer.await.map(|response| attend(response, open)) }
        });
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let mut look = interval(self.bounds.idle);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        let mut seen = requests.begun.load(Ordering::Relaxed);
        loop {
            tokio::select! {
                biased;
                end = connection.as_mut() => return end.map_err(|error| requests.cause(&*error)),
                () = stopped(&mut stop) => {
                    connection.as_mut().graceful_shutdown();
                    return connection.await.map_err(|error| requests.cause(&*error));
                }
                _ = look.tick() => {
                    let begun = requests.begun.load(Ordering::Relaxed);
                    if requests.open.load(Ordering::Relaxed) == 0 && begun == seen {
                        connection.as_mut().graceful_shutdown();
                        let _ = timeout(self.bounds.stop, connection).await;
                        return Err(Closed::Idle);
                    }
                    seen = begun;
                }
            }
        }
    }
}

/// Marks a request of HTTP/1.1 that does not have the one `Host` that it must have (RFC 9112 3.2): it is to be refused,
/// for the next one who looks may take it for another host's.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoHost;

fn is_without_one_host(request: &Request<Incoming>) -> bool {
    let hosts = request.headers().get_all(HOST).iter().count();
    match request.version() {
        Version::HTTP_11 => hosts != 1,
        _ => hosts > 1,
    }
}

/// What a connection speaks, as far as it is known when it begins.
#[derive(Debug, Clone, Copy)]
enum Http {
    One,
    Two,
    Either,
}

/// What the first bytes tell; they stay where they are. hyper would read them apart, and then give every connection of
/// HTTP/1.1 a buffer of twice the size.
async fn version(stream: &TcpStream) -> Http {
    let mut first = [0; 3];
    match stream.peek(&mut first).await {
        Ok(3) if first == *b"PRI" => Http::Two,
        Ok(1 | 2) if first[0] == b'P' => Http::Either,
        _ => Http::One,
    }
}

fn builder(bounds: &Bounds) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.headers)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES as usize)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_UNSENT)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_BROKEN)
        .keep_alive_interval(bounds.ping)
        .keep_alive_timeout(bounds.headers);
    builder
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// Tells a client that speaks HTTP in the clear what is spoken here.
async fn refuse_plain(mut stream: TcpStream) {
    if stream.write_all(NOT_TLS).await.is_ok() && stream.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut stream.take(MAX_DISCARDED), &mut tokio::io::sink()).await;
    }
}

fn told(error: &dyn fmt::Display) {
    tracing::debug!(error = %error.to_string().escape_debug(), "connection ended");
}

/// How busy a connection is.
#[derive(Debug, Default)]
struct Requests {
    begun: AtomicU32,
    open: AtomicU32,
}

/// A request that is being answered.
struct Open(Arc<Requests>);

impl Requests {
    fn begin(requests: &Arc<Self>) -> Open {
        requests.begun.fetch_add(1, Ordering::Relaxed);
        requests.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(requests))
    }

    /// What an error of the connection means. A header section that does not come is no fault of a client that has
    /// asked before: it keeps its connection for the next time.
    fn cause(&self, error: &(dyn Error + Send + Sync + 'static)) -> Closed {
        told(&error);
        let first: &(dyn Error + 'static) = error;
        let mut causes = successors(Some(first), |error: &&(dyn Error + 'static)| (*error).source());
        let late = causes.any(|error| {
            error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
                || error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
        });
        match self.begun.load(Ordering::Relaxed) {
            _ if !late => Closed::Broken,
            0 => Closed::Slow,
            _ => Closed::Idle,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer of known length is over for us when it is there: a client that takes minutes to fetch it keeps no
/// connection open by that. A stream lasts as long as its body.
fn attend(response: Response<Body>, open: Open) -> Response<Body> {
    response.map(|body| if body.size_hint().exact().is_some() { body } else { Body::new(Stream { body, _open: open }) })
}

struct Stream {
    body: Body,
    _open: Open,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
