//! The UAS core (RFC 3261 8.2): is this a request that can be answered, which answer does it get, and how is it written.
//!
//! Owns the dispatch by method and the stateless response (RFC 3261 8.2.7). Does not decide which
//! final response a call gets: that is the trunk's setting.

pub mod dispatch;
pub mod response;
