//! One pass over a message that notes where the header fields stand (RFC 3261 7).

use std::fmt;

use super::header::HeaderName;
use super::method::Method;
use super::{find, lex};

/// Most header fields in a message; one more is answered 513.
pub const MAX_HEADER_FIELDS: usize = 256;

/// Most bytes of one header field, folded lines included; one more is answered 513. A signed Identity has one or two
/// thousand.
pub const MAX_FIELD: usize = 16_384;

/// Most Via fields, as many hops as Max-Forwards usually begins with (RFC 3261 8.1.1.6); one more is answered 513.
pub const MAX_VIAS: usize = 70;

/// The bytes are no SIP message, not even a broken one that could be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Nothing but line ends: a keep-alive (RFC 5626 3.5.1).
    #[error("keep-alive")]
    Empty,
    /// The first line is neither a request line nor a status line.
    #[error("not SIP")]
    NotSip,
}

/// What is wrong with a message whose header fields could still be found. The first fault counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A line that is no header field, white space inside the Request-URI, or no empty line at the end: answered 400.
    Malformed,
    /// More than [`MAX_HEADER_FIELDS`], a field longer than [`MAX_FIELD`], or more than [`MAX_VIAS`]: answered 513.
    TooLarge,
}

/// The first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartLine<'a> {
    /// RFC 3261 7.1.
    Request {
        /// The method.
        method: Method,
        /// The method as written.
        method_name: &'a [u8],
        /// The Request-URI as written.
        uri: &'a [u8],
        /// Whether the version is SIP/2.0.
        version_2: bool,
    },
    /// RFC 3261 7.2.
    Response,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    name: HeaderName,
    start: u32,
    end: u32,
}

/// Where the first and the last field of each name stand among the fields noted.
#[derive(Debug, Default)]
struct Index {
    /// Bit n is set where there is a field of the name at place n.
    present: u32,
    first: [u8; HeaderName::COUNT],
    last: [u8; HeaderName::COUNT],
}

impl Index {
    fn clear(&mut self) {
        self.present = 0;
    }

    fn note(&mut self, name: HeaderName, place: usize) {
        // Places are below MAX_HEADER_FIELDS, which a byte holds.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        let place = place as u8;
        if !self.has(name) {
            self.present |= 1 << name as u32;
            self.first[name as usize] = place;
        }
        self.last[name as usize] = place;
    }

    const fn has(&self, name: HeaderName) -> bool {
        self.present & 1 << name as u32 != 0
    }

    /// The fields from the first to the last of this name; those of other names may stand between.
    fn part<'f>(&self, fields: &'f [Field], name: HeaderName) -> &'f [Field] {
        if self.has(name) {
            &fields[usize::from(self.first[name as usize])..=usize::from(self.last[name as usize])]
        } else {
            &[]
        }
    }
}

const _: () = assert!(MAX_HEADER_FIELDS <= 256 && HeaderName::COUNT <= 32);

/// Scans messages one after the other, keeping its memory.
#[derive(Debug, Default)]
pub struct Scanner {
    fields: Vec<Field>,
    index: Index,
}

/// A message whose header fields have been found.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    fields: &'a [Field],
    index: &'a Index,
    start_line: StartLine<'a>,
    body: usize,
    fault: Option<Fault>,
}

impl Scanner {
    /// Finds the header fields of one message. Lines end in CRLF, or in LF alone for senders that know no better;
    /// leading line ends are skipped (RFC 3261 7.5).
    ///
    /// # Errors
    /// [`ScanError`] where there is nothing that could be answered.
    pub fn scan<'a>(&'a mut self, bytes: &'a [u8]) -> Result<Message<'a>, ScanError> {
        self.fields.clear();
        self.index.clear();
        let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).ok_or(ScanError::Empty)?;
        // Offsets are 32 bits wide; no transport hands over more than 64 KiB.
        if u32::try_from(bytes.len()).is_err() {
            return Err(ScanError::NotSip);
        }
        let mut fault = None;
        let first_end = find::any(bytes, begin, [b'\n']);
        let start_line = start_line(without_cr(&bytes[begin..first_end]), &mut fault).ok_or(ScanError::NotSip)?;

