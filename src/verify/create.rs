//! Beginning a verification: limits, a number for the phone, one transaction, and only then a pair that can match.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::oneshot;
use ulid::Ulid;

use super::claims::{Outcome, Waiter, tell};
use super::dice::dice;
use super::idempotency::{Begun, unavailable};
use super::in_force::InForce;
use super::request::{Answer, CreateError, Idempotency, NewVerification, RequestError};
use super::settings::ApplicationId;
use super::{Core, Verify, script};
use crate::call::assurance::{Reason, Reasons};
use crate::e164::E164;
use crate::matcher::boot_time::BootTime;
use crate::matcher::client_access::ClientAccess;
use crate::matcher::index::EndMet;
use crate::matcher::pair::{PairKey, Pending};
use crate::matcher::phone_key::PhoneKey;
use crate::matcher::verification::{Status, Verification, VerificationId};
use crate::outbox::event::EventId;
use crate::store::{Create, End, StepError};

/// How many of a phone's latest numbers are avoided.
const NUMBERS_REMEMBERED: u32 = 64;

/// Random picks before the numbers are gone through one by one.
const PICKS: usize = 16;

/// A pending verification that ends for the new one: its pair is `Ending` while this exists.
struct Superseded {
    key: PairKey,
    pending: Pending,
}

impl Verify {
    /// Begins a verification. The pair is durable when this returns, and can match from then on. `client` makes what
    /// the answer shows for the end user's browser.
    pub async fn create(
        &self,
        application: ApplicationId,
        wish: NewVerification,
        idempotency: Option<Idempotency>,
        client: impl FnOnce(VerificationId) -> ClientAccess + Send,
    ) -> Result<Answer, CreateError> {
        let core = &self.core;
        if let Some(retry_after) = core.health.retry_after((core.clock.boot)().since(BootTime::default())) {
            return Err(CreateError::Draining { retry_after });
        }
        let current = core.current.get();
        let settings = current.settings.application(application);
        let turn = match core.begin(&settings.name, idempotency).await? {
            Begun::Repeat(answer) => return Ok(answer),
            Begun::Run(turn) => turn,
        };
        let minimum = wish.minimum_assurance.unwrap_or(settings.minimum_assurance);
        if minimum < settings.minimum_assurance {
            return Err(CreateError::AssuranceLowered(settings.minimum_assurance));
        }
        // Asked before the limits, so that a node that is full uses up nobody's.
        if wish.replaces.is_none() {
            core.check_room()?;
        }
        let (minimum, ttl) = script::terms(settings, wish.phone, minimum, wish.ttl)?;
        let limits = current.limits(application).count(wish.phone, wish.client_ip).map_err(|(exceeded, limits)| {
            core.count_limited(&settings.name, exceeded.name);
            CreateError::RateLimited { exceeded, limits }
        })?;
        let used = core.store.numbers_used(&settings.name, wish.phone, NUMBERS_REMEMBERED).await;
        let used = used.map_err(|error| unavailable(&error))?;
        let superseded = match wish.replaces {
            Some(id) => core.supersede(&settings.name, wish.phone, id).await?,
            None => None,
        };
        if superseded.is_none() {
            core.check_room()?;
        }

        // From here on nothing waits: what is taken is settled by the commit, whether or not the client still listens.
        let id = VerificationId(Ulid::generate());
        let current = core.current.get();
        let number = match core.take_number(&current, application, wish.phone, id, &used, superseded.as_ref()) {
            Ok(number) => number,
            Err(error) => {
                core.keep(superseded.as_ref());
                return Err(error);
            }
        };
        let client = client(id);
        let now = (core.clock.utc)();
        let deadline = (core.clock.boot)().plus(ttl);
        let (application, live, generation) = (application.0, settings.live, current.generation.0);
        let pending = Pending { id, deadline, application, live, minimum, number, generation };
        let verification = Verification {
            id,
            application: settings.name.clone(),
            livemode: settings.live,
            status: Status::Pending,
            phone: wish.phone,
            number,
            purpose: wish.purpose,
            consent: wish.consent,
            reference: wish.reference,
            metadata: wish.metadata,
            minimum_assurance: minimum,
            locale: wish.locale,
            client_ip: wish.client_ip.map(|address| address.to_string()),
            client_device_id: wish.client_device_id,
            assurance: None,
            reasons: Reasons::NONE,
            created_at: now,
            expires_at: now + ttl,
            ended_at: None,
            sequence: 0,
            phone_key: Some(PhoneKey(dice().random())),
            api_key: wish.api_key,
        };
        let step = Create {
            idempotency: turn.as_ref().map(|turn| turn.record(&settings.name, 201)),
            event: EventId(Ulid::generate()),
            client: client.clone(),
            replaces: superseded.as_ref().map(|old| End {
                verification: old.pending.id,
                status: Status::Canceled,
                reasons: Reasons::of(Reason::Superseded),
                event: EventId(Ulid::generate()),
                at: now,
                idempotency: None,
            }),
            verification,
        };
        let (done, answer) = oneshot::channel();
        let (keeper, phone) = (Arc::clone(core), wish.phone);
        core.store.create(step, move |result| {
            keeper.created(phone, pending, superseded.as_ref(), &result);
            drop(turn);
            // The client may have gone; the verification stands all the same.
            let _ = done.send(result);
        });
        let verification =
            answer.await.map_err(|_| RequestError::Unavailable)?.map_err(|_| RequestError::Unavailable)?;
        let body = verification.to_json_with(&client);
        Ok(Answer { id, status: 201, body, replayed: false, limits })
    }
}

