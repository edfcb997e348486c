//! How many streams are open, for one verification and in all.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::IntGauge;

use crate::matcher::verification::VerificationId;

/// Most streams of one verification: a user has a few pages open, not more.
pub(super) const MAX_PER_VERIFICATION: u8 = 8;

/// All open streams. Their number in all is bounded by the watches of [`crate::verify::MAX_WATCHES`], one a stream.
pub(in crate::api) struct Streams {
    open: Mutex<HashMap<VerificationId, u8>>,
    gauge: IntGauge,
}

/// The place of one stream, free again when it is dropped.
pub(super) struct Place {
    id: VerificationId,
    streams: Arc<Streams>,
}

impl Streams {
    pub(in crate::api) fn new(gauge: IntGauge) -> Self {
        Self { open: Mutex::default(), gauge }
    }

    /// Takes a place; `None` when the verification has as many as it may.
    pub(super) fn take(streams: &Arc<Self>, id: VerificationId) -> Option<Place> {
        let mut open = streams.open.lock();
        let count = open.entry(id).or_default();
        if *count >= MAX_PER_VERIFICATION {
            return None;
        }
        *count += 1;
        drop(open);
        streams.gauge.inc();
        Some(Place { id, streams: Arc::clone(streams) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock();
        if let Some(count) = open.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.id);
            }
        }
        drop(open);
        self.streams.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn one_verification_has_eight_places_and_they_come_back() {
        let streams = Arc::new(Streams::new(Metrics::new().client_streams));
        let ids = ["ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V", "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4W"].map(|id| id.parse().unwrap());
        let mut places: Vec<_> = (0..8).map(|_| Streams::take(&streams, ids[0]).unwrap()).collect();
        assert!(Streams::take(&streams, ids[0]).is_none());
        assert!(Streams::take(&streams, ids[1]).is_some());
        places.pop();
        places.push(Streams::take(&streams, ids[0]).unwrap());
        assert_eq!(streams.gauge.get(), 8);
        places.clear();
        assert_eq!((streams.gauge.get(), streams.open.lock().len()), (0, 0));
    }
}
