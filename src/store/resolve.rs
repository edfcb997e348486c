//! What became of steps whose COMMIT failed without saying whether it took effect.
//!
//! The event is the witness: it exists exactly when its step was committed. This holds once the database has been
//! opened anew and its write-ahead log checkpointed and emptied; before, a restart could still bring a commit back.

use rusqlite::{Connection, OptionalExtension};

use super::row;
use super::step::{Answer, StepError, Work};
use crate::matcher::verification::{Status, Verification, VerificationId};
use crate::outbox::event::{EventId, EventType};

/// What is known of a step now.
#[derive(Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It was committed.
    Done(Option<Verification>),
    /// It was not, and would change nothing now: the verification is not pending.
    Void,
    /// It was not.
    Undone,
    /// It may be done again: a second time changes nothing.
    Again,
}

impl Resolution {
    /// The answer for whoever waits; `None` while the step is to be done again.
    pub fn answer(self) -> Option<Answer> {
        match self {
            Self::Done(verification) => Some(Ok(verification)),
            Self::Void => Some(Ok(None)),
            Self::Undone => Some(Err(StepError::RolledBack)),
            Self::Again => None,
        }
    }
}

/// Reads one step back.
pub fn resolve(connection: &Connection, work: &Work) -> rusqlite::Result<Resolution> {
    match work {
        Work::Create(prepared) => {
            let step = &prepared.create;
            let done = exists(connection, step.event)?;
            Ok(if done { Resolution::Done(Some(step.verification.clone())) } else { Resolution::Undone })
        }
        Work::Claim(step) => from_pending(connection, step.event, step.verification),
        Work::End(step) => from_pending(connection, step.event, step.verification),
        Work::Note(step) if step.kind == EventType::CallReceived => {
            from_pending(connection, step.event, step.verification)
        }
        Work::Note(step) => {
            let done = exists(connection, step.event)?;
            Ok(if done { Resolution::Done(None) } else { Resolution::Undone })
        }
        Work::Delivery(..) => Ok(Resolution::Again),
    }
}

fn from_pending(connection: &Connection, event: EventId, id: VerificationId) -> rusqlite::Result<Resolution> {
    let verification = row::find(connection, id)?;
    if exists(connection, event)? {
        return Ok(Resolution::Done(verification));
    }
    let pending = verification.is_some_and(|verification| verification.status == Status::Pending);
    Ok(if pending { Resolution::Undone } else { Resolution::Void })
}

fn exists(connection: &Connection, event: EventId) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM events WHERE id = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([event.to_string()], |_| Ok(())).optional()?.is_some())
}
