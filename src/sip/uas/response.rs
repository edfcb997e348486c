//! A final response that leaves nothing behind (RFC 3261 8.2.6, 8.2.7), written straight into the send buffer.

use std::net::{IpAddr, SocketAddr};

use crate::sip::message::{CSeq, HeaderName, Message, NameAddr, Via, find};
use crate::sip::transaction::key::{HashKey, TagParts};

/// Bytes that a response has and its request has not: the status line, `received`, the tag, fields of its own.
const FIELDS: usize = 256;

/// Port of SIP over UDP and TCP (RFC 3261 19.1.2).
const DEFAULT_PORT: u16 = 5060;

/// The status codes of answers that do not depend on a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 200.
    Ok,
    /// 400.
    BadRequest,
    /// 405, with `Allow`.
    MethodNotAllowed,
    /// 416.
    UnsupportedUriScheme,
    /// 420, with `Unsupported`.
    BadExtension,
    /// 481.
    CallDoesNotExist,
    /// 487.
    RequestTerminated,
    /// 501, with `Allow`.
    NotImplemented,
    /// 503.
    ServiceUnavailable,
    /// 505.
    VersionNotSupported,
    /// 513.
    MessageTooLarge,
}

impl Status {
    /// The status code.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::BadRequest => 400,
            Self::MethodNotAllowed => 405,
            Self::UnsupportedUriScheme => 416,
            Self::BadExtension => 420,
            Self::CallDoesNotExist => 481,
            Self::RequestTerminated => 487,
            Self::NotImplemented => 501,
            Self::ServiceUnavailable => 503,
            Self::VersionNotSupported => 505,
            Self::MessageTooLarge => 513,
        }
    }

    /// The reason phrase of RFC 3261 21.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::UnsupportedUriScheme => "Unsupported URI Scheme",
            Self::BadExtension => "Bad Extension",
            Self::CallDoesNotExist => "Call/Transaction Does Not Exist",
            Self::RequestTerminated => "Request Terminated",
            Self::NotImplemented => "Not Implemented",
            Self::ServiceUnavailable => "Service Unavailable",
            Self::VersionNotSupported => "Version Not Supported",
            Self::MessageTooLarge => "Message Too Large",
        }
    }
}

/// The first line of a response and the header fields that only it has.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Status code.
    pub code: u16,
    /// Reason phrase.
    pub phrase: &'a str,
    /// Whole header fields, each with its CRLF.
    pub fields: &'a str,
    /// The To-tag for a request that has none; without it [`HashKey::to_tag`] is put where one is wanted.
    pub tag: Option<ToTag<'a>>,
    /// What a To-tag of our own is filled up to: [`STEP`], or 1 where a response must not be longer than it has to be.
    pub step: usize,
}

/// A To-tag of ours.
#[derive(Debug, Clone, Copy)]
pub enum ToTag<'a> {
    /// What [`HashKey::to_tag`] gives for the request, written in 16 digits or more.
    Hash(u64),
    /// This text.
    Text(&'a [u8]),
}

/// Responses to one peer differ in length by multiples of this, as far as a longer To-tag can see to it: the kernel
/// takes a run of datagrams of one length at hardly more than the price of one (`UDP_SEGMENT`).
/// A tag has no length of its own (RFC 3261 19.3); it is the same in all responses of a transaction and to its CANCEL,
/// for it hangs on nothing but the fields that these copy from the request.
pub const STEP: usize = 32;

impl From<Status> for Head<'static> {
    fn from(status: Status) -> Self {
        let fields = match status {
            Status::MethodNotAllowed | Status::NotImplemented | Status::Ok => {
                "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE\r\n"
            }
            _ => "",
        };
        Head { code: status.code(), phrase: status.phrase(), fields, tag: None, step: STEP }
    }
}

