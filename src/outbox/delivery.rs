//! A delivery: one event on its way to one endpoint.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use ulid::Ulid;

use super::event::{EventId, EventType};

/// Stable name of a webhook endpoint: application and address, so that deliveries find their endpoint again after a
/// restart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub Arc<str>);

impl EndpointId {
    /// The name of the endpoint at `url`, an address as it is configured.
    #[must_use]
    pub fn new(application: &str, url: &str) -> Self {
        Self(format!("{application} {url}").into())
    }

    /// The name of an application's built-in receiver, whose address changes with each start.
    #[must_use]
    pub fn built_in(application: &str) -> Self {
        Self(format!("{application}|{BUILT_IN}").into())
    }

    /// What applications call it: `whe_` and 26 characters, the same for the same application and address.
    #[must_use]
    pub fn public(&self) -> String {
        let hash = Sha256::digest(self.0.as_bytes());
        let number = hash.iter().take(16).fold(0, |number: u128, byte| (number << 8) | u128::from(*byte));
        format!("whe_{}", Ulid(number))
    }

    /// Its address without user, query and fragment, which may hold secrets; `built-in` for a built-in receiver.
    #[must_use]
    pub fn shown(&self) -> String {
        // Names of applications hold neither of these.
        let url = self.0.split_once([' ', '|']).map_or(&*self.0, |(_, url)| url);
        let url = url.split(['?', '#']).next().unwrap_or_default();
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}{path}")
    }
}

/// The word for a built-in receiver where an address would be.
const BUILT_IN: &str = "built-in";

/// Row number of a delivery in the outbox. As text `dlv_` and 13 characters of Crockford base 32, sortable by creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub i64);

impl DeliveryId {
    const PREFIX: &'static str = "dlv_";
    /// Digits of a ULID that stand before those of a row number, all zero.
    const ZEROS: &'static str = "0000000000000";
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = Ulid(u128::from(self.0.unsigned_abs())).to_string();
        write!(f, "{}{}", Self::PREFIX, &digits[Self::ZEROS.len()..])
    }
}

/// The text is no id of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a delivery id such as dlv_00000000000G1")]
pub struct DeliveryIdError;

impl FromStr for DeliveryId {
    type Err = DeliveryIdError;

    fn from_str(text: &str) -> Result<Self, DeliveryIdError> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(DeliveryIdError)?;
        let number = Ulid::from_string(&format!("{}{digits}", Self::ZEROS)).map_err(|_| DeliveryIdError)?.0;
        let id = i64::try_from(number).map(Self).map_err(|_| DeliveryIdError)?;
        // Crockford base 32 reads lower case and l for 1: only the printed form is an id.
        if id.to_string() == text { Ok(id) } else { Err(DeliveryIdError) }
    }
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Due, now or later.
    Pending,
    /// The endpoint took it.
    Delivered,
    /// No try is left.
    Exhausted,
    /// Its endpoint is disabled or not configured.
    Parked,
    /// What it told of a person was erased before it was delivered.
    Erased,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Delivered, Self::Exhausted, Self::Parked, Self::Erased];

    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
            Self::Parked => "parked",
            Self::Erased => "erased",
        }
    }

    /// Reads the name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

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
    /// Whether this endpoint is among them.
    #[must_use]
    pub fn contains(&self, endpoint: &EndpointId) -> bool {
        self.0.iter().any(|wish| wish.endpoint == *endpoint)
    }

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
    /// How many of them were made before the last replay, which the plan does not count.
    pub replayed_after: u32,
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

    use super::*;

    #[test]
    fn ids_of_deliveries_read_back_in_their_one_form_and_sort() {
        for row in [0, 1, 31, 32, 1_000_000, i64::MAX] {
            let text = DeliveryId(row).to_string();
            assert_eq!((text.len(), text.parse()), (17, Ok(DeliveryId(row))), "{text}");
        }
        assert!(DeliveryId(31).to_string() < DeliveryId(32).to_string());
        for wrong in ["dlv_", "dlv_1", "dlv_000000000000g", "dlv_ZZZZZZZZZZZZZ", "evt_00000000000G1", "dlv_0000000000é"]
        {
            assert_eq!(wrong.parse::<DeliveryId>(), Err(DeliveryIdError), "{wrong}");
        }
    }

    #[test]
    fn endpoints_are_shown_without_what_may_be_secret() {
        let cases = [
            ("https://receiver.example/hook?token=abc#x", "https://receiver.example/hook"),
            ("https://user:word@receiver.example:8443/a/b", "https://receiver.example:8443/a/b"),
            ("http://127.0.0.1:9100", "http://127.0.0.1:9100"),
            ("http://h?token=a@b/c", "http://h"),
        ];
        for (url, shown) in cases {
            assert_eq!(EndpointId::new("demo", url).shown(), shown);
        }
        assert_eq!(EndpointId::built_in("demo").shown(), "built-in");
    }

    #[test]
    fn public_names_are_of_application_and_address() {
        let [one, same, other, theirs] =
            [("demo", "http://a/"), ("demo", "http://a/"), ("demo", "http://a/?x"), ("shop", "http://a/")]
                .map(|(application, url)| EndpointId::new(application, url).public());
        assert!(one.starts_with("whe_") && one.len() == 30, "{one}");
        assert_eq!(one, same);
        assert!(one != other && one != theirs && other != theirs);
    }

    #[test]
    fn debug_shows_neither_body_nor_address() {
        let due = Due {
            id: DeliveryId(1),
            endpoint: EndpointId("demo https://receiver.example/hook?token=abc".into()),
            event: EventId(Ulid::nil()),
            kind: EventType::Verified,
            planned_from: UNIX_EPOCH,
            attempts: 0,
            replayed_after: 0,
            body: r#"{"phone":"+966500000123"}"#.into(),
        };
        let text = format!("{due:?}");
        assert!(!text.contains("966500000123") && !text.contains("token"), "{text}");
        assert!(text.contains("evt_"), "{text}");
    }
}
