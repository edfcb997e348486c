//! What the counts of a source speak for: a value for each setting, with how much of the evidence supports it.
//!
//! Owns the decisions but those on the form of numbers, and the joining of sources with the same habits to one trunk.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::dialling::{self, Plans};
use super::evidence::{Evidence, Numbers};
use super::messages::DIALLED;
use super::profile::GENERIC;
use crate::call::dialplan::{Dialplan, NumberFormat};
use crate::call::event::CallerSource;
use crate::call::trunk::{DidSource, Scope};

/// A value, and in how many of how many cases it fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<T> {
    pub value: T,
    pub support: u64,
    pub of: u64,
}

/// What a trunk's settings may be.
#[derive(Debug)]
pub(super) struct Habits {
    /// `None` where no country has half of the numbers.
    pub country: Option<Found<String>>,
    /// Supported by the callers of the country, whatever the value.
    pub scope: Found<Scope>,
    pub sources: Found<Vec<CallerSource>>,
    pub format: Found<NumberFormat>,
    pub prefix: Found<String>,
    pub did: Found<DidSource>,
    pub profile: Found<&'static str>,
}

/// Sources that send alike to the same listener.
pub(super) struct Group {
    /// With the calls of each.
    pub sources: BTreeMap<IpAddr, u64>,
    pub evidence: Evidence,
    pub habits: Habits,
}

/// Joins sources to groups, those with most calls first.
pub(super) fn groups(sources: BTreeMap<IpAddr, Evidence>) -> Vec<Group> {
    let mut plans = Plans::default();
    let mut groups: Vec<Group> = Vec::new();
    let mut sources: Vec<(IpAddr, Evidence)> = sources.into_iter().collect();
    sources.sort_by_key(|(_, evidence)| Reverse(evidence.calls));
    for (address, evidence) in sources {
        let habits = Habits::of(&evidence, &mut plans);
        let calls = evidence.calls;
        if let Some(group) = groups.iter_mut().find(|group| group.takes(&evidence, &habits)) {
            group.sources.insert(address, calls);
            group.evidence.merge(evidence);
            group.habits.country = group.habits.country.take().or(habits.country);
        } else {
            groups.push(Group { sources: BTreeMap::from([(address, calls)]), evidence, habits });
        }
    }
    for group in groups.iter_mut().filter(|group| group.sources.len() > 1) {
        group.habits = Habits::of(&group.evidence, &mut plans);
    }
    groups
}

impl Group {
    fn takes(&self, evidence: &Evidence, habits: &Habits) -> bool {
        let listener = |evidence: &Evidence| evidence.listeners.top().map(|(listener, _)| *listener);
        listener(&self.evidence) == listener(evidence) && self.habits.agree(habits)
    }
}

impl Habits {
    fn of(evidence: &Evidence, plans: &mut Plans) -> Self {
        let did = did(evidence);
        let dialled = dialled(evidence, did.value);
        let country = dialling::country(&[&evidence.callers, dialled], plans);
        let code = country.as_ref().map(|found| found.value.as_str());
        let format = dialling::format(&evidence.callers.bare, code, plans);
        Self {
            scope: scope(&evidence.callers, code, format.value),
            sources: sources(evidence),
            prefix: dialling::prefix(evidence, dialled, code, plans),
            profile: profile(evidence),
            did,
            format,
            country,
        }
    }

    /// Whether nothing speaks against the same settings for both.
    fn agree(&self, other: &Self) -> bool {
        let countries = self.country.as_ref().zip(other.country.as_ref());
        countries.is_none_or(|(one, two)| one.value == two.value)
            && self.scope.value == other.scope.value
            && self.sources.value == other.sources.value
            && self.format.value == other.format.value
            && self.prefix.value == other.prefix.value
            && self.did.value == other.did.value
            && self.profile.value == other.profile.value
    }
}

/// The numbers at the place where the dialled one stands.
pub(super) fn dialled(evidence: &Evidence, place: DidSource) -> &Numbers {
    let [uri, to, called] = &evidence.dialled;
    match place {
        DidSource::RequestUri => uri,
        DidSource::To => to,
        DidSource::PCalledPartyId => called,
    }
}

/// National or international where 99 of 100 callers are.
fn scope(callers: &Numbers, country: Option<&str>, format: NumberFormat) -> Found<Scope> {
    let Some(plan) = country.and_then(|country| Dialplan::for_country(country, format).ok()) else {
        return Found { value: Scope::Mixed, support: 0, of: 0 };
    };
    let whole = callers.whole.each.iter().map(|(number, count)| (Some(*number), *count));
    let bare = callers.bare.each.iter().map(|(digits, count)| (plan.read(digits.as_bytes()), *count));
    let (mut support, mut of) = (0, 0);
    for (number, count) in whole.chain(bare) {
        let Some(number) = number else { continue };
        of += count;
        if plan.is_domestic(number) {
            support += count;
        }
    }
    let value = if of > 0 && support * 100 >= of * 99 {
        Scope::National
    } else if support * 100 < of {
        Scope::International
    } else {
        Scope::Mixed
    };
    Found { value, support, of }
}

