//! The messages that the calls of a load send: INVITE and the ACK of its final response, over one socket or connection.
//!
//! Owns their text; `forms.rs` fills it in. RFC 3261 8.1.1, 13.2.2.4 and 17.1.1.3.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::forms::{Entries, Forms, Identity};
use super::identifiers::Lengths;
use super::numbers::Numbers;
use super::template::{BRANCH, CALL_ID, CALLER, DIALLED, TAG, TO, Template};
use crate::load::header::default_name;
use crate::load::request::{Host, with_tag};
use crate::load::slab::Key;
use crate::load::target::Target;
use crate::sip::flow::Transport;

/// What the messages of a load are made of, wherever they leave from.
#[derive(Debug, Clone)]
pub struct Plot {
    /// The callers' numbers, spread over the calls.
    pub from: Numbers,
    /// The dialled numbers, in order.
    pub to: Numbers,
    /// Header fields to add, as [`crate::load::header::parse_header`] reads them. One that the command writes too,
    /// replaces it.
    pub headers: Vec<(String, String)>,
    /// How long identifiers are.
    pub lengths: Lengths,
    /// What makes the identifiers of this run its own: random.
    pub seed: u64,
}

/// The messages of one socket or connection.
#[derive(Debug)]
pub(crate) struct Script<'a> {
    plot: &'a Plot,
    forms: Forms,
}

impl<'a> Script<'a> {
    /// Messages that leave from `local` for `via`.
    pub(crate) fn new(plot: &'a Plot, local: SocketAddr, via: Target) -> Self {
        let text = Text { headers: &plot.headers, local, via };
        let forms = Forms {
            invite: Template::new(&text.invite()),
            ack_refusal: Template::new(&text.ack("")),
            ack_answer: Template::new(&text.ack("-a")),
            identity: Identity::new(plot.seed, plot.lengths, local.ip()),
        };
        Self { plot, forms }
    }

    /// Appends the INVITE of call `number`, kept at `key`.
    pub(crate) fn invite(&self, number: u64, key: Key, out: &mut Vec<u8>) {
        self.forms.invite(self.entries(number, key), out);
    }

    /// Appends the ACK of a final response with this code and value of To.
    pub(crate) fn ack(&self, number: u64, key: Key, response: (u16, &[u8]), out: &mut Vec<u8>) {
        self.forms.ack(self.entries(number, key), response, out);
    }

    /// Bytes of an INVITE, as an example.
    pub(crate) fn length(&self) -> usize {
        let mut out = Vec::new();
        self.invite(0, Key { place: 0, generation: 0 }, &mut out);
        out.len()
    }

    fn entries(&self, number: u64, key: Key) -> Entries {
        Entries { number, key, caller: self.plot.from.spread(number), dialled: self.plot.to.in_order(number) }
    }
}

/// The messages as text with marks.
struct Text<'a> {
    headers: &'a [(String, String)],
    local: SocketAddr,
    via: Target,
}

