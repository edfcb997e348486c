//! Taking a call: whom it proves, and what becomes of one that proves nobody.

use std::sync::Arc;

use ulid::Ulid;

use super::claims::{Notify, Waiter};
use super::in_force::InForce;
use super::recent_calls::{Attempt, Seen};
use super::settings::ApplicationId;
use super::{Core, Verify};
use crate::call::assurance::{Assurance, Reason, Reasons};
use crate::call::event::{CallEvent, CallRecordId};
use crate::e164::E164;
use crate::matcher::boot_time::BootTime;
use crate::matcher::index::Met;
use crate::matcher::pair::{LATE, PairKey, Pending};
use crate::matcher::verification::{Status, Verification, VerificationId};
use crate::outbox::event::{CallFacts, EventId, EventType};
use crate::store::{Claim, Note, StepError};

/// What the keeper of a call is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Refuse it at once.
    Refuse,
    /// Keep silent until the outcome is told.
    Wait,
    /// Answer 503: the call may come again.
    Unavailable,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// What its keeper is to do.
    pub taken: Taken,
    /// Whom it proves, or why nobody.
    pub outcome: CallOutcome,
    /// The verification that it proves or named, where there is one.
    pub verification: Option<VerificationId>,
    /// Id of its record, where one is written.
    pub record: Option<CallRecordId>,
    /// Level of proof.
    pub assurance: Assurance,
    /// What speaks against it, or is worth telling.
    pub reasons: Reasons,
}

/// What the keeper says when a call is to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It keeps the call.
    Kept,
    /// It keeps the same transaction already: a retransmission, which changes nothing.
    Already,
    /// It has no room.
    Full,
}

impl Verify {
    /// Takes a call. Where it matches, or another call of the same pair is being committed, `hold` is asked to keep
    /// it before anything else can happen to the pair, and `notify` whom to tell the outcome.
    pub fn take_call(&self, event: &CallEvent, notify: impl FnOnce() -> Notify, hold: impl FnOnce() -> Held) -> Judged {
        let core = &self.core;
        let now = (core.clock.boot)();
        let pair = event.caller.zip(event.dialled).map(|(caller, dialled)| core.pair(caller, dialled));
        if let Some(pair) = pair {
            core.matcher.prefetch(pair);
        }
        let attempt = pair.filter(|_| event.only.is_none()).map(|pair| Attempt::new(pair, event));
        if let Some(attempt) = attempt {
            core.recent.prefetch_attempt(attempt);
        }
        let seen = core.recent.note_call(event.key, now);
        if seen == Seen::Claimed {
            // One call claims once, whatever became of its pair since.
            return Judged::refused(event, CallOutcome::Repeated);
        }
        let current = core.current.load();
        // A carrier's next try at the same call has a Call-ID of its own. Who places test calls places each on purpose.
        let attempt = attempt.filter(|_| seen == Seen::New);
        let is_retry = attempt.is_some_and(|attempt| core.recent.note_attempt(attempt, now));
        let retry = is_retry.then(|| CallEvent { reasons: event.reasons.with(Reason::CarrierRetry), ..event.clone() });
        // It is judged as every call is; what is not told of it again are the hints.
        let (event, told) = retry.as_ref().map_or((event, seen), |retry| (retry, Seen::Before));
        let mut judged = core.judge(&current, (event, pair), told, now, notify, hold);
        if is_retry && judged.taken == Taken::Refuse {
            judged.outcome = CallOutcome::CarrierRetry;
        }
        // To a test call the numbers of other applications are nothing, unless it names a verification of its own that
        // was begun before the number went to them.
        if let Some(tester) = event.only
            && judged.taken == Taken::Refuse
            && judged.verification.is_none()
            && event.dialled.is_some_and(|dialled| !current.settings.numbers.serves(dialled, ApplicationId(tester)))
        {
            judged.outcome = CallOutcome::UnknownNumber;
        }
        if judged.taken == Taken::Unavailable && seen == Seen::New {
            core.recent.forget_call(event.key);
            if let Some(attempt) = attempt {
                core.recent.forget_attempt(attempt);
            }
        }
        if seen == Seen::New || judged.outcome == CallOutcome::Matched {
            current.count_call(event.trunk, judged.outcome);
        }
        judged
    }
}

