//! The bodies that are read: the answer to a create, a problem, an event. Pure.
//!
//! Only what the load needs is read, and it stays where it came unless it is written with escapes. Unknown fields are
//! passed over.

use std::borrow::Cow;

use serde::Deserialize;

use crate::e164::E164;

/// Longest id that is kept.
const MAX_ID: usize = 40;

/// Id of a verification, as it came: opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id {
    bytes: [u8; MAX_ID],
    length: u8,
}

impl Id {
    /// `None` for an empty text or one of more than 40 bytes.
    pub(super) fn new(text: &str) -> Option<Self> {
        let length = u8::try_from(text.len()).ok().filter(|length| (1..=MAX_ID).contains(&usize::from(*length)))?;
        let mut bytes = [0; MAX_ID];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self { bytes, length })
    }
}

/// A verification that was created: its id and the number to call.
pub(super) fn created(body: &[u8]) -> Option<(Id, E164)> {
    #[derive(Deserialize)]
    struct Created<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(borrow)]
        dial: Dial<'a>,
    }
    #[derive(Deserialize)]
    struct Dial<'a> {
        #[serde(borrow)]
        number: Cow<'a, str>,
    }
    let created: Created<'_> = serde_json::from_slice(body).ok()?;
    Some((Id::new(&created.id)?, created.dial.number.parse().ok()?))
}

/// Title and detail of a problem (RFC 9457), with the first fault of a field; empty for any other body.
pub(super) fn problem(body: &[u8]) -> (String, String) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Problem {
        title: String,
        detail: String,
        errors: Vec<FieldFault>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct FieldFault {
        pointer: String,
        detail: String,
    }
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let detail = match problem.errors.first() {
        Some(fault) => format!("{} ({} {})", problem.detail, fault.pointer, fault.detail),
        None => problem.detail,
    };
    (problem.title, detail)
}

/// What an event tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The verification of this id was verified.
    Verified(Id),
    /// Anything else.
    Other,
}

/// Reads an event, or several in one request; `None` for what is neither.
pub(super) fn events(body: &[u8]) -> Option<Vec<Event>> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        data: Data<'a>,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow, default)]
        id: Cow<'a, str>,
        #[serde(borrow, default)]
        events: Vec<Body<'a>>,
    }
    fn event(body: &Body<'_>) -> Option<Event> {
        if body.kind != "verification.verified" {
            return Some(Event::Other);
        }
        Id::new(&body.data.id).map(Event::Verified)
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    if body.kind == "event.batch" { body.data.events.iter().map(event).collect() } else { Some(vec![event(&body)?]) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CREATED: &str = r#"{"id":"ver_01M839ZGETPG82G6CPYEEZKS9P","object":"verification","dial":
        {"number":"+966115000050","national":"011 500 0050"},"client":{"token":"x"},"reasons":[]}"#;
    const VERIFIED: &str = r#"{"type":"verification.verified","timestamp":"2026-11-23T04:18:58.342Z",
        "data":{"id":"ver_01M839ZGETPG82G6CPYEEZKS9P","call":{"id":"call_1"}}}"#;

    #[test]
    fn a_created_verification_gives_id_and_number() {
        let (id, number) = created(CREATED.as_bytes()).unwrap();
        assert_eq!(Some(id), Id::new("ver_01M839ZGETPG82G6CPYEEZKS9P"));
        assert_eq!(number.to_string(), "+966115000050");
        assert_eq!(created(CREATED.replace('+', r"\u002b").as_bytes()), Some((id, number)));
        for (piece, instead) in
            [("\"id\"", "\"ID\""), ("+966115000050", "966115000050"), ("ver_", "v".repeat(40).as_str())]
        {
            assert_eq!(created(CREATED.replace(piece, instead).as_bytes()), None, "{instead}");
        }
    }

    #[test]
    fn events_are_told_apart() {
        let id = Id::new("ver_01M839ZGETPG82G6CPYEEZKS9P").unwrap();
        let expired = VERIFIED.replace(".verified", ".expired");
        assert_eq!(events(VERIFIED.as_bytes()), Some(vec![Event::Verified(id)]));
        assert_eq!(events(expired.as_bytes()), Some(vec![Event::Other]));
        let own = br#"{"type":"fraud.own_number","data":{"number":"+966115000056"}}"#;
        assert_eq!(events(own), Some(vec![Event::Other]));
        assert_eq!(events(br#"{"type":"verification.verified","data":{}}"#), None);
        assert_eq!(events(b"ok"), None);
        let batch = |events: &[&str]| {
            format!(r#"{{"type":"event.batch","timestamp":"x","data":{{"events":[{}]}}}}"#, events.join(","))
        };
        let both = batch(&[&expired, VERIFIED]);
        assert_eq!(events(both.as_bytes()), Some(vec![Event::Other, Event::Verified(id)]));
        assert_eq!(events(batch(&[&both.replace("event.batch", "x")]).as_bytes()), Some(vec![Event::Other]));
        assert_eq!(events(batch(&[VERIFIED, "1"]).as_bytes()), None);
    }

    #[test]
    fn a_problem_tells_title_and_detail() {
        let body = br#"{"title":"Fields are not valid","status":422,"detail":"1 field",
            "errors":[{"pointer":"/phone","code":"x","detail":"is no number"}]}"#;
        assert_eq!(problem(body), ("Fields are not valid".to_owned(), "1 field (/phone is no number)".to_owned()));
        assert_eq!(problem(b"<html>"), (String::new(), String::new()));
    }

    proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>) {
            let _ = (created(&body), events(&body), problem(&body));
        }
    }
}
