//! Delivery of events to the applications' endpoints (Standard Webhooks 1.0).
//!
//! Owns attempts: address check, connection, signature, judgement of the answer. Does not decide when a try is due
//! (`outbox::schedule`) or what is in it. Invariant: an endpoint's trouble delays its own deliveries only.

pub mod address;
pub mod attempt;
mod connector;
pub mod settings;
pub mod signature;

#[cfg(test)]
mod local_server;
