//! The audit log: entries of which each holds the hash of the one before, and signed statements of how far it has come.
//!
//! Owns the form of an entry, its hash, what entries tell, and how a log is checked and exported. Does not store: `store`
//! writes an entry in the transaction of what it tells. Invariant: an entry that is changed, removed or moved is found,
//! and one after the newest signed statement cannot be cut off without contradicting it.

pub mod chain;
pub mod check;
pub mod checkpoint;
pub mod export;
pub mod kind;
pub mod outcome;
