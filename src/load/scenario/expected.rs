//! Which step of a scenario a message belongs to, and how long it is waited for.
//!
//! Pure. As SIPp looks for it: optional messages may come any time before the next that must.

use std::time::Duration;

use super::received::{Received, Start};
use super::step::{Act, Expected, Optional, Scenario, Step};

impl Scenario {
    /// The step that a message belongs to, for a call at the step `at`: that one, one behind optional ones, or an
    /// optional one before.
    pub(super) fn place_of(&self, at: usize, received: &Received<'_>) -> Option<usize> {
        let is_expected = |step: &Step| match &step.act {
            Act::Receive(receive) => matches(&receive.expected, received, &self.methods),
            _ => false,
        };
        for (index, step) in self.steps.iter().enumerate().skip(at) {
            if is_expected(step) {
                return Some(index);
            }
            if step.optional() == Optional::No {
                break;
            }
        }
        let mut contiguous = true;
        for (index, step) in self.steps.iter().enumerate().take(at).rev() {
            let optional = step.optional();
            contiguous &= optional != Optional::No;
            if (contiguous || optional == Optional::Global) && is_expected(step) {
                return Some(index);
            }
        }
        None
    }

    /// How long messages are waited for from the step `at` on, and where a call then goes on: as the first says that
    /// says it, of the optional ones and the one behind them. SIPp looks at the first alone.
    pub(super) fn patience(&self, at: usize, default: Duration) -> (Duration, Option<usize>) {
        let mut on_timeout = None;
        for step in self.steps.iter().skip(at) {
            let Act::Receive(receive) = &step.act else { break };
            on_timeout = on_timeout.or(step.on_timeout);
            if let Some(timeout) = receive.timeout {
                return (timeout, step.on_timeout);
            }
            if receive.optional == Optional::No {
                break;
            }
        }
        (default, on_timeout)
    }
}

impl Step {
    /// Whether its message must come; any other step must be taken.
    pub(super) fn optional(&self) -> Optional {
        match &self.act {
            Act::Receive(receive) => receive.optional,
            _ => Optional::No,
        }
    }
}

/// A response belongs to any request before it of the method that its `CSeq` names, as in SIPp.
fn matches(expected: &Expected, received: &Received<'_>, methods: &[String]) -> bool {
    match (expected, received.start) {
        (Expected::Request(method), Start::Request(name)) => method == name,
        (Expected::Response { code, methods: before }, Start::Response(came)) => {
            *code == came && methods.iter().take(*before).any(|method| method == received.method)
        }
        _ => false,
    }
}
