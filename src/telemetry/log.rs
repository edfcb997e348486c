//! Logs: for people on a terminal, JSON lines elsewhere.
//!
//! Invariant: no library that handles phone numbers writes to them, whatever the filter asks for.

use std::io::{IsTerminal, stderr};

use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Libraries whose log lines show what they work on, which here is phone numbers.
const SILENCED: [&str; 1] = ["rlibphonenumber"];

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
    let layer = tracing_subscriber::fmt::layer().with_writer(stderr);
    let layer = if stderr().is_terminal() {
        layer.with_target(false).boxed()
    } else {
        layer.json().flatten_event(true).boxed()
    };
    tracing_subscriber::registry().with(layer.with_filter(filter_fn(may_speak)).with_filter(filter)).init();
    Ok(())
}

fn may_speak(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    !SILENCED.contains(&library)
}
