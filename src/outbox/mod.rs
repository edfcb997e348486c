//! What must be delivered: events, their deliveries and when each is tried.
//!
//! Owns the body of an event, which is rendered once and sent byte for byte the same on every try, and the retry
//! schedule, and the rule by which an endpoint is disabled. Does not send or store anything. Pure.

pub mod alarm;
pub mod batch;
pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod notice;
pub mod schedule;
