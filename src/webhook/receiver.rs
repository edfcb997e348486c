//! The built-in receiver: where the events of a sandbox application without an endpoint go.
//!
//! Owns a small HTTP server on the loopback address that checks each signature as an application should. Does not keep
//! what it gets. Invariant: what it shows is one event on two lines, whatever is in it.

use std::convert::Infallible;
use std::fmt::{self, Write as _};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::SecretSlice;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::attempt::excerpt;
use super::signature::{VerifyError, verify};
use super::{Clock, stopped};

/// Longest body that is taken, in bytes: three times what an event may have.
const BODY_LIMIT: usize = 64 * 1024;

/// Longest time that a request may take to come in.
const REQUEST: Duration = Duration::from_secs(10);

/// Connections at once; more wait in the kernel.
const CONNECTIONS: usize = 128;

/// Pause after a failed accept: the process has no file descriptor left, say.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A server bound to a free port of 127.0.0.1.
#[derive(Debug)]
pub struct Receiver {
    listener: TcpListener,
    address: SocketAddr,
    secrets: Vec<SecretSlice<u8>>,
    clock: Clock,
}

/// One request that came: an event, if its signature is right.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    /// The body as it came.
    pub body: Bytes,
    /// Whether it is genuine.
    pub signature: Result<(), VerifyError>,
}

impl Receiver {
    /// Opens a port. `secrets` are those of the endpoint that points here.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn bind(secrets: Vec<SecretSlice<u8>>, clock: Clock) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, secrets, clock })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` turns true or its sender is gone; gives every request to `show`, genuine or not.
    pub async fn run(self, show: impl Fn(&Received) + Send + Sync + 'static, mut stop: watch::Receiver<bool>) {
        let Self { listener, secrets, clock, .. } = self;
        let check = Arc::new(move |headers: &HeaderMap, body: Bytes| {
            let received = Received { signature: verify(&secrets, headers, &body, clock()), body };
            show(&received);
            received.signature
        });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => { connections.spawn(serve(stream, Arc::clone(&check))); }
                    Err(error) => {
                        tracing::debug!(%error, "the built-in webhook receiver cannot accept");
                        sleep(ACCEPT_AGAIN).await;
                    }
                },
            }
        }
        connections.shutdown().await;
    }
}

async fn serve<C>(stream: TcpStream, check: Arc<C>)
where
    C: Fn(&HeaderMap, Bytes) -> Result<(), VerifyError> + Send + Sync + 'static,
{
    let service = service_fn(move |request| {
        let check = Arc::clone(&check);
        async move { Ok::<_, Infallible>(respond(request, check.as_ref()).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error = excerpt(&error), "a connection to the built-in webhook receiver failed");
    }
}

async fn respond(
    request: Request<Incoming>,
    check: &impl Fn(&HeaderMap, Bytes) -> Result<(), VerifyError>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        let mut answer = say(StatusCode::METHOD_NOT_ALLOWED, "only POST");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return answer;
    }
    let body = match timeout(REQUEST, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return say(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {BODY_LIMIT} bytes"));
        }
        Ok(Err(_)) => return say(StatusCode::BAD_REQUEST, "the body is broken"),
        Err(_) => return say(StatusCode::REQUEST_TIMEOUT, "the body is too slow"),
    };
    match check(&head.headers, body) {
        Ok(()) => say(StatusCode::NO_CONTENT, ""),
        Err(why) => say(StatusCode::BAD_REQUEST, why.to_string()),
    }
}

fn say(status: StatusCode, why: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(why.into()));
    *answer.status_mut() = status;
    answer
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body names phones.
        f.debug_struct("Received").field("bytes", &self.body.len()).field("signature", &self.signature).finish()
    }
}

/// What a developer sees: a line with type, verification, masked phone and signature, then the body with its phone masked
/// likewise, for standard output may lead into a journal, and control characters escaped. Of a request that is not genuine only the fault is shown.
impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Err(why) = self.signature {
            return write!(f, "webhook  refused: {why}");
        }
        let event: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = |pointer: &str| event.pointer(pointer).and_then(|value| value.as_str()).unwrap_or(NO_PHONE);
        let phone = masked(text("/data/phone"));
        let (kind, id) = (excerpt(&text("/type")), excerpt(&text("/data/id")));
        writeln!(f, "webhook  {kind}  {id}  {phone}  signature ok")?;
        let body = String::from_utf8_lossy(&self.body);
        let body = if phone == NO_PHONE { body } else { body.replace(text("/data/phone"), &phone).into() };
        for character in body.chars() {
            match character {
                '"' | '\\' | '\'' => f.write_char(character)?,
                other => write!(f, "{}", other.escape_debug())?,
            }
        }
        Ok(())
    }
}

