//! `Flow`: the way on which a message travelled.
//!
//! Owns the transport's name and the two ends. Holds no socket: whoever has the socket finds it by the flow. Invariant:
//! addresses are in their plain form, never an IPv4 address mapped into IPv6. RFC 3261 18.

use std::fmt;
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
    /// The name in Via's sent-protocol: `UDP`, `TCP`, `TLS` (RFC 3261 25.1, `transport`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// The name in URIs, the configuration and metric labels: `udp`, `tcp`, `tls`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Whether what is sent arrives or the connection fails. Timers A, E, G, I, J and K depend on it
    /// (RFC 3261 17.1.1.2, 17.2.1).
    #[must_use]
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_udp_leaves_repetition_to_sip() {
        assert_eq!([Transport::Udp, Transport::Tcp, Transport::Tls].map(Transport::is_reliable), [false, true, true]);
    }
}
