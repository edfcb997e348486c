//! The atomic steps: what a caller asks of the store, each done wholly or not at all.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::erase::{Erase, Erased};
use super::replay::{Replayed, ReplayedMany};
use crate::audit::kind::Kind;
use crate::call::assurance::Reasons;
use crate::matcher::client_access::ClientAccess;
use crate::matcher::verification::{Status, Verification, VerificationId};
use crate::outbox::delivery::{DeliveryId, DeliveryState, EndpointId};
use crate::outbox::event::{CallFacts, EventId, EventType};
use crate::outbox::notice::LastAttempt;

/// Why a step was not done. The caller may answer 503 and forget it: nothing of it is left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The queue is full, the store is closed, or the outcome of an earlier commit is not known yet, for which only
    /// delivery states wait.
    #[error("the store takes no steps now")]
    Full,
    /// The transaction was undone: the disk is full, say, or the step contradicts what is stored.
    #[error("the step was undone")]
    RolledBack,
}

/// Begins a verification.
#[derive(Debug)]
pub struct Create {
    /// The record, pending. Its `sequence` becomes 1, its times whole milliseconds.
    pub verification: Verification,
    /// Id of the `verification.created` event.
    pub event: EventId,
    /// Kept with it, so that a repeated request finds the answer.
    pub idempotency: Option<IdempotencyRecord>,
    /// What the answer shows besides the verification.
    pub client: ClientAccess,
    /// A verification that ends for this one, if it is still pending.
    pub replaces: Option<End>,
}

/// Takes a verification from pending to verified.
#[derive(Debug)]
pub struct Claim {
    /// Which.
    pub verification: VerificationId,
    /// Id of the `verification.verified` event.
    pub event: EventId,
    /// The call that proves it.
    pub call: CallFacts,
    /// When, UTC.
    pub at: SystemTime,
}

/// Takes a verification from pending to a terminal state that is not verified.
#[derive(Debug)]
pub struct End {
    /// Which.
    pub verification: VerificationId,
    /// `Expired`, `Canceled`, `Denied` or `Failed`; a step with another one is undone.
    pub status: Status,
    /// Why, besides the reasons it has.
    pub reasons: Reasons,
    /// Id of the event that tells it.
    pub event: EventId,
    /// When, UTC.
    pub at: SystemTime,
    /// Kept with it if the verification was pending.
    pub idempotency: Option<IdempotencyRecord>,
}

/// A call that did not verify.
#[derive(Debug)]
pub struct Note {
    /// The verification that it named.
    pub verification: VerificationId,
    /// `CallReceived`: kept only while the verification is pending, and its reasons become the verification's.
    /// `LateCall` and `CallRepeated`: the verification stays as it is. `CallMismatched`: the same, and kept only where an
    /// endpoint is subscribed to it. A step with another one is undone.
    pub kind: EventType,
    /// Id of the event.
    pub event: EventId,
    /// The call.
    pub call: CallFacts,
    /// When, UTC.
    pub at: SystemTime,
}

/// Something that an application is to be warned of.
#[derive(Debug)]
pub struct Warning {
    /// Name of the application.
    pub application: String,
    /// Id of the event.
    pub event: EventId,
    /// Its type.
    pub kind: EventType,
    /// When, UTC.
    pub at: SystemTime,
    /// Its body.
    pub body: Arc<str>,
}

/// Has deliveries to one endpoint sent again from the beginning of their plans: those that fit all that is there.
#[derive(Debug, Clone)]
pub struct ReplayMany {
    /// Whose.
    pub application: String,
    /// Where to.
    pub endpoint: EndpointId,
    /// In this state; without it, those that were delivered or exhausted.
    pub state: Option<DeliveryState>,
    /// Of events of this type.
    pub kind: Option<EventType>,
    /// Of events at this time or later, UTC.
    pub from: SystemTime,
    /// And before this one.
    pub until: SystemTime,
    /// Behind this one, in the order in which they were made.
    pub after: Option<DeliveryId>,
    /// Id of the API key that asked.
    pub key: String,
    /// When, UTC.
    pub at: SystemTime,
}

/// Enables an endpoint.
#[derive(Debug, Clone)]
pub struct Enable {
    /// Name of its application.
    pub application: String,
    /// Which.
    pub endpoint: EndpointId,
    /// Id of the API key that asked.
    pub key: String,
    /// When, UTC.
    pub at: SystemTime,
}

/// An entry for the audit log.
#[derive(Debug, Clone)]
pub struct Audit {
    /// What kind.
    pub kind: Kind,
    /// When, UTC.
    pub at: SystemTime,
    /// What it tells: a JSON object.
    pub data: String,
}

/// A signed statement of how far the audit log had come.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Its last entry then.
    pub seq: u64,
    /// When it was signed, UTC.
    pub at: SystemTime,
    /// The statement.
    pub jws: String,
}

