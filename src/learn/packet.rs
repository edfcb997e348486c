//! From the link layer to what UDP or TCP carries: Ethernet with VLAN tags, Linux cooked, raw IP, BSD loopback; IPv4
//! (RFC 791) and IPv6 (RFC 8200), put together from their fragments.
//!
//! Owns the fragments that wait for others, a bounded number. Checksums are not looked at: a capture on the sending
//! machine holds packets whose checksum the network card has yet to write.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::defrag::IpDefragPool;
use etherparse::{EtherType, IpNumber, NetSlice, SlicedPacket, TcpSlice, TransportSlice, UdpSlice};

use super::capture::Frame;

/// Fragments among which the others of a packet have to come; a packet holds at most 64 KiB.
const FRAGMENT_WINDOW: u64 = 512;

/// What one packet brought from one address to another.
pub(super) struct Segment<'a> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// When it was captured.
    pub at: Duration,
    pub carried: Carried<'a>,
}

/// What it brought.
pub(super) enum Carried<'a> {
    /// The payload of a UDP datagram.
    Datagram(Cow<'a, [u8]>),
    /// A part of a TCP stream.
    Stream(Part<'a>),
}

/// A part of a TCP stream.
pub(super) struct Part<'a> {
    /// Sequence number of its first byte; of the SYN where it opens the stream.
    pub sequence: u32,
    pub kind: PartKind,
    pub bytes: Cow<'a, [u8]>,
}

/// What a part does to its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartKind {
    /// SYN: a stream begins.
    Opens,
    /// Neither of the others.
    Goes,
    /// FIN: nothing comes behind it.
    Closes,
    /// RST.
    Aborts,
}

/// Why a packet carries nothing to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// The capture does not hold all of it.
    Truncated,
    /// A link layer that is not known, or a broken header.
    Unreadable,
    /// Neither UDP nor TCP.
    Foreign,
    /// A fragment, and others are still to come.
    Fragment,
}

/// Reads packets, keeping fragments.
#[derive(Default)]
pub(super) struct Packets {
    fragments: IpDefragPool<u64>,
    /// Fragments so far.
    count: u64,
}

impl Packets {
    /// Reads one packet.
    pub(super) fn read<'a>(&mut self, frame: &Frame<'a>) -> Result<Segment<'a>, Passed> {
        if !frame.whole {
            return Err(Passed::Truncated);
        }
        let packet = slice(frame.link, frame.data)?;
        let (from, to) = addresses(&packet).ok_or(Passed::Foreign)?;
        if packet.is_ip_payload_fragmented() {
            return self.fragment(&packet, from, to, frame.at);
        }
        let (ports, carried) = match packet.transport {
            Some(TransportSlice::Udp(udp)) => datagram(&udp, Cow::Borrowed(udp.payload())),
            Some(TransportSlice::Tcp(tcp)) => part(&tcp, Cow::Borrowed(tcp.payload())),
            _ => return Err(Passed::Foreign),
        };
        Ok(Segment { from: (from, ports.0).into(), to: (to, ports.1).into(), at: frame.at, carried })
    }

    fn fragment<'a>(
        &mut self,
        packet: &SlicedPacket<'_>,
        from: IpAddr,
        to: IpAddr,
        at: Duration,
    ) -> Result<Segment<'a>, Passed> {
        self.count += 1;
        if self.count.is_multiple_of(FRAGMENT_WINDOW) {
            let oldest = self.count - FRAGMENT_WINDOW;
            self.fragments.retain(|seen| *seen > oldest);
        }
        let whole = self.fragments.process_sliced_packet(packet, self.count, ());
        let whole = whole.map_err(|_| Passed::Unreadable)?.ok_or(Passed::Fragment)?;
        let (ports, carried) = if whole.ip_number == IpNumber::UDP {
            let udp = UdpSlice::from_slice(&whole.payload).map_err(|_| Passed::Unreadable)?;
            datagram(&udp, Cow::Owned(udp.payload().to_vec()))
        } else if whole.ip_number == IpNumber::TCP {
            let tcp = TcpSlice::from_slice(&whole.payload).map_err(|_| Passed::Unreadable)?;
            part(&tcp, Cow::Owned(tcp.payload().to_vec()))
        } else {
            return Err(Passed::Foreign);
        };
        Ok(Segment { from: (from, ports.0).into(), to: (to, ports.1).into(), at, carried })
    }
}

