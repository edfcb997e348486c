//! SIP as far as a call that is refused needs it (RFC 3261).
//!
//! Owns the cutting of streams, the reading of messages and the making of responses: bytes in, bytes out. Does not know
//! verifications, sockets, clocks or tokio. Invariant: nothing that a peer sends makes it panic or allocate; what cannot
//! be read is told apart by who must act on it.

pub mod flow;
pub mod framing;
pub mod message;
pub mod transaction;
pub mod uas;
