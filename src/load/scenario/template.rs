//! Text with keywords: taken apart once, filled in for each message.
//!
//! Owns how keywords stand in a text. Values that hold for the whole load (`[service]` and those of `--key`) become
//! text at once. Pure. Invariant: what is filled in has at most 65,535 bytes.

pub use super::keyword::{Ends, View};
use super::keyword::{KEYWORDS, Keyword, NUMBERS, Number};
use super::received::Head;
use crate::load::ladder::Escaped;
use crate::sip::framing::MAX_MESSAGE;

/// Characters that `[len]` takes, the number on their right side.
const LENGTH_WIDTH: usize = 5;

/// Text with keywords.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Keyword(Keyword),
    Field(usize),
    Last(String),
    /// A keyword with the number that is added to it.
    Number(Number, i32),
}

/// What is known before the load begins.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    /// Value of `[service]`.
    pub service: &'a str,
    /// Values of the user's own keywords.
    pub keys: &'a [(String, String)],
    /// How many fields each line of the CSV has; `None` without one.
    pub columns: Option<usize>,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeywordError {
    /// `[last_message]`.
    #[error("[last_message] is not supported; only single fields of the peer's last message are, as in [last_Via:]")]
    LastMessage,
    /// `[` without `]`.
    #[error("'[' begins a keyword that no ']' on its line ends; write \\x5B for the character itself")]
    Unclosed,
    /// `+n` or `-n` behind a keyword that takes none.
    #[error("[{keyword}] takes no '+' or '-'")]
    Offset {
        /// The keyword without it.
        keyword: String,
    },
    /// `[fieldN]` without a file.
    #[error("[field{field}] needs a file: give one with --csv")]
    NoFile {
        /// The field asked for.
        field: usize,
    },
    /// `[fieldN]` that not every line has.
    #[error("[field{field}] is not in every line of the CSV: the shortest has {columns}, the first of which is field0")]
    NoField {
        /// The field asked for.
        field: usize,
        /// How many there are.
        columns: usize,
    },
    /// A keyword that SIPp has and this command has not, or nobody.
    #[error(
        "[{}] is not supported; give a word of your own with --key, or use [service], [call_id], [call_number], \
         [branch], [cseq], [len], [pid], [local_ip], [local_ip_type], [local_port], [remote_ip], [remote_port], \
         [transport], [media_ip], [media_ip_type], [media_port], [fieldN], [last_NAME:], [last_cseq_number], \
         [last_Request_URI], [peer_tag_param], [msg_index] or [timestamp]",
        Escaped(.keyword)
    )]
    Unsupported {
        /// What stands between the brackets.
        keyword: String,
    },
}

