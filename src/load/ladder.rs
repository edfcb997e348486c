//! The ladder of messages on the screen.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::time::Duration;

/// Characters of a peer's text that are shown.
const MAX_SHOWN: usize = 200;

/// Lines of a ladder: time since the call began, direction, message.
pub(super) struct Ladder<'a, W: Write> {
    out: &'a mut W,
}

impl<'a, W: Write> Ladder<'a, W> {
    pub(super) fn new(out: &'a mut W) -> Self {
        Self { out }
    }

    /// A message of ours.
    pub(super) fn sent(&mut self, after: Duration, message: impl fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{:>8.1} ms  ->  {message}", milliseconds(after))
    }

    /// A message of the peer's.
    pub(super) fn received(&mut self, after: Duration, message: impl fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{:>8.1} ms  <-  {message}", milliseconds(after))
    }

    /// How the call ended.
    pub(super) fn ended(&mut self, after: Duration, outcome: impl fmt::Display, note: &str) -> io::Result<()> {
        writeln!(self.out, "{outcome} after {:.1} ms{note}", milliseconds(after))?;
        self.out.flush()
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// A peer's text for the screen: cut to 200 characters, control characters and those that turn or hide text escaped.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, character) in self.0.chars().enumerate() {
            if index == MAX_SHOWN {
                return f.write_str("..");
            }
            if character.is_control() || is_invisible(character) {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Zero-width characters, line separators and those that change the direction of writing.
const fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_text_cannot_steer_the_terminal() {
        assert_eq!(Escaped("Busy \u{1b}[2J\r\n\u{202e}é").to_string(), r"Busy \u{1b}[2J\u{d}\u{a}\u{202e}é");
        assert_eq!(Escaped(&"x".repeat(300)).to_string(), format!("{}..", "x".repeat(200)));
    }

    #[test]
    fn times_stand_in_one_column() {
        let mut out = Vec::new();
        let mut ladder = Ladder::new(&mut out);
        ladder.sent(Duration::ZERO, "INVITE").unwrap();
        ladder.received(Duration::from_micros(31_500_440), "486 Busy Here").unwrap();
        ladder.ended(Duration::from_micros(31_500_440), "486 Busy Here", "").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "     0.0 ms  ->  INVITE\n 31500.4 ms  <-  486 Busy Here\n486 Busy Here after 31500.4 ms\n");
    }
}
