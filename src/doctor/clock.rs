//! The clocks: against what is stored, and whether the kernel trusts its own.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, DynamicClockId, clock_gettime, clock_gettime_dynamic};

use super::Finding;

const CHECK: &str = "clock";

/// What a clock may be behind the newest event: events of one moment are stored by another thread's reading.
const SLACK: Duration = Duration::from_secs(1);

pub(super) fn check(now: SystemTime, newest_event: Option<SystemTime>) -> Vec<Finding> {
    vec![judge_time(now, newest_event), judge_synchronization(synchronization()), since_boot()]
}

fn judge_time(now: SystemTime, newest_event: Option<SystemTime>) -> Finding {
    let shown = humantime::format_rfc3339_seconds(now);
    let behind = newest_event.and_then(|newest| newest.duration_since(now).ok()).filter(|behind| *behind > SLACK);
    match behind {
        Some(behind) => Finding::warn(
            CHECK,
            "time of day",
            format!("{shown} is {} s before the newest stored event", behind.as_secs()),
        )
        .advise("the clock was set back or is wrong: set it by NTP before the node starts"),
        None => Finding::ok(CHECK, "time of day", shown.to_string()),
    }
}

/// What the kernel says of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Synchronization {
    Kept,
    Free,
    Unknown,
}

fn judge_synchronization(state: Synchronization) -> Finding {
    const SUBJECT: &str = "synchronization";
    match state {
        Synchronization::Kept => Finding::ok(CHECK, SUBJECT, "the kernel says it is kept right"),
        Synchronization::Free => Finding::warn(CHECK, SUBJECT, "the kernel says nobody keeps it right")
            .advise("run chrony or systemd-timesyncd: receivers refuse webhooks that are 5 minutes off"),
        Synchronization::Unknown => Finding::ok(CHECK, SUBJECT, "skipped: the kernel does not say"),
    }
}

/// Asks the kernel (adjtimex(2)); reading needs no right.
#[allow(unsafe_code, reason = "adjtimex has no safe interface")]
fn synchronization() -> Synchronization {
    // SAFETY: `timex` is a C struct of integers, for which all bits zero is a valid value.
    let mut told: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: with `modes` 0 the kernel changes nothing and fills the struct, which is borrowed for the call.
    let state = unsafe { libc::adjtimex(&raw mut told) };
    match state {
        -1 => Synchronization::Unknown,
        libc::TIME_ERROR => Synchronization::Free,
        _ if told.status & libc::STA_UNSYNC != 0 => Synchronization::Free,
        _ => Synchronization::Kept,
    }
}

/// Windows of verifications run on the clock that counts sleep too.
fn since_boot() -> Finding {
    const SUBJECT: &str = "since boot";
    let seconds = |time: rustix::time::Timespec| time.tv_sec;
    match clock_gettime_dynamic(DynamicClockId::Known(ClockId::Boottime)).map(seconds) {
        Ok(boot) if boot >= seconds(clock_gettime(ClockId::Monotonic)) - 1 => {
            Finding::ok(CHECK, SUBJECT, format!("{boot} s"))
        }
        Ok(boot) => Finding::fail(CHECK, SUBJECT, format!("{boot} s, less than the time without sleep")),
        Err(error) => Finding::fail(CHECK, SUBJECT, error.to_string()).advise("a kernel with CLOCK_BOOTTIME is needed"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_clock_behind_the_newest_event_is_a_warning() {
        let now = UNIX_EPOCH + Duration::from_hours(490_000);
        assert_eq!(judge_time(now, None).found, "2025-11-24T16:00:00Z");
        assert_eq!(judge_time(now, Some(now + SLACK)).level, Level::Ok);
        assert_eq!(judge_time(now, Some(now - SLACK)).level, Level::Ok);
        let behind = judge_time(now, Some(now + Duration::from_hours(1)));
        assert_eq!(behind.level, Level::Warn);
        assert!(behind.found.contains("3600 s before"), "{}", behind.found);
    }

    #[test]
    fn what_the_kernel_says_of_its_clock_is_told() {
        assert_eq!(judge_synchronization(Synchronization::Kept).level, Level::Ok);
        assert_eq!(judge_synchronization(Synchronization::Free).level, Level::Warn);
        assert!(judge_synchronization(Synchronization::Unknown).found.contains("skipped"));
        // Whatever this machine says, asking works.
        judge_synchronization(synchronization());
        assert_eq!(since_boot().level, Level::Ok);
    }
}
