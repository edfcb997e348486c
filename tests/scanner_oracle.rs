//! The scanner and `rsip` read the same messages alike, where `rsip` 0.4 is right; and where it is not, the scanner is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Write;

use proptest::prelude::*;
use ringproof::sip::message::{HeaderName, Message, NameAddr, Request, Scanner, StartLine, Uri, Via};
use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};

/// What both tell of a request.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    method: String,
    uri: String,
    user: String,
    host: String,
    from_user: String,
    from_tag: Option<String>,
    to_user: String,
    to_tag: Option<String>,
    call_id: String,
    cseq: u32,
    branch: Option<String>,
    via_host: String,
    via_port: Option<u16>,
    vias: usize,
    body: Vec<u8>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn scanned(bytes: &[u8]) -> Option<Told> {
    let mut scanner = Scanner::default();
    let message = scanner.scan(bytes).ok()?;
    if message.fault().is_some() {
        return None;
    }
    let via = message.values(HeaderName::Via).next().and_then(Via::parse)?;
    let request = Request::read(message, via)?;
    let StartLine::Request { method_name, uri, .. } = message.start_line() else { return None };
    let (user, host) = parts(uri)?;
    Some(Told {
        method: text(method_name),
        uri: text(uri),
        user,
        host,
        from_user: parts(request.from.uri)?.0,
        from_tag: request.from_tag.map(text),
        to_user: parts(request.to.uri)?.0,
        to_tag: request.to_tag.map(text),
        call_id: text(request.call_id),
        cseq: request.cseq.number,
        branch: via.branch.map(text),
        via_host: text(via.host),
        via_port: via.port,
        vias: message.values(HeaderName::Via).count(),
        body: message.body().to_vec(),
    })
}

fn parts(uri: &[u8]) -> Option<(String, String)> {
    match Uri::parse(uri)? {
        Uri::Sip(uri) => Some((text(uri.user), text(uri.host))),
        Uri::Tel(_) | Uri::Other => None,
    }
}

fn by_rsip(bytes: &[u8]) -> Option<Told> {
    let request = rsip::Request::try_from(bytes.to_vec()).ok()?;
    let user = |uri: &rsip::Uri| uri.auth.as_ref().map_or_else(String::new, |auth| auth.user.clone());
    let (from, to) = (request.from_header().ok()?.typed().ok()?, request.to_header().ok()?.typed().ok()?);
    let via = request.via_header().ok()?.typed().ok()?;
    let tag = |params: &[rsip::Param]| {
        params
            .iter()
            .find_map(|param| if let rsip::Param::Tag(tag) = param { Some(tag.value().to_owned()) } else { None })
    };
    Some(Told {
        method: request.method.to_string(),
        uri: request.uri.to_string(),
        user: user(&request.uri),
        host: request.uri.host_with_port.host.to_string(),
        from_user: user(&from.uri),
        from_tag: tag(&from.params),
        to_user: user(&to.uri),
        to_tag: tag(&to.params),
        call_id: request.call_id_header().ok()?.value().to_owned(),
        cseq: request.cseq_header().ok()?.typed().ok()?.seq,
        branch: via.branch().map(|branch| branch.value().to_owned()),
        via_host: via.uri.host_with_port.host.to_string(),
        via_port: via.uri.host_with_port.port.as_ref().map(|port| *port.value()),
        vias: request.headers.iter().filter(|header| matches!(header, rsip::Header::Via(_))).count(),
        body: request.body.clone(),
    })
}

