//! What the operator configures about webhook endpoints.

use secrecy::SecretSlice;

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
}
