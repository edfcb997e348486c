//! Where the faults are: all of one file, in its order.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use super::fault::Fault;

/// Most faults that are told at once.
const MAX_TOLD: usize = 1000;

/// Bytes of the file that a fault is about.
pub(super) type Span = Range<usize>;

/// Line and column, both from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A fault and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// `None` where the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong.
    pub fault: Fault,
}

/// All that is wrong with a configuration, in file order. `Display` gives one line each:
/// `config.toml:12:8: what is wrong; what would be right`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    file: String,
    faults: Vec<Located>,
}

impl ConfigErrors {
    /// The file as a whole is unusable.
    pub(super) fn whole(file: &str, fault: Fault) -> Self {
        Self { file: file.to_owned(), faults: vec![Located { place: None, fault }] }
    }

    /// The faults, at least one.
    #[must_use]
    pub fn faults(&self) -> &[Located] {
        &self.faults
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Located { place, fault }) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match place {
                Some(Place { line, column }) => write!(f, "{}:{line}:{column}: {fault}", self.file)?,
                None => write!(f, "{}: {fault}", self.file)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects faults while a text is read.
pub(super) struct Faults<'t> {
    text: &'t str,
    /// Offset of each line's first byte.
    lines: Vec<usize>,
    told: RefCell<Vec<(Span, Fault)>>,
}

impl<'t> Faults<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_feeds = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        Self { text, lines: std::iter::once(0).chain(after_feeds).collect(), told: RefCell::default() }
    }

    /// Notes a fault.
    pub(super) fn tell(&self, span: &Span, fault: Fault) {
        self.told.borrow_mut().push((span.clone(), fault));
    }

    /// The line in which `span` begins, from 1.
    pub(super) fn line(&self, span: &Span) -> usize {
        self.lines.partition_point(|start| *start <= span.start)
    }

    /// Everything told, sorted. `syntax` are faults of the grammar: what may only follow from one of them is left out.
    pub(super) fn into_errors(self, file: &str, syntax: Vec<(Span, Fault)>) -> Option<ConfigErrors> {
        let lines: Vec<usize> = syntax.iter().map(|(span, _)| self.line(span)).collect();
        // A key written twice leaves one of the two in force, so nothing is missing; of sections written twice in
        // different ways one is lost.
        let mut torn = false;
        let mut header_torn = false;
        for ((_, fault), line) in syntax.iter().zip(&lines) {
            let text = self.text[self.lines[line - 1]..].trim_start();
            let doubled = *fault == Fault::Doubled;
            torn |= !doubled || text.starts_with("[[");
            header_torn |= text.starts_with("[[") || !doubled && text.starts_with('[');
        }
        let swallowed_from = syntax.iter().find(|(_, fault)| *fault == Fault::OpenList).map(|(span, _)| span.start);
        let mut told: Vec<(usize, Fault)> = Vec::new();
        for (span, fault) in self.told.take() {
            let (first, last) = (self.line(&span), self.line(&(span.end..span.end)));
            let follows = torn && fault.is_absence()
                || header_torn && fault.is_misplacement()
                || swallowed_from.is_some_and(|start| span.start >= start)
                || lines.iter().any(|line| (first..=last).contains(line));
            if !follows {
                told.push((span.start, fault));
            }
        }
        told.extend(syntax.into_iter().map(|(span, fault)| (span.start, fault)));
        told.sort_by_key(|(start, _)| *start);
        told.dedup();
        if told.is_empty() {
            return None;
        }
        if told.len() > MAX_TOLD {
            let count = told.len() - MAX_TOLD;
            let start = told[MAX_TOLD].0;
            told.truncate(MAX_TOLD);
            told.push((start, Fault::More { count }));
        }
        let faults = told.into_iter().map(|(start, fault)| Located { place: Some(self.place(start)), fault }).collect();
        Some(ConfigErrors { file: file.to_owned(), faults })
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.line(&(offset..offset));
        let before = self.text.get(self.lines[line - 1]..offset.min(self.text.len())).unwrap_or_default();
        Place { line, column: before.chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters() {
        let faults = Faults::new("a = 1\n# \u{e9}\u{e9} x\n");
        assert_eq!(faults.place(0), Place { line: 1, column: 1 });
        assert_eq!(faults.place(6), Place { line: 2, column: 1 });
        assert_eq!(faults.place(13), Place { line: 2, column: 6 });
        assert_eq!(faults.place(15), Place { line: 3, column: 1 });
        assert_eq!(faults.place(99), Place { line: 3, column: 1 });
    }

    #[test]
    fn faults_come_in_file_order() {
        let faults = Faults::new("a\nb\n");
        faults.tell(&(2..3), Fault::NoRange);
        faults.tell(&(0..1), Fault::KeyHash);
        let errors = faults.into_errors("x.toml", Vec::new()).unwrap();
        let lines: Vec<String> = errors.to_string().lines().map(|line| line[..10].to_owned()).collect();
        assert_eq!(lines, ["x.toml:1:1", "x.toml:2:1"]);
    }
}
