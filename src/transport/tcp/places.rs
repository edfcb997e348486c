//! Who gets a connection: caps for a listener and for each of its peers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Settings;

/// The connections of one listener, counted. Clones share the count.
#[derive(Debug, Clone)]
pub struct Places {
    total: usize,
    per_peer: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub struct Place {
    peer: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    /// As many as `settings` allows.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self { total: settings.connections, per_peer: settings.connections_per_peer, taken: Arc::default() }
    }

    /// A place for a connection from `peer`; `None` where it or the listener has as many as there may be.
    #[must_use]
    pub fn take(&self, peer: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock();
        if taken.total >= self.total || taken.by_peer.get(&peer).is_some_and(|count| *count >= self.per_peer) {
            return None;
        }
        taken.total += 1;
        *taken.by_peer.entry(peer).or_default() += 1;
        Some(Place { peer, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.total -= 1;
        if let Some(count) = taken.by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn places_are_given_back_and_leave_nothing_behind() {
        let time = Duration::from_secs(1);
        let places = Places::new(&Settings { connections: 3, connections_per_peer: 2, idle: time, message: time });
        let [one, other]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let first = places.take(one).unwrap();
        let second = places.take(one).unwrap();
        assert!(places.take(one).is_none(), "a peer's cap");
        let third = places.take(other).unwrap();
        assert!(places.take(other).is_none(), "the listener's cap");
        drop(first);
        assert!(places.take(other).is_some());
        drop((second, third));
        let taken = places.taken.lock();
        assert!(taken.total == 0 && taken.by_peer.is_empty(), "{taken:?}");
    }
}
