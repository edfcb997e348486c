//! Ending a verification by wish of its application.

use std::sync::Arc;

use tokio::sync::oneshot;
use ulid::Ulid;

use super::claims::{Outcome, tell};
use super::idempotency::{Begun, unavailable};
use super::request::{Answer, CancelError, Idempotency, RequestError};
use super::settings::ApplicationId;
use super::{Core, Verify};
use crate::call::assurance::{Reason, Reasons};
use crate::e164::E164;
use crate::matcher::index::EndMet;
use crate::matcher::pair::{PairKey, Pending};
use crate::matcher::verification::{Status, Verification, VerificationId};
use crate::outbox::event::EventId;
use crate::store::{End, StepError};

impl Verify {
    /// Ends a pending verification.
    pub async fn cancel(
        &self,
        application: ApplicationId,
        id: VerificationId,
        idempotency: Option<Idempotency>,
    ) -> Result<Answer, CancelError> {
        let core = &self.core;
        let current = core.current.get();
        let name = &current.settings.application(application).name;
        let turn = match core.begin(name, idempotency).await? {
            Begun::Repeat(answer) => return Ok(answer),
            Begun::Run(turn) => turn,
        };
        let (key, pending, phone) = loop {
            let row = core.store.verification(id).await.map_err(|error| unavailable(&error))?;
            let row = row.filter(|row| row.application == *name).ok_or(CancelError::NotFound)?;
            if row.status != Status::Pending {
                return Err(CancelError::Ended(row.status));
            }
            let key = core.pair(row.phone, row.number);
            match core.begin_end(key, id).await {
                EndMet::Begun(pending) => break (key, pending, row.phone),
                EndMet::Busy => {}
                // Pending on disk but not in memory: its end has just been committed, or it waits for a restart.
                EndMet::Gone => {
                    let row = core.store.verification(id).await.map_err(|error| unavailable(&error))?;
                    return match row {
                        Some(row) if row.status != Status::Pending => Err(CancelError::Ended(row.status)),
                        _ => Err(RequestError::Unavailable.into()),
                    };
                }
            }
        };
        let step = End {
            verification: id,
            status: Status::Canceled,
            reasons: Reasons::of(Reason::ClientCanceled),
            event: EventId(Ulid::generate()),
            at: (core.clock.utc)(),
            idempotency: turn.as_ref().map(|turn| turn.record(name, 200)),
        };
        let (done, answer) = oneshot::channel();
        let keeper = Arc::clone(core);
        core.store.end(step, move |result| {
            keeper.ended(key, pending, Some(phone), Status::Canceled, &result);
            drop(turn);
            // The client may have gone; the end stands all the same.
            let _ = done.send(result);
        });
        match answer.await {
            Ok(Ok(Some(verification))) => {
                let body = verification.to_json();
                Ok(Answer { id, status: 200, body, replayed: false, limits: Vec::new() })
            }
            Ok(Ok(None)) => Err(CancelError::Ended(Status::Canceled)),
            Ok(Err(_)) | Err(_) => Err(RequestError::Unavailable.into()),
        }
    }
}

impl Core {
    /// What follows the commit of an end, or its failure. `phone` is the verification's, where it is known without
    /// the row.
    pub(super) fn ended(
        &self,
        key: PairKey,
        pending: Pending,
        phone: Option<E164>,
        status: Status,
        result: &Result<Option<Verification>, StepError>,
    ) {
        let Ok(verification) = result else {
            let waiters = self.matcher.undo(key, pending.id, || self.claims.leave(key));
            self.heed_retirement(pending.application);
            return tell(waiters, Outcome::Failed);
        };
        let now = (self.clock.boot)();
        // A window ends when it ends, not when that was noted.
        let since = if status == Status::Expired { pending.deadline } else { now };
        let rest = pending.rest(status, since, now.plus(self.cool_down(pending.number)));
        let waiters = self.matcher.settle(key, rest, || self.claims.leave(key));
        if let Some(phone) = phone.or(verification.as_ref().map(|verification| verification.phone)) {
            self.current.load().limits(ApplicationId(pending.application)).free_place(phone);
        }
        tell(waiters, Outcome::Durable);
        self.changes.tell(pending.id);
    }
}
