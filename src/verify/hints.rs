//! What is told of calls beyond the one that they prove: another line on a number, our own numbers as callers, and a rise
//! of verified calls behind those.
//!
//! Anybody who calls our numbers can bring these about, so each kind is bounded by the second.

use std::time::{Duration, SystemTime};

use ulid::Ulid;

use super::in_force::InForce;
use super::recent_calls::Seen;
use super::ringback::{self, Rise};
use super::settings::ApplicationId;
use super::take_call::Judged;
use super::{Core, Verify};
use crate::call::assurance::Reasons;
use crate::call::event::CallEvent;
use crate::e164::E164;
use crate::matcher::boot_time::BootTime;
use crate::matcher::pair::Pending;
use crate::outbox::alarm::Alarm;
use crate::outbox::event::{EventId, EventType};
use crate::store::Warning;

/// How often it is told at most that numbers are exhausted.
const EXHAUSTED_EVERY: Duration = Duration::from_mins(1);

impl Verify {
    /// Tells every application that the API's certificate expires.
    pub fn warn_of_certificate(&self, expires: SystemTime) {
        let current = self.core.current.load();
        let all = (0..).map(ApplicationId).take(current.settings.applications.len());
        for application in all.filter(|id| !current.settings.retired.contains(id)) {
            self.core.warn(&current, application, &Alarm::Certificate { expires });
        }
    }
}

impl Core {
    /// A call on a number on which exactly one verification is pending, for another phone: a hint where the number is
    /// one application's alone, for a SIM box or a foreign network may show some other line.
    pub(super) fn mismatched(&self, refused: Judged, event: &CallEvent, dialled: E164, seen: Seen) -> Judged {
        let only = (seen == Seen::New).then(|| self.matcher.only_pending_on(dialled, event.only)).flatten();
        if let Some(verification) = only
            && event.only.is_none()
            && Self::exclusive_to(&self.current.load(), dialled).is_some()
            && self.hints.check().is_ok()
            && let Some(note) = self.note_of(verification, EventType::CallMismatched, event, Reasons::NONE, seen)
        {
            self.record(note);
        }
        refused
    }

    /// The application whose number it is, where it is one's alone.
    fn exclusive_to(current: &InForce, number: E164) -> Option<ApplicationId> {
        match current.settings.numbers.find(number)?.applications.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// A call with one of our numbers as its caller: counted, told, and what follows is looked at.
    pub(super) fn note_own_number(&self, current: &InForce, event: &CallEvent, dialled: E164, now: BootTime) {
        let Some(application) = Self::exclusive_to(current, dialled) else { return };
        if event.only.is_some_and(|tester| tester != application.0) {
            return;
        }
        self.ringback.lock().entry(application.0).or_default().sign(now);
        if self.alarms.check().is_ok() {
            let trunk = &current.settings.trunks[usize::from(event.trunk.0)];
            self.warn(current, application, &Alarm::OwnNumber { number: dialled, trunk });
        }
    }

    /// A call that nobody waits for, on a number that is one application's alone.
    pub(super) fn note_unmatched(&self, event: &CallEvent, dialled: E164, seen: Seen) {
        let current = self.current.load();
        if seen == Seen::New
            && event.only.is_none()
            && let Some(application) = Self::exclusive_to(&current, dialled)
            && self.store.is_subscribed(&current.settings.application(application).name, EventType::CallUnmatched)
            && self.unmatched_events.check().is_ok()
        {
            self.warn(&current, application, &Alarm::Unmatched { number: dialled, call: &self.facts(event) });
        }
    }

    /// A creation was refused for want of a free number: told once in a while, with how many there were.
    pub(super) fn note_exhausted(&self, application: ApplicationId, numbers: u64) {
        let now = (self.clock.boot)();
        let refused = {
            let mut exhausted = self.exhausted.lock();
            let (next, refused) = exhausted.entry(application.0).or_insert((BootTime::default(), 0));
            *refused += 1;
            if now < *next {
                return;
            }
            *next = now.plus(EXHAUSTED_EVERY);
            std::mem::take(refused)
        };
        self.warn(&self.current.load(), application, &Alarm::NumberExhausted { numbers, refused });
    }

    fn warn(&self, current: &InForce, application: ApplicationId, alarm: &Alarm<'_>) {
        let at = (self.clock.utc)();
        let application = current.settings.application(application).name.clone();
        let (event, kind, body) = (EventId(Ulid::generate()), alarm.kind(), alarm.body(at).into());
        // One that is lost was counted by the store.
        self.store.warn(Warning { application, event, kind, at, body }, drop);
    }

    /// Looks whether a call that proves its phone is one of more than usual behind calls with our own numbers.
    pub(super) fn follows_signs(&self, pending: &Pending) -> bool {
        let now = (self.clock.boot)();
        let (follows, rise) = self.ringback.lock().entry(pending.application).or_default().verified(now);
        if let Some(Rise { signs, verified, usual }) = rise {
            let alarm = Alarm::Ringback { signs, verified, usual, window: ringback::WINDOW };
            self.warn(&self.current.load(), ApplicationId(pending.application), &alarm);
        }
        follows
    }
}
