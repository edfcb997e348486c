//! The text of a message as it stands in the file, and what SIPp makes of it before it looks for keywords.
//!
//! Pure. Invariant: a line keeps its place in the file, so that an error can name it.

/// One line of a message and where it begins in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Without indentation, blanks at its end and its line end.
    pub(super) text: &'a str,
    /// Bytes before it.
    pub(super) offset: usize,
}

/// The lines of a message and how many line ends stand behind the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines<'a> {
    pub(super) lines: Vec<Line<'a>>,
    pub(super) line_ends: usize,
}

/// Takes a CDATA section apart; `None` where it holds blanks alone.
///
/// Blanks and line ends around the whole are gone. Each line loses its blanks, then its tabs, on both sides. A message
/// without an empty line gets one at its end; another ends its last line only where the section did.
pub(super) fn lines(section: &str) -> Option<Lines<'_>> {
    let blank = [' ', '\t', '\r', '\n'];
    let start = section.find(|character: char| !blank.contains(&character))?;
    let trimmed = section[start..].trim_end_matches(blank);
    let ended = section[start + trimmed.len()..].contains('\n');

    let mut lines = Vec::new();
    let mut offset = start;
    for whole in trimmed.split('\n') {
        let line = whole.trim_end_matches('\r').trim_end_matches(' ');
        let text = line.trim_start_matches(' ').trim_start_matches('\t').trim_end_matches('\t');
        let before = line.trim_start_matches(' ').trim_start_matches('\t');
        lines.push(Line { text, offset: offset + (line.len() - before.len()) });
        offset += whole.len() + 1;
    }
    let has_empty_line = lines.iter().any(|line| line.text.is_empty());
    let line_ends = if has_empty_line { usize::from(ended) } else { 2 };
    Some(Lines { lines, line_ends })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_goes_and_the_place_stays() {
        let lines = lines("\n\n      ACK sip:a SIP/2.0  \r\n\t  To: x\n        folded\t\n   ").unwrap();
        let texts: Vec<_> = lines.lines.iter().map(|line| (line.text, line.offset)).collect();
        assert_eq!(texts, [("ACK sip:a SIP/2.0", 8), ("  To: x", 30), ("folded", 46)]);
    }

    #[test]
    fn the_end_is_that_of_sipp() {
        let ends = |section| lines(section).map(|lines| (lines.lines.len(), lines.line_ends));
        assert_eq!(ends("\n  A: 1\n  B: 2\n\n  "), Some((2, 2)), "an empty line is added");
        assert_eq!(ends("A: 1"), Some((1, 2)));
        assert_eq!(ends("\n  A: 1\n    \n  v=0\n  s=-\n\n\n"), Some((4, 1)), "one line end of a body's is kept");
        assert_eq!(ends("\n  A: 1\n\n  v=0"), Some((3, 0)));
        assert_eq!(ends(" \t\r\n "), None);
    }
}
