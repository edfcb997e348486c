//! The API's certificate, looked at now and then: applications are told while there is time to renew it.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::clock;
use crate::api::tls::Tls;
use crate::verify::Verify;

/// How often it is looked at.
const LOOK: Duration = Duration::from_hours(1);

/// Days before the end at which it is told.
const DAYS: [u64; 6] = [30, 14, 7, 3, 1, 0];

/// Tells of a certificate that is about to expire, once for each of [`DAYS`], until `stop` turns true.
pub async fn watch(verify: Verify, tls: Tls, mut stop: watch::Receiver<bool>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        tokio::select! {
            () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
            _ = look.tick() => {
                let (expires, now) = (tls.expires(), clock::utc());
                let stage = stage(expires, now).map(|stage| (expires, stage));
                if let Some(due) = stage.filter(|due| told != Some(*due)) {
                    tracing::warn!(expires = %humantime::format_rfc3339_seconds(expires), "the API's certificate expires soon");
                    verify.warn_of_certificate(expires);
                    told = Some(due);
                }
            }
        }
    }
}

/// The nearest of [`DAYS`] that is reached; none while there is time.
fn stage(expires: SystemTime, now: SystemTime) -> Option<u64> {
    let left = expires.duration_since(now).unwrap_or_default().as_secs();
    DAYS.into_iter().rev().find(|days| left <= days * 86_400)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn stages_come_nearer_with_the_end() {
        let day = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 86_400);
        let found: Vec<_> = [50, 70, 71, 87, 97, 99, 100, 200].map(|now| stage(day(100), day(now))).to_vec();
        let expected = [None, Some(30), Some(30), Some(14), Some(3), Some(1), Some(0), Some(0)];
        assert_eq!(found, expected);
    }
}
