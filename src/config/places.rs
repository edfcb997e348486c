//! Places at a reload: who was there keeps its own, who is new gets the next.
//!
//! Invariant: while a node runs, a place names one trunk or application for good, and a name has one place.

use std::collections::{HashMap, HashSet};

use super::Configuration;
use super::fault::Fault;
use crate::call::event::TrunkId;
use crate::verify::settings::{ApplicationId, NumberRange, Numbers};

/// Most places of a kind. Each holds a metric's series, so a node is not to gather them without end.
const MAX_PLACES: usize = 8192;

/// Gives what `fresh` names the places that it has in `running`, which keep their entries where `fresh` names them no
/// more.
pub(super) fn keep(fresh: Configuration, running: &Configuration) -> Result<Configuration, Fault> {
    let trunk_places = Places::new(&running.verify.trunks, &fresh.verify.trunks, "trunk names")?;
    let application_names = |configuration: &Configuration| -> Vec<String> {
        configuration.verify.applications.iter().map(|application| application.name.clone()).collect()
    };
    let (known, now) = (application_names(running), application_names(&fresh));
    let application_places = Places::new(&known, &now, "application names")?;
    let trunk = |id: TrunkId| TrunkId(trunk_places.of(id.0));
    let application = |id: ApplicationId| ApplicationId(application_places.of(id.0));

    let mut settled = fresh;
    settled.trunks = trunk_places.merge(&running.trunks, settled.trunks);
    settled.trunk_extras = trunk_places.merge(&running.trunk_extras, settled.trunk_extras);
    for (_, owner) in &mut settled.peers {
        *owner = trunk(*owner);
    }
    for key in &mut settled.keys {
        key.application = application(key.application);
    }
    for origin in &mut settled.origins {
        origin.application = application(origin.application);
    }
    let verify = &mut settled.verify;
    verify.trunks = trunk_places.merge(&running.verify.trunks, std::mem::take(&mut verify.trunks));
    verify.applications =
        application_places.merge(&running.verify.applications, std::mem::take(&mut verify.applications));
    verify.retired = application_places.retired().map(ApplicationId).collect();
    let ranges = verify.numbers.ranges().iter().map(|range| NumberRange {
        trunks: range.trunks.iter().copied().map(trunk).collect(),
        applications: range.applications.iter().copied().map(application).collect(),
        ..range.clone()
    });
    verify.numbers = Numbers::new(ranges.collect());
    Ok(settled)
}

/// The places of one kind.
struct Places {
    /// By place in the file.
    settled: Vec<u16>,
    /// How many places there are.
    count: u16,
}

impl Places {
    fn new(known: &[String], now: &[String], what: &'static str) -> Result<Self, Fault> {
        let places: HashMap<&str, usize> = known.iter().map(String::as_str).zip(0..).collect();
        let mut count = known.len();
        let mut place = |name: &String| {
            places.get(name.as_str()).copied().unwrap_or_else(|| {
                count += 1;
                count - 1
            })
        };
        let settled: Vec<usize> = now.iter().map(&mut place).collect();
        let fits = |place: usize| u16::try_from(place).ok().filter(|_| count <= MAX_PLACES);
        let too_many = Fault::NoPlaceLeft { what, count, max: MAX_PLACES };
        let settled = settled.into_iter().map(fits).collect::<Option<_>>().ok_or_else(|| too_many.clone())?;
        Ok(Self { settled, count: fits(count).ok_or(too_many)? })
    }

    /// The place of what stands at `place` in the file.
    fn of(&self, place: u16) -> u16 {
        self.settled[usize::from(place)]
    }

    /// The places that the file fills no more.
    fn retired(&self) -> impl Iterator<Item = u16> {
        let filled: HashSet<u16> = self.settled.iter().copied().collect();
        (0..self.count).filter(move |place| !filled.contains(place))
    }

