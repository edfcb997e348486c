//! One batch of answers on their way out.

use std::cmp::Reverse;
use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::Interest;

use super::kernel::{Control, Name};
use super::{BATCH, UdpSocket};

/// Messages that wait for one flush: two for each datagram of a batch.
const MESSAGES: usize = 2 * BATCH;
/// Bytes of one message: what a UDP length field can say.
const MESSAGE: usize = 65_535;
/// Longest message that is given to the kernel as a segment of a run: it fits any path that carries IPv6.
const SEGMENT: usize = 1_200;
/// Segments of one run (`UDP_MAX_SEGMENTS` of the first kernels that had it).
const SEGMENTS: usize = 64;
/// Bytes of one run: a datagram's payload over IPv4.
const RUN: usize = 65_507;

/// Answers gathered in one buffer, sent together. Holds at most 64 messages of at most 65,535 bytes.
///
/// Where the kernel cuts segments, messages to one peer go out by length, the longest first, for a run of one length and
/// one shorter message behind it costs hardly more than a single message. Those of one length keep their order; datagrams
/// have none to keep.
#[derive(Debug)]
pub struct Outgoing {
    bytes: Vec<u8>,
    messages: Vec<Message>,
    names: [Name; BATCH],
    controls: [Control; BATCH],
}

#[derive(Debug, Clone, Copy)]
struct Message {
    to: SocketAddr,
    from: IpAddr,
    start: usize,
    length: usize,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// There is no room for another message: flush, then push again.
    #[error("{MESSAGES} messages wait to be sent")]
    Full,
    /// The message is longer than a datagram can be; it is gone.
    #[error("a message of {length} bytes is longer than a datagram can be")]
    TooLong {
        /// Bytes of the message.
        length: usize,
    },
}

/// What became of a batch. The caller counts what was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Flushed {
    /// Messages that the kernel took.
    pub sent: usize,
    /// Messages lost: the destination cannot be reached, or the send buffer stayed full.
    pub dropped: usize,
}

/// One system call's end.
enum Step {
    /// So many messages are gone, from the first that waited.
    Sent(usize),
    /// The first that waited cannot be sent to its destination.
    Refused,
    /// The kernel cannot cut this run: its messages go one by one.
    Uncut,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::new()
    }
}

