//! Addresses and control messages in the form in which Linux reads and writes them (ip(7), ipv6(7), cmsg(3)).
//!
//! Everything is read and written byte by byte at fixed places, so that no cast is needed and a short answer of the
//! kernel reads as absent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Which of the two address families a socket was created for. An IPv6 socket speaks IPv4 in mapped addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// A `sockaddr_in` or `sockaddr_in6`: 28 bytes hold either.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Name([u8; 28]);

impl Name {
    pub(super) const EMPTY: Self = Self([0; 28]);
    pub(super) const CAPACITY: libc::socklen_t = 28;
    const V4_LENGTH: libc::socklen_t = 16;
    const V4_FAMILY: [u8; 2] = 2u16.to_ne_bytes();
    const V6_FAMILY: [u8; 2] = 10u16.to_ne_bytes();

    /// The address for a socket of `family`, with its length; `None` where an IPv4 socket cannot reach it.
    pub(super) fn encode(address: SocketAddr, family: Family) -> Option<(Self, libc::socklen_t)> {
        let mut name = [0; 28];
        name[2..4].copy_from_slice(&address.port().to_be_bytes());
        match (family, address) {
            (Family::V4, SocketAddr::V4(address)) => {
                name[..2].copy_from_slice(&Self::V4_FAMILY);
                name[4..8].copy_from_slice(&address.ip().octets());
                Some((Self(name), Self::V4_LENGTH))
            }
            (Family::V4, SocketAddr::V6(_)) => None,
            (Family::V6, _) => {
                name[..2].copy_from_slice(&Self::V6_FAMILY);
                name[8..24].copy_from_slice(&mapped(address.ip()).octets());
                if let SocketAddr::V6(address) = address {
                    name[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                }
                Some((Self(name), Self::CAPACITY))
            }
        }
    }

    /// The address that the kernel wrote, mapped IPv4 in its plain form; `None` for anything else.
    pub(super) fn decode(&self, length: libc::socklen_t) -> Option<SocketAddr> {
        let name = &self.0;
        let port = u16::from_be_bytes(bytes(name, 2)?);
        if bytes(name, 0)? == Self::V4_FAMILY && length >= Self::V4_LENGTH {
            let ip = Ipv4Addr::from(bytes::<4>(name, 4)?);
            return Some(SocketAddr::from((ip, port)));
        }
        if bytes(name, 0)? == Self::V6_FAMILY && length >= Self::CAPACITY {
            let ip = Ipv6Addr::from(bytes::<16>(name, 8)?);
            if let Some(ip) = ip.to_ipv4_mapped() {
                return Some(SocketAddr::from((ip, port)));
            }
            return Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, u32::from_ne_bytes(bytes(name, 24)?))));
        }
        None
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.0.as_mut_ptr().cast()
    }
}

/// Control messages of one datagram.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control([u8; Self::CAPACITY]);

