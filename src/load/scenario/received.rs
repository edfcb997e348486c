//! What the peer sent, read as far as a scenario asks for it.
//!
//! Owns the fields that tie a message to its call, and whole fields for `[last_*]`. Tolerant: a bare LF ends a line
//! too, and what is not asked for is not read. Invariant: a field that is handed out is one line. RFC 3261 7.

/// Bytes of a header section that are read and kept.
const MAX_HEAD: usize = 16_384;
/// Longest tag that is copied.
const MAX_TAG: usize = 256;

/// Long names of fields and their compact forms (RFC 3261 7.3.3).
const COMPACT: [(&str, &str); 10] = [
    ("Call-ID", "i"),
    ("Contact", "m"),
    ("Content-Encoding", "e"),
    ("Content-Length", "l"),
    ("Content-Type", "c"),
    ("From", "f"),
    ("Subject", "s"),
    ("Supported", "k"),
    ("To", "t"),
    ("Via", "v"),
];

/// The first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start<'a> {
    /// A response and its status code, 100 to 699.
    Response(u16),
    /// A request and its method.
    Request(&'a str),
}

/// A message with the fields that every message of a call has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received<'a> {
    /// The first line.
    pub(super) start: Start<'a>,
    /// Call-ID as written.
    pub(super) call_id: &'a [u8],
    /// Method of `CSeq`.
    pub(super) method: &'a str,
    /// All fields.
    pub(super) head: Head<'a>,
}

impl<'a> Received<'a> {
    /// Reads a message; `None` where it has no start line, Call-ID or `CSeq`.
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        let head = Head::of(message);
        let start = start(std::str::from_utf8(head.start_line()).ok()?)?;
        let call_id = head.value("Call-ID")?;
        let (_, method) = cseq(head)?;
        Some(Self { start, call_id, method, head })
    }

    /// The status code; `None` for a request.
    pub(super) fn code(&self) -> Option<u16> {
        match self.start {
            Start::Response(code) => Some(code),
            Start::Request(_) => None,
        }
    }
}

/// A start line and header fields, without the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a>(&'a [u8]);

impl<'a> Head<'a> {
    /// The head of a message, or of a head; at most 16,384 bytes of it.
    pub(super) fn of(message: &'a [u8]) -> Self {
        let message = message.trim_ascii_start();
        let bytes = &message[..message.len().min(MAX_HEAD)];
        let end = memchr::memchr_iter(b'\n', bytes)
            .find(|&end| matches!(bytes.get(end + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..])));
        Self(&bytes[..end.unwrap_or(bytes.len())])
    }

    /// All of it as bytes.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }

    fn start_line(self) -> &'a [u8] {
        let end = memchr::memchr(b'\n', self.0).unwrap_or(self.0.len());
        self.0[..end].trim_ascii_end()
    }

    /// Names and values of the fields of this name, long or compact, blanks around them removed.
    fn fields(self, name: &str) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let start = memchr::memchr(b'\n', self.0).map_or(self.0.len(), |end| end + 1);
        let mut rest = &self.0[start..];
        let fields = std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (field, behind) = cut_field(rest);
            rest = behind;
            Some(field)
        });
        let compact = COMPACT.iter().find(|(long, _)| long.eq_ignore_ascii_case(name)).map(|(_, compact)| *compact);
        fields.filter_map(move |field| {
            let colon = memchr::memchr(b':', field)?;
            let (found, value) = (field[..colon].trim_ascii(), field[colon + 1..].trim_ascii());
            let is = |name: &str| found.eq_ignore_ascii_case(name.as_bytes());
            (is(name) || compact.is_some_and(is)).then_some((found, value))
        })
    }

    fn value(self, name: &str) -> Option<&'a [u8]> {
        self.fields(name).next().map(|(_, value)| value)
    }

    /// Appends the field of this name as one line without its end, several values joined by commas. Gives whether
    /// there is one.
    pub(super) fn append_field(self, name: &str, out: &mut Vec<u8>) -> bool {
        let mut any = false;
        for (found, value) in self.fields(name) {
            if any {
                out.extend_from_slice(b", ");
            } else {
                out.extend_from_slice(found);
                out.extend_from_slice(b": ");
            }
            append_unfolded(value, out);
            any = true;
        }
        any
    }

    /// Number and method of `CSeq`.
    pub(super) fn cseq(self) -> Option<(u32, &'a str)> {
        cseq(self)
    }

    /// The tag of To.
    pub(super) fn to_tag(self) -> Option<&'a [u8]> {
        let to = self.value("To")?;
        let parameters = memchr::memrchr(b'>', to).map_or(to, |end| &to[end + 1..]);
        let tag = parameters.split(|&byte| byte == b';').skip(1).find_map(|parameter| {
            let (name, value) = parameter.split_at(memchr::memchr(b'=', parameter)?);
            name.trim_ascii().eq_ignore_ascii_case(b"tag").then_some(value[1..].trim_ascii())
        })?;
        (!tag.is_empty() && tag.len() <= MAX_TAG && tag.iter().all(u8::is_ascii_graphic)).then_some(tag)
    }

    /// The URI of To, between its angle brackets.
    pub(super) fn to_uri(self) -> Option<&'a [u8]> {
        let to = self.value("To")?;
        let start = memchr::memchr(b'<', to)? + 1;
        let end = start + memchr::memchr(b'>', &to[start..])?;
        Some(&to[start..end]).filter(|uri| uri.iter().all(u8::is_ascii_graphic))
    }
}

