//! Look-ups in an order without a pattern, and the time of each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rows::{Pair, Rows, mixed, stranger, waited_for};

/// Look-ups of one round.
pub const LOOK_UPS: u64 = 1_000_000;

const ROUNDS: u64 = 5;

/// Time of one look-up, as the mean of a round: the middle one of five rounds, and the shortest and longest.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Nanoseconds {
    /// The one to be compared.
    pub median: f64,
    /// Of the fastest round.
    pub least: f64,
    /// Of the slowest.
    pub most: f64,
}

/// Runs rounds of `count` look-ups each. A round is given its number and tells how long its look-ups took in all.
pub fn rounds(count: u64, round: impl FnMut(u64) -> Duration) -> Nanoseconds {
    let mut each: Vec<f64> = (0..ROUNDS).map(round).map(|time| time.as_secs_f64() * 1e9 / count as f64).collect();
    each.sort_by(f64::total_cmp);
    Nanoseconds { median: each[each.len() / 2], least: each[0], most: each[each.len() - 1] }
}

/// Pairs of a round for which a verification is pending, any of them.
pub fn present(rows: Rows, round: u64) -> Vec<Pair> {
    places(round).map(|place| waited_for(mixed(place) % rows.total())).collect()
}

/// Pairs of a round for which none is, each once.
pub fn absent(round: u64) -> Vec<Pair> {
    places(round).map(stranger).collect()
}

fn places(round: u64) -> impl Iterator<Item = u64> {
    round * LOOK_UPS..(round + 1) * LOOK_UPS
}
