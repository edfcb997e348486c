//! Bodies of requests: read within bounds of size, number and time, or let go.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::Shared;
use super::create::parse_empty;
use super::problem::{self, Code, Problem};
use crate::verify::settings::ApplicationId;

/// Most bytes of a body.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// Most bodies in memory at once: 64 MiB of them.
const MAX_AT_ONCE: usize = 1024;
/// Most of one application's: a client of one that is slow with its bodies must not hold up the others.
const MAX_OF_ONE: usize = MAX_AT_ONCE / 4;
/// How long a body may take to arrive.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// How much of a refused body is let go before the answer, and for how long.
const MAX_DISCARDED: usize = 1024 * 1024;
const DISCARD_DEADLINE: Duration = Duration::from_secs(1);

/// The places of bodies that are being read.
pub(super) struct Bodies {
    all: Semaphore,
    of_each: Mutex<HashMap<u16, Arc<Semaphore>>>,
}

impl Bodies {
    pub(super) fn new() -> Self {
        Self { all: Semaphore::new(MAX_AT_ONCE), of_each: Mutex::default() }
    }

    /// Waits for a place, free again when it is dropped: one of the application's own first.
    async fn enter(&self, application: ApplicationId) -> Option<(OwnedSemaphorePermit, SemaphorePermit<'_>)> {
        let own = Arc::clone(
            self.of_each.lock().entry(application.0).or_insert_with(|| Arc::new(Semaphore::new(MAX_OF_ONE))),
        );
        // Neither is ever closed.
        Some((own.acquire_owned().await.ok()?, self.all.acquire().await.ok()?))
    }
}

/// Reads a body that may be left out and has no fields.
pub(super) async fn read_empty(
    shared: &Shared,
    application: ApplicationId,
    parts: &Parts,
    body: Body,
) -> Result<Vec<u8>, Problem> {
    let body = read(shared, application, body).await?;
    if !body.is_empty() {
        require_json(&parts.headers)?;
    }
    parse_empty(&body)?;
    Ok(body)
}

/// Reads the whole body of a request of this application.
pub(super) async fn read(shared: &Shared, application: ApplicationId, mut body: Body) -> Result<Vec<u8>, Problem> {
    if body.size_hint().lower() > MAX_BYTES as u64 {
        return Err(too_large());
    }
    if body.is_end_stream() {
        return Ok(Vec::new());
    }
    let Ok(Some(_place)) = timeout(shared.body_deadline, shared.bodies.enter(application)).await else {
        return Err(problem::busy());
    };
    let collect = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Problem::new(Code::Malformed, "the body broke off"))?;
            let data = frame.data_ref().map_or(&[][..], |data| &data[..]);
            if bytes.len() + data.len() > MAX_BYTES {
                return Err(too_large());
            }
            bytes.extend_from_slice(data);
        }
        Ok(bytes)
    };
    timeout(shared.body_deadline, collect).await.unwrap_or_else(|_| {
        let seconds = shared.body_deadline.as_secs();
        Err(Problem::new(Code::BodyTimeout, format!("the body did not arrive within {seconds} s")))
    })
}

fn too_large() -> Problem {
    Problem::new(Code::BodyTooLarge, format!("the body may have at most {MAX_BYTES} bytes"))
}

/// Refuses what is not `application/json` in UTF-8, uncompressed.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(coding) = headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        // RFC 9110 15.5.16: Accept-Encoding tells that the coding was the fault.
        return Err(Problem::new(Code::UnsupportedMediaType, "send the body without a Content-Encoding")
            .with(ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let value = values.next().and_then(|value| value.to_str().ok());
    if values.next().is_none() && value.is_some_and(is_json) {
        Ok(())
    } else {
        Err(Problem::new(Code::UnsupportedMediaType, "send the body as Content-Type: application/json"))
    }
}

fn is_json(value: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, charset)) if name.trim_end().eq_ignore_ascii_case("charset") => {
                charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// A body that an endpoint may read or leave, and what then remains of it.
///
/// A connection that is closed while the client still sends is reset, and the client may lose the answer that tells it
/// why. So what an endpoint leaves is let go before the answer.
pub(super) fn lend(body: Body) -> (Body, Rest) {
    let shared = Arc::new(Mutex::new(body));
    (Body::new(Lent(Arc::clone(&shared))), Rest(shared))
}

/// What remains of a lent body.
pub(super) struct Rest(Arc<Mutex<Body>>);

impl Rest {
    /// Reads on and forgets, within bounds of size and time.
    pub(super) async fn discard(self) {
        let mut body = Lent(self.0);
        let forget = async {
            let mut left = MAX_DISCARDED;
            while let Some(Ok(frame)) = body.frame().await {
                match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(still) => left = still,
                    None => break,
                }
            }
        };
        let _ = timeout(DISCARD_DEADLINE, forget).await;
    }
}

struct Lent(Arc<Mutex<Body>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_application_that_is_slow_leaves_places_to_the_others() {
        let bodies = Bodies::new();
        let enter = |application| timeout(Duration::ZERO, bodies.enter(ApplicationId(application)));
        let mut slow = Vec::new();
        for _ in 0..MAX_OF_ONE {
            slow.push(enter(0).await.unwrap());
        }
        assert!(enter(0).await.is_err() && enter(1).await.is_ok());
        slow.pop();
        assert!(enter(0).await.is_ok());
    }

    #[test]
    fn json_is_told_from_other_media_types() {
        for value in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert!(is_json(value), "{value}");
        }
        for value in [
            "",
            "text/plain",
            "text/json",
            "application/jsonp",
            "application/json; charset=utf-16",
            "application/x+json",
        ] {
            assert!(!is_json(value), "{value}");
        }
    }

    #[test]
    fn a_compressed_body_is_refused_with_what_would_be_taken() {
        use axum::response::IntoResponse;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert!(require_json(&headers).is_ok());
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let response = require_json(&headers).unwrap_err().into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["accept-encoding"]),
            (415, &HeaderValue::from_static("identity"))
        );
    }
}
