//! `[[number]]`: the numbers that people call.

use std::time::Duration;

use super::errors::Span;
use super::fault::{E164Shown, Fault, Quoted, RangeShown};
use super::section::{Entry, Section, Shape, Words};
use crate::e164::{E164, NumberError};

/// Most `[[number]]` sections.
const MAX_RANGES: usize = 10_000;
/// Most names in a list of trunks or applications.
const MAX_NAMES: usize = 1024;
/// Most numbers in one range.
const MAX_COUNT: u32 = 1_000_000;

const NUMBER: Shape = Shape {
    title: "[[number]]",
    keys: &[
        ("range", r#""+966115000000/100""#),
        ("e164", r#""+966115000000""#),
        ("trunks", r#"["carrier-a"]"#),
        ("applications", r#"["shop"]"#),
        ("cool_down_seconds", "60"),
    ],
};

/// A `[[number]]` as far as it could be read; names are not looked up yet.
pub(super) struct Draft<'c> {
    /// Its header.
    pub span: Span,
    pub range: Option<Range>,
    pub trunks: Option<Names<'c>>,
    pub applications: Entry<Names<'c>>,
    pub cool_down: Option<Duration>,
}

/// Consecutive numbers, and where they stand.
#[derive(Clone)]
pub(super) struct Range {
    pub first: E164,
    pub count: u32,
    pub span: Span,
}

/// Names of trunks or applications, each once.
pub(super) type Names<'c> = Words<'c>;

impl Range {
    /// The last number of the range.
    fn last(&self) -> u64 {
        self.first.as_u64() + u64::from(self.count - 1)
    }

    fn shown(&self) -> RangeShown {
        RangeShown { first: E164Shown(self.first), count: self.count }
    }
}

/// Reads all numbers; `None` where the list itself is unreadable.
pub(super) fn read<'c>(root: &Section<'c>) -> Option<Vec<Draft<'c>>> {
    let sections = root.tables("number", &NUMBER)?;
    if sections.is_empty() {
        root.tell(&root.span, Fault::NoSection { section: "[[number]]", meaning: "the numbers people call" });
    } else if let Some(first) = sections.get(MAX_RANGES) {
        first.tell(&first.span, Fault::TooMany { what: "[[number]]", count: sections.len(), max: MAX_RANGES });
    }
    let drafts: Vec<Draft<'c>> = sections.iter().take(MAX_RANGES).map(number).collect();
    check_overlaps(root, &drafts);
    Some(drafts)
}

fn number<'c>(section: &Section<'c>) -> Draft<'c> {
    let range = section.text("range").and_then(|text, span| range(section, text, span));
    let single = section.text("e164").and_then(|text, span| {
        let first = e164(section, text, span)?;
        Some(Range { first, count: 1, span: span.clone() })
    });
    let range = match (range, single) {
        (Entry::Absent, Entry::Absent) => {
            section.tell(&section.span, Fault::NoRange);
            None
        }
        (Entry::Read(range, _), Entry::Absent) | (Entry::Absent, Entry::Read(range, _)) => Some(range),
        (Entry::Read(_, first), Entry::Read(_, second)) => {
            section.tell(if first.start > second.start { &first } else { &second }, Fault::RangeAndNumber);
            None
        }
        _ => None,
    };
    let once = |key| {
        section.some_words(key).and_then(|mut list: Words<'c>, span| {
            if list.words.len() > MAX_NAMES {
                section.tell(span, Fault::TooMany { what: "names", count: list.words.len(), max: MAX_NAMES });
                return None;
            }
            let mut seen: Vec<&str> = Vec::new();
            list.words.retain(|word| {
                let fresh = !seen.contains(&word.text);
                if fresh {
                    seen.push(word.text);
                } else {
                    section.tell(&word.span, Fault::Repeated { key, word: Quoted::new(word.text) });
                }
                fresh
            });
            Some(list)
        })
    };
    let trunks = once("trunks");
    Draft {
        span: section.span.clone(),
        range,
        trunks: section.required("trunks", trunks),
        applications: once("applications"),
        cool_down: section
            .integer("cool_down_seconds", 0..=86_400)
            .or(60)
            .map(|seconds| Duration::from_secs(seconds.into())),
    }
}

fn e164(section: &Section<'_>, text: &str, span: &Span) -> Option<E164> {
    let told = |error: NumberError| section.tell(span, Fault::Number { text: Quoted::new(text), error });
    text.parse().map_err(told).ok()
}

fn range(section: &Section<'_>, text: &str, span: &Span) -> Option<Range> {
    let Some((first, count)) = text.split_once('/') else {
        section.tell(span, Fault::Range { text: Quoted::new(text) });
        return None;
    };
    let first = e164(section, first, span);
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        section.tell(span, Fault::Range { text: Quoted::new(text) });
        return None;
    }
    let plain = count.trim_start_matches('0');
    let Some(count) = plain.parse().ok().filter(|count| (1..=MAX_COUNT).contains(count)) else {
        let shown = if plain.is_empty() { "0" } else { plain };
        section.tell(span, Fault::RangeCount { count: Quoted::new(shown).to_string(), max: MAX_COUNT });
        return None;
    };
    let first = first?;
    let fit = numbers_left(first);
    if u64::from(count) > fit {
        section.tell(span, Fault::RangeEnd { first: E164Shown(first), count, fit });
        return None;
    }
    Some(Range { first, count, span: span.clone() })
}

/// How many numbers there are from `first` on with its calling code and its length.
fn numbers_left(first: E164) -> u64 {
    let (number, code) = (first.as_u64(), u64::from(first.country_code()));
    let behind_code = number.ilog10() - code.ilog10();
    (code + 1) * 10u64.pow(behind_code) - number
}

/// Tells each range that shares a number with an earlier one, naming both.
fn check_overlaps(root: &Section<'_>, drafts: &[Draft<'_>]) {
    let mut ranges: Vec<&Range> = drafts.iter().filter_map(|draft| draft.range.as_ref()).collect();
    ranges.sort_by_key(|range| (range.first, range.span.start));
    let mut widest: Option<&Range> = None;
    for range in ranges {
        if let Some(before) = widest
            && range.first.as_u64() <= before.last()
        {
            let (later, earlier) = if range.span.start > before.span.start { (range, before) } else { (before, range) };
            let line = root.line(&earlier.span);
            root.tell(&later.span, Fault::Overlap { this: later.shown(), other: earlier.shown(), line });
        }
        if widest.is_none_or(|before| range.last() > before.last()) {
            widest = Some(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_with_its_calling_code() {
        let left = |text: &str| numbers_left(text.parse().unwrap());
        assert_eq!(left("+966999999990"), 10);
        assert_eq!(left("+998999999999990"), 10);
        assert_eq!(left("+19999999999"), 1);
        assert_eq!(left("+966115000000"), 885_000_000);
    }
}
