//! The list of our numbers for a Do-Not-Originate registry: numbers that only ever take calls, so that a call that
//! carries one of them as its caller is forged.

use std::fmt::Write;

use serde::Serialize;

use super::Configuration;
use crate::verify::settings::NumberRange;

/// How the list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnoFormat {
    /// Each number on a line of its own, E.164 with `+`.
    Lines,
    /// A header line, then a line for each range: first and last number, how many, and their applications.
    Csv,
    /// The same as a list of objects.
    Json,
}

/// The numbers of all applications, or of live ones alone.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "texts and numbers always become JSON")]
pub fn do_not_originate(configuration: &Configuration, live_only: bool, format: DnoFormat) -> String {
    #[derive(Serialize)]
    struct Range {
        first: String,
        last: String,
        count: u32,
        applications: Vec<String>,
        live: bool,
    }
    let is_live = |range: &NumberRange| {
        range.applications.iter().any(|application| configuration.verify.application(*application).live)
    };
    let ranges = configuration.verify.numbers.ranges().iter().filter(|range| !live_only || is_live(range));
    let mut text = String::new();
    if format == DnoFormat::Lines {
        for number in ranges.flat_map(|range| (0..range.count).filter_map(|n| range.first.offset(n.into()).ok())) {
            // Writing to a `String` does not fail.
            let _ = writeln!(text, "{number}");
        }
        return text;
    }
    let ranges: Vec<Range> = ranges
        .map(|range| Range {
            first: range.first.to_string(),
            last: range
                .first
                .offset(u64::from(range.count) - 1)
                .map_or_else(|_| String::new(), |last| last.to_string()),
            count: range.count,
            applications: range
                .applications
                .iter()
                .map(|application| configuration.verify.application(*application).name.clone())
                .collect(),
            live: is_live(range),
        })
        .collect();
    if format == DnoFormat::Json {
        return serde_json::to_string_pretty(&ranges).expect("texts and numbers always become JSON") + "\n";
    }
    text.push_str("first,last,count,applications,live\n");
    for Range { first, last, count, applications, live } in ranges {
        // Names of applications hold neither commas nor quotes.
        let _ = writeln!(text, "{first},{last},{count},{},{live}", applications.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v02_every_number_of_ours_is_listed() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml")).unwrap();
        let shipped = crate::config::parse(&text, "config.toml", &|_| None).unwrap();
        let lines = do_not_originate(&shipped, false, DnoFormat::Lines);
        assert_eq!(lines.lines().count(), 100);
        assert!(lines.starts_with("+966115000000\n") && lines.ends_with("+966115000099\n"));
        let csv = do_not_originate(&shipped, false, DnoFormat::Csv);
        assert_eq!(csv.lines().nth(1), Some("+966115000000,+966115000099,100,demo,false"));
        assert!(do_not_originate(&shipped, false, DnoFormat::Json).contains("\"count\": 100"));
        assert_eq!(do_not_originate(&shipped, true, DnoFormat::Lines), "");
    }
}
