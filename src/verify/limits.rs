//! How many verifications may be begun: by phone, by the user's address, in all, and pending at once.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::request::LimitState;
use super::settings::{Limits, Rate};
use crate::e164::E164;

/// Most phones or addresses that one limit remembers. Above it new ones are refused, for what is forgotten is not
/// limited.
const MAX_KEYS: usize = 1_000_000;

type Keyed<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock, StateInformationMiddleware>;
type Direct = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// The limits of one application.
pub struct ApplicationLimits {
    per_phone: Option<(Rate, Keyed<E164>)>,
    per_client: Option<(Rate, Keyed<IpAddr>)>,
    per_second: Option<(Rate, Direct)>,
    pending_per_phone: u32,
    pending: Arc<DashMap<E164, u32>>,
}

impl ApplicationLimits {
    /// Limits that nothing has counted against yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self::counting(limits, Arc::default())
    }

    /// Other limits for the same application: rates begin anew, pending verifications go on to count.
    #[must_use]
    pub fn succeeded_by(&self, limits: &Limits) -> Self {
        Self::counting(limits, Arc::clone(&self.pending))
    }

    fn counting(limits: &Limits, pending: Arc<DashMap<E164, u32>>) -> Self {
        let keyed = |rate: Rate| quota(rate).map(|quota| (rate, quota));
        let second = limits.creates_per_second.map(|count| Rate { count, per: Duration::from_secs(1) });
        Self {
            per_phone: limits
                .creates_per_phone
                .and_then(keyed)
                .map(|(rate, quota)| (rate, RateLimiter::dashmap(quota).with_middleware())),
            per_client: limits
                .creates_per_client_ip
                .and_then(keyed)
                .map(|(rate, quota)| (rate, RateLimiter::dashmap(quota).with_middleware())),
            per_second: second
                .and_then(keyed)
                .map(|(rate, quota)| (rate, RateLimiter::direct(quota).with_middleware())),
            pending_per_phone: limits.pending_per_phone,
            pending,
        }
    }

    /// Counts a creation.
    ///
    /// # Errors
    /// The limit that is used up, and all that were looked at until then.
    pub fn count(&self, phone: E164, client: Option<IpAddr>) -> Result<Vec<LimitState>, (LimitState, Vec<LimitState>)> {
        let mut seen = Vec::with_capacity(3);
        if let Some((rate, limiter)) = &self.per_phone {
            look(&mut seen, keyed("creates_per_phone", *rate, limiter, &phone.subscriber()))?;
        }
        if let (Some((rate, limiter)), Some(client)) = (&self.per_client, client) {
            look(&mut seen, keyed("creates_per_client_ip", *rate, limiter, &network(client)))?;
        }
        if let Some((rate, limiter)) = &self.per_second {
            let answer = limiter.check().map(|state| state.remaining_burst_capacity());
            let answer = answer.map_err(|until| until.wait_time_from(DefaultClock::default().now()));
            look(&mut seen, state("creates_per_second", *rate, answer))?;
        }
        Ok(seen)
    }

    /// Takes one of the places that a phone has for pending verifications.
    ///
    /// # Errors
    /// The number of places, when all are taken.
    pub fn take_place(&self, phone: E164) -> Result<(), u32> {
        let mut places = self.pending.entry(phone.subscriber()).or_insert(0);
        if *places >= self.pending_per_phone {
            return Err(self.pending_per_phone);
        }
        *places += 1;
        Ok(())
    }

    /// Takes a place for a verification that exists already.
    pub fn restore_place(&self, phone: E164) {
        *self.pending.entry(phone.subscriber()).or_insert(0) += 1;
    }

    /// Gives a place back.
    pub fn free_place(&self, phone: E164) {
        if let Entry::Occupied(mut places) = self.pending.entry(phone.subscriber()) {
            *places.get_mut() -= 1;
            if *places.get() == 0 {
                places.remove();
            }
        }
    }

    /// Forgets the phones and addresses that have their whole quota back.
    pub fn tidy(&self) {
        if let Some((_, limiter)) = &self.per_phone {
            limiter.retain_recent();
        }
        if let Some((_, limiter)) = &self.per_client {
            limiter.retain_recent();
        }
    }
}

