//! P-Asserted-Identity, read in one pass (RFC 3325 9.1): the number, the verdict on it, the kind of line.

use super::address::Address;
use super::evidence::Finding;
use super::line::SpecialLine;
use super::number;
use super::trunk::Trunk;
use super::verdict::{self, Told};
use crate::sip::message::{HeaderName, Message, Uri, name_addr};

/// What the asserted identities of a call say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Asserted {
    /// The number that they are.
    pub(super) number: Finding,
    /// The heaviest of their `verstat` parameters, where there is any.
    pub(super) verstat: Option<Told>,
    /// The first kind of line that one of them names.
    pub(super) line: Option<SpecialLine>,
}

impl Asserted {
    /// Reads all values of the header field.
    pub(super) fn read(message: &Message<'_>, trunk: &Trunk) -> Self {
        let mut asserted = Self::default();
        let mut numbers = OneNumber::default();
        for value in message.values(HeaderName::PAssertedIdentity).flat_map(name_addr::list) {
            let address = Address::parse(value);
            numbers.add(address.and_then(|address| address.uri).as_ref(), trunk);
            let Some(address) = address else { continue };
            let signs = address.signs();
            let verstat = signs.verstat.map(|value| verdict::verstat(value, trunk.bare_verdict));
            asserted.verstat = verdict::heavier(asserted.verstat, verstat);
            asserted.line = asserted.line.or(signs.line);
        }
        Self { number: numbers.found(), ..asserted }
    }
}

/// The one number of several values. A value without a number, such as a name, says nothing; one that cannot be read
/// may hide whom the network means, and is unusable. Several that are not one number in its two forms, sip and tel, are
/// ambiguous.
#[derive(Debug, Default)]
pub(super) struct OneNumber {
    found: Option<Finding>,
    count: usize,
    tel_values: usize,
}

impl OneNumber {
    /// Adds a value by its URI, `None` where it cannot be read.
    pub(super) fn add(&mut self, uri: Option<&Uri<'_>>, trunk: &Trunk) {
        self.count += 1;
        self.tel_values += usize::from(matches!(uri, Some(Uri::Tel(_))));
        let reading = uri.map_or(Finding::Invalid, |uri| number::read(uri, &trunk.dialplan).into());
        self.found = match (self.found, reading) {
            (first, Finding::Nothing) => first,
            (None, second) => Some(second),
            (Some(first), second) if first == second => Some(first),
            _ => Some(Finding::Ambiguous),
        };
    }

    /// What all of them say.
    pub(super) fn found(self) -> Finding {
        let one_number = self.count < 2 || self.count == 2 && self.tel_values == 1;
        if one_number { self.found.unwrap_or(Finding::Nothing) } else { Finding::Ambiguous }
    }
}
