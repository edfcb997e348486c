//! A guess at whose equipment sends, from what it says of itself and from the header fields that only it writes.

use super::messages::Invite;
use crate::call::profile::PROFILES;

/// The profile of a peer that shows no habit that is known.
pub(super) const GENERIC: &str = PROFILES[0].name;

/// Words in User-Agent or Server, in lower case. Providers come first: their names stand beside those of the session
/// border controllers that they use.
const AGENTS: [(&str, &str); 13] = [
    ("twilio", "twilio"),
    ("telnyx", "telnyx"),
    ("bandwidth", "bandwidth"),
    ("didww", "didww"),
    ("cisco-sipgateway", "cisco-cube"),
    ("cube", "cisco-cube"),
    ("audiocodes", "audiocodes"),
    ("mediant", "audiocodes"),
    ("sonus", "ribbon"),
    ("ribbon", "ribbon"),
    ("genband", "ribbon"),
    ("oracle", "oracle"),
    ("acme packet", "oracle"),
];

/// Beginnings of header names, in lower case.
const HEADERS: [(&str, &str); 8] = [
    ("x-twilio-", "twilio"),
    ("x-telnyx-", "telnyx"),
    ("x-bandwidth-", "bandwidth"),
    ("x-didww-", "didww"),
    ("cisco-guid", "cisco-cube"),
    ("x-sonus-", "ribbon"),
    ("p-charging-vector", "ims"),
    ("p-access-network-info", "ims"),
];

/// The name of the profile that an INVITE speaks for, [`GENERIC`] where it speaks for none.
pub(super) fn guess(invite: &Invite<'_>) -> &'static str {
    let mut agents = ["User-Agent", "Server"].into_iter().flat_map(|name| invite.fields.values(name));
    let by_agent = agents.find_map(|value| {
        let value = value.to_ascii_lowercase();
        let found = AGENTS.iter().find(|(word, _)| memchr::memmem::find(&value, word.as_bytes()).is_some());
        found.map(|(_, profile)| *profile)
    });
    let begins = |name: &[u8], beginning: &str| {
        name.get(..beginning.len()).is_some_and(|head| head.eq_ignore_ascii_case(beginning.as_bytes()))
    };
    let by_header = || {
        let found = HEADERS.iter().find(|(beginning, _)| invite.fields.iter().any(|(name, _)| begins(name, beginning)));
        found.map(|(_, profile)| *profile)
    };
    by_agent.or_else(by_header).unwrap_or_else(|| if is_from_acme(invite) { "oracle" } else { GENERIC })
}

/// Session border controllers of Acme Packet, now Oracle, say no name, but the Call-IDs and tags that they put in place
/// of others begin with `SD` and seven letters or digits.
fn is_from_acme(invite: &Invite<'_>) -> bool {
    let is_replaced = |text: &[u8]| {
        text.starts_with(b"SD")
            && text.get(2..9).is_some_and(|place| place.iter().all(u8::is_ascii_alphanumeric))
            && text.get(9) == Some(&b'-')
    };
    is_replaced(invite.request.call_id) || invite.request.from_tag.is_some_and(is_replaced)
}

#[cfg(test)]
mod tests {
    use super::super::messages::{self, Met};
    use super::*;
    use crate::sip::message::Scanner;

    fn guessed(call_id: &str, field: &str) -> &'static str {
        let text = format!(
            "INVITE sip:+442079460200@gw SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
             From: <sip:+447700900123@c>;tag=1\r\nTo: <sip:+442079460200@gw>\r\nCall-ID: {call_id}\r\n\
             CSeq: 1 INVITE\r\n{field}\r\n\r\n"
        );
        match messages::read(&mut Scanner::default(), text.as_bytes()) {
            Met::Invite(invite) => guess(&invite),
            _ => panic!("no INVITE"),
        }
    }

    #[test]
    fn peers_are_known_by_what_they_write() {
        for (field, profile) in [
            ("User-Agent: Cisco-SIPGateway/IOS-16.12.4", "cisco-cube"),
            ("Cisco-Guid: 1-2-3-4", "cisco-cube"),
            ("user-agent: Mediant 4000/v.7.20A", "audiocodes"),
            ("Server: Oracle SBC", "oracle"),
            ("User-Agent: Twilio Gateway", "twilio"),
            ("X-Telnyx-Session-ID: 1", "telnyx"),
            ("P-Charging-Vector: icid-value=1", "ims"),
            ("User-Agent: PBX", "generic"),
        ] {
            assert_eq!(guessed("1@c", field), profile, "{field}");
        }
        assert_eq!(guessed("SDab12301-0123456789abcdef-06abcg3", "X-Y: z"), "oracle");
    }

    #[test]
    fn every_guess_is_a_profile() {
        for (_, profile) in AGENTS.iter().chain(&HEADERS) {
            assert!(PROFILES.iter().any(|known| known.name == *profile), "{profile}");
        }
    }
}
