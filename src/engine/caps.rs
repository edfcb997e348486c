//! How many calls a trunk, and each of its peers, may send: what is above gets 503.

use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::call::trunk::Limits;

/// Most peer addresses whose rate is kept apart; the networks of a trunk may hold more.
const MAX_PEERS: usize = 65_536;

/// The rates of one trunk, each with a second's worth of burst.
pub struct Rates {
    trunk: Option<DefaultDirectRateLimiter>,
    peers: Option<DefaultKeyedRateLimiter<IpAddr>>,
}

impl Rates {
    pub fn new(limits: &Limits) -> Self {
        let quota = |rate| NonZeroU32::new(rate).map(Quota::per_second);
        Self {
            trunk: quota(limits.calls_per_second).map(RateLimiter::direct),
            peers: quota(limits.peer_calls_per_second).map(RateLimiter::keyed),
        }
    }

    /// Whether there is any rate to keep to.
    pub fn any(&self) -> bool {
        self.trunk.is_some() || self.peers.is_some()
    }

    /// Takes a call into account; whether it may come.
    pub fn admit(&self, peer: IpAddr) -> bool {
        // The peer's own first: one that floods must not use up what the others have.
        let peer_may = self.peers.as_ref().is_none_or(|peers| {
            if peers.len() >= MAX_PEERS {
                peers.retain_recent();
            }
            peers.len() < MAX_PEERS && peers.check_key(&peer).is_ok()
        });
        peer_may && self.trunk.as_ref().is_none_or(|trunk| trunk.check().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_floods_leaves_the_trunk_to_the_others() {
        let rates = Rates::new(&Limits { calls_per_second: 30, peer_calls_per_second: 10, ..Limits::default() });
        let (flooder, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let admitted = (0..1000).filter(|_| rates.admit(flooder)).count();
        assert!((10..20).contains(&admitted), "{admitted}");
        assert!((0..5).all(|_| rates.admit(other)));
    }

    #[test]
    fn without_limits_every_call_may_come() {
        let rates = Rates::new(&Limits::default());
        assert!(!rates.any() && (0..1000).all(|_| rates.admit("::1".parse().unwrap())));
    }
}
