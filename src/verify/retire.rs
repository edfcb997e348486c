//! The end of what is pending for applications that a reload has removed.
//!
//! Owns the search for it, which goes through all that is pending in small steps, so that no call waits behind it.
//! Invariant: once an application is gone, whatever becomes pending for it afterwards, by a creation that was under way
//! or by a claim that was undone, is found as well: it says so after it is pending, and the search looks after that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::expiry::CHUNK;
use super::settings::ApplicationId;
use super::{Core, Verify};
use crate::matcher::index::EndMet;
use crate::matcher::pair::{PairKey, Pending};
use crate::matcher::verification::Status;

/// How long what could not be ended, for want of the disk or because a call has it, is left alone: at first, and at
/// most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(16));

/// Later than any window ends: beyond there are only pairs that rest.
const HORIZON: Duration = Duration::from_secs(302);

impl Verify {
    /// Cancels what is pending for applications that are gone, until `stop` turns true.
    pub async fn run_retirement(&self, mut stop: watch::Receiver<bool>) {
        let work = async {
            loop {
                self.core.retired.notified().await;
                let (mut pause, longest) = AGAIN;
                while !self.core.end_retired().await {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
            }
        };
        tokio::select! {
            // What is left is canceled at the next start.
            _ = stop.wait_for(|stop| *stop) => {}
            () = work => {}
        }
    }
}

impl Core {
    /// Has the search begin if `application` is gone. To be called after something became pending for it.
    pub(super) fn heed_retirement(&self, application: u16) {
        if self.is_retired(application) {
            self.retired.notify_one();
        }
    }

    fn is_retired(&self, application: u16) -> bool {
        self.current.load().settings.retired.contains(&ApplicationId(application))
    }

    /// Ends what is pending for applications that are gone. Whether nothing of it is left.
    async fn end_retired(self: &Arc<Self>) -> bool {
        if self.current.load().settings.retired.is_empty() {
            return true;
        }
        let horizon = (self.clock.boot)().plus(HORIZON).0 / 1000;
        let (mut from, mut all) = (0, true);
        while let Some((second, pairs)) = self.matcher.due_from(from).filter(|(second, _)| *second <= horizon) {
            from = second + 1;
            for chunk in pairs.chunks(CHUNK) {
                let (ended, busy) = self.begin_retired(chunk);
                all &= !busy;
                if ended.is_empty() {
                    tokio::task::yield_now().await;
                } else {
                    all &= self.end_all(ended, Status::Canceled).await;
                }
            }
        }
        all
    }

    fn begin_retired(&self, pairs: &[PairKey]) -> (Vec<(PairKey, Pending)>, bool) {
        let current = self.current.load();
        let retired = |pending: &Pending| current.settings.retired.contains(&ApplicationId(pending.application));
        let mut ended = Vec::new();
        let mut busy = false;
        for pair in pairs {
            match self.matcher.begin_end_of(*pair, retired) {
                EndMet::Begun(pending) => ended.push((*pair, pending)),
                EndMet::Busy => busy = true,
                EndMet::Gone => {}
            }
        }
        (ended, busy)
    }
}
