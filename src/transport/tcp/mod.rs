//! TCP: listeners, who gets a connection, and the two buffers of one.
//!
//! Owns the sockets' options ([`open`]), the accepting ([`Listener`]), the caps on connections ([`Places`]) and a
//! connection's bytes and deadlines ([`Connection`]). Opens no connection of its own. Linux only. Invariant: an idle
//! connection holds no buffer, a slow or silent peer is let go after the time it has, and no error of one connection
//! reaches another. RFC 3261 18.2, 18.3; RFC 5626 3.5.1.

mod connection;
mod input;
mod listener;
mod output;
mod places;

use std::time::Duration;

pub use connection::Connection;
pub use input::{Input, Piece};
pub use listener::{BoundListener, Listener, open};
pub use output::Output;
pub use places::{Place, Places};

/// Caps and patience of a listener, `sip.tcp` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Most connections at once, at least one.
    pub connections: usize,
    /// Most of them from one address, at least one.
    pub connections_per_peer: usize,
    /// A connection on which nothing comes for so long is closed.
    pub idle: Duration,
    /// How long a message may take from its first byte to its last, and a peer to take what waits for it.
    pub message: Duration,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// What came cannot be cut into messages.
    BadFraming,
    /// Nothing came for too long.
    Idle,
    /// It broke off: the peer reset it, or it is gone and keep-alives or sent bytes stay unacknowledged.
    Lost,
    /// There are as many connections as there may be.
    OverCap,
    /// The peer has said all it will.
    Peer,
    /// A message did not come whole in time.
    SlowMessage,
    /// The peer does not take its answers.
    SlowReader,
    /// The node stops.
    Stop,
    /// A message is larger than any may be.
    TooLarge,
    /// No trunk, or no trunk any more, has the peer's address.
    UnknownSource,
}

impl CloseReason {
    /// All of them, in their order.
    pub const ALL: [Self; 10] = [
        Self::BadFraming,
        Self::Idle,
        Self::Lost,
        Self::OverCap,
        Self::Peer,
        Self::SlowMessage,
        Self::SlowReader,
        Self::Stop,
        Self::TooLarge,
        Self::UnknownSource,
    ];

    /// The name in metric labels.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadFraming => "bad_framing",
            Self::Idle => "idle",
            Self::Lost => "lost",
            Self::OverCap => "over_cap",
            Self::Peer => "peer",
            Self::SlowMessage => "slow_message",
            Self::SlowReader => "slow_reader",
            Self::Stop => "stop",
            Self::TooLarge => "too_large",
            Self::UnknownSource => "unknown_source",
        }
    }
}

#[cfg(test)]
mod tests;
