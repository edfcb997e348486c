//! A receiver for tests: a real server on the loopback address that records what comes and answers as told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::settings::Endpoint;
use super::signing_key::SigningKey;
use crate::outbox::delivery::EndpointId;
use crate::outbox::event::EventType;

/// The secret of every test endpoint.
pub(super) const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(20);

/// For `localhost`, signed by itself; made anew for each run.
static IDENTITY: LazyLock<CertifiedKey<KeyPair>> =
    LazyLock::new(|| generate_simple_self_signed(["localhost".to_owned()]).unwrap());

/// How a server answers every request.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// A status, headers, no body.
    Plain(u16, Vec<(&'static str, String)>),
    /// 200 and this.
    Body(Bytes),
    /// 200 and a body that goes on and on.
    Endless,
    /// Nothing, ever.
    Hang,
    /// A reset as soon as the request begins.
    Reset,
    /// These bytes as they are.
    Raw(&'static str),
}

impl Reply {
    pub(super) fn status(code: u16) -> Self {
        Self::Plain(code, Vec::new())
    }

    pub(super) fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        match self {
            Self::Plain(code, mut headers) => {
                headers.push((name, value.into()));
                Self::Plain(code, headers)
            }
            other => other,
        }
    }
}

/// A request as it came in.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The server. It ends when dropped.
pub(super) struct LocalServer {
    address: SocketAddr,
    scheme: &'static str,
    requests: mpsc::UnboundedReceiver<Recorded>,
    connections: Arc<AtomicUsize>,
    reply: watch::Sender<Reply>,
    task: JoinHandle<()>,
}

impl LocalServer {
    pub(super) async fn start(reply: Reply) -> Self {
        Self::listen(reply, None).await
    }

    /// Speaks TLS and agrees to `alpn` alone.
    pub(super) async fn start_tls(reply: Reply, alpn: &str) -> Self {
        Self::listen(reply, Some(acceptor(alpn))).await
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn url(&self) -> String {
        format!("{}://localhost:{}/hook", self.scheme, self.port())
    }

    /// How many connections were accepted.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The next request that came.
    pub(super) async fn next(&mut self) -> Recorded {
        within(self.requests.recv()).await.expect("the server runs")
    }

    /// Requests that have come and were not looked at.
    pub(super) fn waiting(&self) -> usize {
        self.requests.len()
    }

    /// Answers so from now on.
    pub(super) fn reply(&self, reply: Reply) {
        self.reply.send_replace(reply);
    }

    async fn listen(reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (record, requests) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let (set_reply, reply) = watch::channel(reply);
        let accepted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                let (reply, record, tls) = (reply.clone(), record.clone(), tls.clone());
                serving.spawn(async move {
                    match tls {
                        // A client that refuses the certificate ends the handshake.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, reply, record).await;
                            }
                        }
                        None => accept(stream, reply, record).await,
                    }
                });
            }
        });
        Self { address, scheme, requests, connections, reply: set_reply, task }
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for what must come, but not for ever.
pub(super) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("comes before the deadline")
}

/// An endpoint of the application `demo`.
pub(super) fn endpoint(url: &str, allow_private: bool) -> Endpoint {
    Endpoint {
        id: EndpointId(url.into()),
        application: "demo".to_owned(),
        url: url.parse().unwrap(),
        secrets: vec![SigningKey::parse(SECRET).unwrap()],
        events: EventType::ALL.to_vec(),
        allow_private,
        batch: 1,
    }
}

/// Trusts the servers of [`LocalServer::start_tls`].
pub(super) fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate()).unwrap();
    roots
}

async fn accept(mut stream: TcpStream, reply: watch::Receiver<Reply>, record: mpsc::UnboundedSender<Recorded>) {
    let now = reply.borrow().clone();
    match now {
        Reply::Reset => {
            stream.read_u8().await.unwrap();
            stream.set_zero_linger().unwrap();
        }
        Reply::Raw(bytes) => {
            stream.read_u8().await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            // Held open, so that it is the bytes that count.
            while stream.read_u8().await.is_ok() {}
        }
        _ => serve(stream, reply, record).await,
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    reply: watch::Receiver<Reply>,
    record: mpsc::UnboundedSender<Recorded>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (reply, record) = (reply.clone(), record.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let _ = record.send(Recorded { version: head.version, headers: head.headers, body });
            let reply = reply.borrow().clone();
            Ok::<_, Infallible>(answer(reply).await)
        }
    });
    // Clients of these tests break connections on purpose.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(reply: Reply) -> Response<BoxBody<Bytes, Infallible>> {
    let full = |bytes| BoxBody::new(Full::new(bytes));
    match reply {
        Reply::Plain(code, headers) => {
            let mut answer = Response::builder().status(code);
            for (name, value) in headers {
                answer = answer.header(name, value);
            }
            answer.body(full(Bytes::new())).unwrap()
        }
        Reply::Body(bytes) => Response::new(full(bytes)),
        Reply::Endless => Response::new(BoxBody::new(Endless)),
        Reply::Hang | Reply::Reset | Reply::Raw(_) => std::future::pending().await,
    }
}

struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 8192])))))
    }
}

fn acceptor(alpn: &str) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(IDENTITY.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate()], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn certificate() -> CertificateDer<'static> {
    IDENTITY.cert.der().clone()
}
