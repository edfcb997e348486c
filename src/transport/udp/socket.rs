//! Opening the sockets of one listener.

use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

use super::filter::PeerFilter;
use super::kernel::Family;
use crate::sip::flow::Transport;
use crate::transport::TransportError;

/// Receive buffer asked for, in bytes: some 7,000 INVITEs as the kernel counts them, a burst of 25 ms.
pub const RECEIVE_BUFFER: usize = 8 << 20;

/// A socket that is bound and not yet watched by a runtime: it goes to the worker that will read it.
#[derive(Debug)]
pub struct BoundSocket {
    socket: StdSocket,
    local: SocketAddr,
    family: Family,
    wildcard: bool,
    receive_buffer: usize,
    segments: bool,
    counts_drops: bool,
}

/// A UDP socket of a listener, watched by the runtime in which [`BoundSocket::register`] was called.
#[derive(Debug)]
pub struct UdpSocket {
    pub(super) inner: tokio::net::UdpSocket,
    pub(super) family: Family,
    /// Bound to no address of its own, so that each answer must name the one to leave from.
    pub(super) wildcard: bool,
    local: SocketAddr,
    receive_buffer: usize,
    segments: AtomicBool,
    drops_seen: AtomicU32,
}

/// Opens `sockets` sockets (at least one) that share the address `listen`.
///
/// With port 0 the system picks a port, the same for all. `[::]` takes IPv4 as well. Where there are several, the
/// kernel gives each datagram, or run of them, to one of them at random, so that one peer's calls are spread over all
/// workers. The address must be free: a port that another program holds is refused, even one that would share it.
///
/// # Errors
/// A [`TransportError`] with the address; the operator must act.
pub fn open(listen: SocketAddr, sockets: usize) -> Result<Vec<BoundSocket>, TransportError> {
    let mut address = SocketAddr::new(listen.ip().to_canonical(), listen.port());
    if let (SocketAddr::V6(address), SocketAddr::V6(listen)) = (&mut address, listen) {
        address.set_scope_id(listen.scope_id());
    }
    let count = sockets.max(1);
    let mut opened = Vec::with_capacity(count);
    for index in 0..count {
        let socket = bind(address, index > 0)?;
        if index == 0 && count > 1 {
            // On the first one only once it is bound: its bind must fail where a stranger holds the port.
            socket.set_reuse_port(true).map_err(|source| refused(address, "SO_REUSEPORT", source))?;
        }
        let bound = settle(socket, address)?;
        address.set_port(bound.local.port());
        opened.push(bound);
    }
    if count > 1 {
        let descriptor = opened[0].socket.as_raw_fd();
        if let Err(error) = spread_at_random(descriptor, count) {
            // The kernel then spreads by a hash of the two addresses: right, only uneven with few peers.
            tracing::debug!(%address, %error, "datagrams are spread by address");
        }
    }
    Ok(opened)
}

fn bind(address: SocketAddr, share: bool) -> Result<Socket, TransportError> {
    let create = |source| TransportError::Create { transport: Transport::Udp, address, source };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).map_err(create)?;
    socket.set_nonblocking(true).map_err(create)?;
    if address.is_ipv6() {
        let alone = !address.ip().is_unspecified();
        socket.set_only_v6(alone).map_err(|source| refused(address, "IPV6_V6ONLY", source))?;
    }
    if share {
        socket.set_reuse_port(true).map_err(|source| refused(address, "SO_REUSEPORT", source))?;
    }
    socket.bind(&address.into()).map_err(|source| TransportError::Bind {
        transport: Transport::Udp,
        address,
        source,
    })?;
    Ok(socket)
}

/// Sets what may be set after the bind, and reads back what the kernel made of it.
fn settle(socket: Socket, address: SocketAddr) -> Result<BoundSocket, TransportError> {
    let descriptor = socket.as_raw_fd();
    let wildcard = address.ip().is_unspecified();
    let family = if address.is_ipv6() { Family::V6 } else { Family::V4 };

    let asked = i32::try_from(RECEIVE_BUFFER).expect("8 MiB fits an int");
    // The forced form may pass the system's limit and needs CAP_NET_ADMIN; without it the limit holds, and
    // whoever opened the socket compares `receive_buffer` with what was asked.
    if set_option(descriptor, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, asked).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    // Without the counter the drops go uncounted, without the next one large answers meet the path's smallest
    // MTU: neither is a reason not to listen.
    let counts_drops = set_option(descriptor, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1).is_ok();
    // No DF bit, and no trust in a path MTU that anybody's ICMP could have set. An IPv6 socket takes it for the
    // IPv4 it carries; IPv6 itself is fragmented by the sender as it stands.
    let _ = set_option(descriptor, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT);
    if wildcard {
        let (level, name, option) = match family {
            Family::V4 => (libc::IPPROTO_IP, libc::IP_PKTINFO, "IP_PKTINFO"),
            Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO"),
        };
        set_option(descriptor, level, name, 1).map_err(|source| refused(address, option, source))?;
    }
    // Without it runs come one by one.
    let _ = set_option(descriptor, libc::SOL_UDP, libc::UDP_GRO, 1);
    // Setting "no segments" changes nothing and fails where the kernel cannot cut segments.
    let segments = set_option(descriptor, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();

    // The kernel reserves and reports twice what was asked, for its own bookkeeping (socket(7)).
    let receive_buffer = socket.recv_buffer_size().unwrap_or(0) / 2;
    let socket = StdSocket::from(socket);
    let local =
        socket.local_addr().map_err(|source| TransportError::Bind { transport: Transport::Udp, address, source })?;
    Ok(BoundSocket { socket, local, family, wildcard, receive_buffer, segments, counts_drops })
}

impl BoundSocket {
    /// The bound address, with the port that the system picked where port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Receive buffer in bytes, to be compared with [`RECEIVE_BUFFER`].
    #[must_use]
    pub fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// A handle by which the filter of this socket is set, now and while it is read.
    ///
    /// # Errors
    /// Where there is no descriptor left.
    pub fn peer_filter(&self) -> io::Result<PeerFilter> {
        self.socket.try_clone().map(|socket| PeerFilter::new(socket.into()))
    }

    /// Whether the kernel tells how many datagrams it has lost.
    #[must_use]
    pub fn counts_drops(&self) -> bool {
        self.counts_drops
    }

    /// Has the runtime of the calling thread watch the socket.
    ///
    /// # Errors
    /// `TransportError::Register`.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn register(self) -> Result<UdpSocket, TransportError> {
        let address = self.local;
        let inner = tokio::net::UdpSocket::from_std(self.socket).map_err(|source| TransportError::Register {
            transport: Transport::Udp,
            address,
            source,
        })?;
        Ok(UdpSocket {
            inner,
            family: self.family,
            wildcard: self.wildcard,
            local: self.local,
            receive_buffer: self.receive_buffer,
            segments: AtomicBool::new(self.segments),
            drops_seen: AtomicU32::new(0),
        })
    }
}

