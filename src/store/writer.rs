//! The one thread that writes: whatever has arrived becomes one transaction, then everybody in it is answered.
//!
//! Invariant: a waiter hears of its step only when the step is on disk or known to be undone. A COMMIT that fails
//! without saying which stops everything until the database has been read back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::apply::{ApplyError, Effects, apply};
use super::faults::Faults;
use super::log::Log;
use super::purge::Purge;
use super::queue::{BATCH, DELIVERIES, Queue, Taken};
use super::step::{Answer, Step, StepError, Work};
use super::{DisabledEndpoints, Erasures, StoreError, audit, schema};
use crate::audit::chain::Chain;
use crate::audit::check::Purged;
use crate::audit::kind::Kind;
use crate::outbox::delivery::{Due, Subscriptions};
use crate::telemetry::beat::Beat;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// How often an idle writer tries whether a failed disk takes writes again.
const PROBE: Duration = Duration::from_secs(1);

/// What the probe writes, in bytes: enough for the steps of a small batch.
const PROBE_SIZE: i64 = 64 << 10;

/// What the writer works with.
pub struct Writer {
    pub connection: Connection,
    pub log: Log,
    pub path: PathBuf,
    pub queue: Arc<Queue>,
    pub subscriptions: Arc<ArcSwap<Subscriptions>>,
    pub disabled: watch::Sender<DisabledEndpoints>,
    /// Counts the transactions that removed a person's data.
    pub erased: watch::Sender<Erasures>,
    /// How far the audit log has come on disk.
    pub chain: Chain,
    pub metrics: Metrics,
    pub health: Arc<Health>,
    pub ready: Sender<Due>,
    pub faults: Faults,
    /// Results of tries whose transactions were undone, to be written when the disk takes them. At most
    /// `DELIVERIES`.
    pub kept: Vec<Step>,
    /// At work while a waiter is told. The rest of its time it waits for steps or for the disk, which no restart
    /// makes faster.
    pub beat: Arc<Beat>,
    /// Parking was left when the disk failed.
    pub sweep_later: bool,
    /// Deliveries that waited for endpoints that are not configured when this was last told.
    pub orphaned: i64,
    /// It ended without knowing what became of a commit.
    pub unknown: Arc<AtomicBool>,
    /// The last commit failed.
    pub failed: bool,
    /// The connection saw an error after which it is not to be trusted.
    pub stale: bool,
}

/// Why a transaction did not end well.
#[derive(Debug)]
pub(super) enum Fault {
    /// One of its steps is at fault. Nothing of the transaction is left.
    Step(ApplyError),
    /// The disk or the file is. Nothing of the transaction is left.
    Undone(rusqlite::Error),
    /// COMMIT failed, and the transaction may or may not come back.
    Unknown(rusqlite::Error),
}

impl Writer {
    /// Works until the store is closed and its queues are empty.
    pub fn run(mut self) {
        let _guard = Guard { queue: Arc::clone(&self.queue), health: Arc::clone(&self.health) };
        loop {
            self.prepare();
            let taken = self.queue.take(self.failed.then_some(PROBE));
            if !self.turn(taken) {
                break;
            }
        }
        self.log.stop();
        if let Err(fault) = schema::checkpoint(&self.connection) {
            debug!(%fault, "the write-ahead log stays for the next start");
        }
    }

    /// What comes before the next work.
    pub(super) fn prepare(&mut self) {
        if !self.failed {
            self.retry_kept();
        }
        self.log.tend(&self.connection);
    }

    /// Does what was taken. Whether there may be more.
    pub(super) fn turn(&mut self, taken: Taken) -> bool {
        match taken {
            Taken::Batch(batch) => self.write(batch),
            Taken::Sweep => self.sweep(),
            Taken::Purge(purge) => self.purge(purge),
            Taken::Idle => self.probe(),
            Taken::Closed => return false,
        }
        true
    }

