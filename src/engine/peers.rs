//! Who may send calls: the trunk of a source address.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::call::event::TrunkId;

/// The networks of all trunks. A look-up costs a binary search for each prefix length in use.
#[derive(Debug, Default)]
pub struct Peers {
    v4: Vec<Networks>,
    v6: Vec<Networks>,
}

/// The networks of one prefix length, the longest first.
#[derive(Debug)]
struct Networks {
    mask: u128,
    /// By their address.
    sorted: Vec<(u128, TrunkId)>,
}

impl Peers {
    /// Takes networks of which no two are alike.
    #[must_use]
    pub fn new(networks: &[(IpNet, TrunkId)]) -> Self {
        let mut peers = Self::default();
        for (network, trunk) in networks {
            let mask = bits(network.netmask());
            let of_family = if network.addr().is_ipv4() { &mut peers.v4 } else { &mut peers.v6 };
            let place = of_family.iter().position(|known| known.mask == mask).unwrap_or_else(|| {
                of_family.push(Networks { mask, sorted: Vec::new() });
                of_family.len() - 1
            });
            of_family[place].sorted.push((bits(network.network()), *trunk));
        }
        for of_family in [&mut peers.v4, &mut peers.v6] {
            of_family.sort_by_key(|networks| std::cmp::Reverse(networks.mask));
            for networks in of_family {
                networks.sorted.sort_by_key(|(network, _)| *network);
            }
        }
        peers
    }

    /// The trunk whose longest prefix holds `address`; `None` for a stranger.
    #[must_use]
    pub fn trunk(&self, address: IpAddr) -> Option<TrunkId> {
        let address = address.to_canonical();
        let of_family = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let bits = bits(address);
        of_family.iter().find_map(|Networks { mask, sorted }| {
            let place = sorted.binary_search_by_key(&(bits & mask), |(network, _)| *network).ok()?;
            Some(sorted[place].1)
        })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_names_the_trunk_and_strangers_have_none() {
        let network = |text: &str, trunk| (text.parse().unwrap(), TrunkId(trunk));
        let peers = Peers::new(&[
            network("10.0.0.0/8", 0),
            network("10.1.2.3/32", 1),
            network("2001:db8::/32", 2),
            network("10.1.0.0/16", 3),
        ]);
        let trunk = |address: &str| peers.trunk(address.parse().unwrap()).map(|id| id.0);
        assert_eq!(trunk("10.9.9.9"), Some(0));
        assert_eq!(trunk("10.1.2.3"), Some(1));
        assert_eq!(trunk("10.1.2.4"), Some(3));
        assert_eq!(trunk("::ffff:10.1.2.3"), Some(1));
        assert_eq!(trunk("2001:db8::1"), Some(2));
        assert_eq!(trunk("192.0.2.1"), None);
        assert_eq!(trunk("::1"), None);
    }
}
