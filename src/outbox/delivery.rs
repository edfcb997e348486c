//! A delivery: one event on its way to one endpoint.

use std::fmt;
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
#[derive(Clone)]
pub struct Due {
    /// The row to acknowledge or put off.
    pub id: DeliveryId,
    /// Where to.
    pub endpoint: EndpointId,
    /// The `webhook-id`.
    pub event: EventId,
    /// What happened.
    pub kind: EventType,
    /// When the plan of tries begins, UTC: at the event, or at its last replay.
    pub planned_from: SystemTime,
    /// How many attempts there have been.
    pub attempts: u32,
    /// The body, the same on every try.
    pub body: Arc<str>,
}

impl fmt::Debug for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body names the phone in full, the endpoint's address may carry a token.
        f.debug_struct("Due")
            .field("id", &self.id)
            .field("event", &format_args!("{}", self.event))
            .field("kind", &self.kind)
            .field("planned_from", &self.planned_from)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use ulid::Ulid;

    use super::*;

    #[test]
    fn debug_shows_neither_body_nor_address() {
        let due = Due {
            id: DeliveryId(1),
            endpoint: EndpointId("demo https://receiver.example/hook?token=abc".into()),
            event: EventId(Ulid::nil()),
            kind: EventType::Verified,
            planned_from: UNIX_EPOCH,
            attempts: 0,
            body: r#"{"phone":"+966500000123"}"#.into(),
        };
        let text = format!("{due:?}");
        assert!(!text.contains("966500000123") && !text.contains("token"), "{text}");
        assert!(text.contains("evt_"), "{text}");
    }
}
