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
    /// What P-Asserted-Identity says, where the trunk's sources list it or its assertions are trusted: a number, nothing
    /// (`Ok(None)`), or why it is unusable.
    pub asserted: Result<Option<E164>, Reason>,
    /// The number of From.
    pub presented: Option<E164>,
    /// Whether the caller's number may be shown.
    pub presentation: Presentation,
}

/// Reads who calls.
#[must_use]
pub fn read(message: &Message<'_>, from: &NameAddr<'_>, trunk: &Trunk) -> Identity {
    let presented = Uri::parse(from.uri).map_or(Reading::Invalid, |uri| number::read(&uri, &trunk.dialplan));
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
    let heeded = trunk.sources.contains(&CallerSource::Pai) || trunk.asserted_trust.is_trusted();
    let asserted = match asserted {
        _ if !heeded => Ok(None),
        Ok(Reading::Nothing) => Ok(None),
        Ok(Reading::Number(number)) => Ok(Some(number)),
        Ok(Reading::Invalid) => Err(Reason::CliInvalid),
        Err(Ambiguous) => Err(Reason::CliAmbiguous),
    };
    let presented = if let Reading::Number(number) = presented { Some(number) } else { None };
    Identity { caller, asserted, presented, presentation }
}

/// Several asserted identities that are not one number in its two forms.
#[derive(Clone, Copy)]
struct Ambiguous;

/// P-Asserted-Identity holds one value, or one sip and one tel value for the same number (RFC 3325 9.1). A value
/// without a number, such as a name, says nothing; one that cannot be read may hide whom the network means, and is
/// unusable.
fn asserted(message: &Message<'_>, trunk: &Trunk) -> Result<Reading, Ambiguous> {
    let mut found = Reading::Nothing;
    let mut values = 0;
    let mut tel_values = 0;
    for value in message.values(HeaderName::PAssertedIdentity).flat_map(name_addr::list) {
        values += 1;
        let uri = NameAddr::parse(value).and_then(|value| Uri::parse(value.uri));
        tel_values += usize::from(matches!(uri, Some(Uri::Tel(_))));
        let reading = uri.map_or(Reading::Invalid, |uri| number::read(&uri, &trunk.dialplan));
        found = match (found, reading) {
            (first, Reading::Nothing) => first,
            (Reading::Nothing, second) => second,
            (first, second) if first == second => first,
            _ => return Err(Ambiguous),
        };
    }
    if values > 2 || values == 2 && tel_values != 1 { Err(Ambiguous) } else { Ok(found) }
}
