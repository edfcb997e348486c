//! The calls of the last half minute or so: one event a call, and the 200 to a CANCEL that comes late.
//!
//! One table for all workers, of fixed size: slots in sets of eight, in which the oldest goes when a ninth comes. It
//! suppresses a second event, never a claim.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::call::event::{CallEvent, CallKey};
use crate::matcher::boot_time::BootTime;
use crate::matcher::pair::PairKey;
use crate::matcher::prefetch::{LINE, prefetch};

/// Slots that share a lock and compete for room.
const SET: usize = 8;

/// Slots that one call takes: its key, its transaction's and its pair's.
const SLOTS_PER_CALL: usize = 3;

/// A call of the same pair within this time is the carrier's next try, not the user's.
pub const CARRIER_RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Empty,
    Transaction,
    Call,
    ClaimedCall,
    Attempt,
}

/// The slots of one set, field by field, so that they take no room for nothing between them.
#[derive(Debug, Default)]
struct Slots {
    keys: [u64; SET],
    /// Tenths of a second since boot, which 13 years do not overflow.
    seen: [u32; SET],
    kinds: [Kind; SET],
}

/// A set and its lock: two neighbouring cache lines and no more, however the compiler orders the fields.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Set(Mutex<Slots>);

const _: () = assert!(size_of::<Set>() == 128);

/// What is known of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not seen before.
    New,
    /// Seen, and it claimed nothing.
    Before,
    /// It has claimed a verification.
    Claimed,
}

/// A call as a carrier repeats it: the pair, and what was made of it. One that is judged otherwise is another call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt(u64);

