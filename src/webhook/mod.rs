//! Delivery of events to the applications' endpoints (Standard Webhooks 1.0).
//!
//! Owns attempts: address check, connection, signature, judgement of the answer. Does not decide when a try is due
//! (`outbox::schedule`) or what is in it. Invariant: an endpoint's trouble delays its own deliveries only.

pub mod address;
pub mod attempt;
mod circuit;
mod connector;
mod lane;
mod pace;
pub mod probe;
mod queue;
pub mod receiver;
pub mod settings;
pub mod signature;
pub mod signing_key;
pub mod test_send;
pub mod worker;

#[cfg(test)]
mod local_server;

/// Tells the time, UTC. The caller's clock, so that tests have their own.
pub type Clock = fn() -> std::time::SystemTime;

/// Waits until a task has to end: `stop` is true, or nobody is left to say so.
async fn stopped(stop: &mut tokio::sync::watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
