//! What the operator configures about webhook endpoints.

use super::signing_key::SigningKey;
use crate::outbox::delivery::EndpointId;
use crate::outbox::event::EventType;

/// One `[[application.webhook]]`.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Stable name: application and address.
    pub id: EndpointId,
    /// The application, a metric label.
    pub application: String,
    /// `http` or `https` address with a host.
    pub url: hyper::Uri,
    /// Keys of the signatures, the newest first. At least one.
    pub secrets: Vec<SigningKey>,
    /// The types that it wants.
    pub events: Vec<EventType>,
    /// Whether private addresses and plain http are allowed.
    pub allow_private: bool,
    /// Events in one request at most; with 1, each event is a request of its own.
    pub batch: usize,
}

impl Endpoint {
    /// Whether what is sent to both is sent in the same way: to one address, signed alike, under one rule of addresses,
    /// in requests of one form.
    #[must_use]
    pub fn sends_like(&self, other: &Self) -> bool {
        let form = |one: &Self| (one.url.clone(), one.allow_private, one.batch);
        form(self) == form(other) && self.secrets == other.secrets
    }
}
