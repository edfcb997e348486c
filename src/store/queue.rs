//! The way to the writer: bounded queues by urgency, and what of them goes into the next transaction.
//!
//! Invariant: a step that is refused comes back to its caller at once; a step that is taken is answered by the writer.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::purge::Purge;
use super::step::{Step, Work};

/// Claims that may wait; as many as can be in flight.
const CLAIMS: usize = 65_536;

/// Creations, and ends that a client waits for.
const CREATES: usize = 65_536;

/// Steps that are heavy.
const HEAVY: usize = 1_024;

/// Notes and delivery states.
pub const DELIVERIES: usize = 262_144;

/// Expiries.
const EXPIRIES: usize = 262_144;

/// Expiries in one transaction.
pub const EXPIRY_CHUNK: usize = 1_000;

/// Steps in one transaction: about 20 ms of work, which is what a claim waits at worst behind others.
pub const BATCH: usize = 2_000;

/// Places of a batch that a queue has for itself, so that more urgent ones cannot starve it.
const SHARE: usize = 250;

/// After so many batches the background work has a turn, even if more urgent steps wait.
const BACKGROUND_TURN: u32 = 8;

/// How soon a step must be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A phone network waits.
    Claim,
    /// An API client waits.
    Create,
    /// Nobody waits, but it should not be lost.
    Delivery,
}

/// Why steps were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its queue is full.
    QueueFull,
    /// An earlier commit's outcome is not known yet.
    Unresolved,
    /// The store is closed.
    Closed,
}

impl Refusal {
    /// The `reason` of the metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Unresolved => "unresolved",
            Self::Closed => "closed",
        }
    }
}

/// What the writer does next.
pub enum Taken {
    /// The steps of one transaction, at least one.
    Batch(Vec<Step>),
    /// A chunk of parking.
    Sweep,
    /// A chunk of this.
    Purge(Purge),
    /// Nothing came in the time given.
    Idle,
    /// The store is closed and everything taken is done.
    Closed,
}

/// The queues.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    claims: VecDeque<Step>,
    creates: VecDeque<Step>,
    /// Steps that take as long as a batch of others.
    heavy: VecDeque<Step>,
    deliveries: VecDeque<Step>,
    expiries: VecDeque<Vec<Step>>,
    expiring: usize,
    sweep: bool,
    purge: Option<Purge>,
    refusal: Option<Refusal>,
    batches: u32,
}