impl Core {
    /// Whether one more verification may be pending.
    fn check_room(&self) -> Result<(), CreateError> {
        let limit = self.current.load().settings.max_pending;
        if self.matcher.pending_count() < limit { Ok(()) } else { Err(CreateError::PendingFull { limit }) }
    }

    fn count_limited(&self, application: &str, limit: &str) {
        self.metrics.rate_limited.with_label_values(&[application, limit]).inc();
    }

    /// What follows a creation's commit, or its failure.
    fn created(
        &self,
        phone: E164,
        pending: Pending,
        superseded: Option<&Superseded>,
        result: &Result<Verification, StepError>,
    ) {
        let key = self.pair(phone, pending.number);
        if result.is_err() {
            self.matcher.release(key, pending.id);
            self.current.load().limits(ApplicationId(pending.application)).free_place(phone);
            self.keep(superseded);
            return;
        }
        let waiters = match superseded {
            None => self.matcher.activate(key, pending, Vec::new),
            Some(old) => {
                self.current.load().limits(ApplicationId(old.pending.application)).free_place(phone);
                if old.key == key {
                    self.matcher.activate(key, pending, || self.claims.leave(key))
                } else {
                    self.matcher.activate(key, pending, || ());
                    let now = (self.clock.boot)();
                    let until = now.plus(self.cool_down(old.pending.number));
                    let rest = old.pending.rest(Status::Canceled, now, until);
                    self.matcher.settle(old.key, rest, || self.claims.leave(old.key))
                }
            }
        };
        self.heed_retirement(pending.application);
        tell(waiters, Outcome::Durable);
        if let Some(old) = superseded {
            self.changes.tell(old.pending.id);
        }
        self.plan_call(phone, &pending);
    }

    /// Lets a verification that was to be superseded go on.
    fn keep(&self, superseded: Option<&Superseded>) {
        if let Some(old) = superseded {
            let waiters = self.matcher.undo(old.key, old.pending.id, || self.claims.leave(old.key));
            self.heed_retirement(old.pending.application);
            tell(waiters, Outcome::Failed);
        }
    }