impl Control {
    /// Room for an address hit, a counter and a segment length, the longest that we ask for.
    pub(super) const CAPACITY: usize = 96;
    pub(super) const EMPTY: Self = Self([0; Self::CAPACITY]);
    /// The kernel's `cmsghdr`: a `size_t` and two ints.
    const HEADER: usize = size_of::<usize>() + 8;

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.0.as_mut_ptr().cast()
    }

    /// Adds one message behind the `used` bytes; gives the bytes used now.
    pub(super) fn add(&mut self, used: usize, level: i32, kind: i32, data: &[u8]) -> usize {
        let length = Self::HEADER + data.len();
        let end = used + aligned(length);
        let Some(place) = self.0.get_mut(used..end) else {
            return used;
        };
        let (size, rest) = place.split_at_mut(size_of::<usize>());
        size.copy_from_slice(&length.to_ne_bytes());
        rest[..4].copy_from_slice(&level.to_ne_bytes());
        rest[4..8].copy_from_slice(&kind.to_ne_bytes());
        rest[8..8 + data.len()].copy_from_slice(data);
        end
    }

    /// Adds the source address of a datagram to send (`IP_PKTINFO`, `IPV6_PKTINFO`). The interface stays open: routing
    /// picks it, as it does for a bound address.
    pub(super) fn add_source(&mut self, used: usize, source: IpAddr, family: Family) -> usize {
        match (family, source) {
            (Family::V4, IpAddr::V4(ip)) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                self.add(used, libc::IPPROTO_IP, libc::IP_PKTINFO, &info)
            }
            (Family::V4, IpAddr::V6(_)) => used,
            (Family::V6, _) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&mapped(source).octets());
                self.add(used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info)
            }
        }
    }

    /// What the kernel told in the first `length` bytes.
    pub(super) fn read(&self, length: usize) -> Told {
        let mut told = Told::default();
        let mut rest = self.0.get(..length).unwrap_or(&self.0);
        while let Some(size) = bytes(rest, 0).map(usize::from_ne_bytes) {
            let Some(data) = rest.get(Self::HEADER..size) else {
                break;
            };
            let level = bytes(rest, size_of::<usize>()).map(i32::from_ne_bytes);
            let kind = bytes(rest, size_of::<usize>() + 4).map(i32::from_ne_bytes);
            match (level, kind) {
                // `ipi_spec_dst`: the address hit, and one of our own where the packet came by broadcast.
                (Some(libc::IPPROTO_IP), Some(libc::IP_PKTINFO)) => {
                    told.hit = bytes::<4>(data, 4).map(|ip| IpAddr::from(Ipv4Addr::from(ip)));
                }
                (Some(libc::IPPROTO_IPV6), Some(libc::IPV6_PKTINFO)) => {
                    told.hit = bytes::<16>(data, 0).map(|ip| IpAddr::from(Ipv6Addr::from(ip)).to_canonical());
                }
                (Some(libc::SOL_SOCKET), Some(libc::SO_RXQ_OVFL)) => {
                    told.drops = bytes(data, 0).map(u32::from_ne_bytes);
                }
                (Some(libc::SOL_UDP), Some(libc::UDP_GRO)) => {
                    let length = bytes(data, 0).map(i32::from_ne_bytes).unwrap_or_default();
                    told.segment = usize::try_from(length).ok().filter(|&length| length > 0);
                }
                _ => {}
            }
            rest = rest.get(aligned(size)..).unwrap_or(&[]);
        }
        told
    }
}

/// What came with a datagram.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The address of ours that it was sent to.
    pub(super) hit: Option<IpAddr>,
    /// Datagrams that the socket has lost since it exists, when there are any.
    pub(super) drops: Option<u32>,
    /// Length of each datagram of a run but the last, which may be shorter.
    pub(super) segment: Option<usize>,
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(size_of::<usize>())
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_survive_the_way_through_the_kernel_form() {
        let cases = ["127.0.0.2:5060", "[::1]:5060", "[fe80::1%3]:65535", "[2001:db8::7]:1"];
        for address in cases.map(|text| text.parse::<SocketAddr>().unwrap()) {
            let (name, length) = Name::encode(address, Family::V6).unwrap();
            assert_eq!(name.decode(length), Some(address));
        }
        let v4 = "192.0.2.9:5062".parse().unwrap();
        let (name, length) = Name::encode(v4, Family::V4).unwrap();
        assert_eq!(name.decode(length), Some(v4));
    }

    #[test]
    fn an_ipv4_socket_cannot_name_an_ipv6_peer() {
        assert!(Name::encode("[::1]:5060".parse().unwrap(), Family::V4).is_none());
    }

    #[test]
    fn a_short_address_is_absent() {
        assert_eq!(Name::EMPTY.decode(0), None);
        let (name, _) = Name::encode("[::1]:5060".parse().unwrap(), Family::V6).unwrap();
        assert_eq!(name.decode(16), None);
    }

    #[test]
    fn address_and_counter_are_read_from_one_control_block() {
        let mut control = Control::EMPTY;
        let used = control.add_source(0, "127.0.0.2".parse().unwrap(), Family::V6);
        let used = control.add(used, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &7u32.to_ne_bytes());
        let told = control.read(used);
        assert_eq!(told, Told { hit: Some("127.0.0.2".parse().unwrap()), drops: Some(7), segment: None });
    }

    proptest! {
        #[test]
        fn any_control_block_is_read_without_panic(
            block in proptest::array::uniform32(any::<u8>()), length in 0usize..200
        ) {
            let mut control = Control::EMPTY;
            control.0[..32].copy_from_slice(&block);
            control.read(length);
            // A plausible length field leads further into the block than a random one does.
            control.0[..size_of::<usize>()].copy_from_slice(&(length % 100).to_ne_bytes());
            control.read(length);
        }
    }
}
