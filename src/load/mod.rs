//! The load kit: calls placed at a SIP peer as a caller's network would place them.
//!
//! Owns the command `ringproof call`: one call, its messages and times on the screen. Knows nothing of this node's
//! inside: what it learns, it learns from the wire. Invariant: whatever the peer sends, a call ends within four times
//! its timeout, and nothing of the peer's reaches the screen unescaped. RFC 3261 17.1 (client transactions).

pub mod call;
pub mod header;
pub mod invite;
mod ladder;
mod request;
mod response;
pub mod target;
mod wire;
