//! Names that point from one section to another: a number's trunks and applications.
//!
//! Invariant: what is wrong because something else is broken is not told.

use std::collections::HashMap;

use ipnet::IpNet;

use super::fault::{Fault, Quoted};
use super::nearest::nearest;
use super::number::Names;
use super::section::{Entry, Section};
use super::{application, name, number, trunk};
use crate::call::event::TrunkId;
use crate::verify::settings::{ApplicationId, NumberRange};

/// Looks names up in one kind of section, and remembers which were used.
struct Directory<'c> {
    what: &'static str,
    places: HashMap<&'c str, usize>,
    used: Vec<bool>,
    /// Whether all names of the sections are known, so that what is not found is not there.
    whole: bool,
    /// Whether every use could be read, so that what is not used is superfluous.
    all_uses_known: bool,
}

impl<'c> Directory<'c> {
    fn new(what: &'static str, places: HashMap<&'c str, usize>, count: usize, whole: bool) -> Self {
        Self { what, places, used: vec![false; count], whole, all_uses_known: true }
    }

    /// Places of `names`; `None` where one is not known.
    fn look_up(&mut self, root: &Section<'_>, names: &Names<'_>) -> (Vec<usize>, bool) {
        let mut found = Vec::new();
        self.all_uses_known &= names.whole;
        let mut whole = names.whole;
        for word in &names.words {
            if let Some(place) = self.places.get(word.text) {
                self.used[*place] = true;
                found.push(*place);
                continue;
            }
            whole = false;
            if !self.whole {
                self.all_uses_known = false;
                continue;
            }
            let mut known: Vec<String> = self.places.keys().map(|name| (*name).to_owned()).collect();
            known.sort_unstable();
            let meant = nearest(word.text, known.iter().map(String::as_str)).map(str::to_owned);
            if let Some(place) = meant.as_deref().and_then(|meant| self.places.get(meant)) {
                self.used[*place] = true;
            }
            let name = Quoted::new(word.text);
            root.tell(&word.span, Fault::UnknownReference { what: self.what, name, nearest: meant, known });
        }
        (found, whole)
    }
}