impl Outgoing {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(MESSAGES * 1_024),
            messages: Vec::with_capacity(MESSAGES),
            names: [Name::EMPTY; BATCH],
            controls: [Control::EMPTY; BATCH],
        }
    }

    /// Whether there is no room for another message.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.messages.len() == MESSAGES
    }

    /// Adds the message that `write` appends to the buffer, for `to`. On a wildcard listener it leaves from `from`, the
    /// address that the request hit; elsewhere, and where `from` is unspecified, `from` does not count. `write` only
    /// appends; the messages before are in the same buffer. If it appends nothing, there is no message.
    ///
    /// # Errors
    /// `PushError::Full` before `write` is called, `PushError::TooLong` after it.
    pub fn push(&mut self, to: SocketAddr, from: IpAddr, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), PushError> {
        if self.is_full() {
            return Err(PushError::Full);
        }
        let start = self.bytes.len();
        write(&mut self.bytes);
        let length = self.bytes.len().saturating_sub(start);
        if length > MESSAGE {
            self.bytes.truncate(start);
            return Err(PushError::TooLong { length });
        }
        if length > 0 {
            self.messages.push(Message { to, from, start, length });
        }
        Ok(())
    }

    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Sends what waits, and is empty afterwards. A destination that cannot be reached costs its own message
    /// only. When the send buffer is full it waits once for room; what then finds none is dropped, for a peer repeats
    /// what got no answer.
    pub async fn flush(&mut self, socket: &UdpSocket) -> Flushed {
        let mut flushed = Flushed::default();
        let mut waited = false;
        let mut retried = false;
        let mut cut = socket.cuts_segments();
        if cut && self.messages.len() > 1 {
            self.messages
                .sort_unstable_by_key(|message| (message.to, message.from, Reverse(message.length), message.start));
        }
        while flushed.sent + flushed.dropped < self.messages.len() {
            let next = flushed.sent + flushed.dropped;
            match socket.inner.try_io(Interest::WRITABLE, || self.send(socket, next, cut)) {
                Ok(Step::Sent(count)) => {
                    flushed.sent += count;
                    retried = false;
                }
                Ok(Step::Uncut) => cut = false,
                // An ICMP message for an earlier answer may be what failed this call: each message has two tries.
                Ok(Step::Refused) if !retried => retried = true,
                Ok(Step::Refused) => {
                    flushed.dropped += 1;
                    retried = false;
                }
                Err(_) if waited => flushed.dropped = self.messages.len() - flushed.sent,
                Err(_) => {
                    waited = true;
                    // Fails only when the runtime ends, and then the next try is the last.
                    let _ = socket.inner.writable().await;
                }
            }
        }
        self.messages.clear();
        self.bytes.clear();
        flushed
    }

    /// Gives the messages from `next` on to the kernel. Fails only when the send buffer is full.
    #[allow(unsafe_code, reason = "sendmmsg has no safe interface")]
    fn send(&mut self, socket: &UdpSocket, next: usize, cut: bool) -> io::Result<Step> {
        // SAFETY: both are C structs of integers and pointers, for which all bits zero is a valid value.
        let (mut pieces, mut headers): ([libc::iovec; MESSAGES], [libc::mmsghdr; BATCH]) =
            unsafe { std::mem::zeroed() };
        let mut counts = [0usize; BATCH];
        let mut used = 0;
        let mut at = next;
        while used < BATCH && at < self.messages.len() {
            let count = self.run(at, cut);
            let Message { to, from, length, .. } = self.messages[at];
            let Some((name, name_length)) = Name::encode(to, socket.family) else {
                if used == 0 {
                    return Ok(Step::Refused);
                }
                break;
            };
            self.names[used] = name;
            let mut control_length = 0;
            if socket.wildcard && !from.is_unspecified() {
                control_length = self.controls[used].add_source(0, from, socket.family);
            }
            if count > 1 {
                let segment = u16::try_from(length).expect("a segment has at most 1,200 bytes");
                control_length =
                    self.controls[used].add(control_length, libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
            }
            for (piece, message) in pieces[at - next..].iter_mut().zip(&self.messages[at..at + count]) {
                let bytes = &self.bytes[message.start..message.start + message.length];
                *piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            }
            let header = &mut headers[used].msg_hdr;
            header.msg_namelen = name_length;
            header.msg_iovlen = count as _;
            header.msg_controllen = control_length as _;
            counts[used] = count;
            used += 1;
            at += count;
        }
        let mut pieces = &mut pieces[..];
        let rows = self.names.iter_mut().zip(&mut self.controls).zip(counts);
        for (((name, control), count), header) in rows.zip(&mut headers).take(used) {
            let header = &mut header.msg_hdr;
            let (run, rest) = pieces.split_at_mut(count);
            pieces = rest;
            header.msg_name = name.as_mut_ptr();
            header.msg_iov = run.as_mut_ptr();
            if header.msg_controllen > 0 {
                header.msg_control = control.as_mut_ptr();
            }
        }
        let vector = libc::c_uint::try_from(used).expect("a batch has at most 32 messages");
        // SAFETY: the first `used` headers are filled. Each points to pieces, a name and a control block of its own with
        // their true sizes, and each piece into `self.bytes`; all live in `self` or in this frame, and sendmmsg only reads.
        let status = unsafe { libc::sendmmsg(socket.descriptor(), headers.as_mut_ptr(), vector, 0) };
        if let Ok(taken) = usize::try_from(status) {
            return Ok(Step::Sent(counts.iter().take(taken).sum()));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            _ if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Some(libc::EINTR) => Ok(Step::Sent(0)),
            Some(code @ (libc::EIO | libc::EINVAL | libc::EMSGSIZE)) if counts[0] > 1 => {
                if code == libc::EIO {
                    // The device computes no checksums, which cutting needs (udp(7)).
                    socket.set_cuts_no_segments();
                }
                Ok(Step::Uncut)
            }
            _ => Ok(Step::Refused),
        }
    }

    /// How many of the messages from `first` on may go as one: of the same ends and length, and the last may be shorter.
    fn run(&self, first: usize, cut: bool) -> usize {
        let head = self.messages[first];
        if !cut || head.length > SEGMENT {
            return 1;
        }
        let most = SEGMENTS.min(RUN / head.length);
        let rest = &self.messages[first..];
        let same_ends = |message: &Message| (message.to, message.from) == (head.to, head.from);
        let is_alike = |message: &&Message| message.length == head.length && same_ends(message);
        let alike = rest.iter().take(most).take_while(is_alike).count();
        let is_last = |message: &Message| message.length < head.length && same_ends(message);
        alike + usize::from(alike < most && rest.get(alike).is_some_and(is_last))
    }
}
