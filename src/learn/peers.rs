//! The `peers` of a trunk: addresses, and neighbours joined to the smallest network that holds them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Fewest neighbours that are joined.
const NEIGHBOURS: usize = 3;
/// Bits in which neighbours may differ: a /28, or a /124.
const BITS: u32 = 4;

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its first address.
    pub address: IpAddr,
    /// Bits of its prefix.
    pub length: u32,
    /// The sources that it stands for.
    pub sources: Vec<IpAddr>,
}

/// The networks of `own` sources. Neighbours are joined only where none of the `others`, the sources of other trunks,
/// lies between them, so that no two trunks have the same network.
pub(super) fn of(own: &BTreeSet<IpAddr>, others: &BTreeSet<IpAddr>) -> Vec<Peer> {
    let mut peers = Vec::new();
    let mut rest: Vec<IpAddr> = own.iter().copied().collect();
    while let Some(first) = rest.first().copied() {
        let near: Vec<IpAddr> = rest.iter().copied().filter(|address| bits_apart(first, *address) <= BITS).collect();
        rest.retain(|address| !near.contains(address));
        let free = near.iter().map(|address| bits_apart(first, *address)).max().unwrap_or(0);
        let stranger = others.iter().any(|address| bits_apart(first, *address) <= free);
        if near.len() >= NEIGHBOURS && !stranger {
            peers.push(Peer { address: network(first, free), length: width(first) - free, sources: near });
        } else {
            let alone = |address| Peer { address, length: width(address), sources: vec![address] };
            peers.extend(near.into_iter().map(alone));
        }
    }
    peers
}

/// Whether packets from this address can only have come from within: private, shared, link-local or loopback.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let shared = first == 100 && (64..128).contains(&second);
            address.is_private() || address.is_loopback() || address.is_link_local() || shared
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

const fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// How many of the last bits a network needs free to hold both; more than all for two families.
fn bits_apart(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => 32 - (u32::from(one) ^ u32::from(other)).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => 128 - (u128::from(one) ^ u128::from(other)).leading_zeros(),
        _ => u32::MAX,
    }
}

/// `address` with its last `free` bits cleared.
fn network(address: IpAddr, free: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) >> free << free).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> free << free).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(own: &[&str], others: &[&str]) -> Vec<String> {
        let set = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<IpAddr>>();
        of(&set(own), &set(others)).iter().map(|peer| format!("{}/{}", peer.address, peer.length)).collect()
    }

    #[test]
    fn three_neighbours_become_their_smallest_network() {
        assert_eq!(joined(&["192.0.2.17", "192.0.2.18", "192.0.2.19"], &[]), ["192.0.2.16/30"]);
        assert_eq!(
            joined(&["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1"], &[]),
            ["192.0.2.1/32", "2001:db8::/126"]
        );
    }

    #[test]
    fn fewer_or_distant_sources_stay_alone() {
        assert_eq!(joined(&["192.0.2.1", "192.0.2.2"], &[]), ["192.0.2.1/32", "192.0.2.2/32"]);
        assert_eq!(joined(&["192.0.2.1", "192.0.2.33", "192.0.2.65"], &[]).len(), 3);
    }

    #[test]
    fn a_stranger_between_them_keeps_neighbours_apart() {
        let own = ["192.0.2.16", "192.0.2.18", "192.0.2.20"];
        assert_eq!(joined(&own, &["192.0.2.17"]).len(), 3);
        assert_eq!(joined(&own, &["192.0.2.40"]), ["192.0.2.16/29"]);
    }

    #[test]
    fn private_addresses_are_known() {
        for (address, private) in [("10.1.2.3", true), ("100.64.0.1", true), ("fd00::1", true), ("192.0.2.1", false)] {
            assert_eq!(is_private(address.parse().unwrap()), private, "{address}");
        }
    }
}