/// Connects numbers with trunks and applications. `None` where anything is wrong.
pub(super) fn connect(
    root: &Section<'_>,
    trunks: Option<&[trunk::Draft<'_>]>,
    numbers: Option<&[number::Draft<'_>]>,
    applications: Option<&[application::Draft<'_>]>,
) -> Option<Vec<NumberRange>> {
    let names: Vec<_> = trunks.unwrap_or_default().iter().map(|draft| draft.name.clone()).collect();
    let whole = !names.is_empty() && names.iter().all(Option::is_some);
    let mut trunk_names = Directory::new("trunk", name::index(root, "trunk", names), len(trunks), whole);

    let names: Vec<_> = applications.unwrap_or_default().iter().map(|draft| draft.name.clone()).collect();
    let whole = !names.is_empty() && names.iter().all(Option::is_some);
    let mut application_names =
        Directory::new("application", name::index(root, "application", names), len(applications), whole);

    let (trunks, applications) = (trunks.unwrap_or_default(), applications.unwrap_or_default());
    let mut ranges = Vec::new();
    for draft in numbers.unwrap_or_default() {
        let carried = if let Some(names) = &draft.trunks {
            trunk_names.look_up(root, names)
        } else {
            trunk_names.all_uses_known = false;
            (Vec::new(), false)
        };
        let served = match &draft.applications {
            Entry::Read(names, _) => application_names.look_up(root, names),
            Entry::Absent => only_application(root, draft, &mut application_names, applications),
            Entry::Broken => {
                application_names.all_uses_known = false;
                (Vec::new(), false)
            }
        };
        check_modes(root, draft, &served.0, applications);
        check_loopback(root, draft, &carried.0, trunks, &served.0, applications);
        ranges.push(range(draft, carried, served));
    }
    if numbers.is_some_and(|numbers| !numbers.is_empty()) {
        let unused = |directory: &Directory<'_>, place: usize| directory.all_uses_known && !directory.used[place];
        for (place, draft) in trunks.iter().enumerate().filter(|(place, _)| unused(&trunk_names, *place)) {
            if let Some(name) = draft.name.as_ref().filter(|name| trunk_names.places.get(name.text) == Some(&place)) {
                root.tell(&draft.span, Fault::UnusedTrunk { name: name.text.to_owned() });
            }
        }
        for (place, draft) in applications.iter().enumerate().filter(|(place, _)| unused(&application_names, *place)) {
            let places = &application_names.places;
            if let Some(name) = draft.name.as_ref().filter(|name| places.get(name.text) == Some(&place)) {
                root.tell(&draft.span, Fault::ApplicationWithoutNumber { name: name.text.to_owned() });
            }
        }
    }
    ranges.into_iter().collect()
}

fn len<T>(drafts: Option<&[T]>) -> usize {
    drafts.map_or(0, <[T]>::len)
}

/// The application of a number that names none: there has to be exactly one.
fn only_application(
    root: &Section<'_>,
    draft: &number::Draft<'_>,
    directory: &mut Directory<'_>,
    applications: &[application::Draft<'_>],
) -> (Vec<usize>, bool) {
    match applications {
        [_] => {
            directory.used[0] = true;
            (vec![0], true)
        }
        [] => (Vec::new(), false),
        several => {
            directory.all_uses_known = false;
            let example = several.iter().find_map(|draft| draft.name.as_ref()).map_or("shop", |name| name.text);
            root.tell(&draft.span, Fault::ApplicationsNeeded { example: example.to_owned() });
            (Vec::new(), false)
        }
    }
}

fn label(draft: &application::Draft<'_>) -> String {
    draft.name.as_ref().map_or("?", |name| name.text).to_owned()
}

fn check_modes(
    root: &Section<'_>,
    draft: &number::Draft<'_>,
    served: &[usize],
    applications: &[application::Draft<'_>],
) {
    let first = |live| served.iter().map(|place| &applications[*place]).find(|draft| draft.live == Some(live));
    if let (Some(sandbox), Some(live), Entry::Read(_, span)) = (first(false), first(true), &draft.applications) {
        root.tell(span, Fault::SharedModes { sandbox: label(sandbox), live: label(live) });
    }
}

fn check_loopback(
    root: &Section<'_>,
    draft: &number::Draft<'_>,
    carried: &[usize],
    trunks: &[trunk::Draft<'_>],
    served: &[usize],
    applications: &[application::Draft<'_>],
) {
    let Some(live) = served.iter().map(|place| &applications[*place]).find(|draft| draft.live == Some(true)) else {
        return;
    };
    for trunk in carried.iter().map(|place| &trunks[*place]).filter(|trunk| trunk.allow_loopback == Some(false)) {
        let (Some(peer), Some(name)) = (trunk.loopback_peer(), &trunk.name) else { continue };
        let word = draft.trunks.iter().flat_map(|names| &names.words).find(|word| word.text == name.text);
        let span = word.map_or(&draft.span, |word| &word.span);
        let fault =
            Fault::LoopbackLive { trunk: name.text.to_owned(), peer: IpNet::trunc(&peer), application: label(live) };
        root.tell(span, fault);
    }
}

fn range(
    draft: &number::Draft<'_>,
    (trunks, all_trunks): (Vec<usize>, bool),
    (applications, all_applications): (Vec<usize>, bool),
) -> Option<NumberRange> {
    let range = draft.range.as_ref()?;
    let place = |place: usize| u16::try_from(place).ok();
    (all_trunks && all_applications).then_some(())?;
    Some(NumberRange {
        first: range.first,
        count: range.count,
        trunks: trunks.into_iter().map(|index| place(index).map(TrunkId)).collect::<Option<_>>()?,
        applications: applications.into_iter().map(|index| place(index).map(ApplicationId)).collect::<Option<_>>()?,
        cool_down: draft.cool_down?,
    })
}
