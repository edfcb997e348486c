//! Which number calls: the trunk's sources in its order (RFC 3325 9.1, 9.2, RFC 3261 20.20).

use super::address::Address;
use super::asserted::OneNumber;
use super::assurance::Reason;
use super::event::{CallerSource, Presentation};
use super::evidence::{Finding, HiddenBy};
use super::number;
use super::remote_party::{self, RemoteParty, Unreadable};
use super::trunk::{Restricted, Trunk};
use super::{display, privacy};
use crate::e164::E164;
use crate::sip::message::{HeaderName, Message, Uri, name_addr};

/// Who calls, as far as the headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The number that counts and the header that gave it, or why there is none.
    pub caller: Result<(E164, CallerSource), Reason>,
    /// What the network asserts, where the trunk's sources list it or its assertions are trusted: a number, nothing
    /// (`Ok(None)`), or why it is unusable. P-Asserted-Identity, and without one a Remote-Party-ID that is listed.
    pub asserted: Result<Option<E164>, Reason>,
    /// The number of From.
    pub presented: Option<E164>,
    /// Whether the caller's number may be shown.
    pub presentation: Presentation,
    /// What each header held, by [`CallerSource`].
    pub findings: [Finding; CallerSource::ALL.len()],
    /// What Remote-Party-ID says of its screening.
    pub screened: Option<bool>,
    /// What asked to hide the number.
    pub hidden_by: Option<HiddenBy>,
}

/// Reads who calls; `asserted` is what P-Asserted-Identity holds.
#[must_use]
pub(super) fn read(message: &Message<'_>, from: &Address<'_>, asserted: Finding, trunk: &Trunk) -> Identity {
    let listed = |source| trunk.sources.contains(&source);
    let party = if listed(CallerSource::Rpid) { remote_party::read(message) } else { Ok(None) };
    let told = party.ok().flatten();
    let screened = told.and_then(|party| party.screened);
    let mut findings = [Finding::Unread; CallerSource::ALL.len()];
    for source in CallerSource::ALL {
        // The asserted identity and From are held against each other on every trunk.
        if listed(source) || matches!(source, CallerSource::Pai | CallerSource::From) {
            findings[source as usize] = match source {
                CallerSource::Pai => asserted,
                CallerSource::Rpid => remote(party, trunk),
                CallerSource::Ppi => preferred(message, trunk),
                CallerSource::From => in_uri(from.uri.as_ref(), trunk),
                CallerSource::Display => display::read(from.value.display, &trunk.dialplan).into(),
            };
        }
    }
    let found = |source: CallerSource| findings[source as usize];
    // A source that holds nothing like a number gives way to the next; one that holds an unusable number does not,
    // for what comes after it would be a guess at whom the network meant.
    let caller = trunk.sources.iter().find_map(|source| match found(*source) {
        Finding::Unread | Finding::Nothing => None,
        Finding::Invalid => Some(Err(Reason::CliInvalid)),
        Finding::Ambiguous => Some(Err(Reason::CliAmbiguous)),
        Finding::Number(number) => Some(Ok((number, *source))),
    });
    let caller = caller.unwrap_or(Err(Reason::CliWithheld));
    let hidden_by = hidden_by(message, from, told);
    let caller = match caller {
        Ok(_) if hidden_by.is_some() && trunk.restricted == Restricted::Refuse => Err(Reason::CliWithheld),
        other => other,
    };
    let presentation = match caller {
        Err(_) => Presentation::Unavailable,
        Ok(_) if hidden_by.is_some() => Presentation::Restricted,
        Ok(_) => Presentation::Allowed,
    };
    let heeded = listed(CallerSource::Pai) || trunk.asserted_trust.is_trusted();
    let asserted = match found(CallerSource::Pai) {
        Finding::Nothing => found(CallerSource::Rpid),
        _ if !heeded => found(CallerSource::Rpid),
        pai => pai,
    };
    let asserted = match asserted {
        Finding::Unread | Finding::Nothing => Ok(None),
        Finding::Invalid => Err(Reason::CliInvalid),
        Finding::Ambiguous => Err(Reason::CliAmbiguous),
        Finding::Number(number) => Ok(Some(number)),
    };
    let presented = if let Finding::Number(number) = found(CallerSource::From) { Some(number) } else { None };
    Identity { caller, asserted, presented, presentation, findings, screened, hidden_by }
}

/// What asks to hide the number that calls.
fn hidden_by(message: &Message<'_>, from: &Address<'_>, party: Option<RemoteParty<'_>>) -> Option<HiddenBy> {
    if privacy::is_requested(message) {
        Some(HiddenBy::Privacy)
    } else if privacy::is_anonymous(from.uri.as_ref()) {
        Some(HiddenBy::From)
    } else {
        party.is_some_and(|party| party.restricted).then_some(HiddenBy::RemotePartyId)
    }
}

fn in_uri(uri: Option<&Uri<'_>>, trunk: &Trunk) -> Finding {
    uri.map_or(Finding::Invalid, |uri| number::read(uri, &trunk.dialplan).into())
}

/// A value that cannot be read may hide whom the network means, and is unusable.
fn remote(party: Result<Option<RemoteParty<'_>>, Unreadable>, trunk: &Trunk) -> Finding {
    match party {
        Ok(None) => Finding::Nothing,
        Ok(Some(party)) => in_uri(Uri::parse(party.uri).as_ref(), trunk),
        Err(Unreadable) => Finding::Invalid,
    }
}

fn preferred(message: &Message<'_>, trunk: &Trunk) -> Finding {
    let mut numbers = OneNumber::default();
    for value in message.values(HeaderName::PPreferredIdentity).flat_map(name_addr::list) {
        numbers.add(Address::parse(value).and_then(|address| address.uri).as_ref(), trunk);
    }
    numbers.found()
}