impl Text<'_> {
    fn invite(&self) -> String {
        let (host, port) = (Host(self.local.ip()), self.local.port());
        let transport = if self.via.transport == Transport::Udp { "" } else { ";transport=tcp" };
        let mut text = self.start("INVITE", BRANCH);
        self.field(&mut text, "From", &self.from());
        line(&mut text, "To", &format!("<sip:+{DIALLED}@{};user=phone>", Host(self.via.address.ip())));
        line(&mut text, "Call-ID", CALL_ID);
        line(&mut text, "CSeq", "1 INVITE");
        self.field(&mut text, "Contact", &format!("<sip:+{CALLER}@{host}:{port}{transport}>"));
        self.field(&mut text, "P-Asserted-Identity", &format!("<sip:+{CALLER}@{host};user=phone>"));
        for (name, value) in OTHERS {
            self.field(&mut text, name, value);
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| written(name).is_none()) {
            line(&mut text, name, value);
        }
        self.field(&mut text, "Content-Type", "application/sdp");
        let offer = offer(self.local.ip());
        line(&mut text, "Content-Length", &offer.len().to_string());
        text + "\r\n" + &offer
    }

    fn ack(&self, behind_branch: &str) -> String {
        let mut text = self.start("ACK", &format!("{BRANCH}{behind_branch}"));
        // The ACK takes the INVITE's way (RFC 3261 17.1.1.3).
        for (name, value) in self.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Route")) {
            line(&mut text, name, value);
        }
        let given = self.given("From").find(|(_, value)| !value.is_empty());
        line(&mut text, "From", &given.map_or_else(|| self.from(), |(_, value)| with_tag(value, TAG)));
        line(&mut text, "To", TO);
        line(&mut text, "Call-ID", CALL_ID);
        line(&mut text, "CSeq", "1 ACK");
        text + "Content-Length: 0\r\n\r\n"
    }

    fn start(&self, method: &str, branch: &str) -> String {
        let (host, port) = (Host(self.local.ip()), self.local.port());
        let (peer, peer_port) = (Host(self.via.address.ip()), self.via.address.port());
        let transport = self.via.transport.label().to_ascii_uppercase();
        format!(
            "{method} sip:+{DIALLED}@{peer}:{peer_port};user=phone SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {host}:{port};branch={branch};rport\r\nMax-Forwards: 70\r\n"
        )
    }

    fn from(&self) -> String {
        format!("<sip:+{CALLER}@{};user=phone>;tag={TAG}", Host(self.local.ip()))
    }

    /// What the user gives for a field of ours, else our own value. An empty value leaves the field out.
    fn field(&self, text: &mut String, name: &'static str, own: &str) {
        let mut given = self.given(name).peekable();
        if given.peek().is_none() {
            line(text, name, own);
        }
        for (given_name, value) in given.filter(|(_, value)| !value.is_empty()) {
            if name == "From" {
                line(text, given_name, &with_tag(value, TAG));
            } else {
                line(text, given_name, value);
            }
        }
    }

    fn given(&self, name: &'static str) -> impl Iterator<Item = &(String, String)> {
        self.headers.iter().filter(move |(given, _)| written(given) == Some(name))
    }
}

/// Fields that an exchange sends and no peer acts on here.
const OTHERS: [(&str, &str); 5] = [
    ("Accept", "application/sdp"),
    ("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, NOTIFY, REFER"),
    ("P-Early-Media", "supported"),
    ("Supported", "timer, histinfo, path"),
    ("User-Agent", "ringproof load"),
];

/// The long name of the field of ours that `name` stands for, if it is one (RFC 3261 7.3.3).
fn written(name: &str) -> Option<&'static str> {
    let name = if name.eq_ignore_ascii_case("k") { "Supported" } else { name };
    let other = || OTHERS.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(own, _)| *own);
    default_name(name).or_else(other)
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{name}: {value}\r\n");
}

