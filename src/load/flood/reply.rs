//! Reading a response as far as a load needs it: its code, the call that it is for, and its To.
//!
//! Looks for what stands there and checks nothing else: the peer is under load, not under test. Every look is within
//! the bytes that came, and nothing is allocated.

use memchr::memmem::Finder;

use crate::load::slab::Key;

/// Longest To that goes into an ACK.
const MAX_TO: usize = 1_024;

/// One response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    /// Status code, 100 to 699.
    pub(crate) code: u16,
    /// The call, as the branch of the topmost Via says.
    pub(crate) key: Key,
    /// The value of To.
    pub(crate) to: &'a [u8],
}

/// Reads responses.
#[derive(Debug)]
pub(crate) struct Reader {
    branch: Finder<'static>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { branch: Finder::new(b"branch=z9hG4bK") }
    }

    /// Reads one message; `None` for anything but a response to a request of ours.
    pub(crate) fn read<'a>(&self, message: &'a [u8]) -> Option<Reply<'a>> {
        let code = code(message)?;
        let fields = &message[memchr::memchr(b'\n', message)? + 1..];
        let branch = self.branch.find(fields)? + self.branch.needle().len();
        let key = Key::read(&fields[branch..])?;
        Some(Reply { code, key, to: to(fields)? })
    }
}

fn code(message: &[u8]) -> Option<u16> {
    let [first @ b'1'..=b'6', second, third, b' ' | b'\r' | b'\n'] =
        message.strip_prefix(b"SIP/2.0 ")?.first_chunk()?
    else {
        return None;
    };
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    Some(digit(first)? * 100 + digit(second)? * 10 + digit(third)?)
}

/// The value of the first To, with the lines that go on with it.
fn to(fields: &[u8]) -> Option<&[u8]> {
    let mut line = fields;
    loop {
        if let Some(value) = value_of_to(line) {
            let mut end = 0;
            loop {
                end += memchr::memchr(b'\n', &value[end..])?;
                if !matches!(value.get(end + 1), Some(b' ' | b'\t')) {
                    break;
                }
                end += 1;
            }
            let value = value[..end].trim_ascii();
            return (value.len() <= MAX_TO).then_some(value);
        }
        line = &line[memchr::memchr(b'\n', line)? + 1..];
    }
}

/// What stands behind the colon, where the line begins with To or its compact form.
fn value_of_to(line: &[u8]) -> Option<&[u8]> {
    let ([b'T' | b't', b'O' | b'o', behind @ ..] | [b'T' | b't', behind @ ..]) = line else { return None };
    behind.trim_ascii_start().strip_prefix(b":")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUSY: &str = "SIP/2.0 486 Busy Here\r\n\
        Via: SIP/2.0/UDP 127.0.0.1:4000;rport=4000;branch=z9hG4bK000700000abcXYZ;received=127.0.0.1\r\n\
        Timestamp: 1\r\n\
        To: <sip:+966115000042@a.example>;tag=9\r\n\
        CSeq: 1 INVITE\r\n\
        Content-Length: 0\r\n\r\n";

    #[test]
    fn a_response_gives_its_code_its_call_and_its_to() {
        let expected =
            Reply { code: 486, key: Key { place: 7, generation: 0xabc }, to: b"<sip:+966115000042@a.example>;tag=9" };
        assert_eq!(read(BUSY), Some(expected));
        for to in ["t:", "TO :", "t \t: \t"] {
            assert_eq!(read(&BUSY.replace("To: ", to)), Some(expected), "{to}");
        }
        assert_eq!(read(&BUSY.replace("\r\n", "\n")), Some(expected));
        let folded = BUSY.replace(";tag=9", "\r\n ;tag=9\r\n\t;x");
        assert!(read(&folded).unwrap().to.ends_with(b"\r\n ;tag=9\r\n\t;x"));
    }

    #[test]
    fn anything_else_is_none_of_ours() {
        let cases = [
            BUSY.replace("486 ", "786 "),
            BUSY.replace("486 ", "4867 "),
            BUSY.replace("486 ", "48 "),
            BUSY.replace("SIP/2.0 486", "SIP/3.0 486"),
            BUSY.replace("z9hG4bK0007", "z9hG4bK-007"),
            BUSY.replace("branch=", "branch:"),
            BUSY.replace("To:", "Too:"),
            BUSY.replace(";tag=9", &"x".repeat(MAX_TO)),
            BUSY[..BUSY.find(">;tag").unwrap()].to_owned(),
            BUSY[..21].to_owned(),
            "INVITE sip:a@b SIP/2.0\r\n\r\n".to_owned(),
            String::new(),
        ];
        for text in cases {
            assert_eq!(read(&text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_datagram_panics(
            start in 0usize..300, end in 0usize..300, noise in proptest::collection::vec(any::<u8>(), 0..60)
        ) {
            let mut datagram = BUSY.as_bytes().to_vec();
            let (start, end) = (start.min(end).min(datagram.len()), end.max(start).min(datagram.len()));
            datagram.splice(start..end, noise);
            if let Some(reply) = Reader::new().read(&datagram) {
                prop_assert!((100..700).contains(&reply.code) && reply.to.len() <= MAX_TO);
            }
        }
    }

    fn read(text: &str) -> Option<Reply<'_>> {
        Reader::new().read(text.as_bytes())
    }
}
