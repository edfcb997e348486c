//! Whether somebody's call forwarding brought the call here.

use crate::sip::message::uri::unescape;
use crate::sip::message::{HeaderName, Message, NameAddr, Uri, name_addr};

/// Causes with which a History-Info entry tells of call forwarding (RFC 7044 5, RFC 4458 2). An entry without one of
/// them is a proxy's own retargeting.
const FORWARDING_CAUSES: [&[u8]; 7] = [b"302", b"404", b"408", b"480", b"486", b"487", b"503"];

/// Longest `?headers` part of a URI that is looked at.
const MAX_HEADERS: usize = 256;

/// Whether Diversion (RFC 5806) or History-Info (RFC 7044) says that the call was forwarded.
#[must_use]
pub fn is_forwarded(message: &Message<'_>) -> bool {
    message.values(HeaderName::Diversion).any(|value| !value.is_empty())
        || message.values(HeaderName::HistoryInfo).flat_map(name_addr::list).any(is_forwarding_entry)
}

fn is_forwarding_entry(entry: &[u8]) -> bool {
    let Some(entry) = NameAddr::parse(entry) else { return false };
    let is_cause = |value: &[u8]| FORWARDING_CAUSES.contains(&value);
    if entry.params.value("cause").is_some_and(is_cause) {
        return true;
    }
    match Uri::parse(entry.uri) {
        Some(Uri::Sip(uri)) => uri.params.value("cause").is_some_and(is_cause) || reason_in(uri.headers),
        Some(Uri::Tel(uri)) => uri.params.value("cause").is_some_and(is_cause),
        _ => false,
    }
}

/// The older form: a Reason header escaped into the URI, `?Reason=SIP%3Bcause%3D302` (RFC 4244 4.1).
fn reason_in(headers: &[u8]) -> bool {
    let mut buffer = [0u8; MAX_HEADERS];
    headers
        .split(|&byte| byte == b'&')
        .filter(|header| header.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"Reason=")))
        .any(|header| {
            let Some(value) = unescape(&header[7..], &mut buffer) else { return false };
            value.split(|&byte| byte == b';').map(<[u8]>::trim_ascii).any(|part| {
                part.get(..6).is_some_and(|name| name.eq_ignore_ascii_case(b"cause="))
                    && FORWARDING_CAUSES.contains(&&part[6..])
            })
        })
}