/// A message came out longer than one can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl Template {
    /// Takes a text of one line apart and adds it.
    ///
    /// # Errors
    /// A [`KeywordError`] and how many bytes of the text stand before it.
    pub fn push(&mut self, text: &str, words: &Words<'_>) -> Result<(), (usize, KeywordError)> {
        let mut rest = text;
        while let Some(open) = rest.find('[') {
            let place = text.len() - rest.len() + open;
            self.push_text(&unescaped(&rest[..open]));
            let behind = &rest[open + 1..];
            let close = behind.find(']').ok_or((place, KeywordError::Unclosed))?;
            self.push_keyword(&behind[..close], words).map_err(|error| (place, error))?;
            rest = &behind[close + 1..];
        }
        self.push_text(&unescaped(rest));
        Ok(())
    }

    /// Ends the line.
    pub fn push_line_end(&mut self) {
        self.push_text(b"\r\n");
    }

    /// Whether the text has the call's identifier, by which responses find their call.
    #[must_use]
    pub fn names_call(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Keyword(Keyword::CallId)))
    }

    /// Appends the text with its keywords filled in.
    ///
    /// A line that is nothing but `[last_..]` of a field that the last message had not is left out, as SIPp does.
    ///
    /// # Errors
    /// [`TooLong`]: more than [`MAX_MESSAGE`] bytes; what has been appended is of no use.
    pub fn render(&self, view: &View<'_>, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let begin = out.len();
        let mut lengths = Vec::new();
        let mut drop_line_end = false;
        for piece in &self.pieces {
            let dropped = std::mem::take(&mut drop_line_end);
            match piece {
                Piece::Text(text) if dropped => out.extend_from_slice(text.strip_prefix(b"\r\n").unwrap_or(text)),
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Keyword(keyword) => keyword.append(view, out),
                Piece::Field(field) => {
                    let value = view.line.map_or("", |(fields, line)| fields.field(line, *field));
                    out.extend_from_slice(value.as_bytes());
                }
                Piece::Last(name) => {
                    let at_line_start = out.len() == begin || out.ends_with(b"\n");
                    drop_line_end = !Head::of(view.last).append_field(name, out) && at_line_start;
                }
                Piece::Number(Number::Length, offset) => {
                    lengths.push((out.len(), *offset));
                    out.extend_from_slice(&[b' '; LENGTH_WIDTH]);
                }
                Piece::Number(number, offset) => number.append(*offset, view, out),
            }
            if out.len() - begin > MAX_MESSAGE {
                return Err(TooLong);
            }
        }
        let message = &mut out[begin..];
        let body = memchr::memmem::find(message, b"\r\n\r\n").map_or(0, |end| message.len() - end - 4);
        for (place, offset) in lengths {
            let length = i64::try_from(body).unwrap_or(i64::MAX).saturating_add(offset.into()).clamp(0, 99_999);
            let place = place - begin;
            message[place..place + LENGTH_WIDTH].copy_from_slice(format!("{length:>LENGTH_WIDTH$}").as_bytes());
        }
        Ok(())
    }

    fn push_text(&mut self, text: &[u8]) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(before)) => before.extend_from_slice(text),
            _ => self.pieces.push(Piece::Text(text.to_vec())),
        }
    }

    fn push_keyword(&mut self, keyword: &str, words: &Words<'_>) -> Result<(), KeywordError> {
        let own = words.keys.iter().find(|(name, _)| name == keyword).map(|(_, value)| value.as_str());
        if let Some(value) = own.or((keyword == "service").then_some(words.service)) {
            self.push_text(value.as_bytes());
            return Ok(());
        }
        let (name, offset) = split_offset(keyword);
        let piece = if let Some((_, number)) = NUMBERS.iter().find(|(known, _)| *known == name) {
            Piece::Number(*number, offset.unwrap_or_default())
        } else if let Some((_, known)) = KEYWORDS.iter().find(|(known, _)| *known == name) {
            if offset.is_some() {
                return Err(KeywordError::Offset { keyword: name.to_owned() });
            }
            Piece::Keyword(*known)
        } else if let Some(field) = field_of(keyword) {
            match words.columns {
                None => return Err(KeywordError::NoFile { field }),
                Some(columns) if field >= columns => return Err(KeywordError::NoField { field, columns }),
                Some(_) => Piece::Field(field),
            }
        } else {
            let field = keyword.strip_prefix("last_").map(|field| field.strip_suffix(':').unwrap_or(field));
            if field == Some("message") {
                return Err(KeywordError::LastMessage);
            }
            let is_name = |field: &&str| {
                !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            };
            let Some(field) = field.filter(is_name) else {
                return Err(KeywordError::Unsupported { keyword: keyword.to_owned() });
            };
            Piece::Last(field.to_owned())
        };
        self.pieces.push(piece);
        Ok(())
    }
}

/// A keyword and the number behind its `+` or `-`.
fn split_offset(keyword: &str) -> (&str, Option<i32>) {
    let digits = keyword.bytes().rev().take_while(u8::is_ascii_digit).count();
    let Some(sign) = (keyword.len() - digits).checked_sub(1) else { return (keyword, None) };
    let is_signed = matches!(keyword.as_bytes()[sign], b'+' | b'-');
    match keyword.get(sign..).and_then(|number| number.parse().ok()) {
        Some(number) if is_signed => (&keyword[..sign], Some(number)),
        _ => (keyword, None),
    }
}

/// The number of `fieldN` or `fieldN file=..`: there is one file, whatever its name.
fn field_of(keyword: &str) -> Option<usize> {
    let (digits, file) = keyword.strip_prefix("field")?.split_once(' ').unwrap_or((&keyword["field".len()..], ""));
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let one_file = file.is_empty() || (file.starts_with("file=") && !file.contains(' '));
    digits.parse().ok().filter(|_| is_plain && one_file)
}

/// Text with its `\xHH` replaced by the byte that each names.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..found]);
        let behind = &rest[found + 2..];
        if let Some(byte) = behind.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = &behind[2..];
        } else {
            bytes.extend_from_slice(b"\\x");
            rest = behind;
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests;
