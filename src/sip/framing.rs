//! Messages in a stream of bytes: where each begins and ends (RFC 3261 7.5, 18.3), and the pings between them.
//!
//! Owns the place that the reading has reached, not the bytes. Reads the first line as far as to see that it is SIP,
//! and Content-Length; everything else is for whoever gets the message. Invariant: every byte is looked at once,
//! however the stream is cut into reads, and the same stream gives the same messages whatever its cuts are.
//!
//! ```text
//! let mut framer = Framer::default();
//! loop {
//!     match framer.cut(&bytes)? {
//!         Cut::Wait => /* append what comes next to `bytes` */,
//!         Cut::Blank(length) | Cut::Ping(length) | Cut::Message(length) => /* take so many bytes from the front */,
//!     }
//! }
//! ```

use crate::sip::message::HeaderName;
use crate::sip::message::scan::is_start_line;

/// Longest message in bytes, header section and body together: what a UDP length field can say, so that the two
/// transports carry the same messages.
pub const MAX_MESSAGE: usize = 65_535;

/// Largest Content-Length that may be meant: what a signed number of 32 bits holds.
const MAX_LENGTH: u32 = i32::MAX.cast_unsigned();

/// What stands at the front of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing whole yet: more bytes decide.
    Wait,
    /// So many bytes of line ends that mean nothing (RFC 3261 7.5).
    Blank(usize),
    /// So many bytes of line ends, the last of which complete a ping: it is owed one CRLF (RFC 5626 3.5.1).
    Ping(usize),
    /// A message of so many bytes, at most [`MAX_MESSAGE`].
    Message(usize),
}

/// Where the next message would begin is not known any more: the connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first line is no SIP: there is nothing that could be answered.
    #[error("not SIP")]
    NotSip,
    /// No Content-Length, which a stream needs (RFC 3261 18.3). The head is whole; a request is answered 400.
    #[error("no Content-Length")]
    NoLength,
    /// Content-Length is no number, one that nobody means, or two numbers. The head is whole; a request is
    /// answered 400.
    #[error("an unreadable Content-Length")]
    Length,
    /// More than [`MAX_MESSAGE`] bytes, or a header section without end. A request is answered 513.
    #[error("a message of more than {MAX_MESSAGE} bytes")]
    TooLarge,
}

/// Cuts one stream.
#[derive(Debug, Default)]
pub struct Framer {
    part: Part,
}

/// Where the reading stands. Places count from the first byte that is not taken.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Between messages; so many bytes of a ping have come.
    Between(u8),
    /// In the first line, of which so many bytes hold no line end.
    Start { seen: usize },
    /// In the header section.
    Fields {
        /// Where the current field begins.
        line: usize,
        /// The first byte that may still be a line end.
        seen: usize,
        length: Length,
    },
    /// In the body: the message ends here.
    Body { end: usize },
}

impl Default for Part {
    fn default() -> Self {
        Self::Between(0)
    }
}

/// What the header section has said of the body so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Absent,
    Known(u32),
    Unreadable,
}

impl Framer {
    /// Tells what stands at the front of `bytes`: those of the stream from the first on that no cut has taken, so
    /// after [`Cut::Wait`] the same ones and what has come behind them.
    ///
    /// # Errors
    /// [`FrameError`]: the connection is to be closed, and the framer is of no use any more.
    pub fn cut(&mut self, bytes: &[u8]) -> Result<Cut, FrameError> {
        if let Part::Between(matched) = self.part
            && let Some(cut) = self.between(matched, bytes)
        {
            return Ok(cut);
        }
        // However much one read brings: the header section ends in these bytes or is too large.
        let head = &bytes[..bytes.len().min(MAX_MESSAGE + 1)];
        if let Part::Start { seen } = self.part {
            self.start(seen, head)?;
        }
        if let Part::Fields { line, seen, length } = self.part {
            self.fields(line, seen, length, head)?;
        }
        match self.part {
            Part::Body { end } if end <= bytes.len() => {
                self.part = Part::default();
                Ok(Cut::Message(end))
            }
            Part::Body { .. } => Ok(Cut::Wait),
            _ if bytes.len() > MAX_MESSAGE => Err(FrameError::TooLarge),
            _ => Ok(Cut::Wait),
        }
    }

