//! A test: one message to an endpoint by its owner's wish, as an event would be sent, and what came of it.
//!
//! It is no event: it stands in no feed, is tried once, and counts neither for nor against the endpoint.

use std::time::{Instant, SystemTime};

use ulid::Ulid;

use super::attempt::{Outcome, Poster, Tls};
use super::settings::Endpoint;
use crate::outbox::batch::{self, Message};
use crate::outbox::event::EventId;
use crate::outbox::notice::{Tested, test_body};

/// Sends a test to `endpoint`, also where it is disabled.
pub async fn send(endpoint: &Endpoint, tls: &Tls, now: SystemTime, instant: fn() -> Instant) -> Tested {
    let event = EventId(Ulid::generate());
    let body = test_body(&endpoint.id, now);
    let message = if endpoint.batch > 1 {
        batch::message(Ulid::generate(), [(event, body.as_str())].into_iter(), now)
    } else {
        Message { id: event.to_string(), body }
    };
    let began = instant();
    let outcome = Poster::new(endpoint, tls).post(&message.id, &message.body, now).await;
    let took = instant().saturating_duration_since(began);
    let (status, error) = match outcome {
        Outcome::Delivered(status) => (Some(status), None),
        Outcome::Failed { error, .. } => (error.status(), Some(error.to_string())),
    };
    Tested { id: message.id, status, error, took }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;

    use super::super::local_server::{LocalServer, Reply, endpoint};
    use super::*;

    #[tokio::test]
    async fn a_test_is_signed_sent_once_and_its_end_is_told() {
        let tls = Tls::with_roots(RootCertStore::empty());
        let (now, instant) = (crate::engine::clock::utc(), crate::engine::clock::instant);
        let mut good = LocalServer::start(Reply::status(204)).await;
        let tested = send(&endpoint(&good.url(), true), &tls, now, instant).await;
        assert_eq!((tested.status, tested.error), (Some(204), None));
        let request = good.next().await;
        assert_eq!(request.headers["webhook-id"], *tested.id);
        let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
        assert!(text(&request.body).starts_with(r#"{"type":"endpoint.test","timestamp":""#));

        let batched = Endpoint { batch: 50, ..endpoint(&good.url(), true) };
        send(&batched, &tls, now, instant).await;
        assert!(text(&good.next().await.body).contains(r#""object":"event","type":"endpoint.test""#));

        let bad = LocalServer::start(Reply::status(500)).await;
        let tested = send(&endpoint(&bad.url(), true), &tls, now, instant).await;
        assert_eq!((tested.status, tested.error.as_deref()), (Some(500), Some("status 500")));
    }
}
