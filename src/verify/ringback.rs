//! Ring-back phishing: somebody rings people with one of our numbers on display, and they call back and verify a
//! verification that somebody else began.
//!
//! The ringing itself never passes this node. What does are calls that carry our own numbers as caller, for such displays
//! run in circles, and then more verified calls than usual. Owns that comparison, for each application. Invariant: it
//! decides about no call; it reports.

use std::time::Duration;

use crate::matcher::boot_time::BootTime;

/// How long a sign makes what follows suspicious, and how long one alarm stands for it.
pub const WINDOW: Duration = Duration::from_mins(10);
/// Fewest verified calls behind a sign that can be a rise.
const FEWEST: u32 = 5;
/// How many times the usual number is a rise.
const RISE: u32 = 2;
/// Minutes that are remembered.
const MINUTES: usize = 60;

/// A rise worth an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rise {
    /// Signs in the window.
    pub signs: u32,
    /// Verified calls since the first of them.
    pub verified: u32,
    /// What the time before would have led to expect in a whole window.
    pub usual: u32,
}

/// What is remembered of one application.
#[derive(Debug)]
pub struct Watch {
    /// Verified calls by minute, as a ring, and the minute that was counted last.
    minutes: [u32; MINUTES],
    last: u64,
    sign: Option<Sign>,
}

#[derive(Debug, Clone, Copy)]
struct Sign {
    first: BootTime,
    count: u32,
    verified: u32,
    usual: u32,
    told: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self { minutes: [0; MINUTES], last: 0, sign: None }
    }
}

impl Watch {
    /// Notes a call with one of our numbers as caller.
    pub fn sign(&mut self, now: BootTime) {
        self.turn(now);
        let usual = self.minutes.iter().sum::<u32>() / 6;
        let sign = self.sign.get_or_insert(Sign { first: now, count: 0, verified: 0, usual, told: false });
        sign.count = sign.count.saturating_add(1);
    }

    /// Notes a verified call: whether it follows a sign, and whether that makes a rise that was not told yet.
    pub fn verified(&mut self, now: BootTime) -> (bool, Option<Rise>) {
        self.turn(now);
        let minute = place(now.0 / 60_000);
        self.minutes[minute] = self.minutes[minute].saturating_add(1);
        let Some(sign) = &mut self.sign else { return (false, None) };
        sign.verified = sign.verified.saturating_add(1);
        let is_rise = sign.verified >= FEWEST && sign.verified > sign.usual.saturating_mul(RISE);
        let rise =
            (is_rise && !sign.told).then_some(Rise { signs: sign.count, verified: sign.verified, usual: sign.usual });
        sign.told |= is_rise;
        (is_rise, rise)
    }

    /// Forgets what is too old.
    fn turn(&mut self, now: BootTime) {
        let minute = now.0 / 60_000;
        let passed = minute.saturating_sub(self.last).min(MINUTES as u64);
        for behind in 0..passed {
            self.minutes[place(minute - behind)] = 0;
        }
        self.last = self.last.max(minute);
        self.sign = self.sign.filter(|sign| now.since(sign.first) < WINDOW);
    }
}

/// Place of a minute in the ring.
fn place(minute: u64) -> usize {
    usize::try_from(minute % MINUTES as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(minute: u64) -> BootTime {
        BootTime((1_000 + minute) * 60_000)
    }

    #[test]
    fn v02_a_rise_behind_a_sign_is_told_once() {
        let mut watch = Watch::default();
        for at in 0..60 {
            assert_eq!(watch.verified(minute(at)), (false, None), "one a minute is usual");
        }
        watch.sign(minute(60));
        // The oldest minute has gone: 59 in an hour lead to expect 9 in ten minutes.
        for _ in 0..18 {
            assert_eq!(watch.verified(minute(61)), (false, None));
        }
        let rise = Rise { signs: 1, verified: 19, usual: 9 };
        assert_eq!(watch.verified(minute(62)), (true, Some(rise)));
        assert_eq!(watch.verified(minute(63)), (true, None), "a call that is part of the rise is marked");
    }

    #[test]
    fn few_calls_and_calls_long_behind_a_sign_are_no_rise() {
        let mut watch = Watch::default();
        watch.sign(minute(0));
        for _ in 0..FEWEST - 1 {
            assert_eq!(watch.verified(minute(1)), (false, None));
        }
        assert_eq!(watch.verified(minute(1)), (true, Some(Rise { signs: 1, verified: FEWEST, usual: 0 })));
        assert_eq!(watch.verified(minute(2)), (true, None), "told once");
        assert_eq!(watch.verified(minute(11)), (false, None), "the window is over");
    }
}
