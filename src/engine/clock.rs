//! The node's clocks: the only place that reads them.

use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::api;
use crate::matcher::boot_time::BootTime;
use crate::verify::clock::Clock;

/// The clocks of this machine.
pub const CLOCK: Clock = Clock { boot, utc };

/// Those that API requests need.
pub const REQUESTS: api::Clock = api::Clock { instant, utc };

/// Time since boot, sleep included (`CLOCK_BOOTTIME`).
#[must_use]
pub fn boot() -> BootTime {
    let time = clock_gettime(ClockId::Boottime);
    let since = Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
    BootTime::default().plus(since)
}

/// Time since some moment in the past, sleep not included (`CLOCK_MONOTONIC`), as systemd counts it.
#[must_use]
pub fn monotonic() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Time of day, UTC.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the clock itself")]
pub fn utc() -> SystemTime {
    SystemTime::now()
}

/// For measuring how long something takes.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the clock itself")]
pub fn instant() -> Instant {
    Instant::now()
}
