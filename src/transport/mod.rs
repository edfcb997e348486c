//! Sockets: bytes in with the addresses that they came from and hit, bytes out to where they belong.
//!
//! Owns sockets, their options and their buffers. Does not read SIP beyond where a message ends: what it means is not
//! its business. Invariant: a peer's packet or a network error ends no loop but that of its own connection, and every
//! buffer has a fixed limit. RFC 3261 18.

use std::io;
use std::net::SocketAddr;

use crate::sip::flow::Transport;

pub mod tcp;
pub mod udp;

/// Why a listener cannot be opened. The operator must act: another address, another port, more rights.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The system has no socket of this kind for us: no IPv6, or too many open files.
    #[error("cannot create a socket for {}://{address}: {source}", .transport.label())]
    Create {
        /// The protocol asked for.
        transport: Transport,
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The address is in use, is not ours, or needs more rights.
    #[error("cannot listen on {}://{address}: {source}", .transport.label())]
    Bind {
        /// The protocol asked for.
        transport: Transport,
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The system refuses a setting without which answers would go astray.
    #[error("cannot set {option} on {}://{address}: {source}", .transport.label())]
    Option {
        /// The protocol asked for.
        transport: Transport,
        /// The address asked for.
        address: SocketAddr,
        /// The setting's name in the system's manual.
        option: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The runtime cannot watch the socket.
    #[error("cannot watch {}://{address}: {source}", .transport.label())]
    Register {
        /// The protocol.
        transport: Transport,
        /// The bound address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
}