impl Core {
    fn judge(
        self: &Arc<Self>,
        current: &InForce,
        (event, pair): (&CallEvent, Option<PairKey>),
        seen: Seen,
        now: BootTime,
        notify: impl FnOnce() -> Notify,
        hold: impl FnOnce() -> Held,
    ) -> Judged {
        let refused = |outcome| Judged::refused(event, outcome);
        let Some(dialled) = event.dialled.filter(|dialled| current.is_own(*dialled, || now)) else {
            return refused(CallOutcome::UnknownNumber);
        };
        let Some(key) = pair else {
            if event.reasons.contains(Reason::OwnNumber) && seen == Seen::New {
                self.note_own_number(current, event, dialled, now);
            }
            let refused = refused(CallOutcome::NoCaller);
            return match self.matcher.only_pending_on(dialled, event.only) {
                Some(id) => self.note(refused, id, EventType::CallReceived, event, Reasons::NONE, seen),
                None => refused,
            };
        };
        // A test call may come for every number of its application.
        let by_trunk = current.served(dialled, event.trunk, now).map(|newest| newest.0);
        let Some(newest) = by_trunk.or(event.only.map(|_| u32::MAX)) else {
            let refused = refused(CallOutcome::WrongTrunk);
            let reasons = Reasons::of(Reason::WrongTrunk);
            return match self.matcher.pending(key, now, None) {
                Some(pending) => self.note(refused, pending.id, EventType::CallReceived, event, reasons, seen),
                None => refused,
            };
        };
        let enter = || {
            if !self.claims.has_room() {
                return false;
            }
            match hold() {
                Held::Kept => self.claims.join(key, Waiter::Call(notify())),
                Held::Already => {}
                Held::Full => return false,
            }
            true
        };
        match self.matcher.meet(key, now, event.assurance, newest, event.only, enter) {
            Met::Won(pending) => match self.claim(key, pending, event) {
                Some(record) => {
                    let judged = refused(CallOutcome::Matched);
                    Judged { taken: Taken::Wait, verification: Some(pending.id), record: Some(record), ..judged }
                }
                None => Judged { taken: Taken::Wait, ..refused(CallOutcome::Repeated) },
            },
            Met::Joined => Judged { taken: Taken::Wait, ..refused(CallOutcome::Repeated) },
            Met::NoRoom => Judged { taken: Taken::Unavailable, ..refused(CallOutcome::Overload) },
            Met::TooNew(pending) => {
                let reasons = Reasons::of(Reason::WrongTrunk);
                let refused = refused(CallOutcome::WrongTrunk);
                self.note(refused, pending.id, EventType::CallReceived, event, reasons, seen)
            }
            Met::TooLow(pending) => {
                // A contrary sign is reason enough; without one it is the level that lacks.
                let low = event.assurance > Assurance::D;
                let reasons = if low { Reasons::of(Reason::AssuranceTooLow) } else { Reasons::NONE };
                self.note(refused(CallOutcome::TooLow), pending.id, EventType::CallReceived, event, reasons, seen)
            }
            Met::Overdue(pending) if now.since(pending.deadline) <= LATE => {
                let reasons = Reasons::of(Reason::LateCall);
                let late = self.note_of(pending.id, EventType::LateCall, event, reasons, seen);
                let judged = refused(CallOutcome::Late).naming(pending.id, reasons, late.as_ref());
                self.expire_now(key, pending, late);
                judged
            }
            Met::Overdue(pending) => {
                self.expire_now(key, pending, None);
                Judged::refused(event, CallOutcome::Unmatched)
            }
            Met::Rested(rest) if rest.status == Status::Expired && now.since(rest.since) <= LATE => {
                let reasons = Reasons::of(Reason::LateCall);
                self.note(refused(CallOutcome::Late), rest.id, EventType::LateCall, event, reasons, seen)
            }
            Met::Rested(rest) if rest.status == Status::Verified => {
                let refused = refused(CallOutcome::Repeated);
                self.note(refused, rest.id, EventType::CallRepeated, event, Reasons::NONE, seen)
            }
            Met::Rested(_) | Met::Nothing => self.unmatched(event, dialled, seen, now),
        }
    }

    /// A call whose caller nobody waits for. If From names a phone that somebody does wait for, that verification is
    /// told, and stays pending.
    fn unmatched(&self, event: &CallEvent, dialled: E164, seen: Seen, now: BootTime) -> Judged {
        let pending = |presented| self.matcher.pending(self.pair(presented, dialled), now, event.only);
        let Some(pending) = event.presented.and_then(pending) else {
            let refused = Judged::refused(event, CallOutcome::Unmatched);
            self.note_unmatched(event, dialled, seen);
            return self.mismatched(refused, event, dialled, seen);
        };
        // For this verification the difference is no customer's own choice: it is somebody else's line.
        let mut event = event.clone();
        event.reasons = event.reasons.without(Reason::PresentedDiffers);
        event.assurance = Assurance::D;
        let refused = Judged::refused(&event, CallOutcome::Mismatch);
        self.note(refused, pending.id, EventType::CallReceived, &event, Reasons::of(Reason::FromPaiMismatch), seen)
    }

