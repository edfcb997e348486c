//! Logs: for people on a terminal, JSON lines elsewhere.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Sends `tracing` events to standard error. The environment variable `RINGPROOF_LOG` filters them as
/// `tracing_subscriber::EnvFilter` reads it; `info` without it.
///
/// # Errors
/// Where the variable holds no filter; the operator must change it.
pub fn init() -> Result<(), ParseError> {
    let filter = match std::env::var("RINGPROOF_LOG") {
        Ok(text) => EnvFilter::try_new(text)?,
        Err(_) => EnvFilter::new("info"),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    if stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
    Ok(())
}
