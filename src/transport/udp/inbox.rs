//! One batch of datagrams received.
//!
//! Where datagrams of one length follow each other from one sender, the kernel may hand them over as one run, which it
//! does when they were sent so or when the network card put them together (`UDP_GRO`). Here they come apart again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::Interest;

use super::kernel::{Control, Name};
use super::{BATCH, UdpSocket};

/// Room for the largest datagram: 65,507 bytes over IPv4, 65,527 over IPv6.
const DATAGRAM: usize = 65_535;
/// Sender of a datagram whose sender the kernel does not tell.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Buffers of one batch, made once and used again. Memory that no datagram has touched stays unused.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Bytes for one datagram.
    room: usize,
    names: [Name; BATCH],
    controls: [Control; BATCH],
    received: Vec<Received>,
    /// Whether there may be more.
    full: bool,
    kernel_drops: u32,
}

/// One datagram of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// What came, as far as there was room; may be empty.
    pub bytes: &'a [u8],
    /// Who sent it. Port 0 when the kernel did not say.
    pub remote: SocketAddr,
    /// Our address that it hit; the bound one where the listener has only one.
    pub local: IpAddr,
    /// Whether the datagram was longer than its room, so that `bytes` is not all of it.
    pub truncated: bool,
}

#[derive(Debug, Clone, Copy)]
struct Received {
    start: usize,
    length: usize,
    remote: SocketAddr,
    local: IpAddr,
    truncated: bool,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// Buffers for [`BATCH`] datagrams of any length, or runs of them.
    #[must_use]
    pub fn new() -> Self {
        Self::with_room(DATAGRAM)
    }

    pub(super) fn with_room(room: usize) -> Self {
        Self {
            bytes: vec![0; room * BATCH],
            room,
            names: [Name::EMPTY; BATCH],
            controls: [Control::EMPTY; BATCH],
            received: Vec::with_capacity(BATCH),
            full: false,
            kernel_drops: 0,
        }
    }

    /// Takes what has arrived, up to [`BATCH`] datagrams or runs of them, in place of the batch before. 0 when there is
    /// nothing: the caller waits for [`UdpSocket::readable`] again.
    ///
    /// # Errors
    /// What the socket itself suffers, such as want of memory. What a peer or the network causes (ICMP) is no error.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.received.clear();
        self.full = false;
        self.kernel_drops = 0;
        let outcome = socket.inner.try_io(Interest::READABLE, || {
            self.full = self.take(socket)? == BATCH;
            // A batch that is not full has emptied the socket. Saying so here spares the call that would find it
            // empty; the next datagram to arrive wakes the reader, for the runtime is told of arrivals, not of states.
            if self.full { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match outcome {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock && !is_passing(&error) => Err(error),
            _ => Ok(self.received.len()),
        }
    }

    /// How many datagrams the batch has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// Whether it took as much as it can at a time: the socket counts as readable, whether or not more waits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Whether the batch has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// The datagram at `index` of the batch.
    ///
    /// # Panics
    /// When `index` is not below [`Inbox::len`].
    #[must_use]
    pub fn datagram(&self, index: usize) -> Datagram<'_> {
        let Received { start, length, remote, local, truncated } = self.received[index];
        Datagram { bytes: &self.bytes[start..start + length], remote, local, truncated }
    }

    /// The datagrams in the order of their arrival.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Datagram<'_>> {
        (0..self.received.len()).map(|index| self.datagram(index))
    }

    /// Datagrams that the kernel has dropped for want of buffer since the batch before, as far as this batch tells. A run
    /// counts once.
    #[must_use]
    pub fn kernel_drops(&self) -> u32 {
        self.kernel_drops
    }

    #[allow(unsafe_code, reason = "recvmmsg has no safe interface")]
    fn take(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        // SAFETY: both are C structs of integers and pointers, for which all bits zero is a valid value.
        let (mut pieces, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { std::mem::zeroed() };
        let buffers = self.bytes.chunks_exact_mut(self.room);
        let rows = self.names.iter_mut().zip(&mut self.controls).zip(buffers);
        for (((name, control), buffer), (piece, header)) in rows.zip(pieces.iter_mut().zip(&mut headers)) {
            piece.iov_base = buffer.as_mut_ptr().cast();
            piece.iov_len = buffer.len();
            let header = &mut header.msg_hdr;
            header.msg_name = name.as_mut_ptr();
            header.msg_namelen = Name::CAPACITY;
            header.msg_iov = piece;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr();
            header.msg_controllen = Control::CAPACITY as _;
        }
        let vector = libc::c_uint::try_from(BATCH).expect("a batch has at most 32 messages");
        // SAFETY: `headers` has BATCH entries. Each points to one piece, name and control block of its own, with their
        // true sizes; all of them live in `self` or in this frame and are touched by nobody else during the call.
        let count =
            unsafe { libc::recvmmsg(socket.descriptor(), headers.as_mut_ptr(), vector, 0, std::ptr::null_mut()) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        let mut drops = None;
        for (index, header) in headers.iter().enumerate().take(count) {
            #[allow(clippy::unnecessary_cast, reason = "another C library has another type here")]
            let told = self.controls[index].read(header.msg_hdr.msg_controllen as usize);
            drops = told.drops.or(drops);
            let (start, length) = (index * self.room, (header.msg_len as usize).min(self.room));
            let whole = Received {
                start,
                length,
                remote: self.names[index].decode(header.msg_hdr.msg_namelen).unwrap_or(NOWHERE),
                local: told.hit.unwrap_or_else(|| socket.local_addr().ip()),
                truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            };
            match told.segment {
                Some(segment) if segment < length => {
                    self.received.extend((0..length).step_by(segment).map(|from| {
                        let length = segment.min(length - from);
                        let cut_off = whole.truncated && from + length == whole.length;
                        Received { start: start + from, length, truncated: cut_off, ..whole }
                    }));
                }
                _ => self.received.push(whole),
            }
        }
        self.kernel_drops = drops.map_or(0, |total| socket.note_drops(total));
        Ok(count)
    }
}

/// Errors that an ICMP message or a signal leaves on a socket: the next call is free of them.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::EHOSTDOWN
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EPROTO
                | libc::EOPNOTSUPP
                | libc::EACCES
                | libc::EPERM
                | libc::EMSGSIZE
                | libc::EINTR
        )
    )
}