        let mut count = 0;
        let mut position = first_end + 1;
        let body = loop {
            if position >= bytes.len() {
                fault.get_or_insert(Fault::Malformed);
                break bytes.len();
            }
            let colon = find::any(bytes, position, [b':', b'\n']);
            let end = line_end(bytes, position, colon);
            let line = without_cr(&bytes[position..end]);
            if line.is_empty() {
                break (end + 1).min(bytes.len());
            }
            count += 1;
            if count > MAX_HEADER_FIELDS || line.len() > MAX_FIELD {
                fault.get_or_insert(Fault::TooLarge);
            } else if !self.note(line, position, colon - position) {
                fault.get_or_insert(Fault::Malformed);
            }
            position = end + 1;
        };
        if self.fields.iter().filter(|field| field.name == HeaderName::Via).count() > MAX_VIAS {
            fault.get_or_insert(Fault::TooLarge);
        }
        Ok(Message { bytes, fields: &self.fields, index: &self.index, start_line, body, fault })
    }

    /// Notes one header field that stands at `offset`; whether it is one. Its first line has its first colon at `colon`,
    /// or none.
    fn note(&mut self, line: &[u8], offset: usize, colon: usize) -> bool {
        let colon = match line.get(colon) {
            Some(b':') => Some(colon),
            _ => find::first(line, b':').or_else(|| equals_sign(line)),
        };
        let Some((name, [_, value @ ..])) = colon.and_then(|colon| line.split_at_checked(colon)) else { return false };
        if lex::is_lws(line[0]) {
            return false;
        }
        let name = lex::trim(name);
        let Some(name) = HeaderName::of(name) else { return lex::is_token_text(name) };
        let value = lex::trim_start(value);
        let behind = value.len();
        let value = lex::trim_end(value);
        let end = offset + line.len() - (behind - value.len());
        let (Ok(start), Ok(end)) = (u32::try_from(end - value.len()), u32::try_from(end)) else { return false };
        self.index.note(name, self.fields.len());
        self.fields.push(Field { name, start, end });
        true
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Header fields and the Request-URI name people.
        f.debug_struct("Message").field("length", &self.bytes.len()).field("fault", &self.fault).finish_non_exhaustive()
    }
}

impl<'a> Message<'a> {
    /// The first line.
    #[must_use]
    pub const fn start_line(&self) -> StartLine<'a> {
        self.start_line
    }

    /// Bytes of the whole message.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.bytes.len()
    }

    /// What is wrong with the message as a whole.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// What stands behind the header fields.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.body..]
    }

    /// The values of the fields of this name, in their order. Each may hold a comma-separated list.
    pub fn values(&self, name: HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.index
            .part(self.fields, name)
            .iter()
            .filter(move |field| field.name == name)
            .map(move |field| &bytes[field.start as usize..field.end as usize])
    }

    /// The value of a field that may stand once; `None` when it is absent or repeated.
    #[must_use]
    pub fn only(&self, name: HeaderName) -> Option<&'a [u8]> {
        let [field] = self.index.part(self.fields, name) else { return None };
        Some(&self.bytes[field.start as usize..field.end as usize])
    }
}

