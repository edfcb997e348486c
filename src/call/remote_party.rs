//! Remote-Party-ID, the older form of an asserted identity that many switches still send.

use crate::sip::message::{HeaderName, Message, NameAddr, name_addr};

/// The calling party as Remote-Party-ID tells it.
#[derive(Clone, Copy)]
pub struct RemoteParty<'a> {
    /// Its address.
    pub uri: &'a [u8],
    /// Whether the network has checked it: `screen`.
    pub screened: Option<bool>,
    /// Whether it is not to be shown: `privacy`.
    pub restricted: bool,
}

/// A value cannot be read, and may be that of the calling party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// Reads the first value that speaks of the calling party, which one without `party` does too.
///
/// # Errors
/// [`Unreadable`]: whom the network means is not known.
pub fn read<'a>(message: &Message<'a>) -> Result<Option<RemoteParty<'a>>, Unreadable> {
    let mut values = message.values(HeaderName::RemotePartyId).flat_map(name_addr::list);
    let found = values.find_map(|value| {
        let Some(value) = NameAddr::parse(value) else { return Some(Err(Unreadable)) };
        let says = |name: &str, word: &[u8]| Some(unquoted(value.params.value(name)?).eq_ignore_ascii_case(word));
        let calling = says("party", b"calling").unwrap_or(true);
        calling.then(|| {
            Ok(RemoteParty {
                uri: value.uri,
                screened: match (says("screen", b"yes"), says("screen", b"no")) {
                    (Some(true), _) => Some(true),
                    (_, Some(true)) => Some(false),
                    _ => None,
                },
                restricted: ["full", "uri"].iter().any(|word| says("privacy", word.as_bytes()) == Some(true)),
            })
        })
    });
    found.transpose()
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Scanner;

    #[test]
    fn f26_f27_f28_the_calling_party_is_found_with_what_is_told_of_it() {
        let told = |field: &str| {
            let text = format!("INVITE sip:a@b SIP/2.0\r\nRemote-Party-ID: {field}\r\n\r\n");
            let mut scanner = Scanner::default();
            let message = scanner.scan(text.as_bytes()).unwrap();
            read(&message).map(|party| party.map(|party| (party.uri.to_vec(), party.screened, party.restricted)))
        };
        let party = |screened, restricted| Ok(Some((b"sip:1@c".to_vec(), screened, restricted)));
        assert_eq!(told("\"x, y\" <sip:1@c>;party=calling;screen=yes;privacy=off"), party(Some(true), false));
        assert_eq!(told("<sip:2@c>;party=called, <sip:1@c>;screen=\"no\";privacy=full"), party(Some(false), true));
        assert_eq!(told("<sip:1@c>;privacy=URI"), party(None, true));
        assert_eq!(told("<sip:1@c>;party=called"), Ok(None));
        assert_eq!(told("<sip:1@c;party=calling"), Err(Unreadable));
    }
}
