//! Start: what was pending is pending again before the first call is read.

use ulid::Ulid;

use super::settings::ApplicationId;
use super::{Core, Verify};
use crate::call::assurance::Reasons;
use crate::matcher::pair::{LATE, Pending, Rest};
use crate::matcher::verification::{Status, VerificationId};
use crate::outbox::event::EventId;
use crate::store::{End, StoreError};

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Pending verifications.
    pub pending: usize,
    /// Pairs that still rest.
    pub resting: usize,
    /// Deliveries not done.
    pub deliveries: u64,
}

impl Verify {
    /// Brings back pending verifications, resting pairs and the latest claims.
    ///
    /// # Errors
    /// `StoreError` when the database cannot be read.
    pub fn recover(&self) -> Result<Restored, StoreError> {
        let core = &self.core;
        let utc = (core.clock.utc)();
        let now = (core.clock.boot)();
        let current = core.current.get();
        let longest_rest = current.settings.numbers.ranges().iter().map(|range| range.cool_down).max();
        let recovered = core.store.recover(utc, longest_rest.unwrap_or_default().max(LATE))?;
        let restored = Restored {
            pending: recovered.pending.len(),
            resting: recovered.resting.len(),
            deliveries: recovered.backlog,
        };
        let applications = &current.settings.applications;
        let place = |name: &str| {
            let place = applications.iter().position(|application| application.name == name)?;
            u16::try_from(place).ok()
        };
        // Rests first: a newer verification that took the place of one that rests must stand.
        for row in recovered.resting {
            let ago = utc.duration_since(row.ended_at).unwrap_or_default();
            let left = core.cool_down(row.number).saturating_sub(ago);
            let rest = Rest {
                id: row.id,
                // No application has the last place: the rest of one that is gone is met by no test call.
                application: place(&row.application).unwrap_or(u16::MAX),
                live: row.livemode,
                status: row.status,
                since: now.minus(ago),
                until: now.plus(left),
            };
            let key = core.pair(row.phone, row.number);
            if rest.known_until() > now {
                core.matcher.rest(key, rest);
            }
        }
        for row in recovered.pending {
            // A clock that was set back does not lengthen a window, one that was set forward ends it.
            let window = row.expires_at.duration_since(row.created_at).unwrap_or_default();
            let left = row.expires_at.duration_since(utc).unwrap_or_default().min(window);
            // One that ended while the node was down ended then: a call that comes now may be too late to be late.
            let over = utc.duration_since(row.expires_at).unwrap_or_default();
            let Some(application) = place(&row.application) else {
                core.cancel_orphan(row.id);
                continue;
            };
            let pending = Pending {
                id: row.id,
                deadline: now.plus(left).minus(over),
                application,
                live: row.livemode,
                minimum: row.minimum_assurance,
                number: row.number,
                generation: current.generation.0,
            };
            current.limits(ApplicationId(application)).restore_place(row.phone);
            core.matcher.activate(core.pair(row.phone, row.number), pending, || ());
            core.plan_call(row.phone, &pending);
        }
        for call in recovered.claimed_calls {
            core.recent.note_claim(call, now);
        }
        core.gauges();
        Ok(restored)
    }
}

impl Core {
    /// Ends a verification whose application is no longer configured.
    fn cancel_orphan(&self, id: VerificationId) {
        let step = End {
            verification: id,
            status: Status::Canceled,
            reasons: Reasons::NONE,
            event: EventId(Ulid::generate()),
            at: (self.clock.utc)(),
            idempotency: None,
        };
        self.store.end(step, move |result| {
            if result.is_err() {
                tracing::warn!(verification = %id, "a verification without an application could not be canceled");
            }
        });
    }
}