fn quota(rate: Rate) -> Option<Quota> {
    let count = NonZeroU32::new(rate.count)?;
    Some(Quota::with_period(rate.per / rate.count)?.allow_burst(count))
}

/// A user's network: an IPv6 host has a /64 of addresses to itself.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        other @ IpAddr::V4(_) => other,
    }
}

fn keyed<K: Hash + Eq + Clone>(
    name: &'static str,
    rate: Rate,
    limiter: &Keyed<K>,
    key: &K,
) -> Result<LimitState, LimitState> {
    if limiter.len() >= MAX_KEYS {
        limiter.retain_recent();
        if limiter.len() >= MAX_KEYS {
            return state(name, rate, Err(rate.per));
        }
    }
    let answer = limiter.check_key(key).map(|state| state.remaining_burst_capacity());
    state(name, rate, answer.map_err(|until| until.wait_time_from(DefaultClock::default().now())))
}

fn state(name: &'static str, rate: Rate, answer: Result<u32, Duration>) -> Result<LimitState, LimitState> {
    let (remaining, reset) = match answer {
        Ok(remaining) => (remaining, if remaining == 0 { rate.per / rate.count } else { Duration::ZERO }),
        Err(wait) => (0, wait),
    };
    let state = LimitState { name, quota: rate.count, window: rate.per, remaining, reset };
    if answer.is_ok() { Ok(state) } else { Err(state) }
}

fn look(
    seen: &mut Vec<LimitState>,
    answer: Result<LimitState, LimitState>,
) -> Result<(), (LimitState, Vec<LimitState>)> {
    match answer {
        Ok(state) => {
            seen.push(state);
            Ok(())
        }
        Err(state) => {
            seen.push(state.clone());
            Err((state, std::mem::take(seen)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ApplicationLimits {
        ApplicationLimits::new(&Limits {
            creates_per_phone: Some(Rate { count: 2, per: Duration::from_mins(10) }),
            creates_per_client_ip: Some(Rate { count: 3, per: Duration::from_mins(10) }),
            creates_per_second: None,
            pending_per_phone: 2,
        })
    }

    fn phone(last: u64) -> E164 {
        E164::from_u64(966_500_000_100 + last).unwrap()
    }

    #[test]
    fn a_phone_has_its_burst_and_then_waits_for_a_share_of_the_window() {
        let limits = limits();
        assert_eq!(limits.count(phone(1), None).unwrap()[0].remaining, 1);
        assert_eq!(limits.count(phone(1), None).unwrap()[0].remaining, 0);
        let (exceeded, _) = limits.count(phone(1), None).unwrap_err();
        assert_eq!((exceeded.name, exceeded.remaining), ("creates_per_phone", 0));
        assert!(exceeded.reset > Duration::from_secs(290) && exceeded.reset <= Duration::from_mins(5));
        assert!(limits.count(phone(2), None).is_ok(), "another phone is not touched");
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let limits = limits();
        for (host, expected) in [(1u64, true), (2, true), (3, true), (4, false)] {
            let client = format!("2001:db8:0:1::{host}").parse().unwrap();
            assert_eq!(limits.count(phone(host), Some(client)).is_ok(), expected, "{client}");
        }
        assert!(limits.count(phone(9), Some("2001:db8:0:2::1".parse().unwrap())).is_ok());
    }

    #[test]
    fn places_come_back() {
        let limits = limits();
        assert_eq!(limits.take_place(phone(1)), Ok(()));
        assert_eq!(limits.take_place(phone(1)), Ok(()));
        assert_eq!(limits.take_place(phone(1)), Err(2));
        limits.free_place(phone(1));
        assert_eq!(limits.take_place(phone(1)), Ok(()));
        limits.free_place(phone(1));
        limits.free_place(phone(1));
        assert!(limits.pending.is_empty(), "phones without a place taken are forgotten");
    }
}
