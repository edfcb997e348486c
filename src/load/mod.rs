//! The load kit: calls placed at a SIP peer as a caller's network would place them.
//!
//! Owns the command `ringproof call`, one call with its messages and times on the screen, and `ringproof load`, many
//! calls with their counts and latencies. Knows nothing of this node's inside: what it learns, it learns from the wire.
//! Invariant: whatever the peer sends, a call ends within four times its timeout, and nothing of the peer's reaches the
//! screen unescaped. RFC 3261 17.1 (client transactions).

pub mod arguments;
pub mod call;
pub mod flood;
pub mod header;
mod inflow;
pub mod invite;
mod ladder;
pub mod losses;
pub mod pace;
pub mod progress;
pub mod report;
mod request;
mod response;
pub mod scenario;
mod slab;
pub mod tally;
pub mod target;
pub mod verify;
mod wire;
