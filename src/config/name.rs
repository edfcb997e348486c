//! Names of trunks and applications: metric labels, so their alphabet is small.

use std::collections::HashMap;

use super::fault::{Fault, Quoted};
use super::section::{Section, Word};

/// Longest name.
const MAX_NAME: usize = 64;

/// Whether `text` is `[a-z0-9][a-z0-9_-]{0,63}`.
fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= MAX_NAME
        && text.bytes().next().is_some_and(letter)
        && text.bytes().all(|byte| letter(byte) || matches!(byte, b'-' | b'_'))
}

/// The checked text of a name; a bad one is told.
pub(super) fn check<'c>(section: &Section<'_>, word: Word<'c>) -> Option<Word<'c>> {
    if is_name(word.text) {
        return Some(word);
    }
    let kept = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let lower: String = word.text.to_lowercase().chars().map(kept).take(MAX_NAME).collect();
    let trimmed = lower.trim_matches('-');
    let proposal = if trimmed.is_empty() { "edge-1" } else { trimmed }.to_owned();
    section.tell(&word.span, Fault::Name { name: Quoted::new(word.text), proposal });
    None
}

/// The required name of a section.
pub(super) fn required<'c>(section: &Section<'c>) -> Option<Word<'c>> {
    let entry = section.text("name").and_then(|text, span| check(section, Word { text, span: span.clone() }));
    section.required("name", entry)
}

/// Tells names that stand in two sections, and gives each name's place among `sections`.
pub(super) fn index<'c>(
    root: &Section<'_>,
    what: &'static str,
    names: impl IntoIterator<Item = Option<Word<'c>>>,
) -> HashMap<&'c str, usize> {
    let mut places: HashMap<&str, (usize, usize)> = HashMap::new();
    for (place, word) in names.into_iter().enumerate() {
        let Some(word) = word else { continue };
        if let Some((_, line)) = places.get(word.text) {
            root.tell(&word.span, Fault::SameName { what, name: word.text.to_owned(), line: *line });
        } else {
            places.insert(word.text, (place, root.line(&word.span)));
        }
    }
    places.into_iter().map(|(name, (place, _))| (name, place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet() {
        for good in ["a", "edge-1", "0_x", &"x".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a b", "\u{e9}", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