/// Writes the response to `message` behind what `out` holds. Via, From, To, Call-ID and CSeq are the request's own, as
/// far as it has them (RFC 3261 8.2.6.2); `received` and `rport` of the topmost Via tell where it came from (RFC 3261
/// 18.2.1, RFC 3581 4). There is no body and no Contact.
pub fn write(
    out: &mut Vec<u8>,
    message: &Message<'_>,
    via: &Via<'_>,
    source: SocketAddr,
    head: Head<'_>,
    key: &HashKey,
) {
    out.reserve(message.length() + FIELDS);
    out.extend_from_slice(b"SIP/2.0 ");
    decimal(out, head.code);
    out.push(b' ');
    out.extend_from_slice(head.phrase.as_bytes());
    top_via(out, via, source);
    for value in message.values(HeaderName::Via).skip(1) {
        field(out, b"Via: ", value);
    }
    for value in message.values(HeaderName::From) {
        field(out, b"From: ", value);
    }
    to(out, message, via, key, head);
    for value in message.values(HeaderName::CallId) {
        field(out, b"Call-ID: ", value);
    }
    for value in message.values(HeaderName::CSeq) {
        field(out, b"CSeq: ", value);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(head.fields.as_bytes());
    if head.code == Status::BadExtension.code() {
        // Nothing is supported, so every option tag that was required is unsupported (RFC 3261 8.2.2.3).
        for value in message.values(HeaderName::Require) {
            out.extend_from_slice(b"Unsupported: ");
            unfolded(out, value);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}

/// Where the response goes over UDP (RFC 3261 18.2.2, RFC 3581 4): back to the address that the request came from, to
/// the source port if `rport` asks for it, else to the port of sent-by. `maddr` is never followed.
#[must_use]
pub fn destination(via: &Via<'_>, source: SocketAddr) -> SocketAddr {
    if via.wants_rport { source } else { SocketAddr::new(source.ip(), via.port.unwrap_or(DEFAULT_PORT)) }
}

fn top_via(out: &mut Vec<u8>, via: &Via<'_>, source: SocketAddr) {
    field(out, b"Via: ", via.head);
    for param in via.params.iter() {
        if param.name.eq_ignore_ascii_case(b"received") {
            continue;
        }
        out.push(b';');
        if param.name.eq_ignore_ascii_case(b"rport") {
            out.extend_from_slice(b"rport=");
            decimal(out, source.port());
        } else {
            unfolded(out, param.raw);
        }
    }
    if via.wants_rport || !is_address(via.host, source.ip()) {
        out.extend_from_slice(b";received=");
        address(out, source.ip());
    }
    unfolded(out, via.rest);
}

/// To with the tag that marks this node's end of the call, unless it has one.
fn to(out: &mut Vec<u8>, message: &Message<'_>, via: &Via<'_>, key: &HashKey, head: Head<'_>) {
    let mut values = message.values(HeaderName::To);
    let Some(value) = values.next() else { return };
    field(out, b"To: ", value);
    if let Some(ToTag::Text(tag)) = head.tag {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(tag);
    } else if let Some(ToTag::Hash(hash)) = head.tag {
        hashed(out, (hash, head.step), message, via);
    } else if NameAddr::parse(value).is_some_and(|to| to.params.find("tag").is_none()) {
        let from = message.values(HeaderName::From).next().and_then(NameAddr::parse);
        let hash = key.to_tag(TagParts {
            call_id: message.values(HeaderName::CallId).next().unwrap_or(b""),
            from_tag: from.and_then(|from| from.tag()).unwrap_or(b""),
            cseq: message.values(HeaderName::CSeq).next().and_then(CSeq::parse).map_or(0, |cseq| cseq.number),
            branch: via.branch.unwrap_or(b""),
            host: via.host,
            port: via.port.unwrap_or(0),
        });
        hashed(out, (hash, head.step), message, via);
    }
    more_of(out, values);
}

fn more_of<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = &'a [u8]>) {
    for value in values {
        field(out, b"To: ", value);
    }
}

/// Ends the line before and begins a header field.
fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(name);
    unfolded(out, value);
}

/// Copies a value on one line: a folded one, or one with a stray CR or LF, must not begin a line of its own.
fn unfolded(out: &mut Vec<u8>, value: &[u8]) {
    let mut rest = value;
    loop {
        let end = find::any(rest, 0, [b'\r', b'\n']);
        out.extend_from_slice(&rest[..end]);
        if end == rest.len() {
            return;
        }
        out.push(b' ');
        let behind = &rest[end..];
        let skipped = behind.iter().take_while(|byte| matches!(byte, b'\r' | b'\n' | b' ' | b'\t')).count();
        rest = &behind[skipped..];
    }
}

fn is_address(host: &[u8], address: IpAddr) -> bool {
    let host = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host);
    std::str::from_utf8(host).ok().and_then(|host| host.parse::<IpAddr>().ok()) == Some(address)
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    use std::io::Write;
    if let IpAddr::V4(address) = address {
        for (place, part) in address.octets().into_iter().enumerate() {
            if place > 0 {
                out.push(b'.');
            }
            decimal(out, part.into());
        }
        return;
    }
    // Writing to memory does not fail.
    let _ = write!(out, "{address}");
}

