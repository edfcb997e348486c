//! Findings, and how they are shown: a line each for people, JSON for machines.
//!
//! Invariant: what comes from outside cannot steer a terminal.

use std::fmt::Write;

use serde::Serialize;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and may not always.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// The colour's number in a terminal's palette (ECMA-48, SGR).
    const fn color(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Warn => 33,
            Self::Fail => 31,
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it stands.
    pub level: Level,
    /// The check, a word that stays the same.
    pub check: &'static str,
    /// What was looked at, where a check has several; else empty.
    pub subject: String,
    /// What is there.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(check: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, subject: subject.into(), found: found.into(), advice: None }
    }

    /// It works, and may not always.
    #[must_use]
    pub fn warn(check: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { level: Level::Warn, ..Self::ok(check, subject, found) }
    }

    /// It does not work.
    #[must_use]
    pub fn fail(check: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { level: Level::Fail, ..Self::ok(check, subject, found) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    fn what(&self) -> String {
        if self.subject.is_empty() { self.check.to_owned() } else { format!("{} {}", self.check, self.subject) }
    }
}

/// All findings, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst of all levels.
    result: Level,
    ok: usize,
    warn: usize,
    fail: usize,
    findings: Vec<Finding>,
}

/// A longer name of what was looked at does not move the column of what was found.
const WIDEST: usize = 44;

impl Report {
    /// Takes what was found.
    #[must_use]
    pub fn new(findings: Vec<Finding>) -> Self {
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        let (ok, warn, fail) = (count(Level::Ok), count(Level::Warn), count(Level::Fail));
        let result = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        Self { result, ok, warn, fail, findings }
    }

    /// Whether something does not work.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.fail > 0
    }

    /// A line for each finding, and one that counts them. `colored` for a terminal.
    #[must_use]
    pub fn to_text(&self, colored: bool) -> String {
        let lines: Vec<(String, &Finding)> =
            self.findings.iter().map(|finding| (printable(&finding.what()), finding)).collect();
        let width = lines.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0).min(WIDEST);
        let mut text = String::new();
        for (what, finding) in lines {
            let level = format!("{:<4}", finding.level.as_str());
            let level = if colored { format!("\u{1b}[{}m{level}\u{1b}[0m", finding.level.color()) } else { level };
            let advice = finding.advice.as_ref().map(|advice| format!("  ({})", printable(advice)));
            // Writing to a `String` does not fail.
            let _ =
                writeln!(text, "{level}  {what:<width$}  {}{}", printable(&finding.found), advice.unwrap_or_default());
        }
        let _ = writeln!(text, "{} ok, {} warn, {} fail", self.ok, self.warn, self.fail);
        text
    }

    /// One JSON object: `result`, the counts, and `findings` with `level`, `check`, `subject`, `found` and `advice`.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "texts and numbers always become JSON")]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers always become JSON")
    }
}

fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        // What turns a line around is as bad as what ends it.
        if character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Finding::ok("port", "sip udp://127.0.0.1:5060", "free"),
            Finding::warn("memory", "", "1 GiB\n\u{1b}[31m").advise("lower store.max_pending"),
        ])
    }

    #[test]
    fn lines_are_aligned_counted_and_cannot_steer_a_terminal() {
        let text = report().to_text(false);
        assert_eq!(
            text,
            "ok    port sip udp://127.0.0.1:5060  free\n\
             warn  memory                         1 GiB\\u{a}\\u{1b}[31m  (lower store.max_pending)\n\
             1 ok, 1 warn, 0 fail\n"
        );
        assert!(report().to_text(true).starts_with("\u{1b}[32mok  \u{1b}[0m  port"));
    }

    #[test]
    fn json_says_the_same() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
        assert_eq!((&json["result"], &json["warn"]), (&"warn".into(), &1.into()));
        assert_eq!(json["findings"][0]["check"], "port");
        assert_eq!(json["findings"][1]["advice"], "lower store.max_pending");
        assert!(json["findings"][0].get("advice").is_none());
    }

    #[test]
    fn a_warning_is_no_failure() {
        assert!(!report().has_failed());
        assert!(Report::new(vec![Finding::fail("port", "", "taken")]).has_failed());
    }
}
