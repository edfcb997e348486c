//! Which number calls: P-Asserted-Identity or From, in the trunk's order (RFC 3325 9.1, RFC 3261 20.20).

use super::assurance::Reason;
use super::event::{CallerSource, Presentation};
use super::number::{self, Reading};
use super::privacy;
use super::trunk::{Restricted, Trunk};
use crate::e164::E164;
use crate::sip::message::{HeaderName, Message, NameAddr, Uri, name_addr};

/// Who calls, as far as the headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The number that counts and the header that gave it, or why there is none.
    pub caller: Result<(E164, CallerSource), Reason>,
    /// The number of P-Asserted-Identity, where the trunk's sources list it.
    pub asserted: Option<E164>,
    /// The number of From.
    pub presented: Option<E164>,
    /// Whether the caller's number may be shown.
    pub presentation: Presentation,
}

/// Reads who calls.
#[must_use]
pub fn read(message: &Message<'_>, from: &NameAddr<'_>, trunk: &Trunk) -> Identity {
    let presented = value_of(from, trunk);
    let asserted = asserted(message, trunk);
    // A source that holds nothing like a number gives way to the next; one that holds an unusable number does not,
    // for what comes after it would be a guess at whom the network meant.
    let caller = trunk
        .sources
        .iter()
        .find_map(|source| {
            let reading = match source {
                CallerSource::Pai => asserted,
                CallerSource::From => Ok(presented),
            };
            match reading {
                Ok(Reading::Nothing) => None,
                Ok(Reading::Invalid) => Some(Err(Reason::CliInvalid)),
                Ok(Reading::Number(number)) => Some(Ok((number, *source))),
                Err(Ambiguous) => Some(Err(Reason::CliAmbiguous)),
            }
        })
        .unwrap_or(Err(Reason::CliWithheld));
    let restricted = privacy::is_requested(message) || privacy::is_anonymous(from);
    let caller = match caller {
        Ok(_) if restricted && trunk.restricted == Restricted::Refuse => Err(Reason::CliWithheld),
        other => other,
    };
    let presentation = match caller {
        Err(_) => Presentation::Unavailable,
        Ok(_) if restricted => Presentation::Restricted,
        Ok(_) => Presentation::Allowed,
    };
    let listed = trunk.sources.contains(&CallerSource::Pai);
    let number = |reading| if let Reading::Number(number) = reading { Some(number) } else { None };
    Identity {
        caller,
        asserted: asserted.ok().filter(|_| listed).and_then(number),
        presented: number(presented),
        presentation,
    }
}

/// Several asserted identities that are not one number in its two forms.
#[derive(Clone, Copy)]
struct Ambiguous;

/// P-Asserted-Identity holds one value, or one sip and one tel value for the same number (RFC 3325 9.1). A value
/// without a number, such as a name, says nothing.
fn asserted(message: &Message<'_>, trunk: &Trunk) -> Result<Reading, Ambiguous> {
    let mut found = Reading::Nothing;
    let mut values = 0;
    let mut tel_values = 0;
    for value in message.values(HeaderName::PAssertedIdentity).flat_map(name_addr::list) {
        let Some(value) = NameAddr::parse(value) else { continue };
        values += 1;
        tel_values += usize::from(matches!(Uri::parse(value.uri), Some(Uri::Tel(_))));
        found = match (found, value_of(&value, trunk)) {
            (first, Reading::Nothing) => first,
            (Reading::Nothing, second) => second,
            (first, second) if first == second => first,
            _ => return Err(Ambiguous),
        };
    }
    if values > 2 || values == 2 && tel_values != 1 { Err(Ambiguous) } else { Ok(found) }
}

fn value_of(value: &NameAddr<'_>, trunk: &Trunk) -> Reading {
    Uri::parse(value.uri).map_or(Reading::Nothing, |uri| number::read(&uri, &trunk.dialplan))
}
