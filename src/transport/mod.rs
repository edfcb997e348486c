//! Sockets: bytes in with the addresses that they came from and hit, bytes out to where they belong.
//!
//! Owns sockets, their options and their buffers. Does not read SIP: what a datagram means is not its business.
//! Invariant: a peer's packet or a network error ends no loop, and every buffer has a fixed limit. RFC 3261 18.

use std::io;
use std::net::SocketAddr;

pub mod udp;

/// Why a listener cannot be opened. The operator must act: another address, another port, more rights.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The system has no socket of this kind for us: no IPv6, or too many open files.
    #[error("cannot create a UDP socket for {address}: {source}")]
    Create {
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The address is in use, is not ours, or needs more rights.
    #[error("cannot listen on udp://{address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The system refuses a setting without which answers would go astray.
    #[error("cannot set {option} on udp://{address}: {source}")]
    Option {
        /// The address asked for.
        address: SocketAddr,
        /// The setting's name in the system's manual.
        option: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The runtime cannot watch the socket.
    #[error("cannot watch udp://{address}: {source}")]
    Register {
        /// The bound address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}
