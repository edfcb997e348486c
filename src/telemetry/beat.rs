//! Beats: how a part of the program shows that it still turns.
//!
//! A part is either at work, and then it must turn again soon, or it waits for something outside, which may last: the
//! next step, or a disk. Only the first can be stuck. Invariant: who beats waits for nobody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// One part's beat. Odd while it is at work.
#[derive(Debug)]
pub struct Beat(AtomicU64);

impl Beat {
    /// One round more of a part that is always at work.
    pub fn turn(&self) {
        self.0.fetch_add(2, Ordering::Relaxed);
    }

    /// The part begins to work, or to wait for something outside.
    pub fn change(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// All beats.
#[derive(Debug, Default)]
pub struct Beats(Mutex<Vec<(Arc<str>, Weak<Beat>)>>);

impl Beats {
    /// Adds a part that is at work, or one that waits. It is among them until its beat is dropped.
    pub fn add(&self, name: &str, works: bool) -> Arc<Beat> {
        let beat = Arc::new(Beat(AtomicU64::new(works.into())));
        let mut all = self.0.lock();
        all.retain(|(_, beat)| beat.strong_count() > 0);
        all.push((name.into(), Arc::downgrade(&beat)));
        beat
    }

    /// Name and count of each part that is at work now. One that shows the same count much later is stuck.
    #[must_use]
    pub fn at_work(&self) -> Vec<(Arc<str>, u64)> {
        let all = self.0.lock();
        let counted = all.iter().filter_map(|(name, beat)| Some((name, beat.upgrade()?.0.load(Ordering::Relaxed))));
        counted.filter(|(_, count)| count % 2 == 1).map(|(name, count)| (Arc::clone(name), count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_at_work_until_it_waits_or_ends() {
        let beats = Beats::default();
        let (turning, waiting) = (beats.add("turning", true), beats.add("waiting", false));
        let seen = || beats.at_work().iter().map(|(name, count)| (name.to_string(), *count)).collect::<Vec<_>>();
        assert_eq!(seen(), [("turning".to_owned(), 1)]);
        turning.turn();
        waiting.change();
        assert_eq!(seen(), [("turning".to_owned(), 3), ("waiting".to_owned(), 1)]);
        waiting.change();
        drop(turning);
        assert_eq!(seen(), []);
    }
}
