//! What time alone does: windows end, rests end, old records go.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use ulid::Ulid;

use super::{Core, Verify};
use crate::call::assurance::Reasons;
use crate::matcher::pair::{PairKey, Pending};
use crate::matcher::verification::Status;
use crate::outbox::event::EventId;
use crate::store::{End, Note};

/// How often due windows are looked for.
const TICK: Duration = Duration::from_millis(200);

/// Most expiries that are given to the store at once; the next chunk follows when this one is committed, so that
/// calls and creations find the store free in between.
pub(super) const CHUNK: usize = 1_000;

/// How often records that are too old are removed and limits forget idle phones.
const TIDY: Duration = Duration::from_mins(1);

impl Verify {
    /// Ends windows until `stop` turns true.
    pub async fn run_expiry(&self, mut stop: watch::Receiver<bool>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidy = interval(TIDY);
        loop {
            tokio::select! {
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
                _ = tick.tick() => tokio::select! {
                    // A chunk whose outcome the store does not know yet is settled by the store alone.
                    () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
                    () = self.core.expire_due() => {}
                },
                _ = tidy.tick() => {
                    let now = (self.core.clock.utc)();
                    self.core.store.hasten(now);
                    self.core.store.purge(now);
                    for limits in self.core.current.get().all_limits() {
                        limits.tidy();
                    }
                }
            }
        }
    }
}

impl Core {
    pub(super) async fn expire_due(self: &Arc<Self>) {
        loop {
            let expired = self.matcher.expire((self.clock.boot)(), CHUNK);
            if expired.looked_at == 0 {
                break;
            }
            if expired.ended.is_empty() {
                continue;
            }
            // What failed is due at once again: the store gets a tick's time to recover.
            if !self.end_all(expired.ended, Status::Expired).await {
                break;
            }
        }
        self.gauges();
    }

    /// Ends verifications that nobody waits for, whose pairs are `Ending`. Whether all of it is on disk.
    pub(super) async fn end_all(self: &Arc<Self>, ended: Vec<(PairKey, Pending)>, status: Status) -> bool {
        let at = (self.clock.utc)();
        let steps = ended.iter().map(|(_, pending)| end(*pending, status, at)).collect();
        let (done, over) = oneshot::channel();
        let keeper = Arc::clone(self);
        self.store.expire(steps, move |results| {
            let stored = results.iter().all(Result::is_ok);
            for ((key, pending), result) in ended.into_iter().zip(results) {
                keeper.ended(key, pending, None, status, &result);
            }
            // Nobody listens any more when the node stops.
            let _ = done.send(stored);
        });
        over.await.unwrap_or(false)
    }

    /// Ends one window that is over, ahead of its turn, and only then records the late call that showed it.
    pub(super) fn expire_now(self: &Arc<Self>, key: PairKey, pending: Pending, late: Option<Note>) {
        let keeper = Arc::clone(self);
        self.store.end(end(pending, Status::Expired, (self.clock.utc)()), move |result| {
            keeper.ended(key, pending, None, Status::Expired, &result);
            if let (Ok(_), Some(late)) = (result, late) {
                keeper.record(late);
            }
        });
    }

    pub(super) fn gauges(&self) {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.verifications_pending.set(count(self.matcher.pending_count()));
        self.metrics.calls_waiting.set(count(self.claims.calls() as u64));
        if let Some(age) = self.recent.last_age() {
            self.metrics.recent_calls_age.set(count(age));
        }
    }
}

fn end(pending: Pending, status: Status, at: SystemTime) -> End {
    End {
        verification: pending.id,
        status,
        reasons: Reasons::NONE,
        event: EventId(Ulid::generate()),
        at,
        idempotency: None,
    }
}