impl Queue {
    /// Takes a step, or gives it back. The result of a try is taken also while an outcome is unknown: what was sent is
    /// sent, and a second time changes nothing.
    pub fn push(&self, urgency: Urgency, step: Step) -> Result<(), (Step, Refusal)> {
        let mut state = self.state.lock();
        let waits = matches!(step.work, Work::Tried(_));
        let refusal = state.refusal.filter(|refusal| !(waits && *refusal == Refusal::Unresolved));
        let (queue, cap) = match urgency {
            _ if step.work.is_heavy() => (&mut state.heavy, HEAVY),
            Urgency::Claim => (&mut state.claims, CLAIMS),
            Urgency::Create => (&mut state.creates, CREATES),
            Urgency::Delivery => (&mut state.deliveries, DELIVERIES),
        };
        if let Some(refusal) = refusal.or((queue.len() >= cap).then_some(Refusal::QueueFull)) {
            return Err((step, refusal));
        }
        queue.push_back(step);
        // While an outcome is unknown the writer sleeps between its looks at a sick disk, and is not to be woken.
        let wake = state.refusal.is_none();
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes a chunk of expiries, or gives it back.
    pub fn push_expiries(&self, chunk: Vec<Step>) -> Result<(), (Vec<Step>, Refusal)> {
        let mut state = self.state.lock();
        let full = state.expiring + chunk.len() > EXPIRIES;
        if let Some(refusal) = state.refusal.or(full.then_some(Refusal::QueueFull)) {
            return Err((chunk, refusal));
        }
        state.expiring += chunk.len();
        state.expiries.push_back(chunk);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Has this purge done when there is time. One that has begun goes first, and this one is forgotten.
    pub fn push_purge(&self, purge: Purge) {
        let mut state = self.state.lock();
        if state.refusal.is_none() && state.purge.is_none() {
            state.purge = Some(purge);
            self.arrived.notify_one();
        }
    }

    /// Has deliveries parked and taken up as their endpoints are, when there is time.
    pub fn push_sweep(&self) {
        let mut state = self.state.lock();
        if state.refusal != Some(Refusal::Closed) {
            state.sweep = true;
            self.arrived.notify_one();
        }
    }

    /// Waits for work; with `wait`, gives `Idle` when none comes in that time.
    pub fn take(&self, wait: Option<Duration>) -> Taken {
        let mut state = self.state.lock();
        loop {
            if let Some(taken) = state.next() {
                return taken;
            }
            match wait {
                None => self.arrived.wait(&mut state),
                Some(wait) => {
                    if self.arrived.wait_for(&mut state, wait).timed_out() {
                        return state.next().unwrap_or(Taken::Idle);
                    }
                }
            }
        }
    }

    /// Waits for `time`, less when the store is closed meanwhile. Says whether it is closed.
    pub fn pause(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        self.arrived.wait_for(&mut state, time);
        state.refusal == Some(Refusal::Closed)
    }

    /// Whether steps other than delivery states are refused until an earlier commit's outcome is known. What waits
    /// already stays.
    pub fn set_unresolved(&self, unresolved: bool) {
        let mut state = self.state.lock();
        if state.refusal != Some(Refusal::Closed) {
            state.refusal = unresolved.then_some(Refusal::Unresolved);
        }
    }

    /// Refuses everything from now on. What waits already is still done.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.refusal = Some(Refusal::Closed);
        state.sweep = false;
        state.purge = None;
        self.arrived.notify_all();
    }

    /// Closes and empties the queues, for a writer that can do no more.
    pub fn abandon(&self) -> Vec<Step> {
        self.close();
        let mut state = self.state.lock();
        let mut left: Vec<Step> = mem::take(&mut state.claims).into();
        left.extend(mem::take(&mut state.creates));
        left.extend(mem::take(&mut state.heavy));
        left.extend(mem::take(&mut state.deliveries));
        left.extend(mem::take(&mut state.expiries).into_iter().flatten());
        left
    }
}

impl State {
    fn next(&mut self) -> Option<Taken> {
        let background = !self.expiries.is_empty() || self.sweep || self.purge.is_some();
        let urgent =
            !(self.claims.is_empty() && self.creates.is_empty() && self.heavy.is_empty() && self.deliveries.is_empty());
        if urgent && !(background && self.batches >= BACKGROUND_TURN) {
            self.batches = self.batches.saturating_add(1);
            return Some(Taken::Batch(self.batch()));
        }
        self.batches = 0;
        if let Some(chunk) = self.expiries.pop_front() {
            self.expiring -= chunk.len();
            return Some(Taken::Batch(chunk));
        }
        if mem::take(&mut self.sweep) {
            return Some(Taken::Sweep);
        }
        if let Some(purge) = self.purge.take() {
            return Some(Taken::Purge(purge));
        }
        (self.refusal == Some(Refusal::Closed)).then_some(Taken::Closed)
    }

    fn batch(&mut self) -> Vec<Step> {
        let (creates, deliveries) = (self.creates.len().min(SHARE), self.deliveries.len().min(SHARE));
        let mut batch = Vec::new();
        let mut take = |queue: &mut VecDeque<Step>, others: usize| {
            let count = queue.len().min(BATCH - others - batch.len());
            batch.extend(queue.drain(..count));
        };
        take(&mut self.claims, creates + deliveries);
        take(&mut self.creates, deliveries);
        take(&mut self.deliveries, 0);
        // One of them: those before it wait for the whole transaction.
        batch.extend(self.heavy.pop_front());
        batch
    }
}
