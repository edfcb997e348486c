//! The index of pairs: who wins a call.
//!
//! Taking a pair from `Pending` to `Claiming` is atomic: of any number of INVITEs on any number of threads one wins.
//! Callbacks run while the pair's entry is held, so that what they note about the pair can't be overtaken; they must
//! be short and must not touch the index.

use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;

use super::boot_time::BootTime;
use super::deadline::Buckets;
use super::pair::{PairKey, PairKeyHasher, Pending, Rest, State};
use super::prefetch::{LINE, prefetch};
use super::verification::VerificationId;
use crate::call::assurance::Assurance;
use crate::e164::E164;

/// Parts of a map of pairs. A part that grows moves all that is in it, and whoever wants something of it waits.
const PARTS: usize = 256;

/// Lines of entries that are fetched for a look: two or three entries.
const LINES: usize = 4;

/// All pairs that are not free.
#[derive(Debug)]
pub struct Matcher {
    pairs: DashMap<PairKey, State, BuildHasherDefault<PairKeyHasher>>,
    buckets: Mutex<Buckets>,
    numbers: DashMap<E164, NumberCount>,
    pending: AtomicU64,
    /// Sandbox verifications once more, by number and application, for calls that are meant for one application.
    sandbox_numbers: DashMap<(E164, u16), NumberCount>,
}

/// How many verifications are pending on one number, and the exclusive or of their ids: with one pending, its id.
#[derive(Debug, Default, Clone, Copy)]
struct NumberCount {
    pending: u64,
    ids: u128,
}

/// What a call finds at its pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// Nobody waits for this call.
    Nothing,
    /// The call has the pair now: it is `Claiming`.
    Won(Pending),
    /// Another call has it, or it is being ended: this one waits for the same outcome.
    Joined,
    /// Its window is over and nobody has noticed yet: it is `Ending` now, and the caller must end it.
    Overdue(Pending),
    /// The call's level is too low for this verification.
    TooLow(Pending),
    /// The verification was begun under settings by which this call's trunk does not bring calls for its number.
    TooNew(Pending),
    /// The verification has ended, or its window has.
    Rested(Rest),
    /// There is no room for one more call that waits.
    NoRoom,
}

/// What a wish to end a verification finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndMet {
    /// The pair is `Ending` now.
    Begun(Pending),
    /// A call or another end has it: wait for the outcome, then look again.
    Busy,
    /// It is not pending any more.
    Gone,
}

/// What was due.
#[derive(Debug, Default)]
pub struct Expired {
    /// Pairs whose window is over: they are `Ending` now.
    pub ended: Vec<(PairKey, Pending)>,
    /// How many entries were looked at.
    pub looked_at: usize,
}

impl Default for Matcher {
    fn default() -> Self {
        Self {
            pairs: DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), PARTS),
            buckets: Mutex::default(),
            numbers: DashMap::default(),
            pending: AtomicU64::default(),
            sandbox_numbers: DashMap::default(),
        }
    }
}

impl Matcher {
    /// Takes a free pair, or one that has rested, for a verification whose creation is under way.
    pub fn reserve(&self, key: PairKey, id: VerificationId, now: BootTime) -> bool {
        match self.pairs.entry(key) {
            Entry::Occupied(mut entry) => match entry.get() {
                State::Resting(rest) if rest.until <= now => {
                    entry.insert(State::Reserved(id));
                    true
                }
                _ => false,
            },
            Entry::Vacant(entry) => {
                entry.insert(State::Reserved(id));
                true
            }
        }
    }

    /// When a pair may be free: the end of its rest or of its window.
    #[must_use]
    pub fn busy_until(&self, key: PairKey, now: BootTime) -> BootTime {
        match self.pairs.get(&key).as_deref() {
            Some(State::Pending(pending) | State::Claiming(pending) | State::Ending(pending)) => pending.deadline,
            Some(State::Resting(rest)) => rest.until,
            Some(State::Reserved(_)) | None => now,
        }
    }

    /// Gives up a reservation: the creation did not commit.
    pub fn release(&self, key: PairKey, id: VerificationId) {
        self.pairs.remove_if(&key, |_, state| *state == State::Reserved(id));
    }

