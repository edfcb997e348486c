//! How many connections each address has, so that one cannot take all places.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts connections by address. It holds at most one entry for each connection that is open.
#[derive(Debug)]
pub(super) struct Crowd {
    cap: usize,
    present: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place in the crowd, left when dropped.
#[derive(Debug)]
pub(super) struct Guest {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Crowd {
    pub(super) fn new(cap: usize) -> Arc<Self> {
        Arc::new(Self { cap, present: Mutex::default() })
    }

    /// Takes a place; `None` where the address has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Guest> {
        let address = one_of_many(address);
        let mut present = self.present.lock();
        let count = present.entry(address).or_insert(0);
        if *count >= self.cap {
            return None;
        }
        *count += 1;
        Some(Guest { crowd: Arc::clone(self), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut present = self.crowd.present.lock();
        if let Some(count) = present.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                present.remove(&self.address);
            }
        }
    }
}

/// Whoever has one IPv6 address has the whole /64 around it.
fn one_of_many(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let crowd = Crowd::new(2);
        let enter = |address: &str| crowd.enter(address.parse().unwrap());
        let first = enter("2001:db8::1").unwrap();
        let second = enter("2001:db8::2").unwrap();
        assert!(enter("2001:db8::3").is_none() && enter("2001:db8:0:1::1").is_some() && enter("192.0.2.1").is_some());
        drop(first);
        let third = enter("2001:db8::3");
        assert!(third.is_some() && enter("2001:db8::4").is_none());
        drop((third, second));
        assert!(crowd.present.lock().is_empty());
    }
}
