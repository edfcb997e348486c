//! One attempt: a signed POST to an endpoint and the judgement of its answer.
//!
//! Owns the connections to one endpoint, kept for later attempts, and the limits of time and size. Does not decide
//! what follows a failure. Invariant: whatever the other side sends, an attempt ends within [`ATTEMPT`], follows no
//! redirect and keeps nothing of the answer but its status and Retry-After.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::http::uri::Scheme;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::ConfigBuilderExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::InvalidDnsNameError;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connector::{ALL_LOOKUPS, CONNECT, Check, Connector, LOOKUPS};
use super::lane::IN_FLIGHT;
use super::settings::Endpoint;
use super::signature::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, unix_seconds};
use super::signing_key::{SigningKey, sign_with};
use crate::outbox::endpoint::GONE;

/// Longest time of an attempt as a whole.
pub const ATTEMPT: Duration = Duration::from_secs(10);

/// How much of an answer's body is read, so that its connection can be used again. A longer one costs the connection.
const ANSWER: u64 = 64 * 1024;

/// How long a judged answer's body may hold up the news of it.
const ANSWER_REST: Duration = Duration::from_secs(1);

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_mins(1);

/// Idle connections kept to one endpoint.
const IDLE_CONNECTIONS: usize = 64;

/// Descriptors that deliveries to one endpoint may need: attempts in flight, idle connections and look-ups.
pub const CONNECTIONS: usize = IN_FLIGHT + IDLE_CONNECTIONS + 2 * LOOKUPS;

/// Most bytes of an answer's head.
const HEAD: u32 = 16 * 1024;

/// Longest Retry-After that is passed on; the schedule allows less anyway.
const RETRY_AFTER_MAX: u64 = 24 * 3600;

/// Characters of somebody else's text in an error.
const EXCERPT: usize = 200;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("ringproof/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx answer, with its status code.
    Delivered(u16),
    /// Anything else.
    Failed {
        /// What went wrong.
        error: AttemptError,
        /// The wait that a 429 or 503 asked for.
        retry_after: Option<Duration>,
    },
}

/// Why an attempt failed. All are tried again on the schedule; who can help is said with each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttemptError {
    /// The operator: the address is plain http, which only endpoints with private addresses may use.
    #[error("plain http is not allowed for this endpoint")]
    PlainHttp,
    /// The operator or the name's owner: the host is not on the public internet. Nothing was connected to.
    #[error("{address} is not a public address: {range}")]
    Refused {
        /// The address.
        address: IpAddr,
        /// The special range that it is in.
        range: &'static str,
    },
    /// The name's owner: it has no address now.
    #[error("the host does not resolve: {0}")]
    Resolve(String),
    /// The receiver: no TCP connection.
    #[error("no connection: {0}")]
    Connect(io::ErrorKind),
    /// The receiver or its name server: the lookup or the connection took too long.
    #[error("no connection within {} s", CONNECT.as_secs())]
    ConnectTimeout,
    /// The receiver: its certificate or TLS is not acceptable.
    #[error("no TLS session: {0}")]
    Tls(String),
    /// The receiver: no answer in time.
    #[error("no answer within {} s", ATTEMPT.as_secs())]
    Timeout,
    /// The receiver: the connection ended before the answer.
    #[error("the connection ended without an answer")]
    Closed,
    /// The receiver: the answer breaks HTTP.
    #[error("the answer is not HTTP")]
    NotHttp,
    /// The receiver: it points elsewhere, which is not followed.
    #[error("redirect {0}, which is not followed")]
    Redirect(u16),
    /// The receiver: it said no.
    #[error("status {0}")]
    Status(u16),
    /// This node: the attempt was given up midway.
    #[error("the attempt was given up")]
    Aborted,
}

impl AttemptError {
    /// The HTTP status of the answer, where there was one.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Redirect(status) | Self::Status(status) => Some(*status),
            _ => None,
        }
    }

    /// Whether the receiver wants to be asked no more.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Status(GONE))
    }

    /// Whether the receiver read this event and refused it, which says nothing of the next one.
    #[must_use]
    pub const fn is_of_the_event(&self) -> bool {
        matches!(self, Self::Status(400 | 409 | 413 | 415 | 422))
    }

    /// Whether nothing was sent because this endpoint's address may not be used.
    #[must_use]
    pub const fn is_refused_address(&self) -> bool {
        matches!(self, Self::PlainHttp | Self::Refused { .. })
    }
}

