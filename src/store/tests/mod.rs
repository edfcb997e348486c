//! The store through its facade. Here: a node to test, and steps by number.

mod audit;
mod deliveries;
mod erase;
mod faults;
mod lists;
mod model;
mod reads;
mod steps;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::UNIX_EPOCH;

use rusqlite::Connection;
use ulid::Ulid;

use super::*;
use crate::call::assurance::{Assurance, Reason, Reasons};
use crate::call::event::{CallEvent, CallKey, CallRecordId, CallerSource, Presentation, TrunkId};
use crate::matcher::client_access::ClientAccess;
use crate::matcher::verification::Status;
use crate::outbox::delivery::{DeliveryId, Subscription};
use crate::outbox::event::{CallFacts, EventId};
use crate::outbox::notice::LastAttempt;

const DEADLINE: Duration = Duration::from_secs(20);
const CALLER: u64 = 966_500_000_123;
const START: u64 = 1_764_000_000_000;

/// A folder of its own, gone with the value.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringproof-store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.0.join("ringproof.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How `SQLite` would run a statement.
pub(super) fn plan(connection: &Connection, sql: &str) -> String {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = statement.raw_query();
    let mut plan = String::new();
    while let Some(row) = rows.next().unwrap() {
        plan += row.get_ref(3).unwrap().as_str().unwrap();
        plan += "; ";
    }
    plan
}

/// A store with one endpoint for everything and one for terminal events. Fields drop in this order.
struct Node {
    store: Store,
    ready: tokio::sync::mpsc::Receiver<Due>,
    metrics: Metrics,
    health: Arc<Health>,
    faults: Faults,
    folder: Folder,
}

impl Node {
    fn new() -> Self {
        Self::in_folder(Folder::new())
    }

    fn in_folder(folder: Folder) -> Self {
        let settings = Settings { path: folder.database(), retention: Retention::of_all(Duration::from_hours(720)) };
        let (metrics, health, faults) = (Metrics::new(), Arc::new(Health::default()), Faults::default());
        let (sender, ready) = tokio::sync::mpsc::channel(64);
        let everything = EventType::ALL.into_iter().filter(|kind| *kind != EventType::Denied).collect();
        let wish =
            |name: &str, events| Subscription { application: "demo".into(), endpoint: EndpointId(name.into()), events };
        let subscriptions = Subscriptions(vec![
            wish("demo everything", everything),
            wish("demo terminal", vec![EventType::Denied, EventType::EndpointDisabled]),
        ]);
        health.set_started();
        let store =
            Store::open_with(&settings, subscriptions, metrics.clone(), Arc::clone(&health), sender, faults.clone())
                .unwrap();
        store.inner.queue.push_sweep();
        Self { store, ready, metrics, health, faults, folder }
    }

    fn restart(&mut self) {
        self.store.close();
        let folder = std::mem::replace(&mut self.folder, Folder(PathBuf::from("/nonexistent/ringproof")));
        *self = Self::in_folder(folder);
    }

    fn create(&self, n: u64) -> Result<Verification, StepError> {
        wait(|done| self.store.create(create(n), done))
    }

    fn claim(&self, id: VerificationId, n: u64) -> Result<Option<Verification>, StepError> {
        wait(|done| self.store.claim(claim(id, n), done))
    }

    fn end(&self, id: VerificationId, n: u64, status: Status) -> Result<Option<Verification>, StepError> {
        wait(|done| self.store.end(end(id, n, status), done))
    }

    fn note(&self, id: VerificationId, n: u64, kind: EventType) -> Result<(), StepError> {
        wait(|done| self.store.note(note(id, n, kind), done))
    }

    fn delivered(&self, id: DeliveryId, at: SystemTime, status: u16) {
        self.store.deliver(taken(id, 1, at, status), |_| ());
    }

    fn settle(&self, tried: Tried) {
        wait(|done| self.store.deliver(tried, done)).unwrap();
    }

    fn endpoint(&self, name: &str) -> EndpointRow {
        let endpoints = block_on(self.store.endpoints("demo")).unwrap();
        endpoints.into_iter().find(|row| &*row.endpoint.0 == name).unwrap()
    }

    fn read(&self, id: VerificationId) -> Option<Verification> {
        block_on(self.store.verification(id)).unwrap()
    }

    fn answer(&self, key: &str) -> Option<StoredAnswer> {
        block_on(self.store.answer("demo", "key-1", key)).unwrap()
    }

    fn due(&self, now: SystemTime) -> Vec<Due> {
        block_on(self.store.due(&EndpointId("demo everything".into()), now, 10_000)).unwrap()
    }

