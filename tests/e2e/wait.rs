//! Waiting for what must come about.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long anything may take before its test fails. Ample: tests share a small machine with one another.
pub const DEADLINE: Duration = Duration::from_mins(1);

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits for `future`; fails with `what` when it does not come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = timeout(DEADLINE, future).await else {
        panic!("waited {} s in vain for {what}", DEADLINE.as_secs());
    };
    value
}

/// Looks again and again until there is something; fails with `what` when there never is.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut again = interval(LOOK_AGAIN);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    within(what, async {
        loop {
            again.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    })
    .await
}