/// A try of a delivery that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Which delivery.
    pub id: DeliveryId,
    /// How many tries it has had, this one included.
    pub attempts: u32,
    /// `replayed_after` of the delivery that was tried: a replay since then has a plan of its own.
    pub replayed_after: u32,
    /// How it ended: without `error`, the endpoint took the event.
    pub last: LastAttempt,
    /// When the next try is due after a failure, UTC; `None` where none is left.
    pub next_at: Option<SystemTime>,
}

/// What a repeated request must be answered with. The body is the verification as the step leaves it, a creation's with
/// its `client`.
#[derive(Debug, Clone)]
pub struct IdempotencyRecord {
    /// Name of the application.
    pub application: String,
    /// Whose key: a name of the API key.
    pub scope: String,
    /// The client's key.
    pub key: String,
    /// SHA-256 of the request.
    pub fingerprint: [u8; 32],
    /// HTTP status of the answer.
    pub status: u16,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Done {
    /// To a verification: as the step leaves it, `None` where it was not pending.
    Verification(Option<Verification>),
    /// To a delivery that was to be replayed.
    Replay(Replayed),
    /// To those of a range.
    ReplayedMany(ReplayedMany),
    /// To a person's data.
    Erased(Erased),
    /// Nothing that its caller waits to see.
    Other,
}

impl Done {
    /// The verification, where there is one.
    pub(super) fn verification(self) -> Option<Verification> {
        match self {
            Self::Verification(verification) => verification,
            Self::Replay(_) | Self::ReplayedMany(_) | Self::Erased(_) | Self::Other => None,
        }
    }
}

/// What became of a step.
pub(super) type Answer = Result<Done, StepError>;

/// Told the answer, once.
pub(super) type Waiter = Box<dyn FnOnce(Answer) + Send>;

/// A step on its way through the queue.
pub(super) struct Step {
    pub(super) work: Work,
    pub(super) waiter: Waiter,
}

/// What a step does. Large ones are boxed: a queue holds many thousand.
#[derive(Debug)]
pub(super) enum Work {
    Create(Box<Prepared>),
    Claim(Box<Claim>),
    End(Box<End>),
    Note(Box<Note>),
    Warn(Box<Warning>),
    Tried(Tried),
    Replay(Replay),
    ReplayMany(Box<ReplayMany>),
    Enable(Box<Enable>),
    Audit(Box<Audit>),
    Checkpoint(Box<Checkpoint>),
    Erase(Box<Erase>),
    Hasten(SystemTime),
}

impl Work {
    /// Whether it touches hundreds of rows.
    pub(super) const fn is_heavy(&self) -> bool {
        matches!(self, Self::Erase(_) | Self::ReplayMany(_) | Self::Hasten(_))
    }

    /// The application of which it erases something.
    pub(super) fn erases(&self) -> Option<String> {
        match self {
            Self::Erase(step) => Some(step.application.clone()),
            _ => None,
        }
    }
}

/// Has a delivery tried again from the beginning of its plan.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) application: String,
    pub(super) id: DeliveryId,
    /// Id of the API key that asked.
    pub(super) key: String,
    pub(super) at: SystemTime,
}

/// A creation whose texts the calling thread has rendered, which spares the writer.
pub(super) struct Prepared {
    pub(super) create: Create,
    /// Body of the event.
    pub(super) body: Arc<str>,
    /// The verification as JSON, where there is an idempotency record.
    pub(super) answer: Option<String>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both texts name the phone in full.
        f.debug_struct("Prepared").field("create", &self.create).finish_non_exhaustive()
    }
}

impl Step {
    /// Tells the waiter.
    pub(super) fn answer(self, answer: Answer) {
        (self.waiter)(answer);
    }
}

/// One waiter a step, of which the last has `done` told all answers.
pub(super) fn gather(count: usize, done: Box<dyn FnOnce(Vec<Answer>) + Send>) -> impl Iterator<Item = Waiter> {
    struct Gathered {
        answers: Vec<Answer>,
        left: usize,
        done: Option<Box<dyn FnOnce(Vec<Answer>) + Send>>,
    }
    let gathered = Gathered { answers: vec![Err(StepError::RolledBack); count], left: count, done: Some(done) };
    let gathered = Arc::new(Mutex::new(gathered));
    (0..count).map(move |index| -> Waiter {
        let gathered = Arc::clone(&gathered);
        Box::new(move |answer| {
            let mut all = gathered.lock();
            all.answers[index] = answer;
            all.left -= 1;
            if all.left == 0 {
                let answers = mem::take(&mut all.answers);
                let done = all.done.take();
                drop(all);
                if let Some(done) = done {
                    done(answers);
                }
            }
        })
    })
}
