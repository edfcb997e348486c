//! Durable state: verifications, their events, deliveries, calls and idempotency answers, in one `SQLite` file.
//!
//! Owns the file, its schema and the one thread that changes it. [`Store`] has a method for each atomic step; steps
//! of many callers share a transaction (group commit). Decides nothing: whether a call proves a verification or a
//! window is over is known before a step is asked for. Invariant: a verification has one terminal state, an event is
//! in the transaction of the change that it tells, and a step is answered only when it is on disk or known undone.

mod apply;
mod audit;
mod deliveries;
mod endpoints;
mod erase;
mod error;
mod faults;
#[cfg(test)]
pub mod hand;
pub mod inspect;
mod known;
mod lists;
mod log;
mod purge;
mod queue;
mod readers;
mod recovered;
mod replay;
mod resolve;
mod row;
mod schema;
mod settings;
mod step;
mod sweep;
#[cfg(test)]
mod tests;
mod tried;
mod writer;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tracing::debug;

use crate::e164::E164;
use crate::matcher::verification::{Verification, VerificationId};
use crate::outbox::delivery::{Due, EndpointId, Subscriptions};
use crate::outbox::event::{EventType, body};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

use faults::Faults;
use known::KnownPhones;
use log::Log;
use purge::Purge;
use queue::{EXPIRY_CHUNK, Queue, Refusal, Urgency};
use readers::Readers;
use step::{Answer, Done, Prepared, Step, Waiter, Work, gather};
use writer::Writer;

pub use audit::{AuditHead, AuditLog, AuditRow};
pub use deliveries::{DeliveryFilter, DeliveryRow};
pub use endpoints::EndpointRow;
pub use erase::{Erase, Erased, Traces, again as erase_again};
pub use error::StoreError;
pub use lists::{CallRow, EventRow, Page, VerificationFilter};
pub use readers::StoredAnswer;
pub use recovered::{PendingRow, Recovered, RestingRow};
pub use replay::{Replayed, ReplayedMany};
pub use schema::copy;
pub use settings::{Retention, Settings};
pub use step::{
    Audit, Checkpoint, Claim, Create, Enable, End, IdempotencyRecord, Note, ReplayMany, StepError, Tried, Warning,
};

/// The endpoints that are sent nothing.
pub type DisabledEndpoints = Arc<HashSet<EndpointId>>;

/// How often something was erased, by application.
pub type Erasures = HashMap<String, u64>;

/// The durable state of a node. Cheap to clone; the last clone closes it.
///
/// A `done` that is given to a step runs once: on the writer's thread after the commit, or on the calling thread,
/// before the method returns, with `StepError::Full`. So it must be quick and must not need a lock that the caller
/// holds. It is dropped unrun only where the store closes or crashes without knowing the outcome.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    metrics: Metrics,
    retention: ArcSwap<Retention>,
    subscriptions: Arc<ArcSwap<Subscriptions>>,
    disabled: watch::Receiver<DisabledEndpoints>,
    erasures: watch::Receiver<Erasures>,
    known: Arc<KnownPhones>,
    unknown: Arc<AtomicBool>,
    /// The writer, and the thread that reads the known phones.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The database, open until every connection is closed: see [`Log::start`]. The last field, so the last to go.
    _file: Arc<File>,
}

impl Store {
    /// Opens or creates the database, migrates it and starts the writer. New deliveries are offered to `ready`; what
    /// does not fit there is found by [`Store::due`].
    ///
    /// # Errors
    /// Each [`StoreError`] but `ReaderLost`.
    pub fn open(
        settings: &Settings,
        subscriptions: Subscriptions,
        metrics: Metrics,
        health: Arc<Health>,
        ready: Sender<Due>,
    ) -> Result<Self, StoreError> {
        let store = Self::open_with(settings, subscriptions, metrics, health, ready, Faults::default())?;
        store.inner.queue.push_sweep();
        Ok(store)
    }

