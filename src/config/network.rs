//! Addresses and networks: `192.0.2.1`, `192.0.2.0/24`, and the same of IPv6.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::fault::{Fault, Quoted};
use super::section::{Section, Word};

/// Reads an address or a network without host bits; tells what is neither.
pub(super) fn network(section: &Section<'_>, word: &Word<'_>) -> Option<IpNet> {
    let text = Quoted::new(word.text);
    let parsed = word.text.parse::<IpNet>().or_else(|_| word.text.parse::<IpAddr>().map(IpNet::from));
    let fault = match parsed {
        Err(_) => Fault::Peer { text },
        Ok(IpNet::V6(network)) if is_mapped(network) => Fault::MappedPeer { text, ipv4: unmapped(network) },
        Ok(network) if network.trunc() != network => {
            Fault::HostBits { text, network: network.trunc(), host: IpNet::from(network.addr()) }
        }
        Ok(network) => return Some(network),
    };
    section.tell(&word.span, fault);
    None
}

/// Whether all of `network` is in `::ffff:0:0/96`: a datagram from there is known by its IPv4 address.
fn is_mapped(network: Ipv6Net) -> bool {
    network.prefix_len() >= 96 && network.addr().to_ipv4_mapped().is_some()
}

fn unmapped(network: Ipv6Net) -> Option<IpNet> {
    let ipv4 = Ipv4Net::new(network.addr().to_ipv4_mapped()?, network.prefix_len().checked_sub(96)?).ok()?;
    Some(IpNet::V4(ipv4.trunc()))
}
