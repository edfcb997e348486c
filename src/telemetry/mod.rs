//! What the program tells about itself: metrics, readiness and logs.
//!
//! Owns the metric names and the readiness flags. Invariant: no label ever carries a number, an id or an address, so
//! the number of series is bounded by the configuration.

pub mod beat;
pub mod health;
pub mod log;
pub mod machine;
pub mod metrics;
mod process;
