//! UDP: listeners with a socket for each worker, batches in, batches out.
//!
//! Owns the sockets' options ([`open`]), the filter that lets only peers in ([`PeerFilter`]), a batch of datagrams received ([`Inbox`]) and a batch of answers
//! ([`Outgoing`]). Linux only: `recvmmsg`, `sendmmsg` and the options have no counterpart elsewhere. Invariant: a
//! batch in the steady state allocates nothing, and one bad destination costs its own message alone. RFC 3261 18.

mod filter;
mod inbox;
mod kernel;
mod outgoing;
mod socket;

pub use filter::PeerFilter;
pub use inbox::{Datagram, Inbox};
pub use outgoing::{Flushed, Outgoing, PushError};
pub use socket::{BoundSocket, RECEIVE_BUFFER, UdpSocket, open};

/// Datagrams that one system call takes or gives.
pub const BATCH: usize = 32;

#[cfg(test)]
mod tests;
