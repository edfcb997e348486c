//! Who waits for a verification to change: long polls, and streams to end users.
//!
//! Owns one bell for each verification that somebody watches, rung after the commit of what changed it. Does not tell
//! what changed: whoever hears it reads the row again. Invariant: who watches first and reads then misses no change,
//! and a bell is gone with its last watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::Notify;

use super::Verify;
use crate::matcher::verification::VerificationId;

/// Most watches at once; one more is refused.
pub const MAX_WATCHES: usize = 65_536;

/// All bells.
#[derive(Debug, Default)]
pub(super) struct Changes {
    bells: DashMap<VerificationId, Hung>,
    watches: AtomicUsize,
}

/// A bell, and how many listen to it.
#[derive(Debug)]
struct Hung {
    bell: Arc<Bell>,
    watches: usize,
}

#[derive(Debug, Default)]
struct Bell {
    rings: AtomicU64,
    notify: Notify,
}

/// One that waits for a verification to change, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    id: VerificationId,
    bell: Arc<Bell>,
    /// Rings of the bell that were told of.
    heard: u64,
    changes: Arc<Changes>,
}

impl Verify {
    /// Watches a verification: its status, and while it is pending its reasons. Subscribe first, then read the row.
    /// `None` when [`MAX_WATCHES`] are open.
    #[must_use]
    pub fn watch(&self, id: VerificationId) -> Option<Watch> {
        Changes::watch(&self.core.changes, id)
    }
}

impl Watch {
    /// Waits for a change since this was last called, or since the watch began. Nothing is lost where the future is
    /// dropped.
    pub async fn changed(&mut self) {
        loop {
            // It hears every ring from here on, whether or not it is polled yet.
            let next = self.bell.notify.notified();
            let rings = self.bell.rings.load(Ordering::Acquire);
            if rings != self.heard {
                self.heard = rings;
                return;
            }
            next.await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.changes.bells.entry(self.id) {
            let hung = entry.get_mut();
            hung.watches -= 1;
            if hung.watches == 0 {
                entry.remove();
            }
        }
        self.changes.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Changes {
    fn watch(changes: &Arc<Self>, id: VerificationId) -> Option<Watch> {
        let more = |open| (open < MAX_WATCHES).then_some(open + 1);
        changes.watches.try_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let mut hung = changes.bells.entry(id).or_insert_with(|| Hung { bell: Arc::new(Bell::default()), watches: 0 });
        hung.watches += 1;
        let bell = Arc::clone(&hung.bell);
        drop(hung);
        let heard = bell.rings.load(Ordering::Acquire);
        Some(Watch { id, bell, heard, changes: Arc::clone(changes) })
    }

    /// Wakes whoever watches `id`. Call it after the commit: a watch that begins later reads what was committed,
    /// because it takes the same lock as the look-up here.
    pub(super) fn tell(&self, id: VerificationId) {
        let bell = self.bells.get(&id).map(|hung| Arc::clone(&hung.bell));
        if let Some(bell) = bell {
            bell.rings.fetch_add(1, Ordering::Release);
            bell.notify.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;
    use ulid::Ulid;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn id(number: u128) -> VerificationId {
        VerificationId(Ulid(number))
    }

    async fn rings(watch: &mut Watch) -> bool {
        timeout(Duration::ZERO, watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_change_is_told_once_to_everyone_who_watches_it_and_to_nobody_else() {
        let changes = Arc::new(Changes::default());
        let mut first = Changes::watch(&changes, id(1)).unwrap();
        let mut second = Changes::watch(&changes, id(1)).unwrap();
        let mut other = Changes::watch(&changes, id(2)).unwrap();
        changes.tell(id(1));
        changes.tell(id(3));
        let mut late = Changes::watch(&changes, id(1)).unwrap();
        assert!(rings(&mut first).await && rings(&mut second).await);
        assert!(!rings(&mut first).await && !rings(&mut other).await && !rings(&mut late).await);
        changes.tell(id(1));
        assert!(rings(&mut first).await && rings(&mut late).await);
    }

    #[tokio::test]
    async fn nothing_is_left_of_watches_that_are_dropped() {
        let changes = Arc::new(Changes::default());
        let watches: Vec<_> = (0..100).map(|number| Changes::watch(&changes, id(number % 10)).unwrap()).collect();
        assert_eq!((changes.bells.len(), changes.watches.load(Ordering::Relaxed)), (10, 100));
        drop(watches);
        assert_eq!((changes.bells.len(), changes.watches.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn watches_are_bounded_and_a_place_comes_back() {
        let changes = Arc::new(Changes::default());
        let mut watches: Vec<_> = (0..MAX_WATCHES).map(|_| Changes::watch(&changes, id(1)).unwrap()).collect();
        assert!(Changes::watch(&changes, id(2)).is_none());
        watches.pop();
        assert!(Changes::watch(&changes, id(2)).is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn whoever_watches_and_then_reads_misses_no_change_however_they_race() {
        let changes = Arc::new(Changes::default());
        for round in 0..2_000u128 {
            let committed = Arc::new(AtomicU64::new(0));
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let (changes, committed) = (Arc::clone(&changes), Arc::clone(&committed));
                    tokio::spawn(async move {
                        let mut watch = Changes::watch(&changes, id(round)).unwrap();
                        while committed.load(Ordering::Relaxed) < 2 {
                            watch.changed().await;
                        }
                    })
                })
                .collect();
            let writer = {
                let changes = Arc::clone(&changes);
                tokio::spawn(async move {
                    for state in 1..=2 {
                        committed.store(state, Ordering::Relaxed);
                        changes.tell(id(round));
                    }
                })
            };
            for task in readers.into_iter().chain([writer]) {
                timeout(PATIENCE, task).await.expect("nobody waits in vain").unwrap();
            }
        }
        assert_eq!((changes.bells.len(), changes.watches.load(Ordering::Relaxed)), (0, 0));
    }
}
