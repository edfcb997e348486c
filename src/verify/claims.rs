//! Who waits for a claim or an end that is under way.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::call::event::CallKey;
use crate::matcher::pair::PairKey;

/// Most calls that wait for a commit at once; one more gets 503.
pub const MAX_WAITING: usize = 65_536;

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is on disk: the call may be refused.
    Durable,
    /// It is known not to be: the call gets 503.
    Failed,
}

/// Tells a call's keeper how its wait ended. The ticket is the keeper's own name for the call.
#[derive(Debug, Clone)]
pub struct Notify {
    /// Which call.
    pub ticket: u128,
    /// Where its keeper listens. Room for [`MAX_WAITING`] is enough never to be full.
    pub to: mpsc::Sender<(u128, Outcome)>,
}

/// One that waits.
#[derive(Debug)]
pub enum Waiter {
    /// A call.
    Call(Notify),
    /// A request that wants to look again when it is over.
    Request(oneshot::Sender<()>),
}

/// Everyone who waits, by pair.
#[derive(Debug, Default)]
pub struct Claims {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_pair: HashMap<PairKey, Vec<Waiter>>,
    calls: usize,
    /// The calls that are claiming a pair.
    claiming: HashSet<CallKey>,
}

impl Claims {
    /// Adds one that waits. Calls ask for room first; requests are bounded by the API's own connections.
    pub fn join(&self, pair: PairKey, waiter: Waiter) {
        let mut waiting = self.waiting.lock();
        waiting.calls += usize::from(matches!(waiter, Waiter::Call(_)));
        waiting.by_pair.entry(pair).or_default().push(waiter);
    }

    /// Notes that a call is claiming a pair; `false` where it is claiming one already. A peer may send one call with one
    /// caller now and another one at the same moment, and it must not prove both.
    #[must_use]
    pub fn begin(&self, call: CallKey) -> bool {
        self.waiting.lock().claiming.insert(call)
    }

    /// Notes that its claim is over.
    pub fn end(&self, call: CallKey) {
        self.waiting.lock().claiming.remove(&call);
    }

    /// Whether one more call may wait.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.calls() < MAX_WAITING
    }

    /// Takes out all who wait for `pair`.
    pub fn leave(&self, pair: PairKey) -> Vec<Waiter> {
        let mut waiting = self.waiting.lock();
        let left = waiting.by_pair.remove(&pair).unwrap_or_default();
        waiting.calls -= left.iter().filter(|waiter| matches!(waiter, Waiter::Call(_))).count();
        left
    }

    /// How many calls wait.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.waiting.lock().calls
    }
}

/// Tells all of them. Runs outside every lock.
pub fn tell(waiters: Vec<Waiter>, outcome: Outcome) {
    for waiter in waiters {
        match waiter {
            // A keeper that is gone has no call left to answer.
            Waiter::Call(notify) => drop(notify.to.try_send((notify.ticket, outcome))),
            Waiter::Request(request) => drop(request.send(())),
        }
    }
}
