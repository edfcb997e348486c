//! Taking a call: whom it proves, and what becomes of one that proves nobody.

use std::sync::Arc;

use ulid::Ulid;

use super::claims::{Notify, Waiter};
use super::recent_calls::Seen;
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
    pub fn take_call(&self, event: &CallEvent, notify: impl FnOnce() -> Notify, hold: impl FnOnce() -> Held) -> Taken {
        let core = &self.core;
        let now = (core.clock.boot)();
        let seen = core.recent.note_call(event.key, now);
        if seen == Seen::Claimed {
            // One call claims once, whatever became of its pair since.
            return Taken::Refuse;
        }
        let (taken, outcome) = core.judge(event, seen, now, notify, hold);
        if taken == Taken::Unavailable && seen == Seen::New {
            core.recent.forget_call(event.key);
        }
        if seen == Seen::New || outcome == CallOutcome::Matched {
            core.count_call(event, outcome);
        }
        taken
    }
}

impl Core {
    fn judge(
        self: &Arc<Self>,
        event: &CallEvent,
        seen: Seen,
        now: BootTime,
        notify: impl FnOnce() -> Notify,
        hold: impl FnOnce() -> Held,
    ) -> (Taken, CallOutcome) {
        let current = self.current.load();
        let range = event.dialled.and_then(|dialled| current.settings.numbers.find(dialled));
        let (Some(range), Some(dialled)) = (range, event.dialled) else {
            return (Taken::Refuse, CallOutcome::UnknownNumber);
        };
        let Some(caller) = event.caller else {
            if let Some(id) = self.matcher.only_pending_on(dialled) {
                self.note(id, EventType::CallReceived, event, Reasons::NONE, seen);
            }
            return (Taken::Refuse, CallOutcome::NoCaller);
        };
        let key = self.pair(caller, dialled);
        if !range.trunks.contains(&event.trunk) {
            if let Some(pending) = self.matcher.pending(key, now) {
                self.note(pending.id, EventType::CallReceived, event, Reasons::of(Reason::WrongTrunk), seen);
            }
            return (Taken::Refuse, CallOutcome::WrongTrunk);
        }
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
        match self.matcher.meet(key, now, event.assurance, enter) {
            Met::Won(pending) => {
                self.claim(key, pending, event);
                (Taken::Wait, CallOutcome::Matched)
            }
            Met::Joined => (Taken::Wait, CallOutcome::Repeated),
            Met::NoRoom => (Taken::Unavailable, CallOutcome::Overload),
            Met::TooLow(pending) => {
                // A contrary sign is reason enough; without one it is the level that lacks.
                let low = event.assurance > Assurance::D;
                let reasons = if low { Reasons::of(Reason::AssuranceTooLow) } else { Reasons::NONE };
                self.note(pending.id, EventType::CallReceived, event, reasons, seen);
                (Taken::Refuse, CallOutcome::TooLow)
            }
            Met::Overdue(pending) if now.since(pending.deadline) <= LATE => {
                let late = self.note_of(pending.id, EventType::LateCall, event, Reasons::of(Reason::LateCall), seen);
                self.expire_now(key, pending, late);
                (Taken::Refuse, CallOutcome::Late)
            }
            Met::Overdue(pending) => {
                self.expire_now(key, pending, None);
                (Taken::Refuse, self.unmatched(event, dialled, seen, now))
            }
            Met::Rested(rest) if rest.status == Status::Expired && now.since(rest.since) <= LATE => {
                self.note(rest.id, EventType::LateCall, event, Reasons::of(Reason::LateCall), seen);
                (Taken::Refuse, CallOutcome::Late)
            }
            Met::Rested(rest) if rest.status == Status::Verified => (Taken::Refuse, CallOutcome::Repeated),
            Met::Rested(_) | Met::Nothing => (Taken::Refuse, self.unmatched(event, dialled, seen, now)),
        }
    }

    /// A call whose caller nobody waits for. If From names a phone that somebody does wait for, that verification is
    /// told, and stays pending.
    fn unmatched(&self, event: &CallEvent, dialled: E164, seen: Seen, now: BootTime) -> CallOutcome {
        let presented = event.presented.and_then(|presented| self.matcher.pending(self.pair(presented, dialled), now));
        let Some(pending) = presented else { return CallOutcome::Unmatched };
        // For this verification the difference is no customer's own choice: it is somebody else's line.
        let mut event = event.clone();
        event.reasons = event.reasons.without(Reason::PresentedDiffers);
        self.note(pending.id, EventType::CallReceived, &event, Reasons::of(Reason::FromPaiMismatch), seen);
        CallOutcome::Mismatch
    }

    fn claim(self: &Arc<Self>, key: PairKey, pending: Pending, event: &CallEvent) {
        let step = Claim {
            verification: pending.id,
            event: EventId(Ulid::generate()),
            call: self.facts(event),
            at: (self.clock.utc)(),
        };
        let (keeper, call, phone) = (Arc::clone(self), event.key, event.caller);
        self.store.claim(step, move |result| {
            if result.is_ok() {
                keeper.recent.note_claim(call, (keeper.clock.boot)());
            } else {
                keeper.recent.forget_call(call);
            }
            keeper.claimed(key, pending, phone, &result);
        });
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

    /// Records a call that did not verify, once a call, and not without end.
    fn note(&self, verification: VerificationId, kind: EventType, event: &CallEvent, more: Reasons, seen: Seen) {
        if let Some(note) = self.note_of(verification, kind, event, more, seen) {
            self.record(note);
        }
    }

    fn note_of(
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
        self.store.note(note, |_result| {
            // A note that is lost costs a hint; the store has counted it.
        });
    }

    fn facts(&self, event: &CallEvent) -> CallFacts {
        CallFacts {
            id: CallRecordId(Ulid::generate()),
            trunk: self.current.load().settings.trunks[usize::from(event.trunk.0)].clone(),
            event: event.clone(),
        }
    }

    fn count_call(&self, event: &CallEvent, outcome: CallOutcome) {
        self.current.load().count_call(event.trunk, outcome);
    }
}

/// Label of `calls_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallOutcome {
    Matched,
    Repeated,
    TooLow,
    Late,
    Mismatch,
    WrongTrunk,
    NoCaller,
    UnknownNumber,
    Overload,
    Unmatched,
}

impl CallOutcome {
    pub(super) const ALL: [Self; 10] = [
        Self::Matched,
        Self::Repeated,
        Self::TooLow,
        Self::Late,
        Self::Mismatch,
        Self::WrongTrunk,
        Self::NoCaller,
        Self::UnknownNumber,
        Self::Overload,
        Self::Unmatched,
    ];

    pub(super) const fn as_str(self) -> &'static str {
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
