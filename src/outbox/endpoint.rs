//! When an endpoint is disabled: at once when it says that it is gone, or when it has failed for a day.

use std::time::{Duration, SystemTime};

/// How long an endpoint may fail without a success in between.
pub const PATIENCE: Duration = Duration::from_hours(24);

/// Failures without which the time says nothing: a single one, and then no event for a day.
pub const HANDFUL: u32 = 5;

/// Gone (RFC 9110 15.5.11): the receiver does not want to be asked again.
pub const GONE: u16 = 410;

/// Why an endpoint is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DisableReason {
    /// It answered 410.
    Gone,
    /// Its attempts have only failed for [`PATIENCE`].
    Failing,
}

impl DisableReason {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::Gone, Self::Failing];

    /// The name in events, in the API and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }

    /// Reads the name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// How an endpoint stands after a failure: what has failed since its last success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// When the first of the failures was.
    pub since: SystemTime,
    /// How many there are.
    pub failures: u32,
}

/// Whether a failure at `at` with this HTTP status, if there was an answer, disables the endpoint.
#[must_use]
pub fn verdict(status: Option<u16>, failing: Failing, at: SystemTime) -> Option<DisableReason> {
    if status == Some(GONE) {
        return Some(DisableReason::Gone);
    }
    let long = at.duration_since(failing.since).is_ok_and(|time| time >= PATIENCE);
    (long && failing.failures >= HANDFUL).then_some(DisableReason::Failing)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn gone_disables_at_once_and_failures_after_a_day() {
        let since = UNIX_EPOCH + Duration::from_hours(1_000);
        let after = |status, time, failures| verdict(status, Failing { since, failures }, since + time);
        assert_eq!(after(Some(410), Duration::ZERO, 1), Some(DisableReason::Gone));
        assert_eq!(after(Some(404), Duration::ZERO, 1_000_000), None);
        assert_eq!(after(Some(500), PATIENCE, HANDFUL), Some(DisableReason::Failing));
        assert_eq!(after(None, PATIENCE, HANDFUL), Some(DisableReason::Failing));
        assert_eq!(after(None, PATIENCE, HANDFUL - 1), None);
        assert_eq!(after(None, PATIENCE.saturating_sub(Duration::from_millis(1)), u32::MAX), None);
        // A clock that was set back tells nothing.
        assert_eq!(verdict(None, Failing { since, failures: 100 }, UNIX_EPOCH), None);
    }
}