/// Takes off the link layer, by its number at tcpdump.org/linktypes.html.
fn slice(link: u32, data: &[u8]) -> Result<SlicedPacket<'_>, Passed> {
    // The protocol of the Linux cooked headers, and what stands behind them.
    let cooked = |protocol: usize, length: usize| {
        let protocol = data.get(protocol..protocol + 2)?.try_into().ok()?;
        Some((EtherType(u16::from_be_bytes(protocol)), data.get(length..)?))
    };
    let sliced = match link {
        1 => SlicedPacket::from_ethernet(data),
        // Linux cooked, versions 1 and 2.
        113 | 276 => {
            let header = if link == 113 { cooked(14, 16) } else { cooked(0, 20) };
            let (ether_type, rest) = header.ok_or(Passed::Unreadable)?;
            SlicedPacket::from_ether_type(ether_type, rest)
        }
        // Raw IP under the numbers that systems have for it, and IPv4 or IPv6 alone.
        12 | 14 | 101 | 228 | 229 => SlicedPacket::from_ip(data),
        // BSD loopback: an address family, whose number differs from system to system; IP tells its version itself.
        0 | 108 => SlicedPacket::from_ip(data.get(4..).ok_or(Passed::Unreadable)?),
        _ => return Err(Passed::Unreadable),
    };
    sliced.map_err(|_| Passed::Unreadable)
}

fn addresses(packet: &SlicedPacket<'_>) -> Option<(IpAddr, IpAddr)> {
    match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => Some((ip.header().source_addr().into(), ip.header().destination_addr().into())),
        NetSlice::Ipv6(ip) => Some((ip.header().source_addr().into(), ip.header().destination_addr().into())),
        NetSlice::Arp(_) => None,
    }
}

fn datagram<'a>(udp: &UdpSlice<'_>, bytes: Cow<'a, [u8]>) -> ((u16, u16), Carried<'a>) {
    ((udp.source_port(), udp.destination_port()), Carried::Datagram(bytes))
}

