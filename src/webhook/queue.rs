//! One endpoint's deliveries in memory: what waits, what is under way, what was settled a moment ago.
//!
//! Owns the order (fresh before retries) and the proof against doing one try twice: a row may come both from its
//! commit and from a poll that read it meanwhile. Does not send or store. Pure. Invariant: an id is queued or in
//! flight at most once, and its attempts only grow.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;

use crate::outbox::delivery::{DeliveryId, Due};

/// Most deliveries of one endpoint that wait in memory. More stay in the store and are polled.
pub(super) const CAPACITY: usize = 4096;

/// Settled deliveries remembered in one of the two generations. Past it a row may be tried twice when the store is slow
/// to commit: receivers expect that.
const REMEMBERED: usize = 65_536;

/// Attempts of a delivery that is done: no row can have more.
const DONE: u32 = u32::MAX;

/// Deliveries of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Queue {
    fresh: VecDeque<Due>,
    retries: VecDeque<Due>,
    known: HashSet<DeliveryId>,
    /// Attempts of the rows settled lately, which the store may not have committed yet: this period and the one before.
    settled: [HashMap<DeliveryId, u32>; 2],
}

impl Queue {
    /// Deliveries that wait.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.retries.len()
    }

    /// Deliveries that wait or are in flight.
    pub(super) fn tracked(&self) -> usize {
        self.known.len()
    }

    /// Whether one more can wait.
    pub(super) fn has_room(&self) -> bool {
        self.len() < CAPACITY
    }

    /// Takes a delivery in; `false` where there is no room or this try of it is here or was made already.
    pub(super) fn admit(&mut self, due: Due) -> bool {
        let made = self.settled.iter().filter_map(|period| period.get(&due.id)).max();
        if !self.has_room() || made.is_some_and(|made| *made > due.attempts) || !self.known.insert(due.id) {
            return false;
        }
        let line = if due.attempts == 0 { &mut self.fresh } else { &mut self.retries };
        line.push_back(due);
        true
    }

    /// The next to try. It stays known until it is settled.
    pub(super) fn take(&mut self) -> Option<Due> {
        self.fresh.pop_front().or_else(|| self.retries.pop_front())
    }

    /// An attempt failed and the row will say `attempts`; it comes back by a poll.
    pub(super) fn put_off(&mut self, id: DeliveryId, attempts: u32) {
        self.known.remove(&id);
        if self.settled[0].len() < REMEMBERED {
            self.settled[0].insert(id, attempts);
        }
    }

    /// There will be no further attempt.
    pub(super) fn done(&mut self, id: DeliveryId) {
        self.put_off(id, DONE);
    }

    /// A period has passed: what was settled before it is forgotten. A row that a poll still finds then was not
    /// written, and must be tried again.
    pub(super) fn forget(&mut self) {
        self.settled[1] = mem::take(&mut self.settled[0]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;
    use ulid::Ulid;

    use super::*;
    use crate::outbox::delivery::EndpointId;
    use crate::outbox::event::{EventId, EventType};

    #[test]
    fn fresh_deliveries_go_before_retries() {
        let mut queue = Queue::default();
        for (id, attempts) in [(1, 3), (2, 0), (3, 1), (4, 0)] {
            assert!(queue.admit(due(id, attempts)));
        }
        let order: Vec<i64> = std::iter::from_fn(|| queue.take()).map(|due| due.id.0).collect();
        assert_eq!(order, [2, 4, 1, 3]);
    }

    #[test]
    fn row_that_is_queued_or_in_flight_is_not_taken_twice() {
        let mut queue = Queue::default();
        assert!(queue.admit(due(1, 0)));
        assert!(!queue.admit(due(1, 0)));
        queue.take().unwrap();
        assert!(!queue.admit(due(1, 0)));
    }

    #[test]
    fn stale_row_of_a_settled_delivery_is_passed_over_until_forgotten() {
        let mut queue = Queue::default();
        for id in [1, 2] {
            queue.admit(due(id, 0));
            queue.take().unwrap();
        }
        queue.put_off(DeliveryId(1), 1);
        queue.done(DeliveryId(2));
        queue.forget();
        assert!(!queue.admit(due(1, 0)) && !queue.admit(due(2, 0)));
        assert!(queue.admit(due(1, 1)), "the next try of it is no stale row");
        queue.forget();
        assert!(queue.admit(due(2, 0)), "a row that was never written is tried again");
    }

    #[test]
    fn full_queue_leaves_the_rest_to_the_store() {
        let mut queue = Queue::default();
        for id in 0..i64::try_from(CAPACITY).unwrap() {
            assert!(queue.admit(due(id, 0)));
        }
        assert!(!queue.admit(due(-1, 0)));
        queue.take().unwrap();
        assert!(queue.admit(due(-1, 0)), "what did not fit is not taken for known");
    }

    proptest! {
        #[test]
        fn no_try_is_made_twice_however_rows_arrive(rows in prop::collection::vec((0i64..4, 0u32..4, any::<bool>()), 0..200)) {
            let mut queue = Queue::default();
            let mut tried = HashSet::new();
            for (id, attempts, fails) in rows {
                queue.admit(due(id, attempts));
                if let Some(due) = queue.take() {
                    prop_assert!(tried.insert((due.id, due.attempts)));
                    if fails { queue.put_off(due.id, due.attempts + 1) } else { queue.done(due.id) }
                }
            }
        }
    }

    fn due(id: i64, attempts: u32) -> Due {
        Due {
            id: DeliveryId(id),
            endpoint: EndpointId("demo".into()),
            event: EventId(Ulid::nil()),
            kind: EventType::Verified,
            event_at: UNIX_EPOCH,
            attempts,
            body: "{}".into(),
        }
    }
}
