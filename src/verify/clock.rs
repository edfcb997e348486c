//! Where the application reads the time.

use std::time::SystemTime;

use crate::matcher::boot_time::BootTime;

/// The two clocks of the node: windows run on the one that counts from boot, records carry UTC.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Time since boot, sleep included.
    pub boot: fn() -> BootTime,
    /// Time of day, UTC.
    pub utc: fn() -> SystemTime,
}
