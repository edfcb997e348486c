//! The way of a call that somebody waits for: find its pair, write the claim to disk, render the webhook and sign it.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use ringproof::call::assurance::{Assurance, Reasons};
use ringproof::call::event::{CallEvent, CallKey, CallRecordId, CallerSource, Presentation, TrunkId};
use ringproof::call::evidence::Evidence;
use ringproof::e164::E164;
use ringproof::matcher::boot_time::BootTime;
use ringproof::matcher::client_access::ClientAccess;
use ringproof::matcher::index::{Matcher, Met};
use ringproof::matcher::pair::{PairKey, Pending};
use ringproof::matcher::verification::{Purpose, Status, Verification, VerificationId};
use ringproof::outbox::delivery::Subscriptions;
use ringproof::outbox::event::{CallFacts, EventId, EventType, body};
use ringproof::store::{Claim, Create, Settings, Store};
use ringproof::telemetry::health::Health;
use ringproof::telemetry::metrics::Metrics;
use ringproof::webhook::signature::sign;
use secrecy::SecretSlice;
use ulid::Ulid;

const NOW: BootTime = BootTime(1_000_000);
const SECRET: [u8; 16] = [7; 16];
/// Pairs that are pending while calls look for theirs.
const PENDING: u64 = 1_000;

/// Looks for a pair that nobody waits for.
pub fn match_miss() -> Box<dyn FnMut()> {
    let (matcher, number) = (matcher(), number());
    let mut phones = (PENDING..2 * PENDING).map(phone).collect::<Vec<E164>>().into_iter().cycle();
    Box::new(move || {
        let key = PairKey::new(&SECRET, phones.next().unwrap(), number);
        assert_eq!(matcher.meet(key, NOW, Assurance::B, u32::MAX, None, || true), Met::Nothing);
    })
}

/// Finds a pair, takes it, and gives it back.
pub fn match_hit() -> Box<dyn FnMut()> {
    let (matcher, number) = (matcher(), number());
    let mut phones = (0..PENDING).map(phone).collect::<Vec<E164>>().into_iter().cycle();
    Box::new(move || {
        let key = PairKey::new(&SECRET, phones.next().unwrap(), number);
        let met = matcher.meet(key, NOW, Assurance::B, u32::MAX, None, || true);
        let Met::Won(pending) = met else { panic!("{met:?}") };
        matcher.undo(key, pending.id, || ());
    })
}

/// Creates a verification and claims it, each on disk before the next: two commits.
pub fn claim() -> Box<dyn FnMut()> {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        path: folder.path().join("bench.db"),
        retention: ringproof::store::Retention::of_all(Duration::from_hours(720)),
    };
    let (ready, _due) = tokio::sync::mpsc::channel(1);
    let (metrics, health) = (Metrics::default(), Arc::new(Health::default()));
    let store = Store::open(&settings, Subscriptions::default(), metrics, health, ready).unwrap();
    let mut count = 0;
    Box::new(move || {
        let _folder = &folder;
        count += 1;
        let verification = verification(count);
        let claimed =
            Claim { verification: verification.id, event: event_id(2 * count + 1), call: facts(count), at: at() };
        let client = ClientAccess { token: "rpc_bench".to_owned(), events_url: "/v1/client/events".to_owned() };
        let event = event_id(2 * count);
        let (done, wait) = mpsc::channel();
        let created = done.clone();
        store.create(Create { verification, event, client, idempotency: None, replaces: None }, move |result| {
            created.send(result.is_ok()).unwrap();
        });
        assert!(wait.recv().unwrap());
        store.claim(claimed, move |result| done.send(result.is_ok_and(|row| row.is_some())).unwrap());
        assert!(wait.recv().unwrap());
    })
}

/// Writes the body of `verification.verified`.
pub fn render() -> Box<dyn FnMut()> {
    let verification = Verification { status: Status::Verified, ended_at: Some(at()), ..verification(1) };
    let facts = facts(1);
    Box::new(move || {
        black_box(body(EventType::Verified, at(), black_box(&verification), Some(&facts)));
    })
}

/// Signs that body.
pub fn signature() -> Box<dyn FnMut()> {
    let verification = Verification { status: Status::Verified, ended_at: Some(at()), ..verification(1) };
    let text = body(EventType::Verified, at(), &verification, Some(&facts(1)));
    let secrets = [SecretSlice::from(vec![9; 32])];
    Box::new(move || {
        black_box(sign(&secrets, "evt_01JD7Z3W5K8Q2M4N6P8R0S2T4V", 1_764_000_000, black_box(text.as_bytes())));
    })
}

fn matcher() -> Matcher {
    let matcher = Matcher::default();
    for place in 0..PENDING {
        let pending = Pending {
            id: id(place),
            deadline: BootTime(NOW.0 + 300_000),
            application: 0,
            live: true,
            minimum: Assurance::B,
            number: number(),
            generation: 0,
        };
        matcher.activate(PairKey::new(&SECRET, phone(place), number()), pending, || ());
    }
    matcher
}

fn phone(place: u64) -> E164 {
    "+966500000000".parse::<E164>().unwrap().offset(place).unwrap()
}

fn number() -> E164 {
    "+966115000042".parse().unwrap()
}

fn id(place: u64) -> VerificationId {
    VerificationId(Ulid(0x0193_0000_0000_0000_0000_0000_0000_0000 + u128::from(place)))
}

fn event_id(place: u64) -> EventId {
    EventId(id(place).0)
}

fn at() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_000_000_125)
}

fn verification(place: u64) -> Verification {
    Verification {
        id: id(place),
        application: "shop".to_owned(),
        livemode: true,
        status: Status::Pending,
        phone: phone(place),
        number: number(),
        purpose: Some(Purpose::Login),
        consent: None,
        reference: Some("signup-88".to_owned()),
        metadata: BTreeMap::from([("order".to_owned(), "A-1".to_owned())]),
        minimum_assurance: Assurance::B,
        locale: Some("ar".to_owned()),
        client_ip: None,
        client_device_id: None,
        assurance: None,
        reasons: Reasons::NONE,
        created_at: at(),
        expires_at: at() + Duration::from_mins(2),
        ended_at: None,
        sequence: 0,
        phone_key: None,
        api_key: None,
    }
}

fn facts(place: u64) -> CallFacts {
    CallFacts {
        id: CallRecordId(id(place).0),
        trunk: "carrier".to_owned(),
        event: CallEvent {
            key: CallKey(place),
            trunk: TrunkId(0),
            only: None,
            caller: Some(phone(place)),
            presented: None,
            source: Some(CallerSource::Pai),
            presentation: Presentation::Allowed,
            dialled: Some(number()),
            assurance: Assurance::B,
            reasons: Reasons::NONE,
            evidence: Evidence::default(),
            received_at: at(),
        },
    }
}
