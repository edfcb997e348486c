//! Long polls: a read that waits until there is something to read.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::sleep;

use super::problem::{Problem, no_such_verification};
use super::{Shared, stopped};
use crate::matcher::verification::{Status, Verification, VerificationId};
use crate::verify::settings::ApplicationId;

/// A verification, and whether the wait that was asked for is honoured.
pub(super) type Found = (Verification, bool);

/// Reads a verification once it is no longer pending, or as it is after `wait` or when the node stops. Where too many
/// wait already, as it is now.
pub(super) async fn read(
    shared: Arc<Shared>,
    application: ApplicationId,
    id: VerificationId,
    wait: Duration,
) -> Result<Found, Problem> {
    let Some(mut watch) = shared.verify.watch(id) else {
        shared.metrics.waits_refused.with_label_values(&["long_poll", "node"]).inc();
        return Ok((read_now(&shared, application, id).await?, false));
    };
    let _open = Open::new(shared.metrics.long_polls.clone());
    let mut stop = shared.stop.clone();
    let deadline = sleep(wait);
    tokio::pin!(deadline);
    let mut over = false;
    loop {
        let found = read_now(&shared, application, id).await?;
        if over || found.status != Status::Pending {
            return Ok((found, true));
        }
        // What was read is not kept for the length of the wait.
        drop(found);
        tokio::select! {
            biased;
            () = stopped(&mut stop) => over = true,
            () = watch.changed() => {}
            () = &mut deadline => over = true,
        }
    }
}

/// Reads a verification of this application as it is.
pub(super) async fn read_now(
    shared: &Shared,
    application: ApplicationId,
    id: VerificationId,
) -> Result<Verification, Problem> {
    shared.verify.verification(application, id).await?.ok_or_else(no_such_verification)
}

/// Counts one that is open.
struct Open(IntGauge);

impl Open {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
