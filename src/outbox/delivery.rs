//! A delivery: one event on its way to one endpoint.

use std::sync::Arc;
use std::time::SystemTime;

use super::event::{EventId, EventType};

/// Stable name of a webhook endpoint: application and address, so that deliveries find their endpoint again after a
/// restart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub Arc<str>);

/// Row number of a delivery in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub i64);

/// Which endpoints want which events: what a new event's deliveries are made from.
#[derive(Debug, Clone, Default)]
pub struct Subscriptions(pub Vec<Subscription>);

/// One endpoint's wishes.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Name of the application.
    pub application: String,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The types that it wants.
    pub events: Vec<EventType>,
}

impl Subscriptions {
    /// The endpoints of `application` that want `kind`.
    pub fn of<'a>(&'a self, application: &'a str, kind: EventType) -> impl Iterator<Item = &'a EndpointId> + 'a {
        self.0
            .iter()
            .filter(move |wish| wish.application == application && wish.events.contains(&kind))
            .map(|wish| &wish.endpoint)
    }
}

/// A delivery that is due: all that an attempt needs.
#[derive(Debug, Clone)]
pub struct Due {
    /// The row to acknowledge or put off.
    pub id: DeliveryId,
    /// Where to.
    pub endpoint: EndpointId,
    /// The `webhook-id`.
    pub event: EventId,
    /// What happened.
    pub kind: EventType,
    /// When the event happened, UTC: the schedule counts from here.
    pub event_at: SystemTime,
    /// How many attempts there have been.
    pub attempts: u32,
    /// The body, the same on every try.
    pub body: Arc<str>,
}
