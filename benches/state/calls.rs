//! Calls that change nothing: each is judged like any other, up to the moment at which it would be kept.

use ringproof::call::assurance::{Assurance, Reasons};
use ringproof::call::event::{CallEvent, CallKey, CallerSource, Presentation, TrunkId};
use ringproof::call::evidence::Evidence;
use ringproof::verify::{CallOutcome, Held, Verify};

use crate::rows::{Pair, START_UTC, mixed, time};

/// Somebody who calls without end.
pub struct Caller {
    event: CallEvent,
    calls: u64,
}

impl Default for Caller {
    fn default() -> Self {
        let event = CallEvent {
            key: CallKey(0),
            trunk: TrunkId(0),
            only: None,
            caller: None,
            presented: None,
            source: Some(CallerSource::Pai),
            presentation: Presentation::Allowed,
            dialled: None,
            assurance: Assurance::B,
            reasons: Reasons::NONE,
            evidence: Evidence::default(),
            received_at: time(START_UTC),
        };
        Self { event, calls: 0 }
    }
}

impl Caller {
    /// Calls once. Where the call matches, its keeper has no room for it: `Overload`, and the verification stays
    /// pending. A caller that nobody waits for is `Unmatched`.
    pub fn call(&mut self, verify: &Verify, pair: Pair) -> CallOutcome {
        self.calls += 1;
        self.event.key = CallKey(mixed(self.calls));
        self.event.caller = Some(pair.phone);
        self.event.dialled = Some(pair.number);
        let judged =
            verify.take_call(&self.event, || unreachable!("a call that is not kept hears nothing"), || Held::Full);
        judged.outcome
    }
}