fn part<'a>(tcp: &TcpSlice<'_>, bytes: Cow<'a, [u8]>) -> ((u16, u16), Carried<'a>) {
    let kind = if tcp.rst() {
        PartKind::Aborts
    } else if tcp.syn() {
        PartKind::Opens
    } else if tcp.fin() {
        PartKind::Closes
    } else {
        PartKind::Goes
    };
    let ports = (tcp.source_port(), tcp.destination_port());
    (ports, Carried::Stream(Part { sequence: tcp.sequence_number(), kind, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP from 192.0.2.1:5060 to 192.0.2.9:5080 with `SIP` in it.
    const UDP: &[u8] = &[0x13, 0xc4, 0x13, 0xd8, 0, 11, 0, 0, b'S', b'I', b'P'];

    #[test]
    fn every_link_layer_leads_to_the_datagram() {
        let ip = ipv4(0, 17, UDP);
        let ethernet = [&[0; 12][..], &[8, 0], &ip].concat();
        let tagged = [&[0; 12][..], &[0x81, 0, 0, 5, 8, 0], &ip].concat();
        let cooked = [&[0; 14][..], &[8, 0], &ip].concat();
        let cooked_2 = [&[8, 0][..], &[0; 18], &ip].concat();
        let loopback = [&[2, 0, 0, 0][..], &ip].concat();
        for (link, data) in [
            (1, &ethernet),
            (1, &tagged),
            (113, &cooked),
            (276, &cooked_2),
            (101, &ip),
            (228, &ip),
            (0, &loopback),
            (108, &loopback),
        ] {
            let segment = read(&mut Packets::default(), link, data).unwrap();
            assert_eq!((segment.from.to_string(), segment.to.port()), ("192.0.2.1:5060".to_owned(), 5080), "{link}");
            assert_eq!(bytes_of(&segment), b"SIP", "{link}");
        }
    }

    #[test]
    fn ipv6_is_read() {
        let mut ip = vec![0x60, 0, 0, 0, 0, 11, 17, 64];
        ip.extend([0; 15]);
        ip.push(1);
        ip.extend([0; 15]);
        ip.push(2);
        ip.extend_from_slice(UDP);
        let segment = read(&mut Packets::default(), 101, &ip).unwrap();
        assert_eq!((segment.from.to_string(), bytes_of(&segment)), ("[::1]:5060".to_owned(), &b"SIP"[..]));
    }

    #[test]
    fn fragments_are_put_together_in_any_order() {
        let (first, last) = (ipv4(0x2000, 17, &UDP[..8]), ipv4(1, 17, &UDP[8..]));
        for order in [[&first, &last], [&last, &first]] {
            let mut packets = Packets::default();
            assert_eq!(read(&mut packets, 101, order[0]).err(), Some(Passed::Fragment));
            let segment = read(&mut packets, 101, order[1]).unwrap();
            assert_eq!((segment.from.port(), bytes_of(&segment)), (5060, &b"SIP"[..]));
        }
    }

    #[test]
    fn a_stream_keeps_its_sequence_number_and_kind() {
        let tcp = [&[0x13, 0xc4, 0x13, 0xd8, 0, 0, 1, 2, 0, 0, 0, 0, 0x50, 0x11, 0, 0, 0, 0, 0, 0][..], b"x"].concat();
        let ip = ipv4(0, 6, &tcp);
        let segment = read(&mut Packets::default(), 101, &ip).unwrap();
        let Carried::Stream(part) = segment.carried else { panic!("no stream") };
        assert_eq!((part.sequence, part.kind, &part.bytes[..]), (0x0102, PartKind::Closes, &b"x"[..]));
    }

    #[test]
    fn what_carries_nothing_is_told_apart() {
        let ip = ipv4(0, 17, UDP);
        let cut = Frame { link: 101, at: Duration::ZERO, data: &ip, whole: false };
        assert_eq!(Packets::default().read(&cut).err(), Some(Passed::Truncated));
        for (link, data, passed) in [
            (101, &ipv4(0, 1, &[8, 0, 0, 0, 0, 0, 0, 0])[..], Passed::Foreign),
            (1, &[&[0; 12][..], &[0x88, 0xcc], &[0; 46]].concat(), Passed::Foreign),
            (147, &ip, Passed::Unreadable),
            (113, &[0; 7], Passed::Unreadable),
            (101, &ip[..15], Passed::Unreadable),
            (101, &[], Passed::Unreadable),
        ] {
            assert_eq!(read(&mut Packets::default(), link, data).err(), Some(passed), "{link} {}", data.len());
        }
    }

    fn read<'a>(packets: &mut Packets, link: u32, data: &'a [u8]) -> Result<Segment<'a>, Passed> {
        packets.read(&Frame { link, at: Duration::ZERO, data, whole: true })
    }

    fn bytes_of<'s>(segment: &'s Segment<'_>) -> &'s [u8] {
        match &segment.carried {
            Carried::Datagram(bytes) => bytes,
            Carried::Stream(part) => &part.bytes,
        }
    }

    fn ipv4(fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let [high, low] = fragment.to_be_bytes();
        let mut ip = vec![0x45, 0, length[0], length[1], 0, 7, high, low, 64, protocol, 0, 0];
        ip.extend([192, 0, 2, 1, 192, 0, 2, 9]);
        ip.extend_from_slice(payload);
        ip
    }
}
