//! Several events in one request, for receivers that ask for it.
//!
//! Owns the form of such a request. Which events go together is the lane's matter, and what follows is settled for each
//! event by itself. Pure.

use std::time::SystemTime;

use ulid::Ulid;

use super::delivery::Due;
use super::event::listed;
use crate::matcher::verification::Timestamp;

/// Bytes of events after which no more are added: with one of the longest, less than 300 KB.
pub const BYTES: usize = 256 * 1024;

/// What is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// The `webhook-id`.
    pub id: String,
    /// The body.
    pub body: String,
}

/// Renders the deliveries of one request, made at `now`. Each event is as the pull feed shows it, so its own id, by which
/// receivers know what they have had, is in it. `id` is the request's, and new each time: the next try may hold others.
#[must_use]
pub fn message(id: Ulid, dues: &[Due], now: SystemTime) -> Message {
    let events: Vec<String> = dues.iter().map(|due| listed(&due.event.to_string(), &due.body)).collect();
    let timestamp = serde_json::to_string(&Timestamp(now)).unwrap_or_default();
    let body = format!(
        "{{\"type\":\"event.batch\",\"timestamp\":{timestamp},\"data\":{{\"events\":[{}]}}}}",
        events.join(",")
    );
    Message { id: format!("bat_{id}"), body }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::outbox::delivery::{DeliveryId, EndpointId};
    use crate::outbox::event::{EventId, EventType};

    #[test]
    fn events_stand_in_it_with_their_ids_and_as_they_are() {
        let now = UNIX_EPOCH + Duration::from_secs(1_764_000_001);
        let due = |id| Due {
            id: DeliveryId(id),
            endpoint: EndpointId("demo".into()),
            event: EventId(Ulid::from_parts(1, u128::from(id.unsigned_abs()))),
            kind: EventType::Verified,
            planned_from: now,
            attempts: 0,
            replayed_after: 0,
            body: format!("{{\"type\":\"verification.verified\",\"data\":{{\"n\":{id}}}}}").into(),
        };
        let message = message(Ulid::from_parts(1, 3), &[due(1), due(2)], now);
        assert_eq!(message.id, "bat_00000000010000000000000003");
        assert_eq!(
            message.body,
            "{\"type\":\"event.batch\",\"timestamp\":\"2025-11-24T16:00:01.000Z\",\"data\":{\"events\":[\
             {\"id\":\"evt_00000000010000000000000001\",\"object\":\"event\",\"type\":\"verification.verified\",\"data\":{\"n\":1}},\
             {\"id\":\"evt_00000000010000000000000002\",\"object\":\"event\",\"type\":\"verification.verified\",\"data\":{\"n\":2}}]}}"
        );
    }
}
