//! The `RateLimit-Policy` and `RateLimit` header fields (draft-ietf-httpapi-ratelimit-headers): lists of quoted limit
//! names with quota `q`, window `w`, remaining `r` and reset `t` as parameters.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};

use crate::verify::request::LimitState;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Both header fields; none where no limit was looked at.
pub(super) fn headers(states: &[LimitState]) -> Vec<(HeaderName, HeaderValue)> {
    if states.is_empty() {
        return Vec::new();
    }
    let policy = list(states, |state| format!("q={};w={}", state.quota, whole_seconds(state.window)));
    let limit = list(states, |state| match whole_seconds(state.reset) {
        0 => format!("r={}", state.remaining),
        seconds => format!("r={};t={seconds}", state.remaining),
    });
    [(POLICY, policy), (LIMIT, limit)].into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Rounded up, so that a client which waits that long does not come too early.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn list(states: &[LimitState], parameters: impl Fn(&LimitState) -> String) -> Option<HeaderValue> {
    let items: Vec<_> = states.iter().map(|state| format!("\"{}\";{}", state.name, parameters(state))).collect();
    HeaderValue::try_from(items.join(", ")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_listed_and_a_reset_only_where_there_is_one() {
        let state = |name, quota, remaining, reset| LimitState {
            name,
            quota,
            window: Duration::from_mins(10),
            remaining,
            reset: Duration::from_millis(reset),
        };
        let states = [state("creates_per_phone", 5, 0, 29_500), state("creates_per_client_ip", 20, 19, 0)];
        let headers = headers(&states);
        assert_eq!(headers[0].1, r#""creates_per_phone";q=5;w=600, "creates_per_client_ip";q=20;w=600"#);
        assert_eq!(headers[1].1, r#""creates_per_phone";r=0;t=30, "creates_per_client_ip";r=19"#);
        assert!(super::headers(&[]).is_empty());
    }
}
