//! Signed statements: JSON Web Signatures (RFC 7515) with Ed25519 (RFC 8037), and the keys that make and check them.
//!
//! Owns the form of keys and signatures, and what a receipt says. Does not read or store anything: what a receipt tells
//! stands in the audit log, and the file of the keys is the node's. Invariant: what is checked was signed whole, by a key
//! of the set, for the use that is asked for.

pub mod jws;
pub mod keys;
pub mod statement;