/// What all endpoints' connections have in common: whom TLS trusts, and the places for name lookups. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) lookups: Arc<Semaphore>,
}

impl Tls {
    /// Trusts the certificate authorities that the operating system trusts. Where it has none, every https endpoint
    /// fails with `AttemptError::Tls`, which is logged here once.
    #[must_use]
    pub fn native() -> Self {
        match client_builder().with_native_roots() {
            Ok(builder) => Self::new(builder.with_no_client_auth()),
            Err(error) => {
                tracing::warn!(%error, "no certificate authority is trusted: https webhooks cannot be delivered");
                Self::with_roots(RootCertStore::empty())
            }
        }
    }

    /// Trusts `roots` alone.
    #[must_use]
    pub fn with_roots(roots: RootCertStore) -> Self {
        Self::new(client_builder().with_root_certificates(roots).with_no_client_auth())
    }

    fn new(config: ClientConfig) -> Self {
        Self { config: Arc::new(config), lookups: Arc::new(Semaphore::new(ALL_LOOKUPS)) }
    }
}

fn client_builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    // Named here: a default for the whole process would be a race with whoever else sets one.
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3")
}

/// Makes attempts to one endpoint.
pub struct Poster {
    client: Client<Connector, Full<Bytes>>,
    url: Uri,
    secrets: Vec<SigningKey>,
    allow_private: bool,
    batch: usize,
    limit: Duration,
}

impl fmt::Debug for Poster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may carry a token in its path or query.
        f.debug_struct("Poster").field("host", &self.url.host()).finish_non_exhaustive()
    }
}

impl Poster {
    /// Prepares attempts to `endpoint`. Connects to nothing yet.
    #[must_use]
    pub fn new(endpoint: &Endpoint, tls: &Tls) -> Self {
        let check = if endpoint.allow_private { Check::Any } else { Check::Public };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(HEAD as usize)
            .http2_max_header_list_size(HEAD)
            .http2_initial_stream_window_size(64 * 1024)
            .http2_initial_connection_window_size(1024 * 1024)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .build(Connector::new(check, ClientConfig::clone(&tls.config), Arc::clone(&tls.lookups)));
        let Endpoint { url, secrets, allow_private, batch, .. } = endpoint.clone();
        Self { client, url, secrets, allow_private, batch, limit: ATTEMPT }
    }

    /// Events in one request at most.
    pub(super) const fn batch(&self) -> usize {
        self.batch
    }

    /// Sends one message. `id` is the `webhook-id`, `now` the time of this try.
    pub async fn post(&self, id: &str, body: &str, now: SystemTime) -> Outcome {
        if !self.allow_private && self.url.scheme() != Some(&Scheme::HTTPS) {
            return AttemptError::PlainHttp.into();
        }
        let request = self.client.request(self.request(id, body, now));
        let answer = match timeout(self.limit, request).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return cause(&error, error.is_connect()).into(),
            Err(_) => return AttemptError::Timeout.into(),
        };
        let outcome = judge(answer.status(), answer.headers(), now);
        drain(answer).await;
        outcome
    }

    fn request(&self, id: &str, body: &str, now: SystemTime) -> Request<Full<Bytes>> {
        let timestamp = unix_seconds(now);
        let signature = sign_with(&self.secrets, id, timestamp, body.as_bytes());
        Request::post(self.url.clone())
            .header(CONTENT_TYPE, JSON)
            .header(USER_AGENT, AGENT)
            .header(WEBHOOK_ID, id)
            .header(WEBHOOK_TIMESTAMP, timestamp)
            .header(WEBHOOK_SIGNATURE, signature)
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .expect("ids and base64 are valid header values")
    }
}

impl From<AttemptError> for Outcome {
    fn from(error: AttemptError) -> Self {
        Self::Failed { error, retry_after: None }
    }
}

fn judge(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Outcome {
    let code = status.as_u16();
    if status.is_success() {
        return Outcome::Delivered(code);
    }
    let error = if status.is_redirection() { AttemptError::Redirect(code) } else { AttemptError::Status(code) };
    let asks = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    Outcome::Failed { error, retry_after: asks.then(|| retry_after(headers, now)).flatten() }
}

/// Reads Retry-After: seconds or a date (RFC 9110 10.2.3). A date in the past is no wait.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(Duration::from_secs(RETRY_AFTER_MAX)))
}