    fn connection(&self) -> Connection {
        Connection::open(self.folder.database()).unwrap()
    }

    fn events(&self, id: VerificationId) -> Vec<String> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT type FROM events WHERE verification = ?1 ORDER BY seq").unwrap();
        statement.query_map([id.to_string()], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn column(&self, sql: &str) -> Vec<Option<i64>> {
        let connection = self.connection();
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn count(&self, table: &str) -> i64 {
        self.column(&format!("SELECT count(*) FROM {table}"))[0].unwrap()
    }

    fn reached(&self, status: &str) -> u64 {
        self.metrics.verifications.with_label_values(&["demo", status]).get()
    }

    fn not_ready(&self) -> Option<&'static str> {
        self.health.not_ready()
    }
}

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(START + millis)
}

fn phone(n: u64) -> E164 {
    E164::from_u64(966_500_000_000 + n).unwrap()
}

fn dial(n: u64) -> E164 {
    E164::from_u64(966_115_000_000 + n).unwrap()
}

/// Verification and event `n`, created at millisecond `n`.
fn create(n: u64) -> Create {
    let verification = Verification {
        id: VerificationId(Ulid(n.into())),
        application: "demo".into(),
        livemode: false,
        status: Status::Pending,
        phone: phone(n % 1_000_000),
        number: dial(1),
        purpose: None,
        consent: None,
        reference: None,
        metadata: BTreeMap::new(),
        minimum_assurance: Assurance::C,
        locale: None,
        client_ip: None,
        client_device_id: None,
        assurance: None,
        reasons: Reasons::NONE,
        created_at: at(n),
        expires_at: at(n + 120_000),
        ended_at: None,
        sequence: 0,
        phone_key: None,
        api_key: None,
    };
    let client = ClientAccess { token: "rpc_1".to_owned(), events_url: "/rpc_1".to_owned() };
    Create { verification, event: EventId(Ulid(n.into())), idempotency: None, client, replaces: None }
}

fn claim(id: VerificationId, n: u64) -> Claim {
    Claim { verification: id, event: EventId(Ulid(n.into())), call: call(n), at: at(n) }
}

fn end(id: VerificationId, n: u64, status: Status) -> End {
    let event = EventId(Ulid(n.into()));
    End { verification: id, status, reasons: Reasons::NONE, event, at: at(n), idempotency: None }
}

fn note(id: VerificationId, n: u64, kind: EventType) -> Note {
    Note { verification: id, kind, event: EventId(Ulid(n.into())), call: call(n), at: at(n) }
}

fn call(n: u64) -> CallFacts {
    let event = CallEvent {
        key: CallKey(n),
        trunk: TrunkId(0),
        only: None,
        caller: Some(E164::from_u64(CALLER).unwrap()),
        presented: None,
        source: Some(CallerSource::Pai),
        presentation: Presentation::Allowed,
        dialled: Some(dial(1)),
        assurance: Assurance::B,
        reasons: Reasons::of(Reason::PresentedDiffers),
        evidence: crate::call::evidence::Evidence::default(),
        received_at: at(n),
    };
    CallFacts { id: CallRecordId(Ulid(n.into())), trunk: "local".into(), event }
}

/// A try that succeeded.
fn taken(id: DeliveryId, attempts: u32, at: SystemTime, status: u16) -> Tried {
    let last = LastAttempt { at, status: Some(status), error: None };
    Tried { id, attempts, replayed_after: 0, last, next_at: None }
}

/// A try that failed.
fn failed(id: DeliveryId, attempts: u32, at: SystemTime, status: u16, next_at: Option<SystemTime>) -> Tried {
    let last = LastAttempt { at, status: Some(status), error: Some(format!("status {status}")) };
    Tried { id, attempts, replayed_after: 0, last, next_at }
}

fn idempotency(key: &str, status: u16) -> IdempotencyRecord {
    IdempotencyRecord {
        application: "demo".into(),
        scope: "key-1".into(),
        key: key.into(),
        fingerprint: [7; 32],
        status,
    }
}

/// Runs a step and waits for its answer.
fn wait<T: Send + 'static>(step: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (sender, answer): (_, Receiver<T>) = mpsc::channel();
    step(Box::new(move |value| sender.send(value).unwrap()));
    answer.recv_timeout(DEADLINE).expect("a step is always answered")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Waits for a condition.
fn until(condition: impl Fn() -> bool) {
    let (_sender, never) = mpsc::channel::<()>();
    for _ in 0..DEADLINE.as_millis() / 10 {
        if condition() {
            return;
        }
        let _ = never.recv_timeout(Duration::from_millis(10));
    }
    panic!("the condition is not met within {DEADLINE:?}");
}
