//! One endpoint's deliveries in memory: what waits, what is under way, what was settled and is perhaps not stored.
//!
//! Owns the order (new events before what the store has waiting) and the proof against doing one try twice: a row may
//! come both from its commit and from a poll that read it meanwhile, and it reads as due until its result is on disk,
//! however slow that is. Does not send or store. Pure. Invariant: an id is queued or in flight at most once, and its
//! attempts only grow.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;

use crate::outbox::delivery::{DeliveryId, Due};

/// Most deliveries of one endpoint that wait in memory. More stay in the store and are polled.
pub(super) const CAPACITY: usize = 4096;

/// Results that the store has not answered for. While there are so many, no further try begins: it would be one whose
/// result has no place.
pub(super) const UNSTORED: usize = 4096;

/// The last stored results that are remembered in any case, and at most twice as many: more than are stored while a
/// poll reads its few thousand rows.
const REMEMBERED: usize = 65_536;

/// One in so many tries is one from the store while new events keep coming: they go first, not alone.
const BACKLOG_TURN: u32 = 8;

/// Deliveries of one endpoint.
#[derive(Debug)]
pub(super) struct Queue {
    fresh: VecDeque<Due>,
    backlog: VecDeque<Due>,
    /// Those of the store that were tried before.
    again: VecDeque<Due>,
    /// To be tried again, each alone.
    apart: VecDeque<Due>,
    turn: u32,
    /// How many more of the store's may be taken.
    allowance: usize,
    known: HashSet<DeliveryId>,
    /// Attempts made of the rows whose result the store has not answered for.
    unstored: HashMap<DeliveryId, u32>,
    /// And of those whose result it has, this period and the one before: older readings of them may be on their way.
    stored: [HashMap<DeliveryId, u32>; 2],
}

impl Queue {
    /// An empty one, of which so many of the store's deliveries may be taken.
    pub(super) fn new(allowance: usize) -> Self {
        Self {
            fresh: VecDeque::new(),
            backlog: VecDeque::new(),
            again: VecDeque::new(),
            apart: VecDeque::new(),
            turn: 0,
            allowance,
            known: HashSet::new(),
            unstored: HashMap::new(),
            stored: Default::default(),
        }
    }

    /// From now on so many of the store's may be taken.
    pub(super) fn allow(&mut self, allowance: usize) {
        self.allowance = allowance;
    }

    /// How many more of the store's may be taken.
    pub(super) fn allowance(&self) -> usize {
        self.allowance
    }

