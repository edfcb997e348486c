//! The application: create, look up, cancel and expire a verification; take a call; commit a match.
//!
//! Owns the order of things: memory elects, the row confirms, the answer follows the commit. Does not see SIP, HTTP or
//! sockets. Invariant: one INVITE verifies at most one verification, and a verification has one terminal state.

mod cancel;
mod changes;
pub mod claims;
pub mod clock;
mod create;
pub mod deliveries;
mod dice;
pub mod earlier;
pub mod erase;
mod expiry;
mod hints;
mod idempotency;
mod in_force;
pub mod limits;
pub mod lists;
pub mod recent_calls;
pub mod records;
mod recover;
pub mod request;
mod retire;
mod ringback;
pub mod script;
pub mod settings;
mod take_call;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::e164::E164;
use crate::matcher::boot_time::BootTime;
use crate::matcher::index::Matcher;
use crate::matcher::pair::PairKey;
use crate::matcher::verification::{Verification, VerificationId};
use crate::store::{Audit, Store};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;
use changes::Changes;
pub use changes::{MAX_WATCHES, Watch};
use claims::Claims;
use clock::Clock;
use earlier::TooManyChanges;
pub use in_force::NextSettings;
use in_force::{Current, InForce};
use recent_calls::RecentCalls;
use records::{KeyUses, Signing};
pub use recover::Restored;
use request::RequestError;
use settings::{ApplicationId, Settings};
pub use take_call::{CallOutcome, Held, Judged, Taken};

/// Most calls a second that leave a note without verifying. Notes are hints; a flood of calls must not fill the disk.
const NOTES_PER_SECOND: NonZeroU32 = NonZeroU32::new(200).expect("200 is not zero");

/// Most events a second that anybody brings about who calls our numbers, without a verification of their own.
const HINTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).expect("10 is not zero");

/// The application's facade. Cheap to clone.
#[derive(Clone)]
pub struct Verify {
    core: Arc<Core>,
}

struct Core {
    current: Current,
    /// Keys the index of pairs.
    secret: [u8; 16],
    clock: Clock,
    store: Store,
    metrics: Metrics,
    health: Arc<Health>,
    matcher: Matcher,
    recent: Arc<RecentCalls>,
    signing: ArcSwap<Signing>,
    key_uses: KeyUses,
    /// Entries for the audit log that the store has not taken.
    unwritten: Mutex<Vec<Audit>>,
    claims: Claims,
    changes: Arc<Changes>,
    running: Arc<idempotency::Running>,
    notes: DefaultDirectRateLimiter,
    hints: DefaultDirectRateLimiter,
    /// Calls that nobody waits for are many: their events use up none of the hints.
    unmatched_events: DefaultDirectRateLimiter,
    /// When it is told next that numbers are exhausted, and creations refused since, by application.
    exhausted: Mutex<HashMap<u16, (BootTime, u64)>>,
    /// Apart from the hints, which a flood of other calls uses up.
    alarms: DefaultDirectRateLimiter,
    /// By application.
    ringback: Mutex<HashMap<u16, ringback::Watch>>,
    plan: script::Plan,
    /// Something may be pending for an application that is gone.
    retired: Notify,
}

impl Verify {
    /// Puts the application together. Nothing is pending until [`Verify::recover`] has run.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is a part of the node, made once")]
    pub fn new(
        settings: Settings,
        secret: [u8; 16],
        clock: Clock,
        store: Store,
        recent: Arc<RecentCalls>,
        signing: Signing,
        metrics: Metrics,
        health: Arc<Health>,
    ) -> Self {
        let core = Core {
            notes: RateLimiter::direct(Quota::per_second(NOTES_PER_SECOND)),
            hints: RateLimiter::direct(Quota::per_second(HINTS_PER_SECOND)),
            unmatched_events: RateLimiter::direct(Quota::per_second(HINTS_PER_SECOND)),
            exhausted: Mutex::default(),
            alarms: RateLimiter::direct(Quota::per_second(HINTS_PER_SECOND)),
            ringback: Mutex::default(),
            matcher: Matcher::default(),
            claims: Claims::default(),
            plan: script::Plan::default(),
            changes: Arc::default(),
            running: Arc::default(),
            retired: Notify::new(),
            current: Current::new(settings, &metrics),
            secret,
            clock,
            store,
            recent,
            signing: ArcSwap::from_pointee(signing),
            key_uses: KeyUses::default(),
            unwritten: Mutex::default(),
            metrics,
            health,
        };
        Self { core: Arc::new(core) }
    }

    /// Reads a verification of this application.
    ///
    /// # Errors
    /// `RequestError::Unavailable`.
    pub async fn verification(
        &self,
        application: ApplicationId,
        id: VerificationId,
    ) -> Result<Option<Verification>, RequestError> {
        let core = &self.core;
        let row = core.store.verification(id).await.map_err(|error| idempotency::unavailable(&error))?;
        Ok(row.filter(|row| row.application == core.current.load().settings.application(application).name))
    }

    /// Reads a verification for whoever holds its client token; the row names the application.
    ///
    /// # Errors
    /// `RequestError::Unavailable`.
    pub async fn verification_of_client(&self, id: VerificationId) -> Result<Option<Verification>, RequestError> {
        self.core.store.verification(id).await.map_err(|error| idempotency::unavailable(&error))
    }

    /// The time of day by the node's clock, UTC.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        (self.core.clock.utc)()
    }

    /// Makes other settings ready to be put in force. Places of applications and trunks must mean what they meant
    /// before.
    ///
    /// # Errors
    /// [`TooManyChanges`]: the operator may try again later.
    pub fn prepare_settings(&self, settings: Settings) -> Result<NextSettings, TooManyChanges> {
        self.core.current.prepare(settings, (self.core.clock.boot)(), &self.core.metrics)
    }

    /// Puts other settings in force. What is pending keeps its window, its level and the trunks of its number; for
    /// applications that are gone it is canceled, by [`Verify::run_retirement`].
    pub fn replace_settings(&self, next: NextSettings) {
        self.core.current.replace(next);
        self.core.retired.notify_one();
    }

    /// The numbers that people call, as they are now: for the look at one call.
    #[must_use]
    pub fn own_numbers(&self) -> OwnNumbers {
        OwnNumbers { current: self.core.current.load(), boot: self.core.clock.boot }
    }
}

/// See [`Verify::own_numbers`].
pub struct OwnNumbers {
    current: Guard<Arc<InForce>>,
    boot: fn() -> BootTime,
}

impl OwnNumbers {
    /// Whether a number is one of them.
    #[must_use]
    pub fn has(&self, number: E164) -> bool {
        self.current.is_own(number, self.boot)
    }
}

impl Core {
    fn pair(&self, phone: E164, number: E164) -> PairKey {
        PairKey::new(&self.secret, phone, number)
    }

    fn cool_down(&self, number: E164) -> Duration {
        self.current.load().cool_down(number)
    }
}

#[cfg(test)]
mod tests;
