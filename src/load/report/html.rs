//! The report as a page.

use std::fmt::Write;

use super::figures::{NAMES, figures};
use super::picture::Text;
use super::series::{self, Step};
use super::{Run, pictures, units};

const STYLE: &str = include_str!("page.css");

pub(super) fn render(run: &Run<'_>) -> String {
    let steps = series::steps(&run.tally.seconds, run.elapsed);
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        title = Text(run.title)
    );
    section(
        &mut page,
        "Asked for",
        &table(&[], run.settings.iter().map(|(name, value)| vec![name.clone(), value.clone()])),
    );
    section(&mut page, "Counted", &counts(run));
    section(&mut page, "Latencies", &latencies(run));
    let mut drawn = String::new();
    for (latency, number) in run.tally.latencies.iter().zip(0u32..) {
        titled(&mut drawn, &latency.name, pictures::spread(latency, &format!("h{number}")));
    }
    titled(&mut drawn, "By percentile", pictures::percentiles(&run.tally.latencies, "p"));
    section(&mut page, "How latencies are spread", &drawn);
    let rates = run.rate().and_then(|_| pictures::rates(&steps, "r")).unwrap_or_default();
    let rates = if rates.is_empty() { rates } else { rates + &seconds(&steps) };
    section(&mut page, "Rate over time", &rates);
    page.push_str("</body>\n</html>\n");
    page
}

/// A heading and what belongs to it; nothing where there is nothing.
fn section(page: &mut String, heading: &str, content: &str) {
    if !content.is_empty() {
        let _ = write!(page, "<section>\n<h2>{}</h2>\n{content}</section>\n", Text(heading));
    }
}

/// A picture with its title above; nothing where there is none. What the picture itself says of its title is not seen.
fn titled(content: &mut String, title: &str, picture: Option<String>) {
    if let Some(picture) = picture {
        let _ = write!(content, "<h3>{}</h3>\n{picture}", Text(title));
    }
}

fn counts(run: &Run<'_>) -> String {
    let tally = run.tally;
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("elapsed", format!("{:.1} s", run.elapsed.as_secs_f64())),
        row("ended a second", run.rate().map_or_else(|| "-".to_owned(), units::rate)),
        row("begun", units::count(tally.begun)),
        row("ended", units::count(tally.ended)),
        row("lost", units::count(tally.lost)),
        row("retransmissions", units::count(tally.retransmissions)),
        row("stray", units::count(tally.stray)),
    ];
    rows.extend(tally.codes.iter().map(|(code, count)| row(&format!("code: {code}"), units::count(*count))));
    table(&[], rows.into_iter())
}

fn latencies(run: &Run<'_>) -> String {
    let heading: Vec<&str> = ["latency", "count"].into_iter().chain(NAMES).collect();
    let rows = run.tally.latencies.iter().map(|latency| {
        let mut row = vec![latency.name.clone(), units::count(latency.histogram.len())];
        match figures(&latency.histogram) {
            Some(values) => row.extend(values.map(units::span)),
            None => row.extend(NAMES.map(|_| "-".to_owned())),
        }
        row
    });
    table(&heading, rows)
}

fn seconds(steps: &[Step]) -> String {
    let rows = steps.iter().map(|step| {
        let times = [step.from, step.to].map(units::number);
        let counts = [step.counts.begun, step.counts.ended, step.counts.lost].map(units::count);
        times.into_iter().chain(counts).collect::<Vec<String>>()
    });
    let rows = table(&["from, s", "to, s", "begun", "ended", "lost"], rows);
    format!("<details>\n<summary>As numbers</summary>\n{rows}</details>\n")
}

/// A table whose first column names the rows; nothing without rows.
fn table(heading: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut body = String::new();
    for row in rows {
        body.push_str("<tr>");
        for (place, cell) in row.iter().enumerate() {
            let (open, close) = if place == 0 { ("<th scope=\"row\">", "</th>") } else { ("<td>", "</td>") };
            let _ = write!(body, "{open}{}{close}", Text(cell));
        }
        body.push_str("</tr>\n");
    }
    if body.is_empty() {
        return body;
    }
    let mut head = String::new();
    for name in heading {
        let _ = write!(head, "<th scope=\"col\">{}</th>", Text(name));
    }
    if !head.is_empty() {
        head = format!("<thead><tr>{head}</tr></thead>\n");
    }
    format!("<div class=\"wide\"><table>\n{head}<tbody>\n{body}</tbody>\n</table></div>\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sample;
    use super::*;
    use crate::load::tally::Tally;

    #[test]
    fn a_page_holds_its_numbers_and_pictures() {
        let tally = sample::tally();
        let page = render(&sample::run(&tally));
        for piece in [
            "<h1>ringproof load sip</h1>",
            "<th scope=\"row\">via</th><td>udp:127.0.0.1:5060</td>",
            "<th scope=\"row\">ended</th><td>2</td>",
            "<th scope=\"row\">code: no final</th><td>1</td>",
            "<th scope=\"col\">p99.9</th>",
            "<th scope=\"row\">never</th><td>0</td><td>-</td>",
            "<h3>INVITE to final</h3>\n<svg",
            "<h3>By percentile</h3>\n<svg",
        ] {
            assert!(page.contains(piece), "{piece} is not in {page}");
        }
        assert_eq!(page.matches("<svg").count(), 3, "one latency, the curve and the rates");
        assert!(!page.contains("<h3>never</h3>"), "what was not measured has no picture");
        for name in ["html", "body", "section", "h3", "table", "svg", "details", "style"] {
            assert_eq!(page.matches(&format!("</{name}>")).count(), opened(&page, name), "{name}");
        }
    }

    #[test]
    fn a_page_refers_to_nothing_outside_it() {
        let tally = sample::tally();
        let page = render(&sample::run(&tally));
        for word in ["http://", "https://", "<script", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn names_and_values_are_text() {
        let mut tally = Tally::new(&["<b>x</b>"]);
        tally.measure(0, Duration::from_millis(1));
        tally.count("<i>");
        let settings = vec![("<u>".to_owned(), "\"><img>".to_owned())];
        let page = render(&Run { title: "</title><s>", settings, elapsed: Duration::from_secs(1), tally: &tally });
        for tag in ["<b>", "<i>", "<u>", "<img>", "<s>"] {
            assert!(!page.contains(tag), "{tag}");
        }
    }

    #[test]
    fn an_empty_load_has_a_page() {
        let tally = Tally::new(&["x"]);
        let page = render(&Run { title: "t", settings: Vec::new(), elapsed: Duration::ZERO, tally: &tally });
        assert!(!page.contains("<svg") && page.ends_with("</html>\n"), "{page}");
    }

    fn opened(page: &str, name: &str) -> usize {
        page.matches(&format!("<{name}>")).count() + page.matches(&format!("<{name} ")).count()
    }
}