    /// What is at each place: that of the file, else what was there.
    fn merge<T: Clone>(&self, running: &[T], fresh: Vec<T>) -> Vec<T> {
        let mut merged: Vec<Option<T>> = running.iter().cloned().map(Some).collect();
        merged.resize(usize::from(self.count), None);
        for (place, value) in self.settled.iter().zip(fresh) {
            merged[usize::from(*place)] = Some(value);
        }
        merged.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::super::{parse, reparse};
    use super::*;

    const NAMES: usize = 6;

    /// What one file says: its trunks and applications in file order, and those of each number.
    #[derive(Debug, Clone)]
    struct Said {
        trunks: Vec<usize>,
        applications: Vec<usize>,
        numbers: Vec<(Vec<usize>, Vec<usize>)>,
    }

    fn said() -> impl Strategy<Value = Said> {
        let some = || subsequence((0..NAMES).collect::<Vec<_>>(), 1..=NAMES).prop_shuffle();
        (some(), some()).prop_flat_map(|(trunks, applications)| {
            let number = (
                subsequence(trunks.clone(), 1..=trunks.len()),
                subsequence(applications.clone(), 1..=applications.len()),
            );
            vec(number, 1..4).prop_map(move |mut numbers| {
                // A file names every trunk and application in some number.
                numbers.push((trunks.clone(), applications.clone()));
                Said { trunks: trunks.clone(), applications: applications.clone(), numbers }
            })
        })
    }

    fn text(said: &Said) -> String {
        let names = |letter: char, of: &[usize]| -> String {
            of.iter().map(|index| format!("\"{letter}{index}\"")).collect::<Vec<_>>().join(", ")
        };
        let mut text = String::new();
        for index in &said.trunks {
            let _ = writeln!(text, "[[trunk]]\nname = \"t{index}\"\npeers = [\"192.0.2.{index}\"]\ncountry = \"SA\"");
        }
        for (place, (trunks, applications)) in said.numbers.iter().enumerate() {
            let (trunks, applications) = (names('t', trunks), names('a', applications));
            let _ = writeln!(
                text,
                "[[number]]\ne164 = \"+96611500000{place}\"\ntrunks = [{trunks}]\napplications = [{applications}]"
            );
        }
        for index in &said.applications {
            let key = format!("{index}{index}").repeat(32);
            let _ = writeln!(text, "[[application]]\nname = \"a{index}\"\nkeys = [\"sha256:{key}\"]");
        }
        text
    }

    fn names(letter: char, of: &[usize]) -> Vec<String> {
        of.iter().map(|index| format!("{letter}{index}")).collect()
    }

    /// Every reference leads to what the file named.
    fn check(configuration: &Configuration, said: &Said) -> Result<(), TestCaseError> {
        let trunk = |id: &TrunkId| configuration.verify.trunks[usize::from(id.0)].clone();
        let application = |id: &ApplicationId| configuration.verify.application(*id).name.clone();
        for (network, owner) in &configuration.peers {
            prop_assert_eq!(network.to_string(), format!("192.0.2.{}/32", &trunk(owner)[1..]));
        }
        prop_assert_eq!(configuration.peers.len(), said.trunks.len());
        for key in &configuration.keys {
            prop_assert_eq!(format!("a{}", key.hash[0] >> 4), application(&key.application));
        }
        prop_assert_eq!(configuration.keys.len(), said.applications.len());
        for (range, (trunks, applications)) in configuration.verify.numbers.ranges().iter().zip(&said.numbers) {
            prop_assert_eq!(range.trunks.iter().map(trunk).collect::<Vec<_>>(), names('t', trunks));
            let served: Vec<_> = range.applications.iter().map(application).collect();
            prop_assert_eq!(served, names('a', applications));
        }
        for (place, one) in (0..).map(ApplicationId).zip(&configuration.verify.applications) {
            let named = names('a', &said.applications).contains(&one.name);
            prop_assert_eq!(configuration.verify.retired.contains(&place), !named);
        }
        let faces: Vec<_> = configuration.trunks.iter().map(|trunk| trunk.name.clone()).collect();
        prop_assert_eq!(&faces, &configuration.verify.trunks);
        prop_assert_eq!(configuration.trunk_extras.len(), faces.len());
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_place_means_the_same_after_any_reloads(files in vec(said(), 2..6)) {
            let none = |_: &str| None;
            let mut running = parse(&text(&files[0]), "c.toml", &none).unwrap();
            check(&running, &files[0])?;
            for file in &files[1..] {
                let next = reparse(&text(file), "c.toml", &none, &running).unwrap();
                check(&next, file)?;
                prop_assert_eq!(&next.verify.trunks[..running.verify.trunks.len()], &running.verify.trunks[..]);
                for (before, now) in running.verify.applications.iter().zip(&next.verify.applications) {
                    prop_assert_eq!(&before.name, &now.name);
                }
                running = next;
            }
        }
    }

    #[test]
    fn names_without_end_are_refused() {
        let known: Vec<String> = (0..MAX_PLACES).map(|index| format!("t{index}")).collect();
        let places = |now: &[&str]| Places::new(&known, &now.iter().map(|&name| name.into()).collect::<Vec<_>>(), "x");
        assert_eq!(places(&["t8191", "t3"]).unwrap().settled, [8191, 3]);
        assert!(matches!(places(&["t3", "new"]), Err(Fault::NoPlaceLeft { count: 8193, .. })));
    }
}
