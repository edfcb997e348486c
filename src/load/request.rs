//! The requests of one call, as text: INVITE, ACK, CANCEL, BYE.
//!
//! Pure: everything random comes in. RFC 3261 8.1.1, 9.1, 13.2.2.4, 15.1.1 and 17.1.1.3.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::header::default_name;
use super::target::Target;
use crate::e164::E164;
use crate::sip::flow::Transport;

/// `CSeq` number of the INVITE, its ACK and its CANCEL.
pub(super) const INVITE_NUMBER: u32 = 1;
/// `CSeq` number of the BYE.
pub(super) const BYE_NUMBER: u32 = 2;

/// What tells this call from every other one.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// Branch of the INVITE, its CANCEL and the ACK for a refusal; with its magic cookie.
    pub(super) branch: String,
    /// Branch of the ACK for a 2xx, a transaction of its own.
    pub(super) ack_branch: String,
    /// Branch of the BYE.
    pub(super) bye_branch: String,
    /// Tag of From.
    pub(super) tag: String,
    /// Call-ID.
    pub(super) call_id: String,
}

/// The fixed parts of a call's requests.
#[derive(Debug)]
pub(super) struct Requests<'a> {
    identity: Identity,
    transport: Transport,
    local: SocketAddr,
    uri: String,
    to: String,
    from: String,
    headers: &'a [(String, String)],
    caller: E164,
}

impl<'a> Requests<'a> {
    pub(super) fn new(
        identity: Identity,
        (caller, dialled): (E164, E164),
        (local, via): (SocketAddr, Target),
        headers: &'a [(String, String)],
    ) -> Self {
        let (transport, via) = (via.transport, via.address);
        let given = headers.iter().find(|(name, value)| default_name(name) == Some("From") && !value.is_empty());
        let from = match given {
            Some((_, value)) => with_tag(value, &identity.tag),
            None => format!("<sip:{caller}@{};user=phone>;tag={}", Host(local.ip()), identity.tag),
        };
        Self {
            uri: format!("sip:{dialled}@{}:{}", Host(via.ip()), via.port()),
            to: format!("<sip:{dialled}@{}>", Host(via.ip())),
            from,
            identity,
            transport,
            local,
            headers,
            caller,
        }
    }

    /// The INVITE's Request-URI.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// What ties a response to one of these requests.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The INVITE with an offer (RFC 3264) that names no port anybody listens on.
    pub(super) fn invite(&self) -> String {
        let mut text = self.start("INVITE", &self.uri, &self.identity.branch);
        let host = Host(self.local.ip());
        for (name, value) in self.given_or("From", &self.from) {
            line(&mut text, name, value);
        }
        line(&mut text, "To", &self.to);
        self.end_of_transaction_fields(&mut text, INVITE_NUMBER, "INVITE");
        let transport = if self.transport == Transport::Udp { "" } else { ";transport=tcp" };
        let contact = format!("<sip:{}@{host}:{}{transport}>", self.caller, self.local.port());
        let asserted = format!("<sip:{}@{host}>", self.caller);
        for (default, value) in [("Contact", contact.as_str()), ("P-Asserted-Identity", asserted.as_str())] {
            for (name, value) in self.given_or(default, value) {
                line(&mut text, name, value);
            }
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| default_name(name).is_none()) {
            line(&mut text, name, value);
        }
        for (name, value) in self.given_or("Content-Type", "application/sdp") {
            line(&mut text, name, value);
        }
        let offer = self.offer();
        line(&mut text, "Content-Length", &offer.len().to_string());
        text + "\r\n" + &offer
    }

    /// The ACK for a refusal: part of the INVITE's transaction, with the To of the response.
    pub(super) fn ack_refusal(&self, to: &str) -> String {
        self.bare("ACK", &self.uri, &self.identity.branch, to, INVITE_NUMBER)
    }

    /// The CANCEL of the INVITE.
    pub(super) fn cancel(&self) -> String {
        self.bare("CANCEL", &self.uri, &self.identity.branch, &self.to, INVITE_NUMBER)
    }

    /// The ACK for a 2xx: sent to the peer's contact, a transaction of its own.
    pub(super) fn ack_answer(&self, contact: Option<&str>, to: &str) -> String {
        self.bare("ACK", contact.unwrap_or(&self.uri), &self.identity.ack_branch, to, INVITE_NUMBER)
    }

    /// The BYE that ends an answered call.
    pub(super) fn bye(&self, contact: Option<&str>, to: &str) -> String {
        self.bare("BYE", contact.unwrap_or(&self.uri), &self.identity.bye_branch, to, BYE_NUMBER)
    }