    /// Begins to end the verification that `replaces` names. `None` when it has ended by itself.
    async fn supersede(
        &self,
        application: &str,
        phone: E164,
        id: VerificationId,
    ) -> Result<Option<Superseded>, CreateError> {
        loop {
            let row = self.store.verification(id).await.map_err(|error| unavailable(&error))?;
            let old = row
                .filter(|old| old.application == application && old.phone == phone)
                .ok_or(CreateError::ReplacesUnknown)?;
            if old.status != Status::Pending {
                return Ok(None);
            }
            let key = self.pair(phone, old.number);
            match self.begin_end(key, id).await {
                EndMet::Begun(pending) => return Ok(Some(Superseded { key, pending })),
                EndMet::Busy => {}
                EndMet::Gone => return Ok(None),
            }
        }
    }

    /// Begins to end a verification, or waits until the claim or end that has it is over: then the caller looks again.
    pub(super) async fn begin_end(&self, key: PairKey, id: VerificationId) -> EndMet {
        let (over, wait) = oneshot::channel();
        let met = self.matcher.begin_end(key, id, || self.claims.join(key, Waiter::Request(over)));
        if met == EndMet::Busy {
            let _ = wait.await;
        }
        met
    }

    /// Reserves a number for the phone: at random among those it was not lately given, else the one it was given
    /// longest ago.
    fn take_number(
        &self,
        current: &InForce,
        application: ApplicationId,
        phone: E164,
        id: VerificationId,
        used: &[E164],
        superseded: Option<&Superseded>,
    ) -> Result<E164, CreateError> {
        let ranges: Vec<_> = current.settings.numbers.of(application).collect();
        let limits = current.limits(application);
        let total: u64 = ranges.iter().map(|range| u64::from(range.count)).sum();
        if total == 0 {
            return Err(CreateError::NoNumber);
        }
        let now = (self.clock.boot)();
        // The place of a verification that ends for this one is this one's.
        if superseded.is_none() {
            limits.take_place(phone).map_err(|limit| {
                self.count_limited(&current.settings.application(application).name, "pending_per_phone");
                CreateError::TooManyPending { limit, retry_after: self.first_free(&ranges, phone, used, now) }
            })?;
        } else {
            limits.restore_place(phone);
        }
        let nth = |mut place: u64| {
            let range = ranges.iter().find(|range| {
                let here = place < u64::from(range.count);
                if !here {
                    place -= u64::from(range.count);
                }
                here
            });
            range.and_then(|range| range.first.offset(place).ok())
        };
        let take = |number: &E164| self.matcher.reserve(self.pair(phone, *number), id, now);
        let recent: HashSet<E164> = used.iter().copied().collect();
        let mut random = dice();
        let picked = (0..PICKS)
            .filter_map(|_| nth(random.random_range(0..total)))
            .find(|number| !recent.contains(number) && take(number));
        let start = random.random_range(0..total);
        let mine = |number: &&E164| current.settings.numbers.serves(**number, application);
        let number = picked
            .or_else(|| {
                let all = (0..total).filter_map(|step| nth((start + step) % total));
                all.filter(|number| !recent.contains(number)).find(take)
            })
            .or_else(|| used.iter().rev().filter(mine).copied().find(take))
            // What ends for this one leaves its number, if that is still one to be shown.
            .or_else(|| superseded.map(|old| old.pending.number).filter(|number| mine(&number)));
        number.ok_or_else(|| {
            limits.free_place(phone);
            self.note_exhausted(application, total);
            CreateError::PhoneBusy { retry_after: self.first_free(&ranges, phone, used, now) }
        })
    }

    /// When the first of the phone's pairs may be free.
    fn first_free(
        &self,
        ranges: &[&super::settings::NumberRange],
        phone: E164,
        used: &[E164],
        now: BootTime,
    ) -> Duration {
        let of_ranges = ranges.iter().map(|range| range.first);
        let busy =
            of_ranges.chain(used.iter().copied()).map(|number| self.matcher.busy_until(self.pair(phone, number), now));
        busy.filter(|until| *until > now).min().map_or(Duration::from_secs(1), |until| until.since(now))
    }
}
