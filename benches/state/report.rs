//! The figures of a run: a plain table for people, one object for programs.

use std::fmt;

use serde::Serialize;

use crate::expiry::{Ended, Waits};
use crate::fill::Filled;
use crate::index::Index;
use crate::restore::Restored;
use crate::rows::NUMBERS;
use crate::timing::Nanoseconds;

/// Everything that was measured. Times of look-ups are in nanoseconds.
#[derive(Debug, Serialize)]
pub struct Report {
    fills: Vec<Filled>,
    restores: Vec<Restored>,
    index: [Index; 2],
    ratios: Ratios,
    expiry_of_the_index: Ended,
    expiry_through_the_store: Ended,
}

/// How many times as long each takes with all pending as with the fewest.
#[derive(Debug, Serialize)]
struct Ratios {
    index_present: f64,
    index_absent: f64,
    index_create: f64,
    call_present: f64,
    call_absent: f64,
}

impl Report {
    /// The figures of all parts, each list from the smallest size to the largest.
    pub fn new(
        fills: Vec<Filled>,
        restores: Vec<Restored>,
        index: [Index; 2],
        expiry_of_the_index: Ended,
        expiry_through_the_store: Ended,
    ) -> Self {
        let [few, all] = &index;
        let (few_restored, all_restored) = ends(&restores);
        let ratios = Ratios {
            index_present: ratio(few.present, all.present),
            index_absent: ratio(few.absent, all.absent),
            index_create: ratio(few.create, all.create),
            call_present: ratio(few_restored.call_present, all_restored.call_present),
            call_absent: ratio(few_restored.call_absent, all_restored.call_absent),
        };
        Self { fills, restores, index, ratios, expiry_of_the_index, expiry_through_the_store }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [few, all] = &self.index;
        writeln!(f, "{} pending on {NUMBERS} numbers\n", count(all.pending))?;
        self.write_fills(f)?;
        self.write_restores(f)?;
        self.write_times(f)?;
        writeln!(
            f,
            "The index by itself takes {:.0} bytes a verification from empty to {}. Its longest creation on the way \
             took {:.2} ms; with {}, {:.2} ms.\n",
            all.bytes_per_pending,
            count(all.pending),
            all.longest_create_nanoseconds / 1e6,
            count(few.pending),
            few.longest_create_nanoseconds / 1e6,
        )?;
        self.write_expiry(f)
    }
}

impl Report {
    fn write_fills(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10}{:>12}{:>10}{:>10}{:>15}{:>13}",
            "fill", "rows", "s", "rows/s", "database MiB", "bytes/row"
        )?;
        for fill in &self.fills {
            let each = fill.database_bytes / fill.rows.max(1);
            let rate = fill.rows as f64 / fill.seconds;
            writeln!(
                f,
                "{:<10}{:>12}{:>10.2}{rate:>10.0}{:>15}{each:>13}",
                "",
                count(fill.rows),
                fill.seconds,
                mebibytes(fill.database_bytes),
            )?;
        }
        writeln!(f)
    }

    fn write_restores(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10}{:>12}{:>10}{:>10}{:>15}{:>13}{:>10}{:>15}",
            "restore", "pending", "s", "rows/s", "RSS MiB before", "after", "peak", "bytes/pending"
        )?;
        for restore in &self.restores {
            let rate = restore.pending as f64 / restore.seconds;
            writeln!(
                f,
                "{:<10}{:>12}{:>10.2}{rate:>10.0}{:>15}{:>13}{:>10}{:>15.0}",
                "",
                count(restore.pending),
                restore.seconds,
                mebibytes(restore.resident_before_bytes),
                mebibytes(restore.resident_after_bytes),
                mebibytes(restore.peak_bytes),
                restore.bytes_per_pending,
            )?;
        }
        writeln!(f)
    }

    fn write_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [few, all] = &self.index;
        let (few_restored, all_restored) = ends(&self.restores);
        let sizes = [few.pending, all.pending].map(|size| format!("{} pending", count(size)));
        let title = "ns each: median (least to most)";
        writeln!(f, "{title:<34}{:>28}{:>28}{:>8}", sizes[0], sizes[1], "ratio")?;
        let lines = [
            ("index: look-up of a pair, present", few.present, all.present, self.ratios.index_present),
            ("index: look-up of a pair, absent", few.absent, all.absent, self.ratios.index_absent),
            ("index: reserve and activate", few.create, all.create, self.ratios.index_create),
            (
                "whole call judged, present",
                few_restored.call_present,
                all_restored.call_present,
                self.ratios.call_present,
            ),
            ("whole call judged, absent", few_restored.call_absent, all_restored.call_absent, self.ratios.call_absent),
        ];
        for (name, few, all, ratio) in lines {
            writeln!(f, "{name:<34}{:>28}{:>28}{ratio:>8.2}", spread(few), spread(all))?;
        }
        writeln!(f)
    }

    fn write_expiry(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<34}{:>12}{:>10}{:>14}{:>11}{:>11}{:>13}",
            "windows that end in one second", "windows", "s", "look-ups", "median ns", "p99.9 ns", "longest ns"
        )?;
        let parts = [
            ("index: marked by chunks", &self.expiry_of_the_index),
            ("application: until stored", &self.expiry_through_the_store),
        ];
        for (name, ended) in parts {
            write!(f, "{name:<34}{:>12}{:>10.3}", count(ended.windows), ended.seconds)?;
            write_waits(f, &ended.meanwhile)?;
            write!(f, "{:<56}", "  the same look-ups before")?;
            write_waits(f, &ended.before)?;
        }
        Ok(())
    }
}

fn write_waits(f: &mut fmt::Formatter<'_>, waits: &Waits) -> fmt::Result {
    let [look_ups, median, p999, longest] = [waits.look_ups, waits.median, waits.p999, waits.longest].map(count);
    writeln!(f, "{look_ups:>14}{median:>11}{p999:>11}{longest:>13}")
}

/// The smallest and the largest.
fn ends(restores: &[Restored]) -> (&Restored, &Restored) {
    (&restores[0], &restores[restores.len() - 1])
}

fn ratio(few: Nanoseconds, all: Nanoseconds) -> f64 {
    all.median / few.median
}

fn spread(time: Nanoseconds) -> String {
    format!("{:.0} ({:.0} to {:.0})", time.median, time.least, time.most)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// With a comma between thousands.
fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
