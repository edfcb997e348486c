//! The settings in force, which a reload replaces as a whole while calls and requests go on.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use prometheus::IntCounter;

use super::earlier::{Earlier, Generation, TooManyChanges};
use super::limits::ApplicationLimits;
use super::settings::{ApplicationId, Settings};
use super::take_call::CallOutcome;
use crate::call::event::TrunkId;
use crate::e164::E164;
use crate::matcher::boot_time::BootTime;
use crate::telemetry::metrics::Metrics;

/// Settings and what is kept beside them for each application and trunk.
pub(super) struct InForce {
    pub(super) settings: Settings,
    pub(super) generation: Generation,
    earlier: Earlier,
    /// By application.
    limits: Vec<Arc<ApplicationLimits>>,
    /// `calls_total` by trunk and outcome.
    calls: Vec<[IntCounter; CallOutcome::ALL.len()]>,
}

impl InForce {
    fn new(settings: Settings, before: Option<(&Self, Earlier)>, metrics: &Metrics) -> Self {
        let (before, earlier) = before.map_or((None, Earlier::default()), |(before, earlier)| (Some(before), earlier));
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
            generation: Generation(before.map_or(0, |before| before.generation.0 + 1)),
            earlier,
            settings,
        }
    }

    /// Whether `number` is one that people call, or may still call for what was begun before a reload.
    pub(super) fn is_own(&self, number: E164, now: impl FnOnce() -> BootTime) -> bool {
        self.settings.numbers.find(number).is_some() || self.earlier.knows(number, now)
    }

    /// The newest verifications that a call over `trunk` to `number` may prove; `None` where it may prove none.
    pub(super) fn served(&self, number: E164, trunk: TrunkId, now: BootTime) -> Option<Generation> {
        match self.settings.numbers.find(number) {
            Some(range) if range.trunks.contains(&trunk) => Some(Generation::ANY),
            _ => self.earlier.served(number, trunk, now),
        }
    }

    pub(super) fn cool_down(&self, number: E164) -> Duration {
        let now = self.settings.numbers.find(number).map(|range| range.cool_down);
        now.or_else(|| self.earlier.cool_down(number)).unwrap_or_default()
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

    /// Makes `settings` ready to follow. Limits that did not change go on counting; where they did, pending
    /// verifications still count.
    pub(super) fn prepare(
        &self,
        settings: Settings,
        now: BootTime,
        metrics: &Metrics,
    ) -> Result<NextSettings, TooManyChanges> {
        let current = self.0.load();
        let earlier = current.earlier.after(&current.settings.numbers, current.generation, &settings.numbers, now)?;
        Ok(NextSettings(Arc::new(InForce::new(settings, Some((&current, earlier)), metrics))))
    }

    /// Puts them in force.
    pub(super) fn replace(&self, next: NextSettings) {
        self.0.store(next.0);
    }
}

/// Settings that are ready to be put in force, in the place of those that were when they were made ready.
pub struct NextSettings(Arc<InForce>);