    /// Passes over line ends; `None` once a message begins with the first byte.
    fn between(&mut self, mut matched: u8, bytes: &[u8]) -> Option<Cut> {
        for (index, byte) in bytes.iter().enumerate() {
            matched = match (matched, byte) {
                (0 | 2, b'\r') | (1 | 3, b'\n') => matched + 1,
                (_, b'\r') => 1,
                (_, b'\n') => 0,
                _ => {
                    self.part = Part::Start { seen: 0 };
                    return (index > 0).then_some(Cut::Blank(index));
                }
            };
            if matched == 4 {
                self.part = Part::default();
                return Some(Cut::Ping(index + 1));
            }
        }
        self.part = Part::Between(matched);
        Some(if bytes.is_empty() { Cut::Wait } else { Cut::Blank(bytes.len()) })
    }

    fn start(&mut self, seen: usize, bytes: &[u8]) -> Result<(), FrameError> {
        let Some(end) = line_end(bytes, seen) else {
            self.part = Part::Start { seen: bytes.len() };
            return Ok(());
        };
        if !is_start_line(&bytes[..end]) {
            return Err(FrameError::NotSip);
        }
        // Its own line end is seen once more, for an empty line may follow it.
        self.part = Part::Fields { line: end + 1, seen: end, length: Length::Absent };
        Ok(())
    }

    fn fields(&mut self, mut line: usize, mut seen: usize, mut length: Length, bytes: &[u8]) -> Result<(), FrameError> {
        while let Some(end) = line_end(bytes, seen) {
            let behind = bytes.get(end + 1..).unwrap_or_default();
            let body = match behind {
                [] | [b'\r'] => {
                    // What follows tells whether the field, or the whole header section, ends here.
                    seen = end;
                    self.part = Part::Fields { line, seen, length };
                    return Ok(());
                }
                [b'\n', ..] => Some(end + 2),
                [b'\r', b'\n', ..] => Some(end + 3),
                _ => None,
            };
            // A line that begins with white space goes on with the field (RFC 3261 7.3.1).
            if body.is_some() || !matches!(behind[0], b' ' | b'\t') {
                if let Some(field) = bytes.get(line..end) {
                    length = length.and(field);
                }
                line = end + 1;
            }
            if let Some(body) = body {
                let end = match length {
                    Length::Absent => return Err(FrameError::NoLength),
                    Length::Unreadable => return Err(FrameError::Length),
                    Length::Known(length) => body.saturating_add(length as usize),
                };
                if end > MAX_MESSAGE {
                    return Err(FrameError::TooLarge);
                }
                self.part = Part::Body { end };
                return Ok(());
            }
            seen = end + 1;
        }
        seen = bytes.len();
        self.part = Part::Fields { line, seen, length };
        Ok(())
    }
}

impl Length {
    /// What is known with one field more, which is a Content-Length or anything else.
    fn and(self, field: &[u8]) -> Self {
        // Most fields end at their first letter.
        if !matches!(field.first(), Some(b'C' | b'c' | b'L' | b'l')) {
            return self;
        }
        let Some(colon) = memchr::memchr(b':', field) else { return self };
        if HeaderName::of(field[..colon].trim_ascii_end()) != Some(HeaderName::ContentLength) {
            return self;
        }
        let value = field[colon + 1..].trim_ascii();
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|text| text.parse().ok()).filter(|number| *number <= MAX_LENGTH);
        match (self, number) {
            (Self::Absent, Some(number)) => Self::Known(number),
            (Self::Known(before), Some(number)) if before == number => self,
            _ => Self::Unreadable,
        }
    }
}

/// Place of the first LF from `from` on.
fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr(b'\n', bytes.get(from..)?).map(|found| from + found)
}

#[cfg(test)]
mod tests;
