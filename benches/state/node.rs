//! A node without sockets: the store and the application over it, under clocks that move only when they are told to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use ringproof::call::assurance::Assurance;
use ringproof::call::event::TrunkId;
use ringproof::matcher::boot_time::BootTime;
use ringproof::outbox::delivery::{Due, EndpointId, Subscription, Subscriptions};
use ringproof::outbox::event::EventType;
use ringproof::store::{self, Store};
use ringproof::telemetry::health::Health;
use ringproof::telemetry::metrics::Metrics;
use ringproof::verify::Verify;
use ringproof::verify::clock::Clock;
use ringproof::verify::recent_calls::RecentCalls;
use ringproof::verify::settings::{Application, ApplicationId, Limits, NumberRange, Numbers, Settings};

use crate::rows::{APPLICATION, NUMBERS, SECRET, START_BOOT, START_UTC, TTL, number, time};

/// As `engine` has it.
const READY_DELIVERIES: usize = 16_384;

/// `[sip] recent_calls` where nothing else is said.
const RECENT_CALLS: usize = 1_048_576;

/// Milliseconds since boot.
static BOOT: AtomicU64 = AtomicU64::new(START_BOOT.0);

const CLOCK: Clock = Clock { boot, utc };

/// A node without sockets.
pub struct Node {
    /// Its store.
    pub store: Store,
    /// Its application. Nothing is pending until it recovers.
    pub verify: Verify,
    /// What it counts.
    pub metrics: Metrics,
    /// Nobody takes deliveries from here; what does not fit stays in the database.
    _ready: mpsc::Receiver<Due>,
}

impl Node {
    /// Opens the database in `folder`, or makes one there.
    pub fn open(folder: &Path) -> Self {
        let (metrics, health) = (Metrics::new(), Arc::new(Health::default()));
        let (offer, ready) = mpsc::channel(READY_DELIVERIES);
        let at =
            store::Settings { path: database(folder), retention: store::Retention::of_all(Duration::from_hours(24)) };
        let store = Store::open(&at, subscriptions(), metrics.clone(), Arc::clone(&health), offer)
            .expect("the database can be opened");
        let recent = Arc::new(RecentCalls::new(RECENT_CALLS));
        let keys = ringproof::receipt::keys::Keys::from_seed(&[1; 32]);
        let signing = ringproof::verify::records::Signing { keys, issuer: "edge-1".into() };
        let verify = Verify::new(settings(), SECRET, CLOCK, store.clone(), recent, signing, metrics.clone(), health);
        Self { store, verify, metrics, _ready: ready }
    }
}

/// The database file.
pub fn database(folder: &Path) -> PathBuf {
    folder.join("ringproof.db")
}

/// Puts both clocks forward.
pub fn pass_to(now: BootTime) {
    BOOT.store(now.0, Ordering::Relaxed);
}

fn boot() -> BootTime {
    BootTime(BOOT.load(Ordering::Relaxed))
}

fn utc() -> SystemTime {
    time(START_UTC + boot().since(START_BOOT).as_secs() * 1_000)
}

/// One live application and one range of numbers.
fn settings() -> Settings {
    Settings {
        applications: vec![Application {
            name: APPLICATION.to_owned(),
            live: true,
            ttl: TTL,
            minimum_assurance: Assurance::C,
            limits: Limits { pending_per_phone: 3, ..Limits::default() },
        }],
        numbers: Numbers::new(vec![NumberRange {
            first: number(0),
            count: NUMBERS,
            trunks: vec![TrunkId(0)],
            applications: vec![ApplicationId(0)],
            cool_down: Duration::from_mins(2),
        }]),
        trunks: vec!["carrier".to_owned()],
        max_pending: u64::MAX,
        ..Settings::default()
    }
}

/// One endpoint that is told how verifications end.
fn subscriptions() -> Subscriptions {
    use EventType::{Canceled, Denied, Expired, Failed, Verified};
    Subscriptions(vec![Subscription {
        application: APPLICATION.to_owned(),
        endpoint: EndpointId::new(APPLICATION, "https://shop.example/webhook"),
        events: vec![Verified, Expired, Canceled, Denied, Failed],
    }])
}
