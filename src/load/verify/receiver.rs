//! The receiver of webhooks: HTTP/1.1 and HTTP/2 without TLS, every path.
//!
//! Answers 204 to what is genuine and 400 to anything else, as an application should. Invariant: whatever comes, a
//! request has an end and a size, and what is not signed ends no verification.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use secrecy::SecretSlice;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::body::{Event, events};
use super::local::Local;
use super::work::Work;
use crate::webhook::signature::verify;

/// Longest body that is taken, in bytes: more than the events of one request may have.
const BODY: usize = 512 * 1024;
/// Longest time that the head or the body of a request may take.
const REQUEST: Duration = Duration::from_secs(10);
/// Connections at once; more wait in the kernel.
const CONNECTIONS: usize = 1_024;
/// Pause after a failed accept: the process has no file descriptor left, say.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What a webhook is checked by, and where it is told.
pub(super) struct Receiver {
    pub(super) work: Rc<Work>,
    pub(super) secrets: Vec<SecretSlice<u8>>,
    pub(super) utc: fn() -> SystemTime,
}

impl Receiver {
    /// Serves until the other end of `ended` is gone, and then until what came before is answered.
    pub(super) async fn run(self, listener: TcpListener, mut ended: watch::Receiver<()>) {
        let this = Rc::new(self);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                _ = ended.changed() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => { connections.spawn_local(serve(stream, Rc::clone(&this), ended.clone())); }
                    Err(_) => sleep(ACCEPT_AGAIN).await,
                },
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// The status for a request with this head and body, which is told to the board.
    fn take(&self, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        let now = self.work.now();
        if verify(&self.secrets, headers, body, (self.utc)()).is_err() {
            self.work.with(|board| board.count("bad signature"));
            return StatusCode::BAD_REQUEST;
        }
        let Some(events) = events(body) else {
            self.work.with(|board| board.count("unreadable webhook"));
            return StatusCode::BAD_REQUEST;
        };
        for event in events {
            match event {
                Event::Verified(id) => self.work.with(|board| board.webhook(&id, now)),
                Event::Other => self.work.with(|board| board.count("other webhook")),
            }
        }
        StatusCode::NO_CONTENT
    }
}

async fn serve(stream: TcpStream, receiver: Rc<Receiver>, mut ended: watch::Receiver<()>) {
    // Answers are small and each is waited for.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let receiver = Rc::clone(&receiver);
        async move { Ok::<_, Infallible>(respond(request, &receiver).await) }
    });
    let mut builder = auto::Builder::new(Local);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(REQUEST);
    builder.http2().timer(TokioTimer::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A connection that breaks takes its unanswered webhooks with it, and the node sends them again.
        _ = connection.as_mut() => {}
        _ = ended.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn respond(request: Request<Incoming>, receiver: &Receiver) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    match timeout(REQUEST, Limited::new(body, BODY).collect()).await {
        Ok(Ok(body)) => empty(receiver.take(&head.headers, &body.to_bytes())),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => empty(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => empty(StatusCode::BAD_REQUEST),
        Err(_elapsed) => empty(StatusCode::REQUEST_TIMEOUT),
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, UNIX_EPOCH};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::LocalSet;

    use super::super::board::Board;
    use super::super::body::Id;
    use super::*;
    use crate::load::pace::Due;
    use crate::webhook::signature::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, parse_secret, sign};

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const FOREIGN: &str = "whsec_HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const AT: u64 = 1_764_000_000;
    const BODY: &[u8] = br#"{"type":"verification.verified","data":{"id":"ver_1"}}"#;

    #[test]
    fn a_signed_webhook_is_taken_and_counted_once() {
        let receiver = receiver();
        assert_eq!(receiver.take(&signed(SECRET, BODY), BODY), StatusCode::NO_CONTENT);
        assert_eq!(receiver.work.with(|board| board.open()), 0);
        assert_eq!(receiver.take(&signed(SECRET, BODY), BODY), StatusCode::NO_CONTENT);
        let (tally, _) = receiver.work.with(Board::take);
        assert_eq!((tally.ended, tally.codes["duplicate webhook"]), (1, 1));
    }

    #[test]
    fn unsigned_and_foreign_webhooks_end_nothing() {
        let receiver = receiver();
        for headers in [HeaderMap::new(), signed(FOREIGN, BODY), signed(SECRET, b"{}")] {
            assert_eq!(receiver.take(&headers, BODY), StatusCode::BAD_REQUEST);
        }
        assert_eq!(receiver.work.with(|board| board.open()), 1);
        let (tally, _) = receiver.work.with(Board::take);
        assert_eq!((tally.ended, tally.codes["bad signature"]), (0, 3));
    }

    #[test]
    fn other_events_are_answered_and_strange_bodies_refused() {
        let receiver = receiver();
        let other = br#"{"type":"verification.expired","data":{"id":"ver_1"}}"#;
        assert_eq!(receiver.take(&signed(SECRET, other), other), StatusCode::NO_CONTENT);
        assert_eq!(receiver.take(&signed(SECRET, b"x"), b"x"), StatusCode::BAD_REQUEST);
        assert_eq!(receiver.work.with(|board| board.open()), 1);
    }

    #[tokio::test]
    async fn at_the_end_what_came_is_answered_and_connections_are_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (running, ended) = watch::channel(());
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = "POST /hook HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; 25];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, *b"HTTP/1.1 100 Continue\r\n\r\n");
            drop(running);
            stream.write_all(b"{}").await.unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            assert!(rest.starts_with("HTTP/1.1 400 "), "{rest}");
        };
        let served = async { tokio::join!(receiver().run(listener, ended), client) };
        timeout(Duration::from_secs(20), LocalSet::new().run_until(served)).await.unwrap();
    }

    /// With one verification in flight, `ver_1`, that has its final response.
    fn receiver() -> Receiver {
        let work = Work::new(clock, Board::new(Duration::from_secs(30), 0));
        work.with(|board| {
            let key = board.begin(Due { call: 0, at: Duration::ZERO }, Duration::ZERO).unwrap();
            let created = (Id::new("ver_1").unwrap(), "+966115000050".parse().unwrap());
            assert!(board.created(key, created, Duration::ZERO, Duration::ZERO));
            assert!(board.invite(key, Duration::ZERO).is_some());
            assert!(board.response(key, 486, Duration::ZERO).is_some());
        });
        let utc = || UNIX_EPOCH + Duration::from_secs(AT);
        Receiver { work: Rc::new(work), secrets: vec![parse_secret(SECRET).unwrap()], utc }
    }

    fn signed(secret: &str, body: &[u8]) -> HeaderMap {
        let signature = sign(&[parse_secret(secret).unwrap()], "evt_1", AT, body);
        let pairs =
            [(WEBHOOK_ID, "evt_1".to_owned()), (WEBHOOK_TIMESTAMP, AT.to_string()), (WEBHOOK_SIGNATURE, signature)];
        pairs.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
    }

    #[allow(clippy::disallowed_methods, reason = "the clock that the command hands in")]
    fn clock() -> Instant {
        Instant::now()
    }
}
