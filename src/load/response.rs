//! Reading a response, as far as a caller needs it.
//!
//! Tolerant: bare LF ends a line too, unknown fields are skipped, bytes that are not UTF-8 are replaced. What lacks
//! the fields that tie it to a request is no response. RFC 3261 7.2, 7.3 and 17.1.3.

/// Lines of a head that are read; the rest is skipped.
const MAX_LINES: usize = 256;

/// One response. Texts are the peer's, unfolded and without CR or LF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    /// Status code, 100 to 699.
    pub(super) code: u16,
    /// Reason phrase; may be empty.
    pub(super) phrase: String,
    /// Branch of the top Via.
    pub(super) branch: String,
    /// `CSeq` number.
    pub(super) number: u32,
    /// `CSeq` method.
    pub(super) method: String,
    /// To, with the peer's tag.
    pub(super) to: String,
    /// URI of the first Contact, where it can be a Request-URI.
    pub(super) contact: Option<String>,
    /// First Reason (RFC 3326).
    pub(super) reason: Option<String>,
}

impl Response {
    /// Reads a datagram; `None` for anything but a response with Via branch, `CSeq` and To.
    pub(super) fn parse(datagram: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(datagram);
        let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).take(MAX_LINES);
        let (code, phrase) = status_line(lines.next()?)?;

        let mut fields: Vec<(&str, String)> = Vec::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            if line.starts_with([' ', '\t']) {
                // A folded line belongs to the field above it (RFC 3261 7.3.1).
                let (_, value) = fields.last_mut()?;
                value.push(' ');
                value.push_str(line.trim());
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.trim(), value.trim().to_owned()));
            }
        }
        let field = |long: &str, compact: &str| {
            let is_named = |name: &str| name.eq_ignore_ascii_case(long) || name.eq_ignore_ascii_case(compact);
            fields.iter().find(|(name, _)| is_named(name)).map(|(_, value)| value.as_str())
        };

        let (number, method) = field("CSeq", "CSeq")?.split_once([' ', '\t'])?;
        Some(Self {
            code,
            phrase: phrase.to_owned(),
            branch: branch(field("Via", "v")?)?.to_owned(),
            number: number.parse().ok()?,
            method: method.trim().to_owned(),
            to: field("To", "t")?.to_owned(),
            contact: field("Contact", "m").and_then(contact_uri).map(str::to_owned),
            reason: field("Reason", "Reason").map(str::to_owned),
        })
    }

    /// Whether this ends the transaction (RFC 3261 7.2).
    pub(super) fn is_final(&self) -> bool {
        self.code >= 200
    }
}

fn status_line(line: &str) -> Option<(u16, &str)> {
    let (version, rest) = line.split_once(' ')?;
    let (code, phrase) = rest.trim_start().split_once(' ').unwrap_or((rest, ""));
    let code = code.trim();
    let plain = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    let code = code.parse().ok().filter(|code| plain && (100..700).contains(code))?;
    version.eq_ignore_ascii_case("SIP/2.0").then_some((code, phrase.trim()))
}

/// The branch of the first Via in a field. No parameter before it can be quoted, so a comma ends the Via.
fn branch(via: &str) -> Option<&str> {
    let top = via.split(',').next()?;
    top.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("branch").then_some(value.trim())
    })
}

/// A URI that may stand in a request line as it is.
fn contact_uri(contact: &str) -> Option<&str> {
    let uri = match contact.split_once('<') {
        Some((_, rest)) => rest.split('>').next()?,
        None => contact.split([';', ',']).next()?.trim(),
    };
    let known = uri.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sip:"));
    let clean = (5..=512).contains(&uri.len()) && uri.bytes().all(|byte| byte.is_ascii_graphic());
    (known && clean).then_some(uri)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUSY: &str = "SIP/2.0 486 Busy Here\r\n\
        Via: SIP/2.0/UDP [::1]:4000;rport=4000;branch=z9hG4bK1;received=::1, SIP/2.0/UDP b.example;branch=z9hG4bK2\r\n\
        To: <sip:+966115000042@a.example>;tag=9\r\n\
        Call-ID: 1\r\n\
        CSeq: 7 INVITE\r\n\
        Contact: \"x\" <sip:b@a.example:5070;transport=udp>;q=1\r\n\
        Reason: Q.850;cause=17;text=\"User busy\"\r\n\
        Content-Length: 0\r\n\r\n";

    #[test]
    fn a_response_gives_what_ties_it_to_its_request() {
        let response = Response::parse(BUSY.as_bytes()).unwrap();
        assert_eq!((response.code, response.phrase.as_str()), (486, "Busy Here"));
        assert_eq!((response.number, response.method.as_str(), response.branch.as_str()), (7, "INVITE", "z9hG4bK1"));
        assert_eq!(response.to, "<sip:+966115000042@a.example>;tag=9");
        assert_eq!(response.contact.as_deref(), Some("sip:b@a.example:5070;transport=udp"));
        assert_eq!(response.reason.as_deref(), Some("Q.850;cause=17;text=\"User busy\""));
    }

    #[test]
    fn compact_names_folding_and_bare_lf_are_read() {
        let text = "sip/2.0 603\nv: SIP/2.0/UDP a.example\n ;BRANCH = z9hG4bK1\nt: <sip:b@a.example>;\n\ttag=9\ncseq: 1  ACK\n";
        let response = Response::parse(text.as_bytes()).unwrap();
        assert_eq!((response.code, response.phrase.as_str()), (603, ""));
        assert_eq!((response.branch.as_str(), response.method.as_str()), ("z9hG4bK1", "ACK"));
        assert_eq!(response.to, "<sip:b@a.example>; tag=9");
    }

    #[test]
    fn anything_else_is_no_response() {
        let without =
            |field: &str| BUSY.lines().filter(|line| !line.starts_with(field)).collect::<Vec<_>>().join("\r\n");
        for text in [without("Via"), without("To"), without("CSeq"), without("SIP/2.0"), String::new()] {
            assert_eq!(Response::parse(text.as_bytes()), None, "{text}");
        }
        for line in
            ["SIP/2.0 99 x", "SIP/2.0 700 x", "SIP/2.0 +48 x", "SIP/3.0 486 x", "SIP/2.0  ", "INVITE sip:a SIP/2.0"]
        {
            assert_eq!(Response::parse(BUSY.replace("SIP/2.0 486 Busy Here", line).as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_contact_that_cannot_be_a_request_uri_is_left_out() {
        for contact in ["<tel:+1>", "<sip:a b@c>", "*", "<sip:é@c>", "<", ""] {
            assert_eq!(contact_uri(contact), None, "{contact}");
        }
        assert_eq!(contact_uri("SIP:a@b.example;expires=3"), Some("SIP:a@b.example"));
    }

    proptest! {
        #[test]
        fn no_datagram_panics(
            start in 0usize..400, end in 0usize..400, noise in proptest::collection::vec(any::<u8>(), 0..60)
        ) {
            let mut datagram = BUSY.as_bytes().to_vec();
            let (start, end) = (start.min(end).min(datagram.len()), end.max(start).min(datagram.len()));
            datagram.splice(start..end, noise);
            if let Some(response) = Response::parse(&datagram) {
                prop_assert!(!response.to.contains(['\n']));
            }
        }
    }
}
