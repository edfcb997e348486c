//! Phones of the ranges reserved for tests that play a part: in a sandbox each brings about one outcome by itself.
//!
//! Owns the table of phones and the plan of calls that they will place. Does not place them: `engine` takes the calls
//! that are due and sends them the way of every test call. A restart plans the calls of what is pending anew.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::request::{CreateError, LimitState, RequestError};
use super::settings::{Application, ApplicationId, Rate};
use super::{Core, Verify};
use crate::call::assurance::Assurance;
use crate::e164::E164;
use crate::matcher::boot_time::BootTime;
use crate::matcher::pair::Pending;

/// How long after its creation, or after its window, a verification gets its call.
const DELAY: Duration = Duration::from_secs(1);

/// Window of the parts that play at its end, where the request asks for none: the shortest there is.
const SHORT: Duration = Duration::from_mins(1);

/// Most calls planned at once; a further one is not placed.
const MAX_PLANNED: usize = 10_000;

/// What the refused creations are told to wait.
const WAIT: Duration = Duration::from_secs(30);

/// What a phone of the table does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// The creation is refused: the store cannot take it.
    Unavailable,
    /// Calls, and the network asserts its number.
    Calls,
    /// Calls and withholds its number.
    Withheld,
    /// Its call was forwarded.
    Forwarded,
    /// Calls from a line of another number.
    Mismatch,
    /// Calls, and nobody asserts its number.
    NotAsserted,
    /// Does not call.
    Silent,
    /// Calls when the window is over.
    Late,
    /// The creation is refused: no number is free for the phone.
    Busy,
    /// The creation is refused: the phone has begun too many.
    Limited,
}

impl Script {
    /// By the last digit of the phone.
    const TABLE: [Self; 10] = [
        Self::Unavailable,
        Self::Calls,
        Self::Withheld,
        Self::Forwarded,
        Self::Mismatch,
        Self::NotAsserted,
        Self::Silent,
        Self::Late,
        Self::Busy,
        Self::Limited,
    ];

    /// The part of a phone: +44 7700 900 90x and +1 NXX 555 019x have one.
    #[must_use]
    pub fn of(phone: E164) -> Option<Self> {
        let digits = phone.as_u64();
        let north_american = (12_000_000_000..=19_999_999_999).contains(&digits) && digits % 10_000_000 / 10 == 555_019;
        let last = usize::try_from(digits % 10).ok()?;
        (digits / 10 == 44_770_090_090 || north_american).then_some(Self::TABLE[last])
    }

    fn refusal(self, limits: Option<Rate>) -> Option<CreateError> {
        match self {
            Self::Unavailable => Some(RequestError::Unavailable.into()),
            Self::Busy => Some(CreateError::PhoneBusy { retry_after: WAIT }),
            Self::Limited => {
                let Rate { count, per } = limits.unwrap_or(Rate { count: 5, per: Duration::from_mins(10) });
                let name = "creates_per_phone";
                let exceeded = LimitState { name, quota: count, window: per, remaining: 0, reset: WAIT };
                Some(CreateError::RateLimited { limits: vec![exceeded.clone()], exceeded })
            }
            _ => None,
        }
    }

    /// When it calls: `None` for one that does not.
    fn call_at(self, deadline: BootTime, now: BootTime) -> Option<BootTime> {
        match self {
            Self::Calls | Self::Withheld | Self::Forwarded | Self::Mismatch | Self::NotAsserted => {
                Some(now.plus(DELAY))
            }
            Self::Late => Some(deadline.plus(DELAY)),
            Self::Silent | Self::Unavailable | Self::Busy | Self::Limited => None,
        }
    }
}

/// The level and window of a creation, or the refusal that the phone's part is.
pub(super) fn terms(
    application: &Application,
    phone: E164,
    minimum: Assurance,
    ttl: Option<Duration>,
) -> Result<(Assurance, Duration), CreateError> {
    let script = if application.live { None } else { Script::of(phone) };
    let usual = ttl.unwrap_or(application.ttl);
    match script {
        // What nobody asserts is worth C: it is too low wherever more is asked for.
        Some(Script::NotAsserted) => Ok((minimum.max(Assurance::B), usual)),
        Some(Script::Late | Script::Silent) => Ok((minimum, ttl.unwrap_or(SHORT))),
        Some(script) => script.refusal(application.limits.creates_per_phone).map_or(Ok((minimum, usual)), Err),
        None => Ok((minimum, usual)),
    }
}

/// A call that a phone of the table is about to place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptedCall {
    /// The sandbox application whose verification it is for.
    pub application: ApplicationId,
    /// The phone.
    pub phone: E164,
    /// The number that it calls.
    pub number: E164,
    /// How.
    pub script: Script,
}

/// The calls planned, by time.
#[derive(Debug, Default)]
pub(super) struct Plan {
    calls: Mutex<BTreeMap<(BootTime, u128), ScriptedCall>>,
}

impl Verify {
    /// Takes out the calls of the table's phones whose time has come.
    #[must_use]
    pub fn take_scripted(&self) -> Vec<ScriptedCall> {
        let core = &self.core;
        let behind = ((core.clock.boot)().plus(Duration::from_millis(1)), 0);
        let mut calls = core.plan.calls.lock();
        let later = calls.split_off(&behind);
        std::mem::replace(&mut *calls, later).into_values().collect()
    }
}

impl Core {
    /// Plans the call of a phone that has a part, for a verification that is pending from now on.
    pub(super) fn plan_call(&self, phone: E164, pending: &Pending) {
        let Some(script) = Script::of(phone).filter(|_| !pending.live) else { return };
        let Some(at) = script.call_at(pending.deadline, (self.clock.boot)()) else { return };
        let call =
            ScriptedCall { application: ApplicationId(pending.application), phone, number: pending.number, script };
        let mut calls = self.plan.calls.lock();
        if calls.len() < MAX_PLANNED {
            calls.insert((at, pending.id.0.0), call);
        } else {
            self.metrics.test_calls_refused.with_label_values(&["no_room"]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_phones_of_an_area_have_a_part_and_their_neighbours_none() {
        let script = |text: &str| Script::of(text.parse().unwrap());
        assert_eq!(script("+447700900901"), Some(Script::Calls));
        assert_eq!(script("+12025550191"), Some(Script::Calls));
        assert_eq!(script("+19995550197"), Some(Script::Late));
        assert_eq!(script("+447700900909"), Some(Script::Limited));
        for text in ["+447700900900", "+12025550190"] {
            assert_eq!(script(text), Some(Script::Unavailable), "{text}");
        }
        let others = [
            "+447700900899",
            "+447700900910",
            "+447700900123",
            "+12025550189",
            "+12025550200",
            "+15550190000",
            "+966500000901",
            "+11995550191",
        ];
        for text in others {
            assert_eq!(script(text), None, "{text}");
        }
    }
}
