//! The report for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::figures;
use super::{Run, series};
use crate::load::tally::Latency;

/// Nanoseconds of a second.
const SECOND: f64 = 1e9;

#[derive(Serialize)]
struct Document<'a> {
    title: &'a str,
    settings: Vec<Setting<'a>>,
    elapsed_seconds: f64,
    /// Of those that ended; without a value where the time was too short.
    rate_per_second: Option<f64>,
    begun: u64,
    ended: u64,
    lost: u64,
    retransmissions: u64,
    stray: u64,
    codes: &'a BTreeMap<String, u64>,
    latencies: Vec<Spread<'a>>,
    series: Vec<Counts>,
}

#[derive(Serialize)]
struct Setting<'a> {
    name: &'a str,
    value: &'a str,
}

/// A latency; without values where there was none.
#[derive(Serialize)]
struct Spread<'a> {
    name: &'a str,
    count: u64,
    min_seconds: Option<f64>,
    p50_seconds: Option<f64>,
    p90_seconds: Option<f64>,
    p99_seconds: Option<f64>,
    p99_9_seconds: Option<f64>,
    max_seconds: Option<f64>,
    mean_seconds: Option<f64>,
}

/// A second of the load, a part of one at its end, or several in a long one.
#[derive(Serialize)]
struct Counts {
    from_seconds: f64,
    to_seconds: f64,
    begun: u64,
    ended: u64,
    lost: u64,
}

pub(super) fn render(run: &Run<'_>) -> String {
    let tally = run.tally;
    let counts = |step: series::Step| Counts {
        from_seconds: step.from,
        to_seconds: step.to,
        begun: step.counts.begun,
        ended: step.counts.ended,
        lost: step.counts.lost,
    };
    let document = Document {
        title: run.title,
        settings: run.settings.iter().map(|(name, value)| Setting { name, value }).collect(),
        elapsed_seconds: run.elapsed.as_secs_f64(),
        rate_per_second: run.rate(),
        begun: tally.begun,
        ended: tally.ended,
        lost: tally.lost,
        retransmissions: tally.retransmissions,
        stray: tally.stray,
        codes: &tally.codes,
        latencies: tally.latencies.iter().map(spread).collect(),
        series: series::steps(&tally.seconds, run.elapsed).into_iter().map(counts).collect(),
    };
    serde_json::to_string(&document).expect("texts and numbers always become JSON")
}

fn spread(latency: &Latency) -> Spread<'_> {
    let values = figures(&latency.histogram);
    let [min, p50, p90, p99, p999, max, mean] =
        std::array::from_fn(|place| values.map(|values| values[place] / SECOND));
    Spread {
        name: &latency.name,
        count: latency.histogram.len(),
        min_seconds: min,
        p50_seconds: p50,
        p90_seconds: p90,
        p99_seconds: p99,
        p99_9_seconds: p999,
        max_seconds: max,
        mean_seconds: mean,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::sample;
    use super::*;
    use crate::load::tally::Tally;

    #[test]
    fn figures_are_in_seconds_and_absent_where_nothing_was_measured() {
        let tally = sample::tally();
        let text = render(&sample::run(&tally));
        assert!(!text.contains('\n'), "{text}");
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["settings"][0]["value"], "udp:127.0.0.1:5060");
        assert_eq!(["begun", "ended", "lost"].map(|name| document[name].as_u64()), [Some(3), Some(2), Some(1)]);
        assert_eq!(document["codes"]["486"], 2);
        assert!((document["rate_per_second"].as_f64().unwrap() - 0.8).abs() < 1e-9, "{document}");
        let latency = &document["latencies"][0];
        assert_eq!(latency["name"], "INVITE to final");
        assert_eq!(latency["count"], 2);
        assert!((latency["p50_seconds"].as_f64().unwrap() - 0.002).abs() < 1e-5, "{latency}");
        assert!((latency["p99_9_seconds"].as_f64().unwrap() - 0.040).abs() < 1e-4, "{latency}");
        assert_eq!(document["latencies"][1]["p50_seconds"], Value::Null);
        let lost: u64 = document["series"].as_array().unwrap().iter().map(|step| step["lost"].as_u64().unwrap()).sum();
        assert_eq!(lost, 1);
    }

    #[test]
    fn an_empty_load_is_still_a_document() {
        let tally = Tally::new(&[]);
        let run = Run { title: "t", settings: Vec::new(), elapsed: std::time::Duration::ZERO, tally: &tally };
        let document: Value = serde_json::from_str(&render(&run)).unwrap();
        assert_eq!(document["rate_per_second"], Value::Null);
        assert_eq!(document["series"], Value::Array(Vec::new()));
    }
}