    fn bare(&self, method: &str, uri: &str, branch: &str, to: &str, number: u32) -> String {
        let mut text = self.start(method, uri, branch);
        // ACK and CANCEL take the INVITE's way (RFC 3261 9.1, 17.1.1.3).
        for (name, value) in self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Route")) {
            line(&mut text, name, value);
        }
        line(&mut text, "From", &self.from);
        line(&mut text, "To", to);
        self.end_of_transaction_fields(&mut text, number, method);
        text + "Content-Length: 0\r\n\r\n"
    }

    fn start(&self, method: &str, uri: &str, branch: &str) -> String {
        let (host, port) = (Host(self.local.ip()), self.local.port());
        let transport = self.transport.label().to_ascii_uppercase();
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {host}:{port};branch={branch};rport\r\nMax-Forwards: 70\r\n"
        )
    }

    fn end_of_transaction_fields(&self, text: &mut String, number: u32, method: &str) {
        line(text, "Call-ID", &self.identity.call_id);
        line(text, "CSeq", &format!("{number} {method}"));
    }

    /// What the user gives for a default field, else the default. An empty value leaves the field out.
    fn given_or<'b>(&'b self, default: &'static str, value: &'b str) -> Vec<(&'b str, &'b str)> {
        let mut given = self.headers.iter().filter(|(name, _)| default_name(name) == Some(default)).peekable();
        if given.peek().is_none() {
            return vec![(default, value)];
        }
        let mut fields: Vec<_> =
            given.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let (true, Some(first)) = (default == "From", fields.first_mut()) {
            first.1 = value;
        }
        fields
    }

    fn offer(&self) -> String {
        let ip = self.local.ip();
        let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
        format!(
            "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
             m=audio 9 RTP/AVP 8 0\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"
        )
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{name}: {value}\r\n");
}

/// A From value with a tag: the user's own where there is one (RFC 3261 20.20).
pub(super) fn with_tag(from: &str, tag: &str) -> String {
    // Parameters of the header stand behind the brackets, which a quoted display name may hold too, but not last.
    let parameters = match from.rsplit_once('>') {
        Some((_, parameters)) => parameters,
        None => from.split_once(';').map_or("", |(uri, _)| &from[uri.len()..]),
    };
    let is_tag =
        |parameter: &str| parameter.split_once('=').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case("tag"));
    if parameters.split(';').any(is_tag) { from.to_owned() } else { format!("{from};tag={tag}") }
}

