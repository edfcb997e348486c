//! Slowing down before a receiver that fails: the more failures in a row, the fewer attempts at a time, and in the end
//! one, now and then.
//!
//! Does not decide when a delivery is due: what waits here keeps its place in the plan, and a try counts when it is
//! made. Pure.

use prometheus::IntGauge;

/// Failures in a row after which the receiver is only probed: as many as can be in flight, so that one bad moment of a
/// busy lane is enough and a few bad events are not. Each failure takes one place, so no more attempts than these are
/// spent on a receiver that hangs. Where fewer are in flight, each weighs more.
pub(super) const TROUBLE: u32 = 64;

/// How one receiver does.
#[derive(Debug)]
pub(super) struct Circuit {
    failures: u32,
    /// A turn has come since the last probe.
    may_probe: bool,
    /// Counts receivers that are probed.
    probed: IntGauge,
}

impl Circuit {
    pub(super) fn new(probed: IntGauge) -> Self {
        Self { failures: 0, may_probe: false, probed }
    }

    /// Whether one more attempt may begin beside `in_flight` others.
    pub(super) fn allows(&self, in_flight: usize) -> bool {
        let places = TROUBLE.saturating_sub(self.failures);
        if self.is_open() { self.may_probe && in_flight == 0 } else { in_flight < places as usize }
    }

    /// An attempt has begun.
    pub(super) fn began(&mut self) {
        self.may_probe = false;
    }

    /// A second or so has passed.
    pub(super) fn turn(&mut self) {
        self.may_probe = true;
    }

    /// An attempt has succeeded, or the receiver was well enough to refuse the event.
    pub(super) fn success(&mut self) {
        if self.is_open() {
            self.probed.dec();
        }
        self.failures = 0;
    }

    /// An attempt has failed that was one of at most `at_a_time`. Says whether the receiver is only probed from now on.
    pub(super) fn failure(&mut self, at_a_time: usize) -> bool {
        let was_open = self.is_open();
        self.failures = self.failures.saturating_add(TROUBLE / u32::try_from(at_a_time).unwrap_or(TROUBLE));
        let opens = self.is_open() && !was_open;
        if opens {
            self.probed.inc();
        }
        opens
    }

    /// Whether the receiver is only probed.
    pub(super) fn is_open(&self) -> bool {
        self.failures >= TROUBLE
    }
}

impl Drop for Circuit {
    fn drop(&mut self) {
        self.success();
    }
}

#[cfg(test)]
mod tests {
    use super::super::lane::IN_FLIGHT;
    use super::*;

    #[test]
    fn a_few_heavy_failures_are_as_good_as_many() {
        let mut circuit = Circuit::new(IntGauge::new("probed", "probed").unwrap());
        assert!((0..3).all(|_| !circuit.failure(4)));
        assert!(circuit.failure(4) && circuit.is_open());
    }

    #[test]
    fn a_row_of_failures_leaves_one_probe_a_turn_until_one_succeeds() {
        let probed = IntGauge::new("probed", "probed").unwrap();
        let mut circuit = Circuit::new(probed.clone());
        for failures in 1..TROUBLE {
            assert!(!circuit.failure(IN_FLIGHT));
            let places = (TROUBLE - failures) as usize;
            assert!(circuit.allows(places - 1) && !circuit.allows(places));
        }
        circuit.success();
        for _ in 1..TROUBLE {
            circuit.failure(IN_FLIGHT);
        }
        assert!(circuit.allows(0), "a success in between begins anew");
        assert!(circuit.failure(IN_FLIGHT) && !circuit.failure(IN_FLIGHT), "it is told once");
        assert_eq!(probed.get(), 1);
        assert!(!circuit.allows(0), "not before its turn");
        circuit.turn();
        assert!(!circuit.allows(1), "not beside another");
        assert!(circuit.allows(0));
        circuit.began();
        assert!(!circuit.allows(0), "one a turn");
        circuit.success();
        assert!(circuit.allows(TROUBLE as usize - 1));
        assert_eq!(probed.get(), 0);
    }

    #[test]
    fn a_lane_that_ends_is_not_counted_any_more() {
        let probed = IntGauge::new("probed", "probed").unwrap();
        let mut circuit = Circuit::new(probed.clone());
        for _ in 0..TROUBLE {
            circuit.failure(IN_FLIGHT);
        }
        assert_eq!(probed.get(), 1);
        drop(circuit);
        assert_eq!(probed.get(), 0);
    }
}
