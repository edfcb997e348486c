//! What must be delivered: events, their deliveries and when each is tried.
//!
//! Owns the body of an event, which is rendered once and sent byte for byte the same on every try, and the retry
//! schedule. Does not send or store anything. Pure.

pub mod delivery;
pub mod event;
pub mod schedule;