/// An address as `host` in a URI or Via: IPv6 in brackets, no zone (RFC 3261 25.1).
pub(super) struct Host(pub(super) IpAddr);

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => write!(f, "{ip}"),
            IpAddr::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invite_says_who_calls_whom() {
        let invite = requests(&[], "127.0.0.1:4000", "127.0.0.1:5060").invite();
        let (head, body) = invite.split_once("\r\n\r\n").unwrap();
        let lines: Vec<&str> = head.split("\r\n").collect();
        assert_eq!(
            lines,
            [
                "INVITE sip:+966115000042@127.0.0.1:5060 SIP/2.0",
                "Via: SIP/2.0/UDP 127.0.0.1:4000;branch=z9hG4bKa;rport",
                "Max-Forwards: 70",
                "From: <sip:+966500000123@127.0.0.1;user=phone>;tag=t",
                "To: <sip:+966115000042@127.0.0.1>",
                "Call-ID: c",
                "CSeq: 1 INVITE",
                "Contact: <sip:+966500000123@127.0.0.1:4000>",
                "P-Asserted-Identity: <sip:+966500000123@127.0.0.1>",
                "Content-Type: application/sdp",
                &format!("Content-Length: {}", body.len()),
            ]
        );
        assert!(body.contains("c=IN IP4 127.0.0.1\r\n"), "{body}");
    }

    #[test]
    fn ipv6_stands_in_brackets_in_uris_and_bare_in_the_offer() {
        let invite = requests(&[], "[::1]:4000", "[fe80::1%1]:5060").invite();
        assert!(invite.starts_with("INVITE sip:+966115000042@[fe80::1]:5060 SIP/2.0\r\n"), "{invite}");
        assert!(invite.contains("Via: SIP/2.0/UDP [::1]:4000;"), "{invite}");
        assert!(invite.contains("From: <sip:+966500000123@[::1];user=phone>;tag=t\r\n"), "{invite}");
        assert!(invite.contains("c=IN IP6 ::1\r\n"), "{invite}");
    }

    #[test]
    fn the_users_fields_replace_the_default_ones() {
        let headers = [
            ("f", "\"Anonymous\" <sip:anonymous@anonymous.invalid>"),
            ("P-Asserted-Identity", "<sip:+966500000199@a.example>"),
            ("P-Asserted-Identity", "<tel:+966500000199>"),
            ("Privacy", "id"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let requests = requests(&headers, "127.0.0.1:4000", "127.0.0.1:5060");
        let invite = requests.invite();
        assert!(invite.contains("\r\nf: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=t\r\n"), "{invite}");
        assert!(!invite.contains("From:") && !invite.contains("+966500000123@127.0.0.1>\r\n"), "{invite}");
        assert_eq!(invite.matches("P-Asserted-Identity:").count(), 2);
        assert!(invite.contains("\r\nPrivacy: id\r\n"), "{invite}");
        let ack = requests.ack_refusal("<sip:x@a.example>;tag=9");
        assert!(ack.contains("\r\nFrom: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=t\r\n"), "{ack}");
    }

    #[test]
    fn an_empty_value_leaves_a_default_field_out() {
        let headers = [("p-asserted-identity".to_owned(), String::new())];
        let invite = requests(&headers, "127.0.0.1:4000", "127.0.0.1:5060").invite();
        assert!(!invite.to_ascii_lowercase().contains("p-asserted-identity"), "{invite}");
    }

    #[test]
    fn a_tag_is_added_only_where_none_stands() {
        let cases = [
            ("<sip:a@b.example>", "<sip:a@b.example>;tag=t"),
            ("<sip:a@b.example;tag=no>", "<sip:a@b.example;tag=no>;tag=t"),
            ("<sip:a@b.example>;x=1; TAG = own", "<sip:a@b.example>;x=1; TAG = own"),
            ("sip:a@b.example;tag=own", "sip:a@b.example;tag=own"),
            ("\";tag=no\" <sip:a@b.example>", "\";tag=no\" <sip:a@b.example>;tag=t"),
        ];
        for (given, expected) in cases {
            assert_eq!(with_tag(given, "t"), expected);
        }
    }

    #[test]
    fn over_tcp_via_and_contact_say_so() {
        let requests = requests(&[], "127.0.0.1:4000", "tcp:127.0.0.1:5060");
        let invite = requests.invite();
        assert!(invite.contains("\r\nVia: SIP/2.0/TCP 127.0.0.1:4000;branch=z9hG4bKa;rport\r\n"), "{invite}");
        assert!(invite.contains("\r\nContact: <sip:+966500000123@127.0.0.1:4000;transport=tcp>\r\n"), "{invite}");
        assert!(requests.ack_refusal("<sip:x@y>").contains("\r\nVia: SIP/2.0/TCP 127.0.0.1:4000;"));
    }

    #[test]
    fn ack_of_a_refusal_belongs_to_the_invites_transaction() {
        let headers = [("Route".to_owned(), "<sip:proxy.example;lr>".to_owned())];
        let requests = requests(&headers, "127.0.0.1:4000", "127.0.0.1:5060");
        assert_eq!(
            requests.ack_refusal("<sip:+966115000042@127.0.0.1>;tag=9"),
            "ACK sip:+966115000042@127.0.0.1:5060 SIP/2.0\r\n\
             Via: SIP/2.0/UDP 127.0.0.1:4000;branch=z9hG4bKa;rport\r\n\
             Max-Forwards: 70\r\n\
             Route: <sip:proxy.example;lr>\r\n\
             From: <sip:+966500000123@127.0.0.1;user=phone>;tag=t\r\n\
             To: <sip:+966115000042@127.0.0.1>;tag=9\r\n\
             Call-ID: c\r\n\
             CSeq: 1 ACK\r\n\
             Content-Length: 0\r\n\r\n"
        );
    }

    fn requests<'a>(headers: &'a [(String, String)], local: &str, via: &str) -> Requests<'a> {
        let identity = Identity {
            branch: "z9hG4bKa".to_owned(),
            ack_branch: "z9hG4bKb".to_owned(),
            bye_branch: "z9hG4bKc".to_owned(),
            tag: "t".to_owned(),
            call_id: "c".to_owned(),
        };
        let numbers = ("+966500000123".parse().unwrap(), "+966115000042".parse().unwrap());
        let (transport, via) =
            via.strip_prefix("tcp:").map_or((Transport::Udp, via), |address| (Transport::Tcp, address));
        let via = Target { transport, address: via.parse().unwrap() };
        Requests::new(identity, numbers, (local.parse().unwrap(), via), headers)
    }
}