/// Reads a little of the answer's body and drops it. How it ends changes nothing.
async fn drain(answer: Response<Incoming>) {
    let mut body = answer.into_body();
    if body.size_hint().lower() > ANSWER {
        return;
    }
    let read = async {
        let mut left = ANSWER;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = timeout(ANSWER_REST, read).await;
}

/// What is behind the client's error, which came while it was still connecting or later. Nested errors are looked
/// through for the first that says something.
pub(super) fn cause(error: &(dyn Error + 'static), connecting: bool) -> AttemptError {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(link) = next {
        if let Some(own) = link.downcast_ref::<AttemptError>() {
            return own.clone();
        }
        if let Some(tls) = link.downcast_ref::<rustls::Error>() {
            return AttemptError::Tls(excerpt(tls));
        }
        if let Some(name) = link.downcast_ref::<InvalidDnsNameError>() {
            return AttemptError::Tls(excerpt(name));
        }
        if let Some(http) = link.downcast_ref::<hyper::Error>()
            && (http.is_parse() || http.is_parse_too_large())
        {
            return AttemptError::NotHttp;
        }
        if let Some(io) = link.downcast_ref::<io::Error>() {
            match io.get_ref() {
                _ if connecting && io.kind() == io::ErrorKind::TimedOut => return AttemptError::ConnectTimeout,
                Some(inner) => {
                    next = Some(inner);
                    continue;
                }
                None if connecting => return AttemptError::Connect(io.kind()),
                None => return AttemptError::Closed,
            }
        }
        next = link.source();
    }
    AttemptError::Closed
}

/// A stranger's text for a log or a record: escaped, and cut to [`EXCERPT`] characters.
pub(super) fn excerpt(text: &dyn fmt::Display) -> String {
    text.to_string().escape_debug().take(EXCERPT).collect()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use hyper::Version;

    use super::super::local_server::{self, LocalServer, Reply, SECRET, endpoint};
    use super::super::signature::{parse_secret, verify};
    use super::*;

    const ID: &str = "evt_01JD7Z3W5K8Q2M4N6P8R0S2T4V";
    const BODY: &str = r#"{"type":"verification.verified","data":{"metadata":{"name":"\u00e9 é \n"}}}"#;

    #[tokio::test]
    async fn receiver_gets_the_same_bytes_and_a_valid_signature_on_every_try() {
        let mut server = LocalServer::start(Reply::status(204)).await;
        let poster = Poster::new(&endpoint(&server.url(), true), &Tls::with_roots(RootCertStore::empty()));
        for try_at in [at(0), at(1)] {
            assert_eq!(poster.post(ID, BODY, try_at).await, Outcome::Delivered(204));
            let request = server.next().await;
            assert_eq!(request.body, BODY.as_bytes());
            assert_eq!(verify(&[parse_secret(SECRET).unwrap()], &request.headers, &request.body, try_at), Ok(()));
            let header = |name: &str| request.headers[name].to_str().unwrap().to_owned();
            assert_eq!(header("webhook-id"), ID);
            assert_eq!(header("webhook-timestamp"), unix_seconds(try_at).to_string());
            assert_eq!(header("content-type"), "application/json");
            assert_eq!(header("user-agent"), concat!("ringproof/", env!("CARGO_PKG_VERSION")));
            assert_eq!(header("content-length"), BODY.len().to_string());
        }
        assert_eq!(server.connections(), 1, "the connection is kept for the second try");
    }

    #[tokio::test]
    async fn redirect_is_a_failure_and_is_not_followed() {
        let elsewhere = LocalServer::start(Reply::status(204)).await;
        for code in [301, 302, 307, 308] {
            let reply = Reply::status(code).with("location", elsewhere.url());
            assert_eq!(post_to(reply).await, AttemptError::Redirect(code).into());
        }
        assert_eq!(elsewhere.connections(), 0);
    }

    #[tokio::test]
    async fn retry_after_is_read_as_seconds_and_as_a_date_where_it_means_something() {
        let date = httpdate::fmt_http_date(at(90));
        let cases = [
            (503, "120", Some(120)),
            (429, date.as_str(), Some(90)),
            (429, "Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            (429, "99999999999999999999999", Some(RETRY_AFTER_MAX)),
            (503, "-1", None),
            (503, "soon", None),
            (500, "120", None),
            (410, "120", None),
        ];
        for (code, value, seconds) in cases {
            let outcome = post_to(Reply::status(code).with("retry-after", value)).await;
            let retry_after = seconds.map(Duration::from_secs);
            assert_eq!(outcome, Outcome::Failed { error: AttemptError::Status(code), retry_after }, "{code} {value}");
        }
    }

    #[tokio::test]
    async fn private_addresses_are_refused_by_name_and_by_number_before_anything_is_sent() {
        let server = LocalServer::start(Reply::status(204)).await;
        let port = server.port();
        for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
            let poster = poster(&format!("https://{host}:{port}/hook"), false);
            match poster.post(ID, BODY, at(0)).await {
                Outcome::Failed { error: error @ AttemptError::Refused { range: "loopback", .. }, .. } => {
                    assert!(error.is_refused_address());
                }
                other => panic!("{host}: {other:?}"),
            }
        }
        let plain = poster(&server.url(), false).post(ID, BODY, at(0)).await;
        assert_eq!(plain, AttemptError::PlainHttp.into());
        assert_eq!(server.connections(), 0);
    }

    #[tokio::test]
    async fn endless_answer_is_judged_by_its_status() {
        let big = Reply::Body(Bytes::from(vec![b'x'; 10 * 1024 * 1024]));
        assert_eq!(post_to(big).await, Outcome::Delivered(200));
        assert_eq!(post_to(Reply::Endless).await, Outcome::Delivered(200));
    }

    #[tokio::test]
    async fn broken_connections_are_failures() {
        assert_eq!(post_to(Reply::Reset).await, AttemptError::Closed.into());
        assert_eq!(post_to(Reply::Raw("SIP/2.0 486 Busy Here\r\n\r\n")).await, AttemptError::NotHttp.into());
        let freed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = AttemptError::Connect(io::ErrorKind::ConnectionRefused);
        assert_eq!(poster(&format!("http://{freed}/"), true).post(ID, BODY, at(0)).await, refused.into());
    }

    #[tokio::test]
    async fn answer_with_a_head_past_the_limit_is_a_failure() {
        let reply = Reply::status(200).with("x-long", "x".repeat(HEAD as usize + 1));
        assert_eq!(post_to(reply).await, AttemptError::NotHttp.into());
    }

    #[tokio::test]
    async fn silence_ends_at_the_limit() {
        let server = LocalServer::start(Reply::Hang).await;
        let mut poster = poster(&server.url(), true);
        poster.limit = Duration::from_millis(100);
        assert_eq!(poster.post(ID, BODY, at(0)).await, AttemptError::Timeout.into());
    }

    #[tokio::test]
    async fn tls_speaks_http_2_where_the_receiver_does() {
        for (alpn, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
            let mut server = LocalServer::start_tls(Reply::status(200), alpn).await;
            let poster = Poster::new(&endpoint(&server.url(), true), &Tls::with_roots(local_server::roots()));
            assert_eq!(poster.post(ID, BODY, at(0)).await, Outcome::Delivered(200), "{alpn}");
            let request = server.next().await;
            assert_eq!((request.version, request.body), (version, BODY.into()));
        }
    }

    #[tokio::test]
    async fn certificate_that_nobody_vouches_for_is_refused() {
        let server = LocalServer::start_tls(Reply::status(200), "h2").await;
        match poster(&server.url(), true).post(ID, BODY, at(0)).await {
            Outcome::Failed { error: AttemptError::Tls(why), .. } => assert!(why.contains("certificate"), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn strangers_text_is_escaped_and_cut() {
        assert_eq!(excerpt(&"a\u{1b}[31m\r\n\u{202e}"), "a\\u{1b}[31m\\r\\n\\u{202e}");
        assert_eq!(excerpt(&"x".repeat(10_000)).len(), EXCERPT);
    }

    async fn post_to(reply: Reply) -> Outcome {
        let server = LocalServer::start(reply).await;
        poster(&server.url(), true).post(ID, BODY, at(0)).await
    }

    fn poster(url: &str, allow_private: bool) -> Poster {
        Poster::new(&endpoint(url, allow_private), &Tls::with_roots(RootCertStore::empty()))
    }

    fn at(offset: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_764_000_000 + offset)
    }
}