/// Stands where there is no phone.
const NO_PHONE: &str = "-";

/// The beginning and the last two digits of a number; [`NO_PHONE`] for what is none.
fn masked(phone: &str) -> String {
    const NUMBER: std::ops::RangeInclusive<usize> = 9..=16;
    let is_number = phone.strip_prefix('+').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_number || !NUMBER.contains(&phone.len()) {
        return NO_PHONE.to_owned();
    }
    let (head, tail) = (&phone[..4], &phone[phone.len() - 2..]);
    format!("{head}{}{tail}", "*".repeat(phone.len() - 6))
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    use rustls::RootCertStore;
    use tokio::sync::mpsc;

    use super::super::attempt::{AttemptError, Outcome, Poster, Tls};
    use super::super::local_server::{SECRET, endpoint, within};
    use super::super::signature::{new_secret, parse_secret};
    use super::*;

    const ID: &str = "evt_01JD7Z3W5K8Q2M4N6P8R0S2T4V";
    const BODY: &str =
        r#"{"type":"verification.verified","data":{"id":"ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V","phone":"+966500000123"}}"#;

    #[tokio::test]
    async fn genuine_event_is_taken_and_shown_with_its_phone_masked() {
        let mut receiver = start(SECRET).await;
        assert_eq!(receiver.post(BODY, 0).await, Outcome::Delivered(204));
        let shown = within(receiver.shown.recv()).await.unwrap();
        let (line, body) = shown.split_once('\n').unwrap();
        let expected = "webhook  verification.verified  ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V  +966*******23  signature ok";
        assert_eq!((line, body), (expected, BODY.replace("+966500000123", "+966*******23").as_str()));
    }

    #[tokio::test]
    async fn event_that_is_not_genuine_is_refused_with_the_reason() {
        let mut other = start(&new_secret().unwrap()).await;
        assert_eq!(other.post(BODY, 0).await, AttemptError::Status(400).into());
        assert_eq!(within(other.shown.recv()).await.unwrap(), "webhook  refused: no signature fits");
        let mut late = start(SECRET).await;
        assert_eq!(late.post(BODY, 301).await, AttemptError::Status(400).into());
        assert_eq!(
            within(late.shown.recv()).await.unwrap(),
            "webhook  refused: webhook-timestamp is more than 5 minutes off"
        );
    }

    #[tokio::test]
    async fn body_past_the_limit_and_other_methods_are_refused() {
        let receiver = start(SECRET).await;
        assert_eq!(receiver.post(&"x".repeat(BODY_LIMIT), 0).await, Outcome::Delivered(204));
        assert_eq!(receiver.post(&"x".repeat(BODY_LIMIT + 1), 0).await, AttemptError::Status(413).into());
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let answer = within(client.get(receiver.url.parse().unwrap())).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()[ALLOW]), (405, &HeaderValue::from_static("POST")));
    }

    #[test]
    fn what_is_shown_stays_on_its_two_lines() {
        let nasty = "{\"type\":\"a\\nb\\u001b[2J\",\"data\":{\"phone\":\"+1\"}}\n\u{1b}[31m\u{7f}\u{202e}";
        for body in [nasty.as_bytes(), b"\xff\x00\n", b"", b"{\"type\":7}"] {
            let shown = Received { body: Bytes::copy_from_slice(body), signature: Ok(()) }.to_string();
            assert_eq!(shown.lines().count(), if body.is_empty() { 1 } else { 2 }, "{shown:?}");
            assert!(
                shown.replace('\n', "").chars().all(|shown| !shown.is_control() && shown != '\u{202e}'),
                "{shown:?}"
            );
        }
    }

    #[test]
    fn only_numbers_are_shown_masked() {
        let cases =
            [("+966500000123", "+966*******23"), ("+12025550", "+120***50"), ("+1202555", "-"), ("secret", "-")];
        for (phone, shown) in cases {
            assert_eq!(masked(phone), shown);
        }
    }

    struct Running {
        url: String,
        shown: mpsc::UnboundedReceiver<String>,
        _stop: watch::Sender<bool>,
    }

    impl Running {
        async fn post(&self, body: &str, offset: u64) -> Outcome {
            let poster = Poster::new(&endpoint(&self.url, true), &Tls::with_roots(RootCertStore::empty()));
            poster.post(ID, body, now() + Duration::from_secs(offset)).await
        }
    }

    async fn start(secret: &str) -> Running {
        let receiver = Receiver::bind(vec![parse_secret(secret).unwrap()], now).await.unwrap();
        let url = format!("http://{}/", receiver.address());
        let (show, shown) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(receiver.run(move |received| show.send(received.to_string()).unwrap_or_default(), stopping));
        Running { url, shown, _stop: stop }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_764_000_001)
    }
}
