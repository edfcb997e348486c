//! Who may send calls: the trunk of a source address.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::call::event::TrunkId;

/// The networks of all trunks. A look-up costs a hash for each prefix length in use, however many networks there are.
#[derive(Debug, Default)]
pub struct Peers {
    /// Longest prefix first.
    by_length: Vec<(u8, HashMap<IpAddr, TrunkId>)>,
}

impl Peers {
    /// Takes networks of which no two are alike.
    #[must_use]
    pub fn new(networks: &[(IpNet, TrunkId)]) -> Self {
        let mut by_length: Vec<(u8, HashMap<IpAddr, TrunkId>)> = Vec::new();
        for (network, trunk) in networks {
            let length = network.prefix_len();
            let place = by_length.iter().position(|(known, _)| *known == length).unwrap_or_else(|| {
                by_length.push((length, HashMap::new()));
                by_length.len() - 1
            });
            by_length[place].1.insert(network.network(), *trunk);
        }
        by_length.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        Self { by_length }
    }

    /// The trunk whose longest prefix holds `address`; `None` for a stranger.
    #[must_use]
    pub fn trunk(&self, address: IpAddr) -> Option<TrunkId> {
        let address = address.to_canonical();
        self.by_length.iter().find_map(|(length, networks)| {
            let network = IpNet::new(address, *length).ok()?.network();
            networks.get(&network).copied()
        })
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
