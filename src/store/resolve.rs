//! What became of steps whose COMMIT failed without saying whether it took effect.
//!
//! The event is the witness: it exists exactly when its step was committed. This holds once the database has been
//! opened anew and its write-ahead log checkpointed and emptied; before, a restart could still bring a commit back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};
use tracing::{error, warn};

use super::step::{Answer, Done, Step, StepError, Work};
use super::writer::{Writer, backlog};
use super::{StoreError, erase, row, schema};
use crate::matcher::verification::{Status, VerificationId};
use crate::outbox::event::{EventId, EventType};

/// Waits between tries to reopen the database after a commit of unknown outcome: doubled from the first to the last.
const REOPEN_FIRST: Duration = Duration::from_millis(50);
const REOPEN_LAST: Duration = Duration::from_secs(5);

/// The longest of them while the store closes: its end has a deadline.
const REOPEN_CLOSING: Duration = Duration::from_secs(1);

/// Tries to reopen that a closing store still makes.
const REOPEN_WHILE_CLOSING: u32 = 5;

impl Writer {
    /// Finds out what became of a batch whose COMMIT failed, however long that takes. A closing store gives up after
    /// a few tries and leaves the waiters unanswered, as a crash would: the next start reads the truth.
    pub(super) fn settle(&mut self, batch: Vec<Step>) {
        self.metrics.store_failures.with_label_values(&["unknown"]).inc();
        self.queue.set_unresolved(true);
        let mut wait = REOPEN_FIRST;
        let mut tries_while_closing = 0;
        let answers = loop {
            match self.read_back(&batch) {
                Ok(answers) => break answers,
                Err(fault) => warn!(%fault, "the outcome of a commit is still unknown"),
            }
            let longest = if self.queue.pause(wait) {
                tries_while_closing += 1;
                REOPEN_CLOSING
            } else {
                REOPEN_LAST
            };
            if tries_while_closing >= REOPEN_WHILE_CLOSING {
                error!(steps = batch.len(), "closed without knowing the outcome of a commit");
                self.unknown.store(true, Ordering::Release);
                return;
            }
            wait = (wait * 2).min(longest);
        };
        self.recovered();
        self.queue.set_unresolved(false);
        let erased: Vec<String> = batch.iter().filter_map(|step| step.work.erases()).collect();
        for (step, answer) in batch.into_iter().zip(answers) {
            if let (Some(Ok(Done::Verification(Some(verification)))), Work::Create(_) | Work::Claim(_) | Work::End(_)) =
                (&answer, &step.work)
            {
                let labels = [verification.application.as_str(), verification.status.as_str()];
                self.metrics.verifications.with_label_values(&labels).inc();
            }
            match answer {
                Some(answer) => self.tell(step, answer),
                None => self.keep(step),
            }
        }
        // What the transaction has changed about endpoints, and of what is on its way, if it took effect.
        if !erased.is_empty() {
            self.tell_erasure(erased);
        }
        self.read_disabled();
        self.queue.push_sweep();
    }

    fn read_back(&mut self, batch: &[Step]) -> Result<Vec<Option<Answer>>, StoreError> {
        self.reopen()?;
        let read = || {
            schema::checkpoint(&self.connection)?;
            // The emptied log is not on disk yet. Its next header is, with this write, and voids what it held before.
            self.write_probe()?;
            let backlog = backlog(&self.connection)?;
            let answers: rusqlite::Result<_> = batch.iter().map(|step| resolve(&self.connection, &step.work)).collect();
            self.metrics.webhook_backlog.set(backlog);
            answers
        };
        read().map_err(StoreError::Read)
    }
}

/// Reads one step back. `None`: it may be done again, a second time changes nothing.
pub fn resolve(connection: &Connection, work: &Work) -> rusqlite::Result<Option<Answer>> {
    match work {
        Work::Create(prepared) => {
            let step = &prepared.create;
            let done = exists(connection, step.event)?;
            Ok(Some(if done {
                Ok(Done::Verification(Some(step.verification.clone())))
            } else {
                Err(StepError::RolledBack)
            }))
        }
        Work::Claim(step) => from_pending(connection, step.event, step.verification),
        Work::End(step) => from_pending(connection, step.event, step.verification),
        Work::Note(step) if step.kind == EventType::CallReceived => {
            from_pending(connection, step.event, step.verification)
        }
        Work::Note(step) => {
            let done = exists(connection, step.event)?;
            Ok(Some(if done { Ok(Done::Verification(None)) } else { Err(StepError::RolledBack) }))
        }
        Work::Erase(step) if erase::is_done(connection, step)? => Ok(Some(Ok(Done::Other))),
        // An entry that is there twice tells of one thing twice, which is better than not at all.
        Work::Erase(_)
        | Work::Audit(_)
        | Work::Checkpoint(_)
        | Work::Hasten(_)
        | Work::Tried(_)
        | Work::Replay(_)
        | Work::ReplayMany(_)
        | Work::Enable(_)
        | Work::Warn(_) => Ok(None),
    }
}

fn from_pending(connection: &Connection, event: EventId, id: VerificationId) -> rusqlite::Result<Option<Answer>> {
    let verification = row::find(connection, id)?;
    if exists(connection, event)? {
        return Ok(Some(Ok(Done::Verification(verification))));
    }
    let pending = verification.is_some_and(|verification| verification.status == Status::Pending);
    // What is not pending any more would not have been changed by the step either.
    Ok(Some(if pending { Err(StepError::RolledBack) } else { Ok(Done::Verification(None)) }))
}

fn exists(connection: &Connection, event: EventId) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM events WHERE id = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([event.to_string()], |_| Ok(())).optional()?.is_some())
}
