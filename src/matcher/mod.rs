//! Pending verifications and which one a call proves.
//!
//! Owns the life of a (phone, number) pair in memory and the record of a verification. Does not see SIP, disks or
//! clocks: time comes as an argument. Invariant: a pair belongs to at most one verification, and one call claims at
//! most one.

pub mod boot_time;
pub mod client_access;
pub mod deadline;
pub mod index;
pub mod pair;
pub mod phone_key;
pub mod prefetch;
pub mod verification;
