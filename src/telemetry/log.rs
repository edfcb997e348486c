//! Logs: for people on a terminal, JSON lines elsewhere.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Sends `tracing` events to standard error. `RINGPROOF_LOG` filters them as `tracing_subscriber::EnvFilter` reads it;
/// `info` without it.
pub fn init() {
    let filter = EnvFilter::try_from_env("RINGPROOF_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    if stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
