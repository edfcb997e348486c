//! The settings in force, which a reload replaces as a whole while calls and requests go on.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use prometheus::IntCounter;

use super::limits::ApplicationLimits;
use super::settings::{ApplicationId, Settings};
use super::take_call::CallOutcome;
use crate::call::event::TrunkId;
use crate::telemetry::metrics::Metrics;

/// Settings and what is kept beside them for each application and trunk.
pub(super) struct InForce {
    pub(super) settings: Settings,
    /// By application.
    limits: Vec<Arc<ApplicationLimits>>,
    /// `calls_total` by trunk and outcome.
    calls: Vec<[IntCounter; CallOutcome::ALL.len()]>,
}

impl InForce {
    fn new(settings: Settings, before: Option<&Self>, metrics: &Metrics) -> Self {
        let counters = |trunk: &String| {
            CallOutcome::ALL.map(|outcome| metrics.calls.with_label_values(&[trunk.as_str(), outcome.as_str()]))
        };
        let limits = |(place, one): (usize, &super::settings::Application)| {
            let known =
                before.and_then(|before| Some((before.settings.applications.get(place)?, &before.limits[place])));
            match known {
                Some((old, limits)) if old.limits == one.limits => Arc::clone(limits),
                Some((_, limits)) => Arc::new(limits.succeeded_by(&one.limits)),
                None => Arc::new(ApplicationLimits::new(&one.limits)),
            }
        };
        Self {
            calls: settings.trunks.iter().map(counters).collect(),
            limits: settings.applications.iter().enumerate().map(limits).collect(),
            settings,
        }
    }

    pub(super) fn limits(&self, application: ApplicationId) -> &Arc<ApplicationLimits> {
        &self.limits[usize::from(application.0)]
    }

    pub(super) fn all_limits(&self) -> &[Arc<ApplicationLimits>] {
        &self.limits
    }

    pub(super) fn count_call(&self, trunk: TrunkId, outcome: CallOutcome) {
        self.calls[usize::from(trunk.0)][outcome as usize].inc();
    }
}

/// Where the settings in force are found. Places of applications and trunks never change their meaning while the node
/// runs: successors keep the entries of those that are gone.
pub(super) struct Current(ArcSwap<InForce>);

impl Current {
    pub(super) fn new(settings: Settings, metrics: &Metrics) -> Self {
        Self(ArcSwap::from_pointee(InForce::new(settings, None, metrics)))
    }

    /// For a look that awaits nothing.
    pub(super) fn load(&self) -> Guard<Arc<InForce>> {
        self.0.load()
    }

    /// For a look that may last.
    pub(super) fn get(&self) -> Arc<InForce> {
        self.0.load_full()
    }

    /// Puts `settings` in force. Limits that did not change go on counting; where they did, pending verifications
    /// still count.
    pub(super) fn replace(&self, settings: Settings, metrics: &Metrics) {
        let next = InForce::new(settings, Some(&self.0.load()), metrics);
        self.0.store(Arc::new(next));
    }
}