    /// Makes a committed verification matchable. What the pair was before is replaced: a reservation, a rest, or the
    /// verification that this one supersedes. `leave` runs under the same hold and its result is handed on.
    pub fn activate<T>(&self, key: PairKey, pending: Pending, leave: impl FnOnce() -> T) -> T {
        let mut before = self.pairs.entry(key).or_insert(State::Reserved(pending.id));
        let result = leave();
        let superseded = if let State::Ending(superseded) = *before { Some(superseded) } else { None };
        *before = State::Pending(pending);
        drop(before);
        if let Some(superseded) = superseded {
            self.uncount(superseded);
        }
        self.count(pending);
        self.buckets.lock().add(pending.deadline, key);
        result
    }

    /// Puts a pair to rest that rested or ended before this node started.
    pub fn rest(&self, key: PairKey, rest: Rest) {
        self.pairs.insert(key, State::Resting(rest));
        self.buckets.lock().add(rest.known_until(), key);
    }

    /// Has the processor fetch where a pair may stand, for a look that follows: with millions of pairs it is in none of the
    /// processor's caches. Does nothing while that part of the map changes.
    pub fn prefetch(&self, key: PairKey) {
        let hash = self.pairs.hash_usize(&key);
        let Some(part) = self.pairs.shards()[self.pairs.determine_shard(hash)].try_read() else { return };
        // The map's table has its tags from here on, and its entries before, the first one last. A pair stands at the
        // place that its hash names or a few further on.
        let tags = part.data_end().as_ptr().cast::<u8>();
        let place = hash & (part.buckets() - 1);
        prefetch(tags.wrapping_add(place));
        let entry = tags.wrapping_sub(place * size_of::<(PairKey, State)>());
        for line in 1..=LINES {
            prefetch(entry.wrapping_sub(line * LINE));
        }
    }

    /// Judges a call by its pair. `newest` is the last generation of settings by which the call may come. `only` is
    /// the application that a test call is meant for: pairs of others are nothing to it. `enter` is asked for room for
    /// one more call that waits.
    pub fn meet(
        &self,
        key: PairKey,
        now: BootTime,
        level: Assurance,
        newest: u32,
        only: Option<u16>,
        enter: impl FnOnce() -> bool,
    ) -> Met {
        let Some(mut entry) = self.pairs.get_mut(&key).filter(|entry| entry.is_met(only)) else {
            return Met::Nothing;
        };
        match *entry {
            State::Pending(pending) if now >= pending.deadline => {
                *entry = State::Ending(pending);
                Met::Overdue(pending)
            }
            State::Pending(pending) if pending.generation > newest => Met::TooNew(pending),
            State::Pending(pending) if level < pending.minimum => Met::TooLow(pending),
            State::Pending(pending) => {
                if !enter() {
                    return Met::NoRoom;
                }
                *entry = State::Claiming(pending);
                Met::Won(pending)
            }
            State::Claiming(_) | State::Ending(_) => {
                if enter() {
                    Met::Joined
                } else {
                    Met::NoRoom
                }
            }
            State::Resting(rest) => Met::Rested(rest),
            State::Reserved(_) => Met::Nothing,
        }
    }

    /// The verification that a pair is pending for, whatever the call; `only` as in [`Matcher::meet`].
    #[must_use]
    pub fn pending(&self, key: PairKey, now: BootTime, only: Option<u16>) -> Option<Pending> {
        match *self.pairs.get(&key).filter(|entry| entry.is_met(only))? {
            State::Pending(pending) if now < pending.deadline => Some(pending),
            _ => None,
        }
    }

    /// Begins to end a verification. `join` runs when a call or another end has the pair, to be told of
    /// the outcome.
    pub fn begin_end(&self, key: PairKey, id: VerificationId, join: impl FnOnce()) -> EndMet {
        let Some(mut entry) = self.pairs.get_mut(&key) else { return EndMet::Gone };
        match *entry {
            State::Pending(pending) if pending.id == id => {
                *entry = State::Ending(pending);
                EndMet::Begun(pending)
            }
            State::Claiming(pending) | State::Ending(pending) if pending.id == id => {
                join();
                EndMet::Busy
            }
            _ => EndMet::Gone,
        }
    }

    /// Begins to end the verification that a pair is pending for, if it is one of those `wanted`. `Busy` where a call or
    /// another end has it.
    pub fn begin_end_of(&self, key: PairKey, wanted: impl Fn(&Pending) -> bool) -> EndMet {
        let state = self.pairs.get(&key).map(|state| *state);
        match state {
            Some(State::Claiming(pending) | State::Ending(pending)) if wanted(&pending) => EndMet::Busy,
            // Most are not wanted, and looking hinders nobody.
            Some(State::Pending(pending)) if wanted(&pending) => self.begin_end(key, pending.id, || ()),
            _ => EndMet::Gone,
        }
    }

