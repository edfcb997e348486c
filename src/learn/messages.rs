//! The SIP requests that tell something: INVITEs that begin a call, and OPTIONS pings.
//!
//! Reads header fields that the call path does not know beside those it does. An INVITE within a call is passed over.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::written::Written;
use crate::call::event::CallerSource;
use crate::call::trunk::DidSource;
use crate::call::verdict::VerdictHeader;
use crate::sip::message::{HeaderName, Message, Method, NameAddr, Request, Scanner, StartLine, Uri, Via, name_addr};
use crate::sip::uas::dispatch::{Dispatch, dispatch};

/// Where the dialled number may stand, in the order in which it is looked for.
pub(super) const DIALLED: [DidSource; 3] = [DidSource::RequestUri, DidSource::To, DidSource::PCalledPartyId];

/// What a message is.
pub(super) enum Met<'a> {
    /// An INVITE that begins a call.
    Invite(Invite<'a>),
    /// An OPTIONS.
    Ping(Request<'a>),
    /// Another request, or a response.
    Other,
    /// A request whose mandatory header fields are missing or broken.
    Unreadable,
    /// Not SIP, or a keep-alive.
    NotSip,
}

/// An INVITE that begins a call.
pub(super) struct Invite<'a> {
    pub request: Request<'a>,
    pub fields: Fields<'a>,
    /// Whether the node would take it for a call. It refuses a call that requires extensions, for example.
    pub is_taken: bool,
}

/// Reads one message.
pub(super) fn read<'a>(scanner: &'a mut Scanner, bytes: &'a [u8]) -> Met<'a> {
    let Ok(message) = scanner.scan(bytes) else { return Met::NotSip };
    let StartLine::Request { method, .. } = message.start_line() else { return Met::Other };
    if !matches!(method, Method::Invite | Method::Options) {
        return Met::Other;
    }
    let Some(request) = request(message) else { return Met::Unreadable };
    if method == Method::Options {
        return Met::Ping(request);
    }
    if request.to_tag.is_some() {
        return Met::Other;
    }
    let is_taken = matches!(dispatch(message), Dispatch::Invite(..));
    Met::Invite(Invite { request, fields: Fields::of(bytes), is_taken })
}

fn request(message: Message<'_>) -> Option<Request<'_>> {
    let via = message.values(HeaderName::Via).next().and_then(Via::parse)?;
    Request::read(message, via)
}

/// The same for a request's retransmissions.
pub(super) fn transaction(request: &Request<'_>) -> u64 {
    identity(&[request.call_id, &request.cseq.number.to_be_bytes()])
}

/// One number for texts that tell a request from another.
fn identity(texts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    hasher.finish()
}

impl<'a> Invite<'a> {
    /// The same for retransmissions, and for the call's next try with credentials.
    pub(super) fn call(&self) -> u64 {
        identity(&[self.request.call_id, self.request.from_tag.unwrap_or_default()])
    }

    /// What a header names as the caller. A display name counts only where From's user is no number.
    pub(super) fn caller(&self, source: CallerSource) -> Option<Written> {
        match source {
            CallerSource::Pai => self.addresses("P-Asserted-Identity").find_map(|value| Written::of_uri(value.uri)),
            CallerSource::Rpid => {
                let is_caller = |value: &NameAddr<'_>| {
                    value.params.value("party").is_none_or(|party| party.eq_ignore_ascii_case(b"calling"))
                };
                self.addresses("Remote-Party-ID").find(is_caller).and_then(|value| Written::of_uri(value.uri))
            }
            CallerSource::Ppi => self.addresses("P-Preferred-Identity").find_map(|value| Written::of_uri(value.uri)),
            CallerSource::From => Written::of_uri(self.request.from.uri),
            CallerSource::Display if Written::of_uri(self.request.from.uri).is_some() => None,
            CallerSource::Display => Written::of_display(self.request.from.display),
        }
    }

    /// What stands where a dialled number may stand.
    pub(super) fn dialled(&self, source: DidSource) -> Option<Written> {
        match source {
            DidSource::RequestUri => Written::of_uri(self.request.uri),
            DidSource::To => Written::of_uri(self.request.to.uri),
            DidSource::PCalledPartyId => {
                self.addresses("P-Called-Party-ID").next().and_then(|value| Written::of_uri(value.uri))
            }
        }
    }

    /// The text of a verdict on the caller.
    pub(super) fn verdict(&self, header: VerdictHeader) -> Option<&'a [u8]> {
        if header != VerdictHeader::Verstat {
            return self.fields.values(header.as_str()).next();
        }
        let asserted = self.addresses("P-Asserted-Identity").find_map(|value| verstat(value.uri));
        asserted.or_else(|| verstat(self.request.from.uri))
    }

    /// The values of a header that holds addresses.
    pub(super) fn addresses(&self, name: &'static str) -> impl Iterator<Item = NameAddr<'a>> + use<'a> {
        self.fields.values(name).flat_map(name_addr::list).filter_map(NameAddr::parse)
    }
}

/// The `verstat` parameter of a URI, in its user part or behind it.
fn verstat(uri: &[u8]) -> Option<&[u8]> {
    match Uri::parse(uri)? {
        Uri::Sip(uri) => uri.user_params.value("verstat").or_else(|| uri.params.value("verstat")),
        Uri::Tel(uri) => uri.params.value("verstat"),
        Uri::Other => None,
    }
}

