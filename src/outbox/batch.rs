//! Several events in one request, for receivers that ask for it.
//!
//! Owns the form of such a request. Which events go together is the lane's matter, and what follows is settled for each
//! event by itself. Pure.

use std::time::SystemTime;

use ulid::Ulid;

use super::event::{EventId, listed};
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

/// Renders the events of one request, each with its body, made at `now`. Each event is as the pull feed shows it, so its own id, by which
/// receivers know what they have had, is in it. `id` is the request's, and new each time: the next try may hold others.
#[must_use]
pub fn message<'a>(id: Ulid, events: impl Iterator<Item = (EventId, &'a str)>, now: SystemTime) -> Message {
    let events: Vec<String> = events.map(|(event, body)| listed(&event.to_string(), body)).collect();
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

    #[test]
    fn events_stand_in_it_with_their_ids_and_as_they_are() {
        let now = UNIX_EPOCH + Duration::from_secs(1_764_000_001);
        let event = |id: u128| {
            let body = format!("{{\"type\":\"verification.verified\",\"data\":{{\"n\":{id}}}}}");
            (EventId(Ulid::from_parts(1, id)), body)
        };
        let events = [event(1), event(2)];
        let message = message(Ulid::from_parts(1, 3), events.iter().map(|(id, body)| (*id, body.as_str())), now);
        assert_eq!(message.id, "bat_00000000010000000000000003");
        assert_eq!(
            message.body,
            "{\"type\":\"event.batch\",\"timestamp\":\"2025-11-24T16:00:01.000Z\",\"data\":{\"events\":[\
             {\"id\":\"evt_00000000010000000000000001\",\"object\":\"event\",\"type\":\"verification.verified\",\"data\":{\"n\":1}},\
             {\"id\":\"evt_00000000010000000000000002\",\"object\":\"event\",\"type\":\"verification.verified\",\"data\":{\"n\":2}}]}}"
        );
    }
}
