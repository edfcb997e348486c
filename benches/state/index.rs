//! The index of pairs by itself: what a look-up and a creation cost with few pending and with many.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use ringproof::call::assurance::Assurance;
use ringproof::engine::clock::instant;
use ringproof::matcher::index::{EndMet, Matcher, Met};
use ringproof::matcher::pair::Pending;
use ringproof::matcher::verification::Status;

use crate::memory;
use crate::rows::{Pair, Rows, START_BOOT, waited_for};
use crate::timing::{LOOK_UPS, Nanoseconds, absent, present, rounds};

/// Creations of a round: so many batches, each taken out again before the next, so that the size stays what it is.
const BATCHES: u64 = 1_000;
const BATCH: u64 = 100;

/// What the index costs at one size.
#[derive(Debug, Serialize, Deserialize)]
pub struct Index {
    /// Verifications pending.
    pub pending: u64,
    /// What it took in RAM by verification, from empty to this size.
    pub bytes_per_pending: f64,
    /// The creation that took longest on the way there: tables grow in one.
    pub longest_create_nanoseconds: f64,
    /// A look-up of a pair that is waited for.
    pub present: Nanoseconds,
    /// A look-up of one that is not.
    pub absent: Nanoseconds,
    /// A pair reserved and made matchable.
    pub create: Nanoseconds,
}

/// Fills an index with `rows` and times it.
pub fn measure(rows: Rows) -> Index {
    let before = memory::read();
    let (matcher, longest) = filled(rows);
    let after = memory::read();
    Index {
        pending: rows.total(),
        bytes_per_pending: after.resident.saturating_sub(before.resident) as f64 / rows.total() as f64,
        longest_create_nanoseconds: longest.as_secs_f64() * 1e9,
        present: rounds(LOOK_UPS, |round| look_ups(&matcher, &present(rows, round), Met::NoRoom)),
        absent: rounds(LOOK_UPS, |round| look_ups(&matcher, &absent(round), Met::Nothing)),
        create: rounds(BATCHES * BATCH, |round| creations(&matcher, rows, round)),
    }
}

/// An index in which `rows` are pending, and the longest that one of them took.
pub fn filled(rows: Rows) -> (Matcher, Duration) {
    let matcher = Matcher::default();
    let timed = |place| {
        let (pair, pending) = (waited_for(place), rows.pending(place));
        let begun = instant();
        create(&matcher, pair, pending);
        begun.elapsed()
    };
    let longest = (0..rows.total()).map(timed).max().unwrap_or_default();
    (matcher, longest)
}

/// Looks up a pair as a call does, with the keyed hash that leads to it. A call that matches finds no room to wait:
/// that is past everything that a claim checks, and changes nothing.
pub fn look_up(matcher: &Matcher, pair: Pair) -> Met {
    matcher.meet(pair.key(), START_BOOT, Assurance::B, u32::MAX, None, || false)
}

fn look_ups(matcher: &Matcher, pairs: &[Pair], expected: Met) -> Duration {
    let begun = instant();
    let as_expected = pairs.iter().filter(|pair| look_up(matcher, **pair) == expected).count();
    let time = begun.elapsed();
    assert_eq!(as_expected, pairs.len(), "every look-up finds {expected:?}");
    time
}

fn create(matcher: &Matcher, pair: Pair, pending: Pending) {
    let key = pair.key();
    assert!(matcher.reserve(key, pending.id, START_BOOT), "a pair that is not taken can be reserved");
    matcher.activate(key, pending, || ());
}

/// Time of one round's creations.
fn creations(matcher: &Matcher, rows: Rows, round: u64) -> Duration {
    let behind = rows.total() + round * BATCHES * BATCH;
    let batch = |number| {
        let first = behind + number * BATCH;
        let fresh: Vec<_> = (first..first + BATCH).map(|place| (waited_for(place), rows.pending(place))).collect();
        let begun = instant();
        for (pair, pending) in &fresh {
            create(matcher, *pair, *pending);
        }
        let time = begun.elapsed();
        for (pair, pending) in fresh {
            remove(matcher, pair, pending);
        }
        time
    };
    let time = (0..BATCHES).map(batch).sum();
    assert_eq!(matcher.pending_count(), rows.total(), "what was begun on top is gone");
    time
}

/// Ends a verification whose pair does not rest.
fn remove(matcher: &Matcher, pair: Pair, pending: Pending) {
    let key = pair.key();
    assert!(matches!(matcher.begin_end(key, pending.id, || ()), EndMet::Begun(_)), "it is pending");
    matcher.settle(key, pending.rest(Status::Canceled, START_BOOT, START_BOOT), || ());
    assert_eq!(matcher.expire(START_BOOT, 1).looked_at, 1, "its rest is over at once");
}