/// Where `=` stands for the colon: one carrier documents two of its own fields so.
fn equals_sign(line: &[u8]) -> Option<usize> {
    let is = |name: &[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let name = [&b"P-Attestation-Indicator="[..], b"P-Origination-ID="].into_iter().find(|name| is(name))?;
    Some(name.len() - 1)
}

/// Where the line end is of a header field that begins at `start`, folded lines included (RFC 3261 7.3.1). The first one
/// is not before `from`.
fn line_end(bytes: &[u8], start: usize, mut from: usize) -> usize {
    loop {
        let end = find::any(bytes, from, [b'\n']);
        match bytes.get(end + 1) {
            // An empty first line is the end of the header fields, whatever the body begins with.
            Some(b' ' | b'\t') if !without_cr(&bytes[start..end]).is_empty() => from = end + 1,
            _ => return end,
        }
    }
}

/// Whether a first line, its CR included or not, begins a message: [`Scanner::scan`] would not call it `NotSip`.
#[must_use]
pub fn is_start_line(line: &[u8]) -> bool {
    start_line(without_cr(line), &mut None).is_some()
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn start_line<'a>(line: &'a [u8], fault: &mut Option<Fault>) -> Option<StartLine<'a>> {
    if line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/")) {
        return Some(StartLine::Response);
    }
    let method_end = find::first(line, b' ')?;
    let trimmed = lex::trim(line);
    let version_start = memchr::memrchr(b' ', trimmed)? + 1;
    let (method_name, version) = (&line[..method_end], &trimmed[version_start..]);
    let method = Method::of(method_name);
    if method == Method::Other && !lex::is_token_text(method_name)
        || version_start <= method_end + 1
        || !version.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"))
    {
        return None;
    }
    // More space than the grammar has between the parts, or at the end, hides nothing (RFC 4475 3.1.2.9, 3.1.2.10).
    let uri = lex::trim(&line[method_end + 1..version_start - 1]);
    if uri.is_empty() || find::any(uri, 0, lex::LWS) < uri.len() {
        fault.get_or_insert(Fault::Malformed);
    }
    let version_2 = version.eq_ignore_ascii_case(b"SIP/2.0");
    Some(StartLine::Request { method, method_name, uri, version_2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned<T>(text: &[u8], check: impl FnOnce(Result<Message<'_>, ScanError>) -> T) -> T {
        check(Scanner::default().scan(text))
    }

    #[test]
    fn fields_are_found_folded_or_compact_and_trimmed() {
        let text = b"\r\nINVITE sip:a@b SIP/2.0\r\nf :  <sip:x@y>\r\n ;tag=1 \r\nX: y\r\nTo:\r\nv: one\r\nVia: two\r\n\r\nbody";
        scanned(text, |message| {
            let message = message.unwrap();
            assert_eq!(message.fault(), None);
            assert_eq!(message.only(HeaderName::From), Some(&b"<sip:x@y>\r\n ;tag=1"[..]));
            assert_eq!(message.only(HeaderName::To), Some(&b""[..]));
            assert_eq!(message.values(HeaderName::Via).collect::<Vec<_>>(), [b"one", b"two"]);
            assert_eq!(message.only(HeaderName::Via), None);
            assert_eq!(message.body(), b"body");
        });
    }

    #[test]
    fn s03_an_equals_sign_stands_for_the_colon_in_two_fields_alone() {
        let text = b"INVITE sip:a@b SIP/2.0\r\nP-Attestation-Indicator=A;\r\nP-Origination-ID=1-2;\r\n\r\n";
        scanned(text, |message| {
            let message = message.unwrap();
            assert_eq!((message.fault(), message.only(HeaderName::PAttestationIndicator)), (None, Some(&b"A;"[..])));
        });
        scanned(b"INVITE sip:a@b SIP/2.0\r\nSubject=A;\r\n\r\n", |message| {
            assert_eq!(message.unwrap().fault(), Some(Fault::Malformed));
        });
    }

    #[test]
    fn lf_alone_ends_a_line() {
        scanned(b"ACK sip:a@b SIP/2.0\nCall-ID: 1\n\n", |message| {
            let message = message.unwrap();
            assert_eq!(message.only(HeaderName::CallId), Some(&b"1"[..]));
            assert_eq!(message.fault(), None);
        });
    }

    #[test]
    fn a_body_that_begins_with_space_is_no_folded_line() {
        scanned(b"ACK sip:a@b SIP/2.0\r\nCall-ID: 1\r\n\r\n body", |message| {
            assert_eq!(message.unwrap().body(), b" body");
        });
    }

    #[test]
    fn faults_are_noted_and_the_rest_is_still_found() {
        for (text, fault) in [
            (&b"INVITE sip:a@b SIP/2.0\r\nno colon\r\nCall-ID: 1\r\n\r\n"[..], Fault::Malformed),
            (b"INVITE sip:a b SIP/2.0\r\nCall-ID: 1\r\n\r\n", Fault::Malformed),
            (b"INVITE sip:a@b SIP/2.0\r\nCall-ID: 1\r\n", Fault::Malformed),
            (b"INVITE sip:a@b SIP/2.0\r\nCall-ID: 1", Fault::Malformed),
        ] {
            scanned(text, |message| {
                let message = message.unwrap();
                assert_eq!(message.fault(), Some(fault), "{}", text.escape_ascii());
                assert_eq!(message.only(HeaderName::CallId), Some(&b"1"[..]), "{}", text.escape_ascii());
            });
        }
        let many = format!("INVITE sip:a@b SIP/2.0\r\nCall-ID: 1\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADER_FIELDS));
        scanned(many.as_bytes(), |message| assert_eq!(message.unwrap().fault(), Some(Fault::TooLarge)));
    }

    #[test]
    fn what_is_not_sip_is_told_apart_from_a_keep_alive() {
        for text in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\0", b"INVITE", b"INVITE SIP/2.0\r\n\r\n", b" SIP/2.0\r\n"]
        {
            scanned(text, |message| assert_eq!(message.err(), Some(ScanError::NotSip), "{}", text.escape_ascii()));
        }
        scanned(b"\r\n\r\n", |message| assert_eq!(message.err(), Some(ScanError::Empty)));
        scanned(b"SIP/2.0 200 OK\r\n\r\n", |message| assert_eq!(message.unwrap().start_line(), StartLine::Response));
    }
}
