//! Which messages belong together (RFC 3261 17.2.3).
//!
//! Owns the keys by which retransmissions, CANCEL and forks find their INVITE. Keys are keyed hashes: short, of one
//! size, and not to be forged by a peer that wants two calls to meet.

pub mod cookie;
pub mod key;