    /// The pairs that want to be looked at in the first second from `from` on in which there are any, and that second,
    /// counted as [`BootTime`]. All pairs with a pending verification are among those of some second.
    #[must_use]
    pub fn due_from(&self, from: u64) -> Option<(u64, Vec<PairKey>)> {
        self.buckets.lock().first_from(from)
    }

    /// Ends a claim or an end that committed: the pair rests. `leave` runs under the same hold and its result is
    /// handed on.
    pub fn settle<T>(&self, key: PairKey, rest: Rest, leave: impl FnOnce() -> T) -> T {
        let entry = self.pairs.get_mut(&key);
        let result = leave();
        if let Some(mut entry) = entry
            && let State::Claiming(pending) | State::Ending(pending) = *entry
            && pending.id == rest.id
        {
            *entry = State::Resting(rest);
            drop(entry);
            self.uncount(pending);
            self.buckets.lock().add(rest.known_until(), key);
        }
        result
    }

    /// Undoes a claim or an end that is known not to have committed: the pair is pending again, and looked at once
    /// more if its window has passed meanwhile.
    pub fn undo<T>(&self, key: PairKey, id: VerificationId, leave: impl FnOnce() -> T) -> T {
        let entry = self.pairs.get_mut(&key);
        let result = leave();
        if let Some(mut entry) = entry
            && let State::Claiming(pending) | State::Ending(pending) = *entry
            && pending.id == id
        {
            *entry = State::Pending(pending);
            drop(entry);
            self.buckets.lock().add(pending.deadline, key);
        }
        result
    }

    /// Takes at most `limit` pairs whose time has come: windows that are over begin to end, rests are over.
    pub fn expire(&self, now: BootTime, limit: usize) -> Expired {
        let due = self.buckets.lock().take_due(now, limit);
        let looked_at = due.len();
        let mut ended = Vec::new();
        for key in due {
            let Some(mut entry) = self.pairs.get_mut(&key) else { continue };
            match *entry {
                State::Pending(pending) if pending.deadline <= now => {
                    *entry = State::Ending(pending);
                    ended.push((key, pending));
                }
                State::Resting(rest) if rest.known_until() <= now => {
                    drop(entry);
                    self.pairs.remove_if(&key, |_, state| *state == State::Resting(rest));
                }
                // Moved on since it was noted; whoever moved it has noted its new time.
                _ => {}
            }
        }
        Expired { ended, looked_at }
    }

    /// The verification pending on `number`, if it is the only one; `only` as in [`Matcher::meet`].
    #[must_use]
    pub fn only_pending_on(&self, number: E164, only: Option<u16>) -> Option<VerificationId> {
        let count = match only {
            None => *self.numbers.get(&number)?,
            Some(tester) => *self.sandbox_numbers.get(&(number, tester))?,
        };
        (count.pending == 1).then_some(VerificationId(ulid::Ulid(count.ids)))
    }

    /// How many verifications are pending.
    #[must_use]
    pub fn pending_count(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    fn count(&self, pending: Pending) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        self.numbers.entry(pending.number).or_default().add(pending.id);
        if !pending.live {
            self.sandbox_numbers.entry((pending.number, pending.application)).or_default().add(pending.id);
        }
    }

    fn uncount(&self, pending: Pending) {
        if let Some(mut count) = self.numbers.get_mut(&pending.number)
            && count.pending > 0
        {
            count.remove(pending.id);
            self.pending.fetch_sub(1, Ordering::Relaxed);
        }
        if !pending.live {
            let key = (pending.number, pending.application);
            self.sandbox_numbers.remove_if_mut(&key, |_, count| {
                count.remove(pending.id);
                count.pending == 0
            });
        }
    }
}

impl NumberCount {
    fn add(&mut self, id: VerificationId) {
        self.pending += 1;
        self.ids ^= id.0.0;
    }

    fn remove(&mut self, id: VerificationId) {
        self.pending = self.pending.saturating_sub(1);
        self.ids ^= id.0.0;
    }
}

#[cfg(test)]
mod tests;
