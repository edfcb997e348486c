//! `Flow`: the way on which a message travelled.
//!
//! Owns the transport's name and the two ends. Holds no socket: whoever has the socket finds it by the flow. Invariant:
//! addresses are in their plain form, never an IPv4 address mapped into IPv6. RFC 3261 18.

use std::net::SocketAddr;

/// Transport protocol below SIP (RFC 3261 7.1 and 18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram is one message; nobody repeats a lost one but SIP itself.
    Udp,
    /// Messages in a stream, cut by Content-Length (RFC 3261 18.3).
    Tcp,
    /// TCP under TLS (RFC 3261 26.2.1).
    Tls,
}

impl Transport {
    /// The name in URIs, the configuration and metric labels: `udp`, `tcp`, `tls`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// Transport and both ends of the way that a message took. An answer goes back on the same flow
/// (RFC 3261 18.2.2, RFC 3581 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Protocol below SIP.
    pub transport: Transport,
    /// Our end: the address that the message hit, also where the listener is bound to a wildcard.
    pub local: SocketAddr,
    /// The peer's end as the packet shows it, whatever Via says.
    pub remote: SocketAddr,
}
