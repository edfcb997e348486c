//! Whether somebody's call forwarding brought the call here.

use crate::sip::message::uri::unescape;
use crate::sip::message::{HeaderName, Message, NameAddr, Params, Uri, name_addr};

/// Causes with which a History-Info entry tells of call forwarding (RFC 7044 5, RFC 4458 2). An entry without one of
/// them is a proxy's own retargeting.
const FORWARDING_CAUSES: [&[u8]; 7] = [b"302", b"404", b"408", b"480", b"486", b"487", b"503"];

/// Longest `?headers` part of a URI that is read.
const MAX_HEADERS: usize = 512;

/// The header field that tells of a forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Diversion (RFC 5806).
    Diversion,
    /// History-Info (RFC 7044).
    HistoryInfo,
    /// Identity with a passport of type `div` (RFC 8946).
    Identity,
}

impl Sign {
    /// The header field's name.
    #[must_use]
    pub const fn header(self) -> &'static str {
        match self {
            Self::Diversion => "Diversion",
            Self::HistoryInfo => "History-Info",
            Self::Identity => "Identity",
        }
    }
}

/// Which header field says that the call was forwarded, if any does. What cannot be read may say so, and counts.
/// `is_dialled` knows the dialled number, which some providers put into Diversion with every call: a call that was
/// diverted from the number it reaches was not forwarded by anybody else.
#[must_use]
pub fn sign(message: &Message<'_>, is_dialled: impl Fn(&[u8]) -> bool) -> Option<Sign> {
    let mut diverting = message.values(HeaderName::Diversion).flat_map(name_addr::list);
    if diverting.any(|value| !NameAddr::parse(value).is_some_and(|value| is_dialled(value.uri))) {
        return Some(Sign::Diversion);
    }
    let mut entries = message.values(HeaderName::HistoryInfo).flat_map(name_addr::list);
    if entries.any(|entry| tells_forwarding(entry).unwrap_or(true)) {
        return Some(Sign::HistoryInfo);
    }
    message.values(HeaderName::Identity).any(is_diverted).then_some(Sign::Identity)
}

/// Whether one of the passports in an Identity value is of type `div` or `div-o` (RFC 8946 3, 5). Its other parts are
/// not read: base64 and a URI in brackets, which hold no semicolon outside.
fn is_diverted(value: &[u8]) -> bool {
    value.split(|byte| matches!(byte, b';' | b',')).any(|part| {
        let Some(equals) = memchr::memchr(b'=', part) else { return false };
        let value = part[equals + 1..].trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        part[..equals].trim_ascii().eq_ignore_ascii_case(b"ppt")
            && (value.eq_ignore_ascii_case(b"div") || value.eq_ignore_ascii_case(b"div-o"))
    })
}

/// `None` where the entry cannot be read.
fn tells_forwarding(entry: &[u8]) -> Option<bool> {
    let entry = NameAddr::parse(entry)?;
    if has_cause(entry.params) {
        return Some(true);
    }
    match Uri::parse(entry.uri)? {
        Uri::Sip(uri) => Some(has_cause(uri.params) || reason_in(uri.headers)?),
        Uri::Tel(uri) => Some(has_cause(uri.params)),
        Uri::Other => Some(false),
    }
}

fn has_cause(params: Params<'_>) -> bool {
    params.value("cause").is_some_and(is_cause)
}

fn is_cause(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    FORWARDING_CAUSES.contains(&value.trim_ascii())
}

/// The older form: a Reason header escaped into the URI, `?Reason=SIP%3Bcause%3D302` (RFC 4244 4.1). `None` where it is
/// too long to be read.
fn reason_in(headers: &[u8]) -> Option<bool> {
    let mut buffer = [0u8; MAX_HEADERS];
    let text = unescape(headers, &mut buffer)?;
    Some(text.split(|&byte| matches!(byte, b';' | b'&' | b',')).any(|part| {
        let Some(equals) = memchr::memchr(b'=', part) else { return false };
        part[..equals].trim_ascii().eq_ignore_ascii_case(b"cause") && is_cause(&part[equals + 1..])
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Scanner;

    fn forwarded(field: &str) -> bool {
        let text = format!("INVITE sip:a@b SIP/2.0\r\n{field}\r\n\r\n");
        sign(&Scanner::default().scan(text.as_bytes()).unwrap(), |uri| uri == b"sip:+442079460200@us").is_some()
    }

    #[test]
    fn every_way_to_tell_a_cause_is_read() {
        for field in [
            "Diversion: <sip:+447700900777@c>;reason=unconditional",
            "Diversion: <sip:+442079460200@us>;reason=unconditional, <sip:+447700900777@c>",
            "Diversion: <sip:+442079460200@us",
            "History-Info: <sip:+447700900777@c;cause=302>;index=1",
            "History-Info: <sip:a@c>;index=1, <sip:+447700900777@c>;index=1.1;cause=\"302\"",
            "History-Info: <sip:+447700900777@c?Reason=SIP%3Bcause%3D302>;index=1",
            "History-Info: <sip:+447700900777@c?X=y&reason=SIP%20%3B%20cause%20%3D%20480%3Btext=\"away\">;index=1",
            "History-Info: <tel:+447700900777;cause=486>;index=1",
            "Identity: eyJ.eyI.sig;info=<https://c.example/c.pem>;alg=ES256;ppt=\"div\"",
            "y: ..sig;info=<https://c.example/c.pem>;ppt=shaken, ..sig;info=<https://c.example/d.pem>;PPT = div-o",
        ] {
            assert!(forwarded(field), "{field}");
        }
    }

    #[test]
    fn retargeting_without_a_cause_is_no_forwarding() {
        let fields = [
            "History-Info: <sip:+447700900777@c>;index=1;rc=1",
            "History-Info: <sip:a@c;cause=380>;index=1",
            "Diversion:",
            "Diversion: <sip:+442079460200@us>;reason=unconditional",
            "Identity: eyJ.eyI.sig;info=<https://c.example/c.pem>;alg=ES256;ppt=shaken",
        ];
        for field in fields {
            assert!(!forwarded(field), "{field}");
        }
    }

    #[test]
    fn what_cannot_be_read_counts_as_forwarded() {
        let long = format!("History-Info: <sip:a@c?Reason={}>;index=1", "x".repeat(2 * MAX_HEADERS));
        for field in [
            "History-Info: \"O\"Brien\" <sip:+447700900777@c;cause=302>;index=1",
            "History-Info: \"open <sip:a@c>;index=1, <sip:b@c;cause=302>;index=2",
            "History-Info: <sip:a@c;cause=302",
            &long,
        ] {
            assert!(forwarded(field), "{field}");
        }
    }
}