    /// As [`Store::open`], and deliveries stay as they are, whatever is subscribed: for a look or a change while the
    /// node is stopped.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_unswept(
        settings: &Settings,
        subscriptions: Subscriptions,
        metrics: Metrics,
        health: Arc<Health>,
        ready: Sender<Due>,
    ) -> Result<Self, StoreError> {
        Self::open_with(settings, subscriptions, metrics, health, ready, Faults::default())
    }

    fn open_with(
        settings: &Settings,
        subscriptions: Subscriptions,
        metrics: Metrics,
        health: Arc<Health>,
        ready: Sender<Due>,
        faults: Faults,
    ) -> Result<Self, StoreError> {
        let (store, writer) = Self::assemble(settings, subscriptions, metrics, health, ready, faults)?;
        let writing =
            thread::Builder::new().name("store-writer".into()).spawn(|| writer.run()).map_err(StoreError::Thread)?;
        let (all, reader) = (Arc::clone(&store.inner.known), Arc::clone(&store.inner.readers));
        // Without it each creation looks for what its own phone was given.
        let reading = thread::Builder::new().name("store-phones".into()).spawn(move || {
            if let Err(fault) = reader.read_here(|connection| all.load(connection)) {
                debug!(%fault, "the phones that are known are not read");
            }
        });
        store.inner.threads.lock().extend(reading.into_iter().chain([writing]));
        Ok(store)
    }

    /// The store, and its writer, which has no thread yet.
    fn assemble(
        settings: &Settings,
        subscriptions: Subscriptions,
        metrics: Metrics,
        health: Arc<Health>,
        ready: Sender<Due>,
        faults: Faults,
    ) -> Result<(Self, Writer), StoreError> {
        let mut connection = schema::open_writer(&settings.path)?;
        let opened = File::options().read(true).write(true).open(&settings.path);
        let file = Arc::new(opened.map_err(|source| StoreError::File { path: settings.path.clone(), source })?);
        let log = Log::start(&settings.path, Arc::clone(&file), log::PAGES).map_err(StoreError::Thread)?;
        log.watch(&mut connection)?;
        let (disabled, watched) = watch::channel(DisabledEndpoints::default());
        let (erased, erasures) = watch::channel(Erasures::default());
        let subscriptions = Arc::new(ArcSwap::from_pointee(subscriptions));
        metrics.webhook_backlog.set(writer::backlog(&connection)?);
        let chain = audit::chain(&connection)?;
        let (queue, unknown) = (Arc::new(Queue::default()), Arc::<AtomicBool>::default());
        let writer = Writer {
            connection,
            log,
            path: settings.path.clone(),
            queue: Arc::clone(&queue),
            subscriptions: Arc::clone(&subscriptions),
            disabled,
            erased,
            chain,
            metrics: metrics.clone(),
            beat: health.beats.add("store writer", false),
            health,
            ready,
            faults,
            kept: Vec::new(),
            sweep_later: false,
            orphaned: 0,
            unknown: Arc::clone(&unknown),
            failed: false,
            stale: false,
        };
        writer.read_disabled();
        let readers = Arc::new(Readers::new(settings.path.clone()));
        let (known, threads) = (Arc::default(), Mutex::default());
        let (retention, disabled) = (ArcSwap::from_pointee(settings.retention), watched);
        let inner = Inner {
            queue,
            readers,
            metrics,
            retention,
            subscriptions,
            disabled,
            erasures,
            known,
            unknown,
            threads,
            _file: file,
        };
        Ok((Self { inner: Arc::new(inner) }, writer))
    }

    /// What was pending, resting and undelivered when the node stopped. Blocks; meant for the start.
    ///
    /// # Errors
    /// `StoreError::Read` or `Open`.
    pub fn recover(&self, now: SystemTime, rest: Duration) -> Result<Recovered, StoreError> {
        let rested_from = now.checked_sub(rest).unwrap_or(SystemTime::UNIX_EPOCH);
        self.inner.readers.read_here(|connection| recovered::recover(connection, now, rested_from))
    }

    /// Begins a verification.
    pub fn create(&self, step: Create, done: impl FnOnce(Result<Verification, StepError>) + Send + 'static) {
        let mut create = step;
        let verification = &mut create.verification;
        self.inner.known.note(&verification.application, verification.phone);
        verification.sequence = 1;
        for time in [&mut verification.created_at, &mut verification.expires_at] {
            *time = row::whole_millis(*time);
        }
        let body = body(EventType::Created, verification.created_at, verification, None).into();
        let answer = create.idempotency.as_ref().map(|_| create.verification.to_json_with(&create.client));
        let work = Work::Create(Box::new(Prepared { create, body, answer }));
        // A creation that is done always leaves its row.
        let done = |answer: Answer| done(answer.and_then(|it| it.verification().ok_or(StepError::RolledBack)));
        self.inner.push(Urgency::Create, work, Box::new(done));
    }

    /// Takes a verification from pending to verified. `None`: it is not pending.
    pub fn claim(&self, step: Claim, done: impl FnOnce(Result<Option<Verification>, StepError>) + Send + 'static) {
        self.inner.ask(Urgency::Claim, Work::Claim(Box::new(step)), Done::verification, done);
    }

    /// Ends a pending verification, as urgent as a creation. `None`: it is not pending.
    pub fn end(&self, step: End, done: impl FnOnce(Result<Option<Verification>, StepError>) + Send + 'static) {
        self.inner.ask(Urgency::Create, Work::End(Box::new(step)), Done::verification, done);
    }

    /// Ends verifications whose window is over, when nothing more urgent waits. `done` gets an answer for each, in
    /// their order, when all are known. Transactions hold up to 1,000; a list may be longer.
    pub fn expire(
        &self,
        steps: Vec<End>,
        done: impl FnOnce(Vec<Result<Option<Verification>, StepError>>) + Send + 'static,
    ) {
        if steps.is_empty() {
            return done(Vec::new());
        }
        let done = |answers: Vec<Answer>| done(answers.into_iter().map(|one| one.map(Done::verification)).collect());
        let waiters = gather(steps.len(), Box::new(done));
        let steps = steps.into_iter().map(|end| Work::End(Box::new(end))).zip(waiters);
        let mut steps = steps.map(|(work, waiter)| Step { work, waiter });
        loop {
            let chunk: Vec<Step> = steps.by_ref().take(EXPIRY_CHUNK).collect();
            if chunk.is_empty() {
                break;
            }
            if let Err((chunk, refusal)) = self.inner.queue.push_expiries(chunk) {
                for step in chunk {
                    self.inner.refuse(step, refusal);
                }
            }
        }
    }

    /// Keeps a call that did not verify. A call on a verification that is not pending leaves nothing, except as
    /// `EventType::LateCall`.
    pub fn note(&self, step: Note, done: impl FnOnce(Result<(), StepError>) + Send + 'static) {
        self.inner.ask(Urgency::Delivery, Work::Note(Box::new(step)), drop, done);
    }

    /// Warns an application. `done` is told when it is durable, or lost.
    pub fn warn(&self, step: Warning, done: impl FnOnce(Result<(), StepError>) + Send + 'static) {
        self.inner.ask(Urgency::Delivery, Work::Warn(Box::new(step)), drop, done);
    }

    /// Keeps how a try of a delivery ended: its row, what it says of its endpoint, and the events that follow where it
    /// was the last try or disables the endpoint. It waits while the disk takes nothing, and `done` with it. The first
    /// 200 bytes of an error are kept.
    pub fn deliver(&self, tried: Tried, done: impl FnOnce(Result<(), StepError>) + Send + 'static) {
        self.inner.ask(Urgency::Delivery, Work::Tried(tried), drop, done);
    }

    /// Has events go to other endpoints from now on. Deliveries to those that are gone are parked, and those to the
    /// ones that came back become due again, by and by. Waits for nothing, also while the disk fails.
    pub fn subscribe(&self, subscriptions: Subscriptions) {
        self.inner.subscriptions.store(Arc::new(subscriptions));
        self.inner.queue.push_sweep();
    }

    /// Whether an endpoint of this application wants events of this type.
    #[must_use]
    pub fn is_subscribed(&self, application: &str, kind: EventType) -> bool {
        self.inner.subscriptions.load().of(application, kind).next().is_some()
    }

    /// The endpoints that are disabled, whenever that changes.
    #[must_use]
    pub fn disabled(&self) -> watch::Receiver<DisabledEndpoints> {
        self.inner.disabled.clone()
    }

    /// Tells whenever a person's data was removed: what of it is on its way is read from the store anew.
    #[must_use]
    pub fn erasures(&self) -> watch::Receiver<Erasures> {
        self.inner.erasures.clone()
    }

    /// Reads a verification.
    ///
    /// # Errors
    /// `StoreError::Read`, `Open` or `ReaderLost`, as for each of the reads.
    pub async fn verification(&self, id: VerificationId) -> Result<Option<Verification>, StoreError> {
        self.inner.readers.read(move |connection| row::find(connection, id)).await
    }

    /// The answer to an earlier request with this idempotency key.
    pub async fn answer(&self, application: &str, scope: &str, key: &str) -> Result<Option<StoredAnswer>, StoreError> {
        let (application, scope, key) = (application.to_owned(), scope.to_owned(), key.to_owned());
        self.inner.readers.read(move |connection| readers::answer(connection, &application, &scope, &key)).await
    }

    /// The numbers that this phone was last given, the latest first, each once, at most `limit`.
    pub async fn numbers_used(&self, application: &str, phone: E164, limit: u32) -> Result<Vec<E164>, StoreError> {
        if !self.inner.known.may_know(application, phone) {
            return Ok(Vec::new());
        }
        let application = application.to_owned();
        self.inner.readers.read(move |connection| readers::numbers_used(connection, &application, phone, limit)).await
    }

    /// Deliveries to `endpoint` that are due at `now`, the longest due first, at most `limit`. One that is being
    /// attempted is among them until its result is stored.
    pub async fn due(&self, endpoint: &EndpointId, now: SystemTime, limit: u32) -> Result<Vec<Due>, StoreError> {
        let endpoint = endpoint.clone();
        self.inner.readers.read(move |connection| readers::due(connection, &endpoint, now, limit)).await
    }

    /// How many deliveries are not done.
    pub async fn backlog(&self) -> Result<u64, StoreError> {
        self.inner.readers.read(|connection| Ok(writer::backlog(connection)?.unsigned_abs())).await
    }

    /// About how many answers to idempotency keys are kept: exactly, where the oldest have always gone first.
    pub async fn idempotency_answers(&self) -> Result<u64, StoreError> {
        self.inner.readers.read(readers::idempotency_answers).await
    }

    /// Brings forward what was planned by a clock that stood ahead of `now`, and would otherwise wait until then.
    pub fn hasten(&self, now: SystemTime) {
        self.inner.push(Urgency::Delivery, Work::Hasten(now), Box::new(drop));
    }

    /// Has what is too old at `now` removed when nothing more urgent waits: what the retention says, and idempotency
    /// answers after 24 h or beyond 1,000,000.
    pub fn purge(&self, now: SystemTime) {
        self.inner.queue.push_purge(Purge::new(now, **self.inner.retention.load()));
    }

    /// Changes how long records are kept, for the next purge on.
    pub fn set_retention(&self, retention: Retention) {
        self.inner.retention.store(Arc::new(retention));
    }

    /// Takes no more steps, commits those that wait, ends the writer and empties the write-ahead log. Blocks. Reads
    /// still work. Whether all that was taken is known to be on disk or undone: `false` after a commit whose outcome a
    /// sick disk does not tell.
    #[expect(clippy::must_use_candidate, reason = "a test ends whatever it gives")]
    pub fn close(&self) -> bool {
        self.inner.close();
        !self.inner.unknown.load(Ordering::Acquire)
    }
}

impl Inner {
    fn push(&self, urgency: Urgency, work: Work, waiter: Waiter) {
        if let Err((step, refusal)) = self.queue.push(urgency, Step { work, waiter }) {
            self.refuse(step, refusal);
        }
    }

    /// Asks for one step, and gives `done` what `read` sees in what was done.
    fn ask<T>(
        &self,
        urgency: Urgency,
        work: Work,
        read: impl FnOnce(Done) -> T + Send + 'static,
        done: impl FnOnce(Result<T, StepError>) + Send + 'static,
    ) {
        self.push(urgency, work, Box::new(|answer: Answer| done(answer.map(read))));
    }

    fn refuse(&self, step: Step, refusal: Refusal) {
        self.metrics.store_failures.with_label_values(&[refusal.as_str()]).inc();
        step.answer(Err(StepError::Full));
    }

    fn close(&self) {
        self.queue.close();
        self.known.close();
        self.readers.close_idle();
        let threads = std::mem::take(&mut *self.threads.lock());
        // The last clone may be in a waiter that the writer itself drops.
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != thread::current().id()) {
            // One that panicked has said so, and there is nothing left to wait for.
            let _ = thread.join();
        }
        self.readers.close_idle();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