/// All header fields of a message, those included that the call path passes over.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields of a message that could be scanned.
    fn of(message: &'a [u8]) -> Self {
        let begin = message.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
        let first = memchr::memchr(b'\n', &message[begin..]).map_or(message.len(), |end| begin + end + 1);
        Self(&message[first..])
    }

    /// Names and values, in their order.
    pub(super) fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                if rest.is_empty() || rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
                    return None;
                }
                let mut end = line_end(rest, 0);
                // A line that begins with white space goes on with the field.
                while matches!(rest.get(end + 1), Some(b' ' | b'\t')) {
                    end = line_end(rest, end + 1);
                }
                let line = &rest[..end];
                rest = rest.get(end + 1..).unwrap_or_default();
                if let Some(colon) = memchr::memchr(b':', line) {
                    return Some((line[..colon].trim_ascii(), line[colon + 1..].trim_ascii()));
                }
            }
        })
    }

    /// The values of the fields of this name that are not empty.
    pub(super) fn values(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.iter()
            .filter(move |(found, value)| found.eq_ignore_ascii_case(name.as_bytes()) && !value.is_empty())
            .map(|(_, value)| value)
    }
}

fn line_end(text: &[u8], from: usize) -> usize {
    memchr::memchr(b'\n', &text[from..]).map_or(text.len(), |found| from + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:+442079460200@gw SIP/2.0\r\n\
        Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
        From: \"+447700900123\" <sip:trunk@c;verstat=No-TN-Validation>;tag=1\r\n\
        To: <sip:+442079460201@gw>\r\nCall-ID: 1\r\nCSeq: 7 INVITE\r\n";

    fn with<T>(text: &str, check: impl FnOnce(Met<'_>) -> T) -> T {
        check(read(&mut Scanner::default(), text.as_bytes()))
    }

    fn invite<T>(more: &str, check: impl FnOnce(&Invite<'_>) -> T) -> T {
        with(&format!("{INVITE}{more}\r\n"), |met| match met {
            Met::Invite(invite) => check(&invite),
            _ => panic!("no INVITE"),
        })
    }

    #[test]
    fn each_header_that_may_name_the_caller_is_read() {
        let more = "P-Asserted-Identity: <sip:gw@c>,\r\n <tel:+447700900124>\r\n\
            Remote-Party-ID: <sip:1@c>;party=called, <sip:07700900125@c>;party=calling\r\n\
            P-Preferred-Identity: <sip:447700900126@c>\r\n";
        let digits = invite(more, |invite| {
            CallerSource::ALL.map(|source| invite.caller(source).map(|written| written.digits).unwrap_or_default())
        });
        assert_eq!(digits, ["447700900124", "07700900125", "447700900126", "", "447700900123"]);
    }

    #[test]
    fn each_place_of_a_dialled_number_is_read() {
        let digits = invite("p-called-party-id: <sip:+442079460202@c>\r\n", |invite| {
            DIALLED.map(|source| invite.dialled(source).map(|written| written.digits).unwrap_or_default())
        });
        assert_eq!(digits, ["442079460200", "442079460201", "442079460202"]);
    }

    #[test]
    fn verdicts_are_read_from_headers_and_parameters() {
        let read = |more: &str, header| {
            invite(more, |invite| invite.verdict(header).map(|text| String::from_utf8_lossy(text).into_owned()))
        };
        assert_eq!(read("", VerdictHeader::Verstat).as_deref(), Some("No-TN-Validation"));
        let asserted = "P-Asserted-Identity: <sip:+447700900123;verstat=TN-Validation-Passed-A@c>\r\n";
        assert_eq!(read(asserted, VerdictHeader::Verstat).as_deref(), Some("TN-Validation-Passed-A"));
        assert_eq!(read("X-Attestation-Info: B\r\n", VerdictHeader::XAttestationInfo).as_deref(), Some("B"));
        assert_eq!(read("", VerdictHeader::AttestationInfo), None);
    }

    #[test]
    fn messages_are_told_apart() {
        let kind = |text: &str| {
            with(text, |met| match met {
                Met::Invite(invite) => {
                    if invite.is_taken {
                        "call"
                    } else {
                        "refused"
                    }
                }
                Met::Ping(_) => "ping",
                Met::Other => "other",
                Met::Unreadable => "unreadable",
                Met::NotSip => "not SIP",
            })
        };
        let options = INVITE.replace("INVITE", "OPTIONS");
        for (text, expected) in [
            (format!("{INVITE}\r\n"), "call"),
            (format!("{INVITE}Require: 100rel\r\n\r\n"), "refused"),
            (INVITE.replace("201@gw>", "201@gw>;tag=2") + "\r\n", "other"),
            (options + "\r\n", "ping"),
            ("SIP/2.0 200 OK\r\n\r\n".to_owned(), "other"),
            ("INVITE sip:a@b SIP/2.0\r\n\r\n".to_owned(), "unreadable"),
            ("\r\n\r\n".to_owned(), "not SIP"),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), "not SIP"),
        ] {
            assert_eq!(kind(&text), expected, "{text}");
        }
    }
}
