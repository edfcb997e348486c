//! What the operator configures about webhook endpoints.

use secrecy::{ExposeSecret, SecretSlice};

use crate::outbox::delivery::EndpointId;
use crate::outbox::event::EventType;

/// One `[[application.webhook]]`.
#[derive(Debug)]
pub struct Endpoint {
    /// Stable name: application and address.
    pub id: EndpointId,
    /// The application, a metric label.
    pub application: String,
    /// `http` or `https` address with a host.
    pub url: hyper::Uri,
    /// Keys of the signatures, 24 to 64 bytes each, the newest first. At least one.
    pub secrets: Vec<SecretSlice<u8>>,
    /// The types that it wants.
    pub events: Vec<EventType>,
    /// Whether private addresses and plain http are allowed.
    pub allow_private: bool,
    /// Events in one request at most; with 1, each event is a request of its own.
    pub batch: usize,
}

impl Clone for Endpoint {
    fn clone(&self) -> Self {
        Self {
            id: self.id.clone(),
            application: self.application.clone(),
            url: self.url.clone(),
            secrets: self.secrets.iter().map(|secret| SecretSlice::from(secret.expose_secret().to_vec())).collect(),
            events: self.events.clone(),
            allow_private: self.allow_private,
            batch: self.batch,
        }
    }
}

impl Endpoint {
    /// Whether what is sent to both is sent in the same way: to one address, signed alike, under one rule of addresses,
    /// in requests of one form.
    #[must_use]
    pub fn sends_like(&self, other: &Self) -> bool {
        let secrets = |one: &Self| one.secrets.iter().map(|secret| secret.expose_secret().to_vec()).collect::<Vec<_>>();
        let form = |one: &Self| (one.url.clone(), one.allow_private, one.batch);
        form(self) == form(other) && secrets(self) == secrets(other)
    }
}