fn start(line: &str) -> Option<Start<'_>> {
    let (first, rest) = line.split_once(' ')?;
    if first.eq_ignore_ascii_case("SIP/2.0") {
        let code = rest.trim_start().split(' ').next()?;
        let plain = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
        let code = code.parse().ok().filter(|code| plain && (100..700).contains(code))?;
        return Some(Start::Response(code));
    }
    let is_request = rest.trim_end().to_ascii_uppercase().ends_with("SIP/2.0") && !first.is_empty();
    is_request.then_some(Start::Request(first))
}

fn cseq(head: Head<'_>) -> Option<(u32, &str)> {
    let value = std::str::from_utf8(head.value("CSeq")?).ok()?;
    let (number, method) = value.split_once([' ', '\t'])?;
    Some((number.parse().ok()?, method.trim()))
}

/// The first field, with its folded lines, and what stands behind it (RFC 3261 7.3.1).
fn cut_field(text: &[u8]) -> (&[u8], &[u8]) {
    let mut from = 0;
    loop {
        let Some(found) = memchr::memchr(b'\n', &text[from..]) else { return (text, &[]) };
        let end = from + found;
        match text.get(end + 1) {
            Some(b' ' | b'\t') => from = end + 1,
            _ => return (&text[..end], &text[end + 1..]),
        }
    }
}

/// A field's value on one line: a line end and the blanks behind it are one blank.
fn append_unfolded(value: &[u8], out: &mut Vec<u8>) {
    let mut lines = value.split(|byte| matches!(byte, b'\r' | b'\n')).map(<[u8]>::trim_ascii);
    out.extend_from_slice(lines.next().unwrap_or_default());
    for line in lines.filter(|line| !line.is_empty()) {
        out.push(b' ');
        out.extend_from_slice(line);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUSY: &str = "SIP/2.0 486 Busy Here\r\n\
        v: SIP/2.0/UDP a.example;branch=z9hG4bK1\r\n\
        Via: SIP/2.0/UDP b.example;\r\n branch=z9hG4bK2\r\n\
        To: \"x;tag=no\" <sip:b@a.example;tag=no>;TAG = 9\r\n\
        Call-ID: 1-7@a\r\n\
        CSeq: 7  INVITE\r\n\r\nTo: <sip:in@the.body>\r\n";

    #[test]
    fn a_response_gives_what_ties_it_to_its_call() {
        let received = Received::parse(BUSY.as_bytes()).unwrap();
        assert_eq!((received.start, received.code()), (Start::Response(486), Some(486)));
        assert_eq!((received.call_id, received.method), (&b"1-7@a"[..], "INVITE"));
        assert_eq!(received.head.cseq(), Some((7, "INVITE")));
        assert_eq!(received.head.to_tag(), Some(&b"9"[..]));
        assert_eq!(received.head.to_uri(), Some(&b"sip:b@a.example;tag=no"[..]));
    }

    #[test]
    fn a_request_gives_its_method() {
        let bye = "\r\nBYE sip:a@b SIP/2.0\ni:1\ncseq: 2 BYE\n";
        let received = Received::parse(bye.as_bytes()).unwrap();
        assert_eq!((received.start, received.call_id), (Start::Request("BYE"), &b"1"[..]));
    }

    #[test]
    fn fields_of_one_name_are_joined_on_one_line() {
        let head = Head::of(BUSY.as_bytes());
        let mut out = Vec::new();
        assert!(head.append_field("via", &mut out));
        assert_eq!(out, b"v: SIP/2.0/UDP a.example;branch=z9hG4bK1, SIP/2.0/UDP b.example; branch=z9hG4bK2");
        assert!(!head.append_field("Contact", &mut out));
    }

    #[test]
    fn anything_else_is_no_message() {
        for text in [
            "",
            "\r\n\r\n",
            "SIP/2.0 486 x\r\n\r\n",
            "SIP/2.0 99 x\r\nCall-ID: 1\r\nCSeq: 1 X\r\n\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert!(Received::parse(text.as_bytes()).is_none(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_message_panics_and_no_field_has_a_line_end(
            at in 0usize..400, noise in proptest::collection::vec(any::<u8>(), 0..60)
        ) {
            let mut message = BUSY.as_bytes().to_vec();
            let at = at.min(message.len());
            message.splice(at..at, noise);
            let head = Head::of(&message);
            let mut out = Vec::new();
            for name in ["Via", "To", "CSeq"] {
                head.append_field(name, &mut out);
            }
            prop_assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
            let _ = (Received::parse(&message), head.to_tag(), head.to_uri());
        }
    }
}
