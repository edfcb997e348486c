//! The layout of a proposal: keys, their evidence in a column behind them, and comments, in lines of a bounded length.

use std::fmt::{self, Formatter};

/// Longest line.
const WIDTH: usize = 120;
/// Where the evidence behind a key begins.
pub(super) const COLUMN: usize = 36;

/// A part of `what`.
pub(super) fn share_of(part: u64, of: u64, what: &str) -> String {
    format!("{} of {of} {what}", percent(part, of))
}

/// A part of the calls.
pub(super) fn share(part: u64, of: u64) -> String {
    format!("{} of {of} calls", percent(part, of))
}

/// Rounded down, so that `100 %` is all.
fn percent(part: u64, of: u64) -> String {
    format!("{} %", (part * 100).checked_div(of).unwrap_or(0))
}

/// What is put into quotes holds neither quotes nor backslashes: words of the configuration and digits.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// A list of such words.
pub(super) fn words<'w>(words: impl Iterator<Item = &'w str>) -> String {
    format!("[{}]", words.map(quoted).collect::<Vec<_>>().join(", "))
}

/// A key with its evidence, which goes on below in lines of its own where it is long.
pub(super) fn entry(f: &mut Formatter<'_>, key: &str, value: &str, remark: &str) -> fmt::Result {
    let setting = format!("{key} = {value}");
    let setting = if setting.len() < COLUMN { format!("{setting:<COLUMN$}") } else { setting + " " };
    wrapped(f, &format!("{setting}#"), &format!("#{:COLUMN$}", ""), remark)
}

/// A comment without a key.
pub(super) fn comment(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    wrapped(f, "#", "#", text)
}

/// Writes words behind `first`, and behind `next` in each line that follows.
fn wrapped(f: &mut Formatter<'_>, first: &str, next: &str, text: &str) -> fmt::Result {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(f, "{line}")?;
            next.clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
        is_empty = false;
    }
    writeln!(f, "{line}")
}

#[cfg(test)]
mod tests {
    use std::fmt::Display;

    use super::*;

    /// What a function writes.
    struct Shown<F: Fn(&mut Formatter<'_>) -> fmt::Result>(F);

    impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Shown<F> {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            (self.0)(f)
        }
    }

    #[test]
    fn evidence_stands_behind_its_key_and_goes_on_below() {
        let remark = "word ".repeat(40);
        let text = Shown(|f: &mut Formatter<'_>| entry(f, "path", "\"public\"", &remark)).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(&format!("{:<COLUMN$}# word word", "path = \"public\"")), "{text}");
        assert!(lines[1].starts_with(&format!("#{:COLUMN$} word", "")), "{text}");
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(text.matches("word").count(), 40);
    }

    #[test]
    fn shares_are_rounded_down() {
        assert_eq!(share(411, 412), "99 % of 412 calls");
        assert_eq!(share_of(0, 0, "numbers"), "0 % of 0 numbers");
    }
}
