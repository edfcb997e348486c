//! A socket filter that lets only known peers' datagrams into the receive buffer (`SO_ATTACH_FILTER`, socket(7)).
//!
//! A flood from strangers then costs the kernel a few instructions a datagram and the node nothing: neither room in its
//! buffer nor a system call. The kernel counts what it drops so among the socket's drops. Owns the classic-BPF program
//! (linux/filter.h) and its attaching; who a peer is, its caller knows, and looks again at what comes through.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::socket::set_raw_option;

/// Most steps of a program (`BPF_MAXINSNS`).
const MAX_STEPS: usize = 4_096;
/// Where the IP header begins, whatever the filter's own offset 0 is (`SKF_NET_OFF`).
const NETWORK: u32 = (-0x10_0000_i32).cast_unsigned();
/// The whole datagram.
const ACCEPT: u32 = u32::MAX;

/// A socket whose filter can be replaced while another thread reads it.
#[derive(Debug)]
pub struct PeerFilter(OwnedFd);

impl PeerFilter {
    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Lets through what comes from these networks alone, from the next datagram on. Whether the filter is in place:
    /// with too many networks for one program there is none, and everything comes through.
    ///
    /// # Errors
    /// The kernel's refusal, for want of `net.core.optmem_max` mostly; then there is no filter.
    pub fn admit(&self, peers: &[IpNet]) -> io::Result<bool> {
        let Some(mut steps) = program(peers) else {
            self.remove();
            return Ok(false);
        };
        let length = u16::try_from(steps.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len: length, filter: steps.as_mut_ptr() };
        let attached = set_raw_option(self.0.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program);
        if attached.is_err() {
            // What was in place would keep new peers out.
            self.remove();
        }
        attached.map(|()| true)
    }

    /// Everything comes through from now on. Taking away what is not there is no fault (ENOENT).
    fn remove(&self) {
        let nothing = 0;
        let _ = set_raw_option(self.0.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &nothing);
    }
}

/// The program for these networks; `None` where it would be too long.
fn program(peers: &[IpNet]) -> Option<Vec<libc::sock_filter>> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for peer in IpNet::aggregate(&peers.to_vec()) {
        match peer {
            IpNet::V4(net) => v4.push(net),
            IpNet::V6(net) => v6.push(net),
        }
    }
    let v4 = v4_steps(&v4);
    let v6 = v6_steps(&v6);
    let skip = u32::try_from(v4.len()).ok()?;
    let mut steps = vec![
        // The version stands in the upper half of the header's first byte.
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, NETWORK, 0, 0),
        step(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 4, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 4, 1, 0),
        step(libc::BPF_JMP | libc::BPF_JA, skip, 0, 0),
    ];
    steps.extend(v4);
    steps.extend(v6);
    (steps.len() <= MAX_STEPS).then_some(steps)
}

/// Steps that end with an answer: the source address is compared network by network.
fn v4_steps(nets: &[Ipv4Net]) -> Vec<libc::sock_filter> {
    let mut steps = Vec::new();
    for net in nets {
        steps.push(word(12));
        compare(&mut steps, net.network().to_bits(), net.netmask().to_bits(), 2);
        steps.push(answer(ACCEPT));
    }
    steps.push(answer(0));
    steps
}

fn v6_steps(nets: &[Ipv6Net]) -> Vec<libc::sock_filter> {
    let mut steps = Vec::new();
    for net in nets {
        let words = |address: std::net::Ipv6Addr| -> [u32; 4] {
            let octets = address.octets();
            std::array::from_fn(|index| {
                let at = index * 4;
                u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
            })
        };
        let (network, mask) = (words(net.network()), words(net.netmask()));
        let compared: Vec<usize> = (0..4).filter(|index| mask[*index] != 0).collect();
        // What is left of this network where a word differs: three steps for each word behind it, and its answer.
        for (place, index) in compared.iter().enumerate() {
            let left = u8::try_from((compared.len() - 1 - place) * 3 + 2).unwrap_or(u8::MAX);
            steps.push(word(8 + 4 * u32::try_from(*index).unwrap_or(0)));
            compare(&mut steps, network[*index], mask[*index], left);
        }
        steps.push(answer(ACCEPT));
    }
    steps.push(answer(0));
    steps
}

/// Goes on where the word under `mask` is `wanted`, else leaves out so many steps, less the one that follows.
fn compare(steps: &mut Vec<libc::sock_filter>, wanted: u32, mask: u32, otherwise: u8) {
    steps.push(step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0));
    steps.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, wanted, 0, otherwise - 1));
}

fn word(offset: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NETWORK.wrapping_add(offset), 0, 0)
}

fn answer(length: u32) -> libc::sock_filter {
    step(libc::BPF_RET | libc::BPF_K, length, 0, 0)
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    /// What a program does with a datagram of this source.
    fn runs(steps: &[libc::sock_filter], source: IpAddr) -> bool {
        let mut header = match source {
            IpAddr::V4(_) => vec![0x45; 20],
            IpAddr::V6(_) => vec![0x60; 40],
        };
        match source {
            IpAddr::V4(ip) => header[12..16].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => header[8..24].copy_from_slice(&ip.octets()),
        }
        let (mut at, mut a) = (0, 0u32);
        loop {
            let step = &steps[at];
            let offset = || step.k.wrapping_sub(NETWORK) as usize;
            at += 1;
            match u32::from(step.code) {
                code if code == libc::BPF_LD | libc::BPF_B | libc::BPF_ABS => a = header[offset()].into(),
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    a = u32::from_be_bytes(header[offset()..offset() + 4].try_into().unwrap());
                }
                code if code == libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K => a >>= step.k,
                code if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => a &= step.k,
                code if code == libc::BPF_JMP | libc::BPF_JA => at += step.k as usize,
                code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += usize::from(if a == step.k { step.jt } else { step.jf });
                }
                code if code == libc::BPF_RET | libc::BPF_K => return step.k > 0,
                other => panic!("step {other:#x}"),
            }
        }
    }

    #[test]
    fn networks_of_both_families_come_through_and_nobody_else() {
        let peers = ["10.0.0.0/8", "192.0.2.7/32", "2001:db8:1::/48", "2001:db8:2::9/128", "fe80::/10"];
        let steps = program(&peers.map(|peer| peer.parse().unwrap())).unwrap();
        let comes = |source: &str| runs(&steps, source.parse().unwrap());
        for source in ["10.1.2.3", "192.0.2.7", "2001:db8:1:2::3", "2001:db8:2::9", "febf::1"] {
            assert!(comes(source), "{source}");
        }
        for source in ["11.1.2.3", "192.0.2.8", "2001:db8:3::1", "2001:db8:2::8", "::1", "::ffff:10.1.2.3"] {
            assert!(!comes(source), "{source}");
        }
        assert!(runs(&program(&["0.0.0.0/0".parse().unwrap()]).unwrap(), "8.8.8.8".parse().unwrap()));
        assert!(!runs(&program(&[]).unwrap(), "8.8.8.8".parse().unwrap()));
    }

    #[test]
    fn more_networks_than_a_program_holds_give_none() {
        let every_second =
            |count: u32| -> Vec<IpNet> { (0..count).map(|n| Ipv4Net::new_assert((n * 2).into(), 32).into()).collect() };
        assert!(program(&every_second(1_000)).is_some());
        assert!(program(&every_second(1_100)).is_none());
    }
}