/// The headers that name a caller in one call of 100 at least.
fn sources(evidence: &Evidence) -> Found<Vec<CallerSource>> {
    let named = CallerSource::ALL.into_iter().zip(evidence.named);
    let mut value: Vec<CallerSource> =
        named.filter(|(_, calls)| *calls > 0 && calls * 100 >= evidence.calls).map(|(source, _)| source).collect();
    if value.is_empty() {
        value = vec![CallerSource::Pai, CallerSource::From];
    }
    Found { value, support: evidence.named_any, of: evidence.calls }
}

/// The first place that holds a number in nine calls of ten, and not always the same; else the first that holds one.
fn did(evidence: &Evidence) -> Found<DidSource> {
    let places = || DIALLED.into_iter().map(|place| (place, dialled(evidence, place)));
    let holds = |numbers: &Numbers| numbers.calls > 0 && numbers.calls * 10 >= evidence.calls * 9;
    let varying = places().find(|(_, numbers)| holds(numbers) && numbers.different() > 1);
    let (value, support) = varying
        .or_else(|| places().find(|(_, numbers)| holds(numbers)))
        .map_or((DidSource::RequestUri, evidence.dialled[0].calls), |(place, numbers)| (place, numbers.calls));
    Found { value, support, of: evidence.calls }
}

/// The profile for which half of the calls speak.
fn profile(evidence: &Evidence) -> Found<&'static str> {
    let of = evidence.calls;
    match evidence.profiles.top() {
        Some((name, support)) if support * 2 >= of => Found { value: *name, support, of },
        _ => Found { value: GENERIC, support: 0, of },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn the_scope_is_narrow_only_where_nearly_all_callers_are() {
        for (whole, value) in [
            (&[("+966500000123", 99), ("+447700900123", 1)][..], Scope::National),
            (&[("+966500000123", 98), ("+447700900123", 2)], Scope::Mixed),
            (&[("+447700900123", 3)], Scope::International),
            (&[], Scope::Mixed),
        ] {
            let found = scope(&numbers(whole, &[]), Some("SA"), NumberFormat::Auto);
            assert_eq!(found.value, value, "{whole:?}");
        }
        assert_eq!(scope(&numbers(&[("+966500000123", 9)], &[]), None, NumberFormat::Auto).value, Scope::Mixed);
    }

    #[test]
    fn sources_that_name_hardly_anyone_are_left_out() {
        let evidence = Evidence { calls: 400, named: [396, 0, 3, 230, 4], named_any: 400, ..Evidence::default() };
        let found = sources(&evidence);
        assert_eq!(found.value, [CallerSource::Pai, CallerSource::From, CallerSource::Display]);
        let nobody = sources(&Evidence { calls: 1, ..Evidence::default() });
        assert_eq!((nobody.value, nobody.support), (vec![CallerSource::Pai, CallerSource::From], 0));
    }

    #[test]
    fn the_dialled_number_stands_where_numbers_vary() {
        let (one, two) = ([("442079460200", 4)], [("442079460200", 2), ("442079460201", 2)]);
        for (places, place) in [
            ([&two[..], &two, &[]], DidSource::RequestUri),
            ([&one, &two, &[]], DidSource::To),
            ([&[], &one, &two], DidSource::PCalledPartyId),
            ([&one, &one, &[]], DidSource::RequestUri),
            ([&[], &[], &[]], DidSource::RequestUri),
        ] {
            assert_eq!(did(&evidence(&[], places)).value, place);
        }
    }

    #[test]
    fn sources_with_the_same_habits_are_one_trunk() {
        let like = |caller: &str| evidence(&[(caller, 4)], [&[("442079460200", 4)], &[], &[]]);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut other = like("447700900125");
        other.named = [4, 0, 0, 0, 0];
        let sources = BTreeMap::from([
            (address("192.0.2.1"), like("447700900123")),
            (address("192.0.2.2"), like("447700900124")),
            (address("192.0.2.3"), other),
        ]);
        let joined: Vec<usize> = groups(sources).iter().map(|group| group.sources.len()).collect();
        assert_eq!(joined, [2, 1]);
    }

    pub(in super::super) fn numbers(whole: &[(&str, u64)], bare: &[(&str, u64)]) -> Numbers {
        let mut numbers = Numbers::default();
        for (number, count) in whole {
            numbers.whole.add(number.parse().unwrap(), *count, 9);
        }
        for (digits, count) in bare {
            numbers.bare.add((*digits).to_owned(), *count, 9);
        }
        numbers.calls = numbers.whole.total + numbers.bare.total;
        numbers
    }

    /// Four calls whose From, and whose places of the dialled number, hold these digits; a `+` makes them whole.
    pub(in super::super) fn evidence(callers: &[(&str, u64)], dialled: [&[(&str, u64)]; 3]) -> Evidence {
        let read = |list: &[(&str, u64)]| {
            let (whole, bare): (Vec<_>, Vec<_>) = list.iter().copied().partition(|(text, _)| text.starts_with('+'));
            numbers(&whole, &bare)
        };
        let mut found = Evidence { calls: 4, named: [0, 0, 0, 4, 0], named_any: 4, ..Evidence::default() };
        found.callers = read(callers);
        found.dialled = dialled.map(read);
        found
    }
}