impl Attempt {
    /// The attempt that `event` on this pair is.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half of a hash is a hash")]
    pub fn new(pair: PairKey, event: &CallEvent) -> Self {
        let judged = u64::from(event.reasons.bits()) << 8 | (event.presentation as u64) << 4 | event.assurance as u64;
        // An odd factor spreads the few bits over all and loses none.
        Self(pair.0 as u64 ^ judged.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// The table.
#[derive(Debug)]
pub struct RecentCalls {
    sets: Vec<Set>,
    /// Age in seconds of the last slot that had to go; `u64::MAX` while none had.
    last_age: AtomicU64,
}

impl RecentCalls {
    /// Makes room for about `calls` calls.
    #[must_use]
    pub fn new(calls: usize) -> Self {
        let count = sets(calls);
        let mut sets = Vec::with_capacity(count);
        sets.resize_with(count, Set::default);
        Self { sets, last_age: AtomicU64::new(u64::MAX) }
    }

    /// Bytes of memory that the table for `calls` calls takes.
    #[must_use]
    pub fn bytes(calls: usize) -> usize {
        sets(calls) * size_of::<Set>()
    }

    /// Has the processor fetch what will be looked at for a call and its transaction: it is somewhere in tens of
    /// megabytes, and the call takes longer to judge than memory to answer.
    pub fn prefetch(&self, call: CallKey, transaction: u64) {
        fetch(self.set(call.0));
        fetch(self.set(transaction));
    }

    /// The same for the attempt that a call is.
    pub fn prefetch_attempt(&self, attempt: Attempt) {
        fetch(self.set(attempt.0));
    }

    /// Notes a call and tells what was known of it. Test and set are one step.
    pub fn note_call(&self, call: CallKey, now: BootTime) -> Seen {
        self.with_slot(call.0, &[Kind::Call, Kind::ClaimedCall], now, |slot, found| match (found, *slot.kind) {
            (true, Kind::ClaimedCall) => Seen::Claimed,
            (true, _) => Seen::Before,
            (false, _) => {
                *slot.kind = Kind::Call;
                Seen::New
            }
        })
    }

    /// Notes a call of a pair, and tells whether one of the same pair came a moment before. The window runs from the
    /// first of them, so that a user who redials steadily is not taken for a carrier.
    pub fn note_attempt(&self, attempt: Attempt, now: BootTime) -> bool {
        self.with_slot(attempt.0, &[Kind::Attempt], now, |slot, found| {
            let again = found && now.since(tenths(*slot.seen)) <= CARRIER_RETRY;
            if !again {
                *slot.seen = to_tenths(now);
            }
            *slot.kind = Kind::Attempt;
            again
        })
    }

    /// Forgets a call of a pair that was not answered for good: what follows is no retry of it.
    pub fn forget_attempt(&self, attempt: Attempt) {
        self.forget(attempt.0, Kind::Attempt);
    }

    /// Notes that a call has claimed a verification.
    pub fn note_claim(&self, call: CallKey, now: BootTime) {
        self.with_slot(call.0, &[Kind::Call, Kind::ClaimedCall], now, |slot, _| *slot.kind = Kind::ClaimedCall);
    }

    /// Notes a transaction that is being answered; whether it was there before.
    pub fn note_transaction(&self, transaction: u64, now: BootTime) -> bool {
        self.with_slot(transaction, &[Kind::Transaction], now, |slot, found| {
            *slot.kind = Kind::Transaction;
            found
        })
    }

    /// Whether a transaction has been answered.
    #[must_use]
    pub fn has_transaction(&self, transaction: u64) -> bool {
        self.set(transaction).0.lock().find(transaction, &[Kind::Transaction]).is_some()
    }

    /// Forgets a call that was not answered for good, so that it is judged anew.
    pub fn forget_call(&self, call: CallKey) {
        self.forget(call.0, Kind::Call);
    }

    fn forget(&self, key: u64, kind: Kind) {
        let mut set = self.set(key).0.lock();
        if let Some(place) = set.find(key, &[kind]) {
            set.kinds[place] = Kind::Empty;
        }
    }

    /// Age in seconds of the last entry that had to go for another; `None` while none had. Well above 32 s all is
    /// well: retransmissions end there (RFC 3261 17.1.1.2, Timer B).
    #[must_use]
    pub fn last_age(&self) -> Option<u64> {
        Some(self.last_age.load(Ordering::Relaxed)).filter(|age| *age != u64::MAX)
    }

    fn set(&self, key: u64) -> &Set {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits of a hash choose the set")]
        let index = key as usize & (self.sets.len() - 1);
        &self.sets[index]
    }

    /// Finds the slot of `key`, or clears an empty or the oldest one for it.
    fn with_slot<T>(&self, key: u64, kinds: &[Kind], now: BootTime, change: impl FnOnce(Slot<'_>, bool) -> T) -> T {
        let now = to_tenths(now);
        let mut set = self.set(key).0.lock();
        let set = &mut *set;
        let found = set.find(key, kinds);
        let place = found.unwrap_or_else(|| set.oldest());
        if found.is_none() {
            if set.kinds[place] != Kind::Empty {
                let age = u64::from(now.saturating_sub(set.seen[place]) / 10);
                // All workers share it, and most write what it is already.
                if self.last_age.load(Ordering::Relaxed) != age {
                    self.last_age.store(age, Ordering::Relaxed);
                }
            }
            (set.keys[place], set.seen[place], set.kinds[place]) = (key, now, Kind::Empty);
        }
        change(Slot { seen: &mut set.seen[place], kind: &mut set.kinds[place] }, found.is_some())
    }
}

/// What may change in a slot.
struct Slot<'s> {
    seen: &'s mut u32,
    kind: &'s mut Kind,
}

impl Slots {
    fn find(&self, key: u64, kinds: &[Kind]) -> Option<usize> {
        (0..SET).find(|&place| self.keys[place] == key && kinds.contains(&self.kinds[place]))
    }

    fn oldest(&self) -> usize {
        let age = |place: usize| if self.kinds[place] == Kind::Empty { None } else { Some(self.seen[place]) };
        (0..SET).min_by_key(|&place| age(place)).unwrap_or(0)
    }
}

fn to_tenths(time: BootTime) -> u32 {
    u32::try_from(time.0 / 100).unwrap_or(u32::MAX)
}

fn tenths(seen: u32) -> BootTime {
    BootTime(u64::from(seen) * 100)
}

/// Has the processor fetch a set, which is two lines.
fn fetch(set: &Set) {
    let place = std::ptr::from_ref(set).cast::<u8>();
    prefetch(place);
    prefetch(place.wrapping_add(LINE));
}

fn sets(calls: usize) -> usize {
    (calls * SLOTS_PER_CALL / SET).max(1).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootTime = BootTime(50_000);

    #[test]
    fn a_call_is_new_once() {
        let recent = RecentCalls::new(1024);
        assert_eq!(recent.note_call(CallKey(5), NOW), Seen::New);
        assert_eq!(recent.note_call(CallKey(5), NOW), Seen::Before);
        recent.note_claim(CallKey(5), NOW);
        assert_eq!(recent.note_call(CallKey(5), NOW), Seen::Claimed);
        recent.forget_call(CallKey(5));
        assert_eq!(recent.note_call(CallKey(5), NOW), Seen::Claimed, "a claim is not forgotten");
    }

    #[test]
    fn a_forgotten_call_is_new_again() {
        let recent = RecentCalls::new(1024);
        recent.note_call(CallKey(5), NOW);
        recent.forget_call(CallKey(5));
        assert_eq!(recent.note_call(CallKey(5), NOW), Seen::New);
    }

    #[test]
    fn a_transaction_and_a_call_of_one_key_are_two_things() {
        let recent = RecentCalls::new(1024);
        assert!(!recent.note_transaction(5, NOW));
        assert_eq!(recent.note_call(CallKey(5), NOW), Seen::New);
        assert!(recent.note_transaction(5, NOW) && recent.has_transaction(5) && !recent.has_transaction(6));
    }

    #[test]
    fn x03_x04_calls_of_a_pair_within_five_seconds_of_the_first_are_retries() {
        let recent = RecentCalls::new(1024);
        let at = |millis| recent.note_attempt(Attempt(7), BootTime(millis));
        assert!(!at(50_000));
        assert!(at(53_000) && at(55_000));
        assert!(!at(56_000), "the window runs from the first call");
        assert!(at(58_000));
        recent.forget_attempt(Attempt(7));
        assert!(!at(58_500));
    }

    #[test]
    fn the_oldest_goes_first_and_its_age_is_told() {
        let recent = RecentCalls::new(1);
        assert_eq!(recent.last_age(), None);
        for call in 0..8 {
            recent.note_call(CallKey(call), BootTime(1_000 * (call + 1)));
        }
        recent.note_call(CallKey(8), BootTime(40_000));
        assert_eq!(recent.last_age(), Some(39));
        assert_eq!(recent.note_call(CallKey(1), BootTime(40_000)), Seen::Before);
    }
}
