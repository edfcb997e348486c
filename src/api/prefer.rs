//! `Prefer: wait` (RFC 7240 4.3): for how long a client would wait for an answer that says more.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Longest wait; a client that asks for more is answered then.
const MAX_WAIT: u64 = 60;

/// The wait that a request prefers, 1 to 60 whole seconds. What cannot be honoured is as if it were not there (RFC 7240
/// 2), and of several the first counts.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let fields = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let value = fields.flat_map(preferences).find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim())
    })?;
    let digits = value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // More digits than a number holds are more than the longest wait.
    let seconds = digits.parse().unwrap_or(MAX_WAIT).min(MAX_WAIT);
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// The header that tells which wait was honoured.
pub(super) fn applied(wait: Duration) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::try_from(format!("wait={}", wait.as_secs())).expect("digits are a header's value");
    (APPLIED, value)
}

/// The preferences of one field, without their parameters. Commas and semicolons within quotes part nothing.
fn preferences(field: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let outside = move |character: char, sign: char| {
        let inside = quoted;
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        !inside && character == sign
    };
    let mut comma = outside;
    field.split(move |character| comma(character, ',')).map(move |preference| {
        let mut semicolon = outside;
        preference.split(move |character| semicolon(character, ';')).next().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(fields: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(PREFER, HeaderValue::from_str(field).unwrap());
        }
        wait(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_wait_is_found_in_every_form_that_the_header_has() {
        for field in [
            "wait=25",
            "Wait = 25",
            "wait=\"25\"",
            "respond-async, wait=25",
            "foo; a=\"x, wait=3\"; b, wait=25;strict",
            "return=\"min;\\\"imal, wait=9\",wait=25",
            ", ,wait=25, wait=7",
        ] {
            assert_eq!(seconds(&[field]), Some(25), "{field}");
        }
        assert_eq!(seconds(&["respond-async", "wait=25", "wait=7"]), Some(25));
    }

    #[test]
    fn long_waits_are_cut_and_what_is_no_wait_is_ignored() {
        for field in ["wait=60", "wait=61", "wait=4000000000", "wait=99999999999999999999999"] {
            assert_eq!(seconds(&[field]), Some(60), "{field}");
        }
        assert_eq!(seconds(&["wait=1"]), Some(1));
        assert_eq!(seconds(&["wait=001"]), Some(1));
        for field in [
            "", "wait", "wait=", "wait=0", "wait=-1", "wait=+5", "wait=2.5", "wait=5s", "waits=5", "x;wait=5",
            "\"wait=5",
        ] {
            assert_eq!(seconds(&[field]), None, "{field}");
        }
        assert_eq!(seconds(&[]), None);
    }
}