    fn write(&mut self, batch: Vec<Step>) {
        if self.stale && self.reopen().is_err() {
            return self.undo(batch);
        }
        self.metrics.store_batch.observe(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
        let timer = self.metrics.store_commit.start_timer();
        let mut outcome = self.transact(&batch, false);
        if let Err(Fault::Step(fault)) = outcome {
            warn!(%fault, steps = batch.len(), "a step contradicts the database, its batch is done step by step");
            outcome = self.transact(&batch, true);
        }
        match outcome {
            Ok((answers, effects)) => {
                timer.observe_duration();
                // A disk that is full still takes what needs no new page, such as the state of a delivery: after such a
                // batch it is tried whether it takes more.
                let proven = !effects.reached.is_empty();
                self.finish(batch, answers, effects);
                if proven {
                    self.recovered();
                } else if self.failed {
                    self.probe();
                }
            }
            Err(Fault::Step(fault)) => {
                error!(%fault, "a batch failed");
                self.undo(batch);
            }
            Err(Fault::Undone(fault)) => {
                self.fail(&fault);
                self.undo(batch);
            }
            Err(Fault::Unknown(fault)) => {
                self.fail(&fault);
                self.settle(batch);
            }
        }
    }

    /// One transaction of all steps. `apart` lets a step fail alone.
    fn transact(&mut self, steps: &[Step], apart: bool) -> Result<(Vec<Answer>, Effects), Fault> {
        self.faults.prepare(&self.connection);
        run(&self.connection, "BEGIN IMMEDIATE").map_err(Fault::Undone)?;
        let worked = if apart { self.apply_apart(steps) } else { self.apply_together(steps) };
        match worked {
            Ok(done) => self.commit().map(|()| done),
            Err(fault) => {
                self.roll_back();
                Err(if fault.is_the_steps_own() { Fault::Step(fault) } else { fault.into() })
            }
        }
    }

    fn apply_together(&self, steps: &[Step]) -> Result<(Vec<Answer>, Effects), ApplyError> {
        let subscriptions = self.subscriptions.load();
        let mut effects = Effects::behind(self.chain);
        let mut answers = Vec::with_capacity(steps.len());
        for step in steps {
            answers.push(Ok(apply(&self.connection, &subscriptions, &step.work, &mut effects)?));
        }
        Ok((answers, effects))
    }

    /// Each step between savepoints: one commit for all still, and the one at fault takes nothing with it.
    fn apply_apart(&self, steps: &[Step]) -> Result<(Vec<Answer>, Effects), ApplyError> {
        let subscriptions = self.subscriptions.load();
        let mut effects = Effects::behind(self.chain);
        let mut answers = Vec::with_capacity(steps.len());
        for step in steps {
            let mark = effects.mark();
            run(&self.connection, "SAVEPOINT step")?;
            match apply(&self.connection, &subscriptions, &step.work, &mut effects) {
                Ok(done) => answers.push(Ok(done)),
                Err(fault) if fault.is_the_steps_own() => {
                    error!(%fault, "a step was undone");
                    self.metrics.store_failures.with_label_values(&["rejected"]).inc();
                    run(&self.connection, "ROLLBACK TO step")?;
                    effects.back_to(mark);
                    answers.push(Err(StepError::RolledBack));
                }
                Err(fault) => return Err(fault),
            }
            run(&self.connection, "RELEASE step")?;
        }
        Ok((answers, effects))
    }

    pub(super) fn commit(&mut self) -> Result<(), Fault> {
        let committed = self.faults.commit(&self.connection);
        match committed {
            Ok(()) => Ok(()),
            Err(fault) => {
                self.roll_back();
                let known = matches!(
                    fault.sqlite_error_code(),
                    Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::ConstraintViolation)
                );
                Err(if known { Fault::Undone(fault) } else { Fault::Unknown(fault) })
            }
        }
    }

    pub(super) fn roll_back(&mut self) {
        // Some errors have ended the transaction already.
        if !self.connection.is_autocommit() && run(&self.connection, "ROLLBACK").is_err() {
            self.stale = true;
        }
    }

    fn finish(&mut self, batch: Vec<Step>, answers: Vec<Answer>, effects: Effects) {
        self.publish(effects);
        for (step, answer) in batch.into_iter().zip(answers) {
            self.tell(step, answer);
        }
    }

    fn publish(&mut self, effects: Effects) {
        self.chain = effects.chain;
        for (application, status) in &effects.reached {
            self.metrics.verifications.with_label_values(&[application, status.as_str()]).inc();
        }
        self.metrics.webhook_backlog.add(effects.backlog);
        self.publish_endpoints(&effects);
        for due in effects.due {
            // What finds the channel full is due in the database, where the worker looks for it.
            let _ = self.ready.try_send(due);
        }
        // Behind what was offered: whoever hears it lets go of all that came before.
        if !effects.erased.is_empty() {
            self.tell_erasure(effects.erased);
        }
    }

    /// Whoever holds bodies of these applications reads them anew.
    pub(super) fn tell_erasure(&self, applications: Vec<String>) {
        self.erased.send_modify(|erasures| {
            for application in applications {
                *erasures.entry(application).or_default() += 1;
            }
        });
    }

    pub(super) fn tell(&self, step: Step, answer: Answer) {
        // One careless waiter must not stop the store for everybody.
        self.beat.change();
        if catch_unwind(AssertUnwindSafe(|| step.answer(answer))).is_err() {
            self.metrics.store_failures.with_label_values(&["waiter_panicked"]).inc();
        }
        self.beat.change();
    }