prop_compose! {
    /// A request in the forms that both read.
    fn request()(
        method in prop::sample::select(vec!["INVITE", "OPTIONS", "CANCEL", "BYE", "ACK", "REGISTER"]),
        users in prop::array::uniform3("[+]?[0-9]{3,15}"),
        hosts in prop::array::uniform3("[a-z][a-z0-9]{0,8}\\.example"),
        via_port in prop::option::of(1u16..),
        vias in 1usize..4,
        name in "[A-Za-z]{0,8}",
        tags in (prop::option::of("[a-z0-9]{1,12}"), prop::option::of("[a-z0-9]{1,12}")),
        call_id in "[a-zA-Z0-9]{1,20}@[a-z]{1,8}",
        cseq in 0u32..1 << 31,
        branch in "[a-zA-Z0-9]{1,20}",
        more in prop::collection::vec(("[A-Z][a-z]{1,8}-[A-Z][a-z]{3,8}x", "[ -~&&[^\r\n]]{0,30}"), 0..6),
        body in "[a-z=\r\n]{0,40}",
    ) -> String {
        let port = via_port.map(|port| format!(":{port}")).unwrap_or_default();
        let tag = |tag: &Option<String>| tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let name = if name.is_empty() { String::new() } else { format!("\"{name}\" ") };
        let mut text = format!("{method} sip:{}@{} SIP/2.0\r\n", users[0], hosts[0]);
        for index in 0..vias {
            let _ = write!(text, "Via: SIP/2.0/UDP {}{port};branch=z9hG4bK{branch}{index}\r\n", hosts[1]);
        }
        let _ = write!(text, "From: {name}<sip:{}@{}>{}\r\n", users[1], hosts[2], tag(&tags.0));
        for (field, value) in &more {
            let _ = write!(text, "{field}: {}\r\n", value.trim());
        }
        let _ = write!(text, "To: <sip:{}@{}>{}\r\n", users[2], hosts[0], tag(&tags.1));
        text + &format!("Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn both_read_a_plain_request_alike(text in request()) {
        let ours = scanned(text.as_bytes());
        prop_assert!(ours.is_some(), "{text}");
        prop_assert_eq!(ours, by_rsip(text.as_bytes()), "{}", text);
    }
}

/// Legal forms that `rsip` reads wrongly or not at all, each with what the RFC says of the caller.
#[test]
fn the_scanner_is_right_where_rsip_is_not() {
    let usual = "INVITE sip:+442079460200@gw.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
        From: <sip:+447700900123@c.example>;tag=1\r\nTo: <sip:+442079460200@gw.example>\r\nCall-ID: 1@c\r\n\
        CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(scanned(usual.as_bytes()), by_rsip(usual.as_bytes()));
    let whole = |from: &str, to: &str| usual.replace(from, to);
    let forms = [
        (
            "IPv6 in the Request-URI",
            whole("INVITE sip:+442079460200@gw.example", "INVITE sip:+442079460200@[2001:db8::1]:5060"),
        ),
        ("IPv6 in Via", whole("192.0.2.1", "[2001:db8::9]:5070")),
        ("a folded field", whole("From: ", "From:\r\n ")),
        ("white space before the colon", whole("From:", "From :")),
        ("a compact name", whole("From:", "f:")),
        ("a bracket in a display name", whole("From: ", "From: \"a <b\" ")),
        ("a leading line end", format!("\r\n{usual}")),
        ("white space before the branch", whole(";branch", " ;branch")),
    ];
    for (form, message) in forms {
        let ours = scanned(message.as_bytes()).unwrap_or_else(|| panic!("{form}: {message}"));
        assert_eq!((ours.from_user.as_str(), ours.from_tag.as_deref()), ("+447700900123", Some("1")), "{form}");
        assert_eq!(ours.branch.as_deref(), Some("z9hG4bK1"), "{form}");
        assert_ne!(by_rsip(message.as_bytes()), Some(ours), "{form}: rsip reads it now, so it belongs to the property");
    }
    // And those whose caller is no sip URI, or no text.
    let caller = |message: &[u8]| -> Vec<u8> {
        let mut scanner = Scanner::default();
        let message: Message<'_> = scanner.scan(message).unwrap();
        let from = NameAddr::parse(message.only(HeaderName::From).unwrap()).unwrap();
        match Uri::parse(from.uri).unwrap() {
            Uri::Sip(uri) => uri.user.to_vec(),
            Uri::Tel(uri) => uri.number.to_vec(),
            Uri::Other => Vec::new(),
        }
    };
    let tel = whole("<sip:+447700900123@c.example>", "<tel:+447700900123>");
    let mut latin = usual.replace("From: ", "From: \"Ren?\" ").into_bytes();
    let place = latin.iter().position(|byte| *byte == b'?').unwrap();
    latin[place] = 0xe9;
    for message in [tel.into_bytes(), latin] {
        assert_eq!(caller(&message), b"+447700900123");
        assert_eq!(by_rsip(&message), None);
    }
    // `rsip` takes a method for another where only the case differs (RFC 3261 7.1).
    let lower = usual.replace("INVITE", "invite");
    assert_eq!(by_rsip(lower.as_bytes()).map(|told| told.method), Some("INVITE".to_owned()));
    assert_eq!(scanned(lower.as_bytes()).map(|told| told.method), Some("invite".to_owned()));
}
