//! What the operator configures about applications and the numbers that people call.

use std::collections::HashSet;
use std::time::Duration;

use crate::call::assurance::Assurance;
use crate::call::event::TrunkId;
use crate::e164::E164;

/// Place of an application in the configuration in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApplicationId(pub u16);

/// One `[[application]]`.
#[derive(Debug, Clone)]
pub struct Application {
    /// Its name: a metric label and the owner of its verifications.
    pub name: String,
    /// Live, not a sandbox.
    pub live: bool,
    /// Window of a verification that asks for none.
    pub ttl: Duration,
    /// Lowest level of proof; a request may raise it.
    pub minimum_assurance: Assurance,
    /// How many verifications may be begun.
    pub limits: Limits,
}

/// `[application.limits]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Creations for one phone.
    pub creates_per_phone: Option<Rate>,
    /// Creations for one `client.ip`.
    pub creates_per_client_ip: Option<Rate>,
    /// Creations a second over all; `None` is no limit.
    pub creates_per_second: Option<u32>,
    /// Verifications of one phone that may be pending at once.
    pub pending_per_phone: u32,
}

/// `count` in `per`, as in `"5/10m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// More than zero.
    pub per: Duration,
}

/// One `[[number]]`: consecutive numbers that people call.
#[derive(Debug, Clone)]
pub struct NumberRange {
    /// The first of them.
    pub first: E164,
    /// How many, at least 1.
    pub count: u32,
    /// The trunks that may bring calls for them.
    pub trunks: Vec<TrunkId>,
    /// The applications that may show them.
    pub applications: Vec<ApplicationId>,
    /// How long a (phone, number) pair rests after any end.
    pub cool_down: Duration,
}

/// All numbers, by range.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    ranges: Vec<NumberRange>,
}

impl Numbers {
    /// Takes ranges that do not overlap.
    #[must_use]
    pub fn new(mut ranges: Vec<NumberRange>) -> Self {
        ranges.sort_by_key(|range| range.first);
        Self { ranges }
    }

    /// The range that holds `number`.
    #[must_use]
    pub fn find(&self, number: E164) -> Option<&NumberRange> {
        let behind = self.ranges.partition_point(|range| range.first <= number);
        let range = self.ranges.get(behind.checked_sub(1)?)?;
        (number.as_u64() - range.first.as_u64() < u64::from(range.count)).then_some(range)
    }

    /// Whether `application` may show `number`.
    #[must_use]
    pub fn serves(&self, number: E164, application: ApplicationId) -> bool {
        self.find(number).is_some_and(|range| range.applications.contains(&application))
    }

    /// The ranges that `application` may show.
    pub fn of(&self, application: ApplicationId) -> impl Iterator<Item = &NumberRange> {
        self.ranges.iter().filter(move |range| range.applications.contains(&application))
    }

    /// All ranges, by first number.
    #[must_use]
    pub fn ranges(&self) -> &[NumberRange] {
        &self.ranges
    }
}

/// [`Settings::max_pending`] where nothing else is said.
pub const MAX_PENDING: u64 = 5_000_000;

/// Applications and numbers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// By [`ApplicationId`].
    pub applications: Vec<Application>,
    /// Those of them that a reload has removed: they have no number, and what is pending for them is canceled.
    pub retired: HashSet<ApplicationId>,
    /// What people call.
    pub numbers: Numbers,
    /// Names of the trunks, by [`TrunkId`].
    pub trunks: Vec<String>,
    /// Verifications that may be pending at once. Creations that are under way may pass it by their own number, and
    /// what a restart brings back is not cut to it.
    pub max_pending: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            applications: Vec::new(),
            numbers: Numbers::default(),
            trunks: Vec::new(),
            max_pending: MAX_PENDING,
            retired: HashSet::new(),
        }
    }
}

impl Settings {
    /// The application with this place. Ids come from the same configuration, so there is one.
    #[must_use]
    pub fn application(&self, id: ApplicationId) -> &Application {
        &self.applications[usize::from(id.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_in_its_range_alone() {
        let range = |first: &str, count| NumberRange {
            first: first.parse().unwrap(),
            count,
            trunks: vec![TrunkId(0)],
            applications: vec![ApplicationId(0)],
            cool_down: Duration::from_mins(1),
        };
        let numbers = Numbers::new(vec![range("+966115000200", 1), range("+966115000000", 100)]);
        let found = |text: &str| numbers.find(text.parse().unwrap()).map(|range| range.first.to_string());
        assert_eq!(found("+966115000000").as_deref(), Some("+966115000000"));
        assert_eq!(found("+966115000099").as_deref(), Some("+966115000000"));
        assert_eq!(found("+966115000100"), None);
        assert_eq!(found("+966115000200").as_deref(), Some("+966115000200"));
        assert_eq!(found("+966114999999"), None);
    }
}