/// A port, a status code or part of an address; the formatter of the standard library costs more than the rest of a
/// header field.
fn decimal(out: &mut Vec<u8>, number: u16) {
    let mut digits = [0u8; 5];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Writes the tag of a hash, its digits again and again until the length is right.
fn hashed(out: &mut Vec<u8>, (hash, step): (u64, usize), message: &Message<'_>, via: &Via<'_>) {
    let copied = [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];
    let first = |name| message.values(name).next().map_or(0, <[u8]>::len);
    let length = via.raw.len() + copied.into_iter().map(first).sum::<usize>();
    let (digits, more) = (hexadecimal(hash), length.next_multiple_of(step) - length);
    out.extend_from_slice(b";tag=");
    out.extend_from_slice(&digits);
    out.extend_from_slice(&digits[..more.min(digits.len())]);
    out.extend_from_slice(&digits[..more.saturating_sub(digits.len())]);
}

/// Sixteen digits.
fn hexadecimal(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (byte, pair) in number.to_be_bytes().into_iter().zip(digits.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[byte >> 4, byte & 0xf].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Scanner;

    const INVITE: &[u8] = b"INVITE sip:+966115000042@gw SIP/2.0\r\n\
        Via: SIP/2.0/UDP 10.0.0.9:5070;branch=z9hG4bK1;rport;received=6.6.6.6, SIP/2.0/UDP far.example;branch=z9hG4bK0\r\n\
        Via: SIP/2.0/TCP farther.example\r\n\
        From: \"A\r\n  B\" <sip:+966500000123@gw>;tag=f1\r\nTo: <sip:+966115000042@gw>\r\n\
        Call-ID: c1\r\nCSeq: 7 INVITE\r\nContent-Length: 0\r\n\r\n";

    fn respond(text: &[u8], head: Head<'_>) -> String {
        let mut scanner = Scanner::default();
        let message = scanner.scan(text).unwrap();
        let via = Via::parse(message.values(HeaderName::Via).next().unwrap()).unwrap();
        let mut out = Vec::new();
        let source = "127.0.0.1:40000".parse().unwrap();
        write(&mut out, &message, &via, source, head, &HashKey::new([7; 16]));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn response_carries_the_requests_fields_and_its_own_tag() {
        let head = Head { code: 486, phrase: "Busy Here", fields: "Reason: Q.850;cause=17\r\n", tag: None, step: STEP };
        let text = respond(INVITE, head);
        let tag = text.split("tag=").nth(2).unwrap().split("\r\n").next().unwrap();
        assert_eq!(tag.len(), 42);
        assert_eq!(
            respond(INVITE, Head { step: 1, ..head }).len(),
            text.len() - 26,
            "sixteen digits where none may be more"
        );
        let expected = format!(
            "SIP/2.0 486 Busy Here\r\n\
             Via: SIP/2.0/UDP 10.0.0.9:5070;branch=z9hG4bK1;rport=40000;received=127.0.0.1, SIP/2.0/UDP far.example;branch=z9hG4bK0\r\n\
             Via: SIP/2.0/TCP farther.example\r\n\
             From: \"A B\" <sip:+966500000123@gw>;tag=f1\r\nTo: <sip:+966115000042@gw>;tag={tag}\r\n\
             Call-ID: c1\r\nCSeq: 7 INVITE\r\nReason: Q.850;cause=17\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(text, expected);
        assert_eq!(text, respond(INVITE, head), "a retransmission gets the same bytes");
    }

    #[test]
    fn responses_to_one_peer_differ_by_whole_steps() {
        let head = Head { code: 486, phrase: "Busy Here", fields: "", tag: None, step: STEP };
        let text = String::from_utf8_lossy(INVITE).into_owned();
        let lengths = (1..40).map(|more| respond(text.replace("c1", &"c".repeat(more)).as_bytes(), head).len());
        let lengths: std::collections::BTreeSet<usize> = lengths.collect();
        assert_eq!(lengths.len(), 2, "{lengths:?}");
    }

    #[test]
    fn cancel_gets_the_tag_of_its_invite() {
        let cancel = String::from_utf8_lossy(INVITE).replace("INVITE", "CANCEL");
        let tag = |text: &str| text.split("tag=").nth(2).unwrap().split('\r').next().unwrap().to_owned();
        let invite = respond(INVITE, Status::ServiceUnavailable.into());
        assert_eq!(tag(&respond(cancel.as_bytes(), Status::Ok.into())), tag(&invite));
    }

    #[test]
    fn required_extensions_come_back_as_unsupported() {
        let text = String::from_utf8_lossy(INVITE)
            .replace("Content-Length: 0", "Require: 100rel, precondition\r\nContent-Length: 0");
        let response = respond(text.as_bytes(), Status::BadExtension.into());
        assert!(response.contains("\r\nUnsupported: 100rel, precondition\r\n"), "{response}");
    }

    #[test]
    fn responses_go_back_where_the_request_came_from() {
        let source: SocketAddr = "192.0.2.1:40000".parse().unwrap();
        let to = |via: &[u8]| destination(&Via::parse(via).unwrap(), source).to_string();
        assert_eq!(to(b"SIP/2.0/UDP 10.0.0.9:5070;rport"), "192.0.2.1:40000");
        assert_eq!(to(b"SIP/2.0/UDP 10.0.0.9:5070"), "192.0.2.1:5070");
        assert_eq!(to(b"SIP/2.0/UDP gw.example;maddr=203.0.113.9"), "192.0.2.1:5060");
    }
}
