//! A message with holes: written once as text, then filled in by copying.

/// What is different from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hole {
    /// The branch, with its cookie.
    Branch,
    /// The Call-ID.
    CallId,
    /// The tag of From.
    Tag,
    /// The caller's digits, without `+`.
    Caller,
    /// The dialled digits, without `+`.
    Dialled,
    /// The value of To, as the response has it.
    To,
}

/// Every hole, with how it stands in the text that a template is made of. NUL can stand in no header field.
const HOLES: [(Hole, &str); 6] = [
    (Hole::Branch, BRANCH),
    (Hole::CallId, CALL_ID),
    (Hole::Tag, TAG),
    (Hole::Caller, CALLER),
    (Hole::Dialled, DIALLED),
    (Hole::To, TO),
];

pub(crate) const BRANCH: &str = "\0b";
pub(crate) const CALL_ID: &str = "\0i";
pub(crate) const TAG: &str = "\0t";
pub(crate) const CALLER: &str = "\0f";
pub(crate) const DIALLED: &str = "\0d";
pub(crate) const TO: &str = "\0o";

/// What goes into the holes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) branch: &'a [u8],
    pub(crate) call_id: &'a [u8],
    pub(crate) tag: &'a [u8],
    pub(crate) caller: &'a [u8],
    pub(crate) dialled: &'a [u8],
    pub(crate) to: &'a [u8],
}

/// A message cut into fixed pieces, a hole behind each but the last.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    text: Vec<u8>,
    /// Where each piece ends, and the hole there.
    cuts: Vec<(usize, Hole)>,
}

impl Template {
    /// Cuts `text` at its marks.
    pub(crate) fn new(text: &str) -> Self {
        let (mut pieces, mut cuts) = (Vec::with_capacity(text.len()), Vec::new());
        let mut rest = text;
        while let Some(at) = rest.find('\0') {
            pieces.extend_from_slice(&rest.as_bytes()[..at]);
            rest = &rest[at..];
            match HOLES.iter().find(|(_, mark)| rest.starts_with(mark)) {
                Some((hole, mark)) => {
                    cuts.push((pieces.len(), *hole));
                    rest = &rest[mark.len()..];
                }
                None => rest = &rest[1..],
            }
        }
        pieces.extend_from_slice(rest.as_bytes());
        Self { text: pieces, cuts }
    }

    /// Appends the message with its holes filled.
    pub(crate) fn render(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        let mut start = 0;
        for &(end, hole) in &self.cuts {
            out.extend_from_slice(&self.text[start..end]);
            out.extend_from_slice(match hole {
                Hole::Branch => values.branch,
                Hole::CallId => values.call_id,
                Hole::Tag => values.tag,
                Hole::Caller => values.caller,
                Hole::Dialled => values.dialled,
                Hole::To => values.to,
            });
            start = end;
        }
        out.extend_from_slice(&self.text[start..]);
    }
}

/// The decimal digits of a number, without allocation.
pub(crate) struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    pub(crate) fn of(mut number: u64) -> Self {
        let (mut bytes, mut start) = ([b'0'; 20], 20);
        loop {
            start -= 1;
            bytes[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { bytes, start };
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_wherever_they_stand() {
        let text = format!("{BRANCH}a{CALL_ID}{TAG}b{CALLER}c{CALLER}{DIALLED} {TO}");
        let mut out = b"before ".to_vec();
        Template::new(&text).render(&VALUES, &mut out);
        assert_eq!(out, b"before <branch>a<call-id><tag>b<caller>c<caller><dialled> <to>");
    }

    #[test]
    fn text_without_holes_and_strange_marks_stay_sound() {
        for (text, expected) in [("", ""), ("plain", "plain"), ("x\0", "x"), ("x\0é", "xé")] {
            let mut out = Vec::new();
            Template::new(text).render(&VALUES, &mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 7, 10, 966_500_000_000, u64::MAX] {
            assert_eq!(Digits::of(number).as_bytes(), number.to_string().as_bytes());
        }
    }

    const VALUES: Values<'static> = Values {
        branch: b"<branch>",
        call_id: b"<call-id>",
        tag: b"<tag>",
        caller: b"<caller>",
        dialled: b"<dialled>",
        to: b"<to>",
    };
}
