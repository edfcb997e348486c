//! What a load came to: a table for the terminal, JSON for programs, and a page with pictures for people.
//!
//! Owns words, units and shapes. Does not measure: that is the tally's. Invariant: the page is one file that refers to
//! nothing outside it, and no text of a peer or of the command line becomes markup or steers a terminal.

mod axis;
mod figures;
mod html;
mod json;
mod picture;
mod pictures;
mod series;
mod table;
mod units;

use std::time::Duration;

use super::tally::Tally;

/// Shortest time that a rate may stand on: two calls in a millisecond say nothing of a second.
const SHORTEST: Duration = Duration::from_millis(100);

/// A load that is over.
#[derive(Debug)]
pub struct Run<'a> {
    /// What it was, as `ringproof load sip`.
    pub title: &'a str,
    /// What it was asked for: names and values, in the order in which they are shown. Without secrets.
    pub settings: Vec<(String, String)>,
    /// Time from the start to the last end.
    pub elapsed: Duration,
    /// What was counted.
    pub tally: &'a Tally,
}

impl Run<'_> {
    /// Lines for a terminal, the last one ended.
    #[must_use]
    pub fn table(&self) -> String {
        table::render(self)
    }

    /// One JSON object on one line, which is not ended. Times are in seconds.
    #[must_use]
    pub fn json(&self) -> String {
        json::render(self)
    }

    /// A page (HTML with inline SVG) that needs no script and no other file.
    #[must_use]
    pub fn html(&self) -> String {
        html::render(self)
    }

    /// Calls that ended as they should, a second of the elapsed time; `None` where that is too short to tell.
    fn rate(&self) -> Option<f64> {
        (self.elapsed >= SHORTEST).then(|| figures::float(self.tally.ended) / self.elapsed.as_secs_f64())
    }
}

#[cfg(test)]
mod sample {
    use std::time::Duration;

    use super::Run;
    use crate::load::tally::Tally;

    /// Three calls in two seconds and a half, one of them lost.
    pub(super) fn tally() -> Tally {
        let mut tally = Tally::new(&["INVITE to final", "never"]);
        for milliseconds in [0, 400, 1_200] {
            tally.begin(Duration::from_millis(milliseconds));
        }
        for (milliseconds, latency) in [(100, 2), (1_300, 40)] {
            tally.end(Duration::from_millis(milliseconds));
            tally.measure(0, Duration::from_millis(latency));
            tally.count("486");
        }
        tally.lose(Duration::from_millis(2_400));
        tally.count("no final");
        tally
    }

    pub(super) fn run(tally: &Tally) -> Run<'_> {
        let settings = vec![("via".to_owned(), "udp:127.0.0.1:5060".to_owned())];
        Run { title: "ringproof load sip", settings, elapsed: Duration::from_millis(2_500), tally }
    }
}