    /// Answers a batch of which nothing is left. Results of tries wait for the disk: an event that was taken should
    /// not be sent again only because the disk was full.
    fn undo(&mut self, batch: Vec<Step>) {
        for step in batch {
            if let Work::Tried(_) = step.work {
                self.keep(step);
            } else {
                self.metrics.store_failures.with_label_values(&["rolled_back"]).inc();
                self.tell(step, Err(StepError::RolledBack));
            }
        }
    }

    pub(super) fn keep(&mut self, step: Step) {
        if self.kept.len() < DELIVERIES {
            self.kept.push(step);
        } else {
            self.metrics.store_failures.with_label_values(&["delivery_dropped"]).inc();
            self.tell(step, Err(StepError::Full));
        }
    }

    fn retry_kept(&mut self) {
        while !self.failed && !self.kept.is_empty() {
            let rest = self.kept.split_off(self.kept.len().min(BATCH));
            let batch = std::mem::replace(&mut self.kept, rest);
            self.write(batch);
        }
    }

    fn purge(&mut self, mut purge: Purge) {
        if self.stale && self.reopen().is_err() {
            return;
        }
        self.faults.prepare(&self.connection);
        let chunk = run(&self.connection, "BEGIN IMMEDIATE").and_then(|()| purge.chunk(&self.connection));
        let removed = match chunk {
            Ok(removed) => removed,
            Err(fault) => {
                self.roll_back();
                return self.fail(&fault);
            }
        };
        let mut chain = self.chain;
        if let Some(until) = removed.audit_until {
            let data = serde_json::to_string(&Purged { until }).expect("a number always becomes JSON");
            let told = audit::append(&self.connection, &mut chain, purge.now, Kind::AuditPurged, None, &data);
            if let Err(fault) = told {
                self.roll_back();
                return self.fail(&fault);
            }
        }
        match self.commit() {
            Ok(()) => {
                self.chain = chain;
                if removed.parked > 0 {
                    self.metrics.store_failures.with_label_values(&["parked_purged"]).inc_by(removed.parked);
                }
                if let Some(rest) = purge.after(removed) {
                    self.queue.push_purge(rest);
                }
            }
            Err(Fault::Unknown(fault)) => {
                // Nobody waits for a purge, but the log must be clean before anything else is written.
                self.fail(&fault);
                self.settle(Vec::new());
            }
            Err(Fault::Undone(fault)) => self.fail(&fault),
            Err(Fault::Step(fault)) => error!(%fault, "a purge failed"),
        }
    }

    /// Tries whether the disk takes writes again.
    fn probe(&mut self) {
        if self.stale && self.reopen().is_err() {
            return;
        }
        self.faults.prepare(&self.connection);
        match self.write_probe() {
            Ok(()) => self.recovered(),
            Err(fault) => {
                debug!(%fault, "the disk takes no writes yet");
                self.stale = !is_disk_full(&fault);
            }
        }
    }

    /// Writes a little and removes it, in a transaction each.
    pub(super) fn write_probe(&self) -> rusqlite::Result<()> {
        let fill = "INSERT INTO space_probe VALUES (zeroblob(?1))";
        self.connection.execute(fill, [PROBE_SIZE])?;
        self.connection.execute("DELETE FROM space_probe", []).map(drop)
    }

    pub(super) fn fail(&mut self, fault: &rusqlite::Error) {
        if !self.failed {
            error!(%fault, "the store cannot write");
        }
        self.failed = true;
        self.stale |= !is_disk_full(fault);
        self.health.set_store_failed(true);
    }

    pub(super) fn recovered(&mut self) {
        if self.failed {
            info!("the store writes again");
            self.failed = false;
            self.health.set_store_failed(false);
        }
        if std::mem::take(&mut self.sweep_later) {
            self.queue.push_sweep();
        }
    }

    pub(super) fn reopen(&mut self) -> Result<(), StoreError> {
        self.connection = schema::reopen_writer(&self.path)?;
        self.log.watch(&mut self.connection)?;
        self.chain = audit::chain(&self.connection)?;
        self.stale = false;
        Ok(())
    }
}

/// Deliveries that are due or will be.
pub fn backlog(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT count(*) FROM deliveries WHERE state = 'due'";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

impl From<ApplyError> for Fault {
    fn from(fault: ApplyError) -> Self {
        match fault {
            ApplyError::Sql(fault) => Self::Undone(fault),
            misuse @ ApplyError::Misuse(_) => Self::Step(misuse),
        }
    }
}

/// Whatever ends the writer's thread, a panic too: nobody waits for it any more, and the node is not ready.
struct Guard {
    queue: Arc<Queue>,
    health: Arc<Health>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.queue.close();
        if std::thread::panicking() {
            self.health.set_store_failed(true);
            self.health.set_writer_failed();
        }
        drop(self.queue.abandon());
    }
}

pub(super) fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

fn is_disk_full(fault: &rusqlite::Error) -> bool {
    fault.sqlite_error_code() == Some(ErrorCode::DiskFull)
}