    /// Claims the pair for this call; gives the id of the call's record. `None` where the call is claiming another pair
    /// just now: this one goes back, and whoever waits for it is told that it failed.
    fn claim(self: &Arc<Self>, key: PairKey, pending: Pending, event: &CallEvent) -> Option<CallRecordId> {
        if !self.claims.begin(event.key) {
            self.ended(key, pending, event.caller, Status::Verified, &Err(StepError::RolledBack));
            return None;
        }
        let mut call = self.facts(event);
        if self.follows_signs(&pending) {
            call.event.reasons = call.event.reasons.with(Reason::RingbackSuspected);
        }
        let (event_id, at) = (EventId(Ulid::generate()), (self.clock.utc)());
        let step = Claim { verification: pending.id, event: event_id, call, at };
        let record = step.call.id;
        let (keeper, call, phone) = (Arc::clone(self), event.key, event.caller);
        self.store.claim(step, move |result| {
            if result.is_ok() {
                keeper.recent.note_claim(call, (keeper.clock.boot)());
            } else {
                keeper.recent.forget_call(call);
            }
            keeper.claims.end(call);
            keeper.claimed(key, pending, phone, &result);
        });
        Some(record)
    }

    /// What follows the commit of a claim, or its failure.
    fn claimed(
        &self,
        key: PairKey,
        pending: Pending,
        phone: Option<E164>,
        result: &Result<Option<Verification>, StepError>,
    ) {
        if let Ok(None) = result {
            // The row had ended although memory held it pending: its end stands and nobody was verified.
            tracing::error!(verification = %pending.id, "a claimed verification was not pending in the store");
        }
        self.ended(key, pending, phone, Status::Verified, result);
    }

    /// Records a call that named a verification and did not verify it, once a call, and not without end. Gives
    /// `judged` with what it named.
    fn note(
        &self,
        judged: Judged,
        verification: VerificationId,
        kind: EventType,
        event: &CallEvent,
        more: Reasons,
        seen: Seen,
    ) -> Judged {
        let note = self.note_of(verification, kind, event, more, seen);
        let judged = judged.naming(verification, more, note.as_ref());
        if let Some(note) = note {
            self.record(note);
        }
        judged
    }

    pub(super) fn note_of(
        &self,
        verification: VerificationId,
        kind: EventType,
        event: &CallEvent,
        more: Reasons,
        seen: Seen,
    ) -> Option<Note> {
        if seen != Seen::New || self.notes.check().is_err() {
            return None;
        }
        let mut call = self.facts(event);
        call.event.reasons = call.event.reasons.union(more);
        Some(Note { verification, kind, event: EventId(Ulid::generate()), call, at: (self.clock.utc)() })
    }

    pub(super) fn record(&self, note: Note) {
        let (changes, verification, kind) = (Arc::clone(&self.changes), note.verification, note.kind);
        self.store.note(note, move |result| {
            // A note that is lost costs a hint; the store has counted it. A late call leaves the record as it was.
            if result.is_ok() && kind == EventType::CallReceived {
                changes.tell(verification);
            }
        });
    }

    pub(super) fn facts(&self, event: &CallEvent) -> CallFacts {
        CallFacts {
            id: CallRecordId(Ulid::generate()),
            trunk: self.current.load().settings.trunks[usize::from(event.trunk.0)].clone(),
            event: event.clone(),
        }
    }
}

impl Judged {
    const fn refused(event: &CallEvent, outcome: CallOutcome) -> Self {
        let (assurance, reasons) = (event.assurance, event.reasons);
        Self { taken: Taken::Refuse, outcome, verification: None, record: None, assurance, reasons }
    }

    fn naming(self, verification: VerificationId, more: Reasons, note: Option<&Note>) -> Self {
        let (reasons, record) = (self.reasons.union(more), note.map(|note| note.call.id));
        Self { verification: Some(verification), record, reasons, ..self }
    }
}

/// Whom a call proves, or why nobody: label of `calls_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// It proves the phone of a verification.
    Matched,
    /// Another call has the pair, or has proved it.
    Repeated,
    /// Its level is too low for the verification.
    TooLow,
    /// The window is over.
    Late,
    /// From names a phone that is waited for, the network asserts another one.
    Mismatch,
    /// The dialled number does not take calls from this trunk.
    WrongTrunk,
    /// No usable number of the caller.
    NoCaller,
    /// The dialled number is none of ours.
    UnknownNumber,
    /// There is no room for one more call that waits.
    Overload,
    /// The same caller called the same number a moment before, and it proves nothing new.
    CarrierRetry,
    /// Nobody waits for it.
    Unmatched,
}

impl CallOutcome {
    pub(super) const ALL: [Self; 11] = [
        Self::Matched,
        Self::Repeated,
        Self::TooLow,
        Self::Late,
        Self::Mismatch,
        Self::WrongTrunk,
        Self::NoCaller,
        Self::UnknownNumber,
        Self::Overload,
        Self::CarrierRetry,
        Self::Unmatched,
    ];

    /// The name in metrics and API answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Repeated => "repeated",
            Self::TooLow => "assurance_too_low",
            Self::Late => "late",
            Self::Mismatch => "mismatch",
            Self::WrongTrunk => "wrong_trunk",
            Self::NoCaller => "no_caller",
            Self::UnknownNumber => "unknown_number",
            Self::Overload => "overload",
            Self::CarrierRetry => "carrier_retry",
            Self::Unmatched => "unmatched",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_stand_at_their_own_place() {
        for (place, outcome) in CallOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }
}