/// An offer (RFC 3264) of what an exchange usually speaks, on a port that nobody listens on.
fn offer(ip: IpAddr) -> String {
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "v=0\r\no=- 100000 100000 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio 9 RTP/AVP 8 0 18 101\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:18 G729/8000\r\na=fmtp:18 annexb=no\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=maxptime:40\r\na=sendrecv\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::{HeaderName, Method, Scanner, StartLine, Via};

    const KEY: Key = Key { place: 7, generation: 0xabc };

    #[test]
    fn the_invite_is_a_message_that_says_who_calls_whom() {
        let plot = plot(&[], Lengths::Varied);
        let invite = invite(&plot, "udp:192.0.2.10:5060", 1);
        let mut scanner = Scanner::default();
        let message = scanner.scan(&invite).unwrap();
        assert_eq!(message.fault(), None);
        let StartLine::Request { method, uri, .. } = message.start_line() else { panic!("a response") };
        assert_eq!((method, uri), (Method::Invite, &b"sip:+966115000001@192.0.2.10:5060;user=phone"[..]));
        let via = Via::parse(message.only(HeaderName::Via).unwrap()).unwrap();
        assert!(via.branch.unwrap().starts_with(b"z9hG4bK000700000abc"));
        assert_eq!((via.host, via.port), (&b"127.0.0.1"[..], Some(4000)));
        let caller = plot.from.spread(1).to_string();
        for name in [HeaderName::From, HeaderName::PAssertedIdentity] {
            let value = String::from_utf8_lossy(message.only(name).unwrap()).into_owned();
            assert!(value.starts_with(&format!("<sip:+{caller}@127.0.0.1")), "{value}");
        }
        let contact = format!("\r\nContact: <sip:+{caller}@127.0.0.1:4000>\r\n");
        assert!(memchr::memmem::find(&invite, contact.as_bytes()).is_some());
        assert_eq!(message.only(HeaderName::To), Some(&b"<sip:+966115000001@192.0.2.10;user=phone>"[..]));
        let length: usize =
            std::str::from_utf8(message.only(HeaderName::ContentLength).unwrap()).unwrap().parse().unwrap();
        assert_eq!(length, message.body().len());
    }

    #[test]
    fn the_ack_of_a_refusal_belongs_to_the_invite_and_that_of_an_answer_does_not() {
        let headers = [("Route", "<sip:proxy.example;lr>"), ("Privacy", "id")];
        let plot = plot(&headers, Lengths::Varied);
        let script = script(&plot, "udp:192.0.2.10:5060");
        let invite = invite(&plot, "udp:192.0.2.10:5060", 9);
        let ack = |code| {
            let mut out = Vec::new();
            script.ack(9, KEY, (code, b"<sip:x@a.example>;tag=peer"), &mut out);
            out
        };
        let (refusal, answer) = (ack(486), ack(200));
        let mut scanners = [(); 3].map(|()| Scanner::default());
        let [one, two, three] = &mut scanners;
        let (invite, refusal) = (one.scan(&invite).unwrap(), two.scan(&refusal).unwrap());
        let answer = three.scan(&answer).unwrap();
        for name in [HeaderName::From, HeaderName::CallId, HeaderName::Via] {
            assert_eq!(refusal.only(name), invite.only(name));
        }
        assert_eq!(refusal.only(HeaderName::To), Some(&b"<sip:x@a.example>;tag=peer"[..]));
        assert_eq!(refusal.only(HeaderName::CSeq), Some(&b"1 ACK"[..]));
        assert_ne!(answer.only(HeaderName::Via), invite.only(HeaderName::Via));
        assert_eq!((refusal.fault(), answer.fault()), (None, None));
    }

    #[test]
    fn equal_lengths_give_messages_of_one_length_as_long_as_real_ones() {
        let lengths = |lengths| {
            let plot = plot(&[], lengths);
            let mut found: Vec<usize> = (0..200).map(|call| invite(&plot, "udp:127.0.0.1:5060", call).len()).collect();
            found.sort_unstable();
            (found[0], found[199])
        };
        let (least, most) = lengths(Lengths::Equal);
        assert_eq!(least, most);
        assert!((930..=1_010).contains(&most), "{most}");
        let (least, most) = lengths(Lengths::Varied);
        assert!(least + 40 < most);
    }

    #[test]
    fn the_users_fields_are_added_or_replace_ours() {
        let headers = [
            ("f", "\"A\" <sip:anonymous@anonymous.invalid>"),
            ("P-Asserted-Identity", ""),
            ("k", "100rel"),
            ("Privacy", "id"),
        ];
        let plot = plot(&headers, Lengths::Varied);
        let text = String::from_utf8(invite(&plot, "tcp:127.0.0.1:5060", 0)).unwrap();
        assert!(text.contains("\r\nf: \"A\" <sip:anonymous@anonymous.invalid>;tag="), "{text}");
        assert!(text.contains("\r\nk: 100rel\r\n") && text.contains("\r\nPrivacy: id\r\n"), "{text}");
        for absent in ["\r\nFrom:", "\r\nP-Asserted-Identity:", "\r\nSupported:", "\0"] {
            assert!(!text.contains(absent), "{text}");
        }
        assert!(text.contains("Via: SIP/2.0/TCP ") && text.contains(":4000;transport=tcp>\r\n"), "{text}");
    }

    fn plot(headers: &[(&str, &str)], lengths: Lengths) -> Plot {
        let numbers = |text: &str| Numbers::new(&[text.parse().unwrap()]).unwrap();
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (from, to) = (numbers("+966500000000/1000"), numbers("+966115000000/100"));
        Plot { from, to, headers, lengths, seed: 7 }
    }

    fn script<'a>(plot: &'a Plot, via: &str) -> Script<'a> {
        let via = crate::load::target::parse_via(via).unwrap();
        Script::new(plot, "127.0.0.1:4000".parse().unwrap(), via)
    }

    fn invite(plot: &Plot, via: &str, call: u64) -> Vec<u8> {
        let mut out = Vec::new();
        script(plot, via).invite(call, KEY, &mut out);
        out
    }
}