impl UdpSocket {
    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Receive buffer in bytes, to be compared with [`RECEIVE_BUFFER`].
    #[must_use]
    pub fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// Waits until there may be datagrams to receive.
    ///
    /// # Errors
    /// When the runtime shuts down.
    pub async fn readable(&self) -> io::Result<()> {
        self.inner.readable().await
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.inner.as_raw_fd()
    }

    /// Whether the kernel may be given a run of answers to cut apart.
    pub(super) fn cuts_segments(&self) -> bool {
        self.segments.load(Ordering::Relaxed)
    }

    /// The device refused it: not again.
    pub(super) fn set_cuts_no_segments(&self) {
        self.segments.store(false, Ordering::Relaxed);
    }

    /// How many datagrams the kernel has dropped since it was asked last; it tells the same beside datagrams, but only
    /// where any comes.
    #[must_use]
    pub fn new_drops(&self) -> u32 {
        total_drops(self.descriptor()).map_or(0, |total| self.note_drops(total))
    }

    /// Takes the kernel's count of datagrams lost and gives how many are new.
    pub(super) fn note_drops(&self, total: u32) -> u32 {
        let (new, seen) = newly_lost(self.drops_seen.load(Ordering::Relaxed), total);
        self.drops_seen.store(seen, Ordering::Relaxed);
        new
    }
}

/// How many are new when the kernel's count goes from `seen` to `total`, and what is seen now. The count starts at 0
/// with the socket and wraps at 32 bits. One that is behind, as it stands in a datagram that waited longer, is none.
const fn newly_lost(seen: u32, total: u32) -> (u32, u32) {
    let new = total.wrapping_sub(seen);
    if new > u32::MAX / 2 { (0, seen) } else { (new, total) }
}

fn refused(address: SocketAddr, option: &'static str, source: io::Error) -> TransportError {
    TransportError::Option { transport: Transport::Udp, address, option, source }
}

fn set_option(descriptor: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_raw_option(descriptor, level, name, &value)
}

/// Has the kernel pick one of the `count` sockets at random for each datagram: `random() % count`.
fn spread_at_random(descriptor: RawFd, count: usize) -> io::Result<()> {
    let count = u32::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
    let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM).cast_unsigned();
    let step = |code: u32, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt: 0, jf: 0, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, random),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, count),
        step(libc::BPF_RET | BPF_A, 0),
    ];
    let program = libc::sock_fprog { len: 3, filter: steps.as_mut_ptr() };
    set_raw_option(descriptor, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// "Return the accumulator" (linux/filter.h).
const BPF_A: u32 = 0x10;

#[allow(unsafe_code, reason = "options that no safe interface offers")]
pub(super) fn set_raw_option<T>(descriptor: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads `length` bytes at `value`, which is borrowed for the call and has that size. What it
    // points to, the filter's steps, lives in the caller's frame. The descriptor's validity is the kernel's check.
    let status = unsafe { libc::setsockopt(descriptor, level, name, std::ptr::from_ref(value).cast(), length) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// All that the kernel has dropped of a socket: the ninth of the figures of `SO_MEMINFO` (`linux/sock_diag.h`).
#[allow(unsafe_code, reason = "an option that no safe interface offers")]
fn total_drops(descriptor: RawFd) -> Option<u32> {
    const DROPS: usize = 8;
    let mut figures = [0u32; DROPS + 1];
    let mut length = libc::socklen_t::try_from(size_of_val(&figures)).ok()?;
    // SAFETY: the kernel writes at most `length` bytes to `figures`, which has that size, and both live in this frame.
    let status = unsafe {
        let (option, place) = (libc::SO_MEMINFO, figures.as_mut_ptr().cast());
        libc::getsockopt(descriptor, libc::SOL_SOCKET, option, place, &raw mut length)
    };
    (status == 0 && length as usize == size_of_val(&figures)).then_some(figures[DROPS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_from_a_new_socket_on_and_over_the_wrap() {
        assert_eq!(newly_lost(0, 7), (7, 7));
        assert_eq!(newly_lost(7, 7), (0, 7));
        assert_eq!(newly_lost(u32::MAX - 1, 3), (5, 3));
        assert_eq!(newly_lost(10, 8), (0, 10), "a datagram that waited longer tells an older count");
    }
}