    /// Deliveries that wait.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.backlog.len() + self.again.len() + self.apart.len()
    }

    /// Deliveries that wait, are in flight or have a result that is not stored: the store may name all of them as due.
    pub(super) fn tracked(&self) -> usize {
        self.known.len() + self.unstored.len()
    }

    /// Whether tries wait for the store to take results.
    pub(super) fn is_held(&self) -> bool {
        self.unstored.len() >= UNSTORED
    }

    /// Whether one more can wait.
    pub(super) fn has_room(&self) -> bool {
        self.len() < CAPACITY
    }

    /// Takes a delivery in right after its commit; `false` where there is no room or this try of it is here or was made
    /// already.
    pub(super) fn admit_fresh(&mut self, due: Due) -> bool {
        let admitted = self.is_new(&due);
        if admitted {
            self.fresh.push_back(due);
        }
        admitted
    }

    /// Takes in a delivery that a poll has found. One that was tried already has its own plan of tries, which is pace
    /// enough: it stands before those that were missed.
    pub(super) fn admit(&mut self, due: Due) -> bool {
        let admitted = self.is_new(&due);
        if admitted && due.attempts > due.replayed_after {
            self.again.push_back(due);
        } else if admitted {
            self.backlog.push_back(due);
        }
        admitted
    }

    fn is_new(&mut self, due: &Due) -> bool {
        let made = self.stored.iter().chain([&self.unstored]).filter_map(|known| known.get(&due.id)).max();
        self.has_room() && made.is_none_or(|made| *made <= due.attempts) && self.known.insert(due.id)
    }

    /// The next to try in one request: so many, and of so many bytes or a little more, all from one line. Empty: there
    /// is nothing. They stay known until they are settled.
    pub(super) fn take(&mut self, most: usize, bytes: usize) -> Vec<Due> {
        let mut taken = Vec::new();
        if self.is_held() {
            return taken;
        }
        self.turn = (self.turn + 1) % BACKLOG_TURN;
        // What came apart has every other turn, so that it neither waits for all the others nor they for it.
        let paced = self.again.is_empty() && (self.allowance == 0 || self.backlog.is_empty());
        if (self.turn % 2 == 1 || self.fresh.is_empty() && paced)
            && let Some(due) = self.apart.pop_front()
        {
            taken.push(due);
            return taken;
        }
        let of_store = !paced && (self.turn == 0 || self.fresh.is_empty());
        let missed = of_store && self.again.is_empty();
        let (line, most) = if missed {
            (&mut self.backlog, most.min(self.allowance))
        } else if of_store {
            (&mut self.again, most)
        } else {
            (&mut self.fresh, most)
        };
        let mut size = 0;
        while taken.len() < most
            && size < bytes
            && let Some(due) = line.pop_front()
        {
            size += due.body.len();
            taken.push(due);
        }
        if missed {
            self.allowance -= taken.len();
        }
        taken
    }

    /// Takes back what was tried together and is to be tried apart: that one try does not count.
    pub(super) fn part(&mut self, dues: Vec<Due>) {
        self.apart.extend(dues);
    }

    /// Lets go of what waits: it is in the store.
    pub(super) fn clear(&mut self) {
        let held = self.fresh.drain(..).chain(self.backlog.drain(..)).chain(self.again.drain(..));
        for due in held.chain(self.apart.drain(..)) {
            self.known.remove(&due.id);
        }
    }

    /// A try has ended and the row will say that `made` attempts were made. If another follows, it comes by a poll.
    pub(super) fn settle(&mut self, id: DeliveryId, made: u32) {
        self.known.remove(&id);
        self.unstored.insert(id, made);
    }

    /// The store has answered for this result: it is on disk, or will never be.
    pub(super) fn stored(&mut self, id: DeliveryId, made: u32) {
        // A later try of the same row may have been settled already.
        if self.unstored.get(&id) == Some(&made) {
            self.unstored.remove(&id);
            if self.stored[0].len() >= REMEMBERED {
                self.forget();
            }
            self.stored[0].insert(id, made);
        }
    }

    /// A period has passed, and no poll is under way, or there is more than is worth remembering: what was stored before
    /// it is forgotten. A row that a poll still finds then was not written after all, and must be tried again.
    pub(super) fn forget(&mut self) {
        self.stored[1] = mem::take(&mut self.stored[0]);
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

    fn one(queue: &mut Queue) -> Option<Due> {
        queue.take(1, usize::MAX).pop()
    }

    #[test]
    fn new_deliveries_go_before_those_of_the_store() {
        let mut queue = Queue::new(usize::MAX);
        for id in [1, 3] {
            assert!(queue.admit(due(id, 0)));
        }
        for id in [2, 4] {
            assert!(queue.admit_fresh(due(id, 0)));
        }
        let order: Vec<i64> = std::iter::from_fn(|| one(&mut queue)).map(|due| due.id.0).collect();
        assert_eq!(order, [2, 4, 1, 3]);
    }

    #[test]
    fn what_comes_apart_goes_alone_and_every_other_time() {
        let mut queue = Queue::new(usize::MAX);
        for id in 0..10 {
            queue.admit_fresh(due(id, 0));
        }
        let together = queue.take(3, usize::MAX);
        assert_eq!(together.len(), 3);
        queue.part(together);
        let mut sizes = Vec::new();
        loop {
            let taken = queue.take(3, usize::MAX);
            if taken.is_empty() {
                break;
            }
            sizes.push((taken.len(), taken[0].id.0));
        }
        sizes.sort_unstable();
        assert_eq!(sizes, [(1, 0), (1, 1), (1, 2), (1, 9), (3, 3), (3, 6)]);
    }

    #[test]
    fn a_request_takes_from_one_line_and_ends_with_its_bytes() {
        let mut queue = Queue::new(usize::MAX);
        for id in 0..4 {
            queue.admit(due(id, 1));
            queue.admit_fresh(due(id + 10, 0));
        }
        let ids = |taken: Vec<Due>| taken.into_iter().map(|due| due.id.0).collect::<Vec<_>>();
        assert_eq!(ids(queue.take(100, 3)), [10, 11], "two bytes each");
        assert_eq!(ids(queue.take(100, 1_000)), [12, 13]);
        assert_eq!(ids(queue.take(100, 1_000)), [0, 1, 2, 3]);
    }

    #[test]
    fn the_store_has_its_turn_while_new_deliveries_keep_coming() {
        let mut queue = Queue::new(usize::MAX);
        queue.admit(due(-1, 3));
        let tries = (0..100).position(|id| {
            queue.admit_fresh(due(id, 0));
            one(&mut queue).unwrap().id == DeliveryId(-1)
        });
        assert_eq!(tries, Some(7));
    }

    #[test]
    fn what_the_store_has_is_taken_as_far_as_is_allowed_and_new_deliveries_in_any_case() {
        let mut queue = Queue::new(2);
        for id in 0..5 {
            queue.admit(due(id, 0));
        }
        queue.admit_fresh(due(10, 0));
        let ids = |taken: Vec<Due>| taken.into_iter().map(|due| due.id.0).collect::<Vec<_>>();
        assert_eq!(ids(queue.take(100, 1_000)), [10]);
        assert_eq!(ids(queue.take(100, 1_000)), [0, 1]);
        assert!(queue.take(100, 1_000).is_empty());
        queue.admit_fresh(due(11, 0));
        assert_eq!(ids(queue.take(1, 1_000)), [11]);
        queue.allow(1);
        assert_eq!((ids(queue.take(100, 1_000)), queue.allowance()), (vec![2], 0));
        queue.admit(due(20, 3));
        assert_eq!(ids(queue.take(100, 1_000)), [20], "a later try is not held back");
    }

    #[test]
    fn what_is_let_go_may_come_again() {
        let mut queue = Queue::new(usize::MAX);
        for id in 0..3 {
            queue.admit_fresh(due(id, 0));
        }
        let in_flight = one(&mut queue).unwrap();
        queue.clear();
        assert_eq!((queue.len(), queue.tracked()), (0, 1));
        assert!(!queue.admit(due(in_flight.id.0, 0)) && queue.admit(due(1, 0)) && queue.admit(due(2, 0)));
    }

    #[test]
    fn a_replay_is_no_stale_row() {
        let mut queue = Queue::new(usize::MAX);
        queue.admit_fresh(due(1, 0));
        one(&mut queue).unwrap();
        queue.settle(DeliveryId(1), 1);
        queue.stored(DeliveryId(1), 1);
        assert!(!queue.admit(due(1, 0)), "read before it was delivered");
        assert!(queue.admit_fresh(due(1, 1)), "replayed after it was");
    }

    #[test]
    fn row_that_is_queued_or_in_flight_is_not_taken_twice() {
        let mut queue = Queue::new(usize::MAX);
        assert!(queue.admit(due(1, 0)));
        assert!(!queue.admit(due(1, 0)));
        one(&mut queue).unwrap();
        assert!(!queue.admit(due(1, 0)));
    }

    #[test]
    fn stale_row_is_passed_over_until_its_result_is_stored_and_a_while_longer() {
        let mut queue = Queue::new(usize::MAX);
        for id in [1, 2] {
            queue.admit(due(id, 0));
            one(&mut queue).unwrap();
        }
        queue.settle(DeliveryId(1), 1);
        queue.settle(DeliveryId(2), 1);
        for _ in 0..1_000 {
            queue.forget();
            assert!(!queue.admit(due(1, 0)) && !queue.admit(due(2, 0)), "the disk is slow");
        }
        queue.stored(DeliveryId(1), 1);
        queue.stored(DeliveryId(2), 1);
        queue.forget();
        assert!(!queue.admit(due(1, 0)) && !queue.admit(due(2, 0)), "a poll may have read them before");
        assert!(queue.admit(due(1, 1)), "the next try of it is no stale row");
        queue.forget();
        assert!(queue.admit(due(2, 0)), "a row that was never written is tried again");
    }

    #[test]
    fn news_of_an_earlier_result_does_not_free_a_later_one() {
        let mut queue = Queue::new(usize::MAX);
        for made in [1, 2] {
            queue.admit(due(1, made - 1));
            one(&mut queue).unwrap();
            queue.settle(DeliveryId(1), made);
        }
        queue.stored(DeliveryId(1), 1);
        queue.forget();
        queue.forget();
        assert!(!queue.admit(due(1, 1)));
    }

    #[test]
    fn the_latest_results_are_remembered_however_many_there_were() {
        let mut queue = Queue::new(usize::MAX);
        let remembered = i64::try_from(REMEMBERED).unwrap();
        for id in 0..5 * remembered {
            assert!(queue.admit(due(id, 0)));
            one(&mut queue).unwrap();
            queue.settle(DeliveryId(id), 1);
            queue.stored(DeliveryId(id), 1);
            let before = (id + 1 - remembered).max(0);
            assert!(!queue.admit(due(id, 0)) && !queue.admit(due(before, 0)), "a poll may have read them before");
            assert!(queue.stored[0].len() + queue.stored[1].len() <= 2 * REMEMBERED);
        }
    }

    #[test]
    fn tries_are_held_while_too_many_results_are_not_stored() {
        let mut queue = Queue::new(usize::MAX);
        for id in 0..i64::try_from(UNSTORED).unwrap() {
            assert!(queue.admit(due(id, 0)));
            let taken = one(&mut queue).unwrap();
            queue.settle(taken.id, 1);
        }
        assert!(queue.admit(due(-1, 0)));
        assert!(queue.is_held() && one(&mut queue).is_none());
        queue.stored(DeliveryId(0), 1);
        assert_eq!(one(&mut queue).map(|due| due.id), Some(DeliveryId(-1)));
    }

    #[test]
    fn full_queue_leaves_the_rest_to_the_store() {
        let mut queue = Queue::new(usize::MAX);
        for id in 0..i64::try_from(CAPACITY).unwrap() {
            assert!(queue.admit(due(id, 0)));
        }
        assert!(!queue.admit(due(-1, 0)));
        one(&mut queue).unwrap();
        assert!(queue.admit(due(-1, 0)), "what did not fit is not taken for known");
    }

    proptest! {
        #[test]
        fn no_try_is_made_twice_however_rows_arrive(rows in prop::collection::vec((0i64..4, 0u32..4, any::<bool>(), any::<bool>()), 0..200)) {
            let mut queue = Queue::new(usize::MAX);
            let mut tried = HashSet::new();
            for (id, attempts, fresh, stores) in rows {
                let due = due(id, attempts);
                if fresh { queue.admit_fresh(due) } else { queue.admit(due) };
                if let Some(due) = one(&mut queue) {
                    prop_assert!(tried.insert((due.id, due.attempts)));
                    let made = due.attempts + 1;
                    queue.settle(due.id, made);
                    if stores {
                        queue.stored(due.id, made);
                    }
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
            planned_from: UNIX_EPOCH,
            attempts,
            replayed_after: 0,
            body: "{}".into(),
        }
    }
}
