//! The watchdog: the service manager hears from the node while it turns, and starts it anew when it does not.
//!
//! Decides what counts. SIP loops must turn, idle ones too; what the store's writer tells must be taken; and this task
//! itself shows that the main runtime turns. A disk that hangs does not count: the node still refuses calls that match
//! nothing, tells by `/readyz` that it cannot write, and a restart would heal no disk. What has ended for good, a SIP
//! loop or the writer, does count, for a restart brings it back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::supervisor::Supervisor;
use crate::telemetry::health::Health;

/// How often the beats are looked at, or at half of what the service manager wants where that is shorter.
const LOOK: Duration = Duration::from_secs(1);

/// Shortest time without a turn after which a part is stuck. SIP loops turn several times a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells the service manager of the node's health until `stop` turns true. Ends at once where nobody watches.
pub async fn run(supervisor: Arc<Supervisor>, health: Arc<Health>, mut stop: watch::Receiver<bool>) {
    let Some(period) = supervisor.watchdog() else { return };
    let mut looks = interval((period / 2).min(LOOK));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen { patience: (period / 2).max(PATIENCE), parts: HashMap::new() };
    let mut was_healthy = true;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = looks.tick() => {}
        }
        let stuck = seen.stuck(&health.beats.at_work(), Instant::now());
        let reason = health.needs_restart().or(stuck.as_deref());
        match reason {
            None => supervisor.alive(),
            Some(reason) if was_healthy => tracing::error!(reason, "the watchdog is left to restart this node"),
            Some(_) => {}
        }
        was_healthy = reason.is_none();
    }
}

/// When each part that is at work was first seen at its present turn.
struct Seen {
    patience: Duration,
    parts: HashMap<Arc<str>, (u64, Instant)>,
}

impl Seen {
    /// A part that has not turned for too long.
    fn stuck(&mut self, at_work: &[(Arc<str>, u64)], now: Instant) -> Option<Arc<str>> {
        let mut parts = HashMap::with_capacity(at_work.len());
        for (name, count) in at_work {
            let before = self.parts.get(name).filter(|(before, _)| before == count);
            parts.insert(Arc::clone(name), (*count, before.map_or(now, |(_, since)| *since)));
        }
        self.parts = parts;
        let stuck = self.parts.iter().find(|(_, (_, since))| now.duration_since(*since) >= self.patience);
        stuck.map(|(name, _)| Arc::clone(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_does_not_turn_is_stuck_and_one_that_waits_is_not() {
        let mut seen = Seen { patience: PATIENCE, parts: HashMap::new() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let part = |name: &str, count| (Arc::<str>::from(name), count);
        assert_eq!(seen.stuck(&[part("loop", 1), part("writer", 7)], at(0)), None);
        assert_eq!(seen.stuck(&[part("loop", 3)], at(60)), None, "the writer waits, the loop has turned");
        assert_eq!(seen.stuck(&[part("loop", 3), part("writer", 7)], at(61)), None, "the writer has just begun");
        assert_eq!(seen.stuck(&[part("loop", 3), part("writer", 9)], at(62)).as_deref(), Some("loop"));
        assert_eq!(seen.stuck(&[part("loop", 5), part("writer", 9)], at(63)), None);
        assert_eq!(seen.stuck(&[part("loop", 7), part("writer", 9)], at(64)).as_deref(), Some("writer"));
    }
}
