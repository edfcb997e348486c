//! The report for a terminal.

use std::fmt::Write;

use super::figures::{NAMES, figures};
use super::{Run, units};
use crate::load::ladder::Escaped;
use crate::load::tally::Latency;

/// Blanks between columns.
const GAP: usize = 2;
/// Stands where there is no value.
const NONE: &str = "-";

pub(super) fn render(run: &Run<'_>) -> String {
    let tally = run.tally;
    let mut text = format!("{}\n", Escaped(run.title));
    let settings = run.settings.iter().map(|(name, value)| [escaped(name), escaped(value)]).collect();
    lines(&mut text, "", settings, &[Side::Left, Side::Left]);

    let rate = run.rate().map(|rate| format!("{} a second", units::rate(rate))).unwrap_or_default();
    let row = |name: &str, count: String, note: &str| [name.to_owned(), count, note.to_owned()];
    let counts = vec![
        row("elapsed", format!("{:.1} s", run.elapsed.as_secs_f64()), ""),
        row("begun", units::count(tally.begun), ""),
        row("ended", units::count(tally.ended), &rate),
        row("lost", units::count(tally.lost), ""),
        row("retransmissions", units::count(tally.retransmissions), ""),
        row("stray", units::count(tally.stray), ""),
    ];
    lines(&mut text, "", counts, &[Side::Left, Side::Right, Side::Left]);

    let codes = tally.codes.iter().map(|(code, count)| [escaped(code), units::count(*count)]).collect();
    lines(&mut text, "codes", codes, &[Side::Left, Side::Right]);

    if !tally.latencies.is_empty() {
        let mut rows = vec![heading()];
        rows.extend(tally.latencies.iter().map(row_of));
        let mut sides = [Side::Right; NAMES.len() + 2];
        sides[0] = Side::Left;
        lines(&mut text, "", rows, &sides);
    }
    text
}

/// Which side of its column a text stands on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// An empty line, a title where there is one, and the rows in columns; nothing where there are no rows.
fn lines<const N: usize>(text: &mut String, title: &str, rows: Vec<[String; N]>, sides: &[Side; N]) {
    if rows.is_empty() {
        return;
    }
    text.push('\n');
    if !title.is_empty() {
        text.push_str(title);
        text.push('\n');
    }
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for ((cell, width), side) in row.iter().zip(widths).zip(sides) {
            // Writing to a String cannot fail.
            let _ = match side {
                Side::Left => write!(line, "{:GAP$}{cell:<width$}", ""),
                Side::Right => write!(line, "{:GAP$}{cell:>width$}", ""),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn heading() -> [String; NAMES.len() + 2] {
    std::array::from_fn(|place| match place {
        0 => "latency".to_owned(),
        1 => "count".to_owned(),
        _ => NAMES[place - 2].to_owned(),
    })
}

fn row_of(latency: &Latency) -> [String; NAMES.len() + 2] {
    let values = figures(&latency.histogram);
    std::array::from_fn(|place| match place {
        0 => escaped(&latency.name),
        1 => units::count(latency.histogram.len()),
        _ => values.map_or_else(|| NONE.to_owned(), |values| units::span(values[place - 2])),
    })
}

fn escaped(text: &str) -> String {
    Escaped(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::load::tally::Tally;

    #[test]
    fn columns_stand_under_their_names() {
        let tally = sample::tally();
        let text = render(&sample::run(&tally));
        assert!(text.starts_with("ringproof load sip\n\n  via  udp:127.0.0.1:5060\n\n"), "{text}");
        assert!(text.contains("\n  ended                2  0.8 a second\n"), "{text}");
        assert!(text.contains("\ncodes\n  486       2\n  no final  1\n"), "{text}");
        let rows: Vec<&str> = text.lines().rev().take(3).collect();
        let end = |row: &str, cell: &str| row.find(cell).map(|at| row[..at + cell.len()].chars().count());
        assert_eq!(end(rows[2], "min"), end(rows[1], "2.00 ms"), "{text}");
        assert_eq!(rows[1].chars().count(), rows[2].chars().count(), "{text}");
        assert!(rows[0].starts_with("  never") && rows[0].ends_with('-'), "{text}");
    }

    #[test]
    fn an_empty_load_has_a_table() {
        let tally = Tally::new(&[]);
        let run = Run { title: "t", settings: Vec::new(), elapsed: std::time::Duration::ZERO, tally: &tally };
        let text = render(&run);
        assert!(text.contains("\n  begun                0\n  ended                0\n"), "{text}");
        assert!(!text.contains("latency") && !text.contains("codes"), "{text}");
    }

    #[test]
    fn no_text_steers_the_terminal() {
        let mut tally = Tally::new(&[]);
        tally.count("\u{1b}[2J");
        let run = Run { title: "\u{1b}c", settings: Vec::new(), elapsed: std::time::Duration::ZERO, tally: &tally };
        assert!(!render(&run).contains('\u{1b}'));
    }
}
