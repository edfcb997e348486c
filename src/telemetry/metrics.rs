//! The metrics, by their names in Prometheus' text format.

use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// Every metric of the node. Cheap to use; hot paths keep the children that they need.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// SIP requests from known peers, by trunk, method and transport.
    pub sip_requests: IntCounterVec,
    /// SIP responses sent, by trunk and status code.
    pub sip_responses: IntCounterVec,
    /// Datagrams dropped unanswered, by reason.
    pub sip_dropped: IntCounterVec,
    /// Datagrams that the kernel dropped because a receive buffer was full.
    pub sip_socket_drops: IntCounter,
    /// Calls, by trunk and outcome.
    pub calls: IntCounterVec,
    /// Age in seconds of the youngest entry that the recent-calls table had to let go; -1 while none has.
    pub recent_calls_age: IntGauge,
    /// Calls that wait for their commit.
    pub calls_waiting: IntGauge,
    /// Matched INVITE to its final response.
    pub invite_to_reply: Histogram,
    /// Matched INVITE to the first 2xx of a webhook endpoint.
    pub invite_to_webhook: Histogram,
    /// Verifications that reached a state, by application and status.
    pub verifications: IntCounterVec,
    /// Verifications pending now.
    pub verifications_pending: IntGauge,
    /// Creations refused, by application and problem code.
    pub creates_refused: IntCounterVec,
    /// API responses, by route and status code.
    pub api_responses: IntCounterVec,
    /// Webhook attempts, by application and result.
    pub webhook_attempts: IntCounterVec,
    /// Deliveries not yet done.
    pub webhook_backlog: IntGauge,
    /// Time of a commit.
    pub store_commit: Histogram,
    /// Steps in one commit.
    pub store_batch: Histogram,
    /// Steps refused or failed in the store, by reason.
    pub store_failures: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all metrics in a registry of their own.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let build = counter_vec(r, "build_info", "Version of the program; always 1", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).inc();
        let recent_calls_age = gauge(
            r,
            "sip_recent_calls_age_seconds",
            "Age of the last entry that the recent-calls table had to let go; -1 while none has",
        );
        recent_calls_age.set(-1);
        Self {
            sip_requests: counter_vec(
                r,
                "sip_requests_total",
                "SIP requests from known peers",
                &["trunk", "method", "transport"],
            ),
            sip_responses: counter_vec(r, "sip_responses_total", "SIP responses sent", &["trunk", "code"]),
            sip_dropped: counter_vec(r, "sip_dropped_total", "SIP messages dropped unanswered", &["reason"]),
            sip_socket_drops: counter(
                r,
                "sip_socket_drops_total",
                "Datagrams dropped by the kernel for want of buffer",
            ),
            calls: counter_vec(r, "calls_total", "Calls by what became of them", &["trunk", "outcome"]),
            recent_calls_age,
            calls_waiting: gauge(r, "calls_waiting", "Matched calls that wait for their commit"),
            invite_to_reply: histogram(r, "invite_to_reply_seconds", "Matched INVITE to final response", &LATENCY),
            invite_to_webhook: histogram(
                r,
                "invite_to_webhook_seconds",
                "Matched INVITE to the webhook's 2xx",
                &LATENCY,
            ),
            verifications: counter_vec(
                r,
                "verifications_total",
                "Verifications that reached a status",
                &["application", "status"],
            ),
            verifications_pending: gauge(r, "verifications_pending", "Verifications pending now"),
            creates_refused: counter_vec(r, "creates_refused_total", "Creations refused", &["application", "code"]),
            api_responses: counter_vec(r, "api_responses_total", "API responses", &["route", "code"]),
            webhook_attempts: counter_vec(r, "webhook_attempts_total", "Webhook attempts", &["application", "result"]),
            webhook_backlog: gauge(r, "webhook_backlog", "Deliveries not yet done"),
            store_commit: histogram(r, "store_commit_seconds", "Time of a commit, disk included", &LATENCY),
            store_batch: histogram(
                r,
                "store_batch_size",
                "Steps in one commit",
                &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0],
            ),
            store_failures: counter_vec(
                r,
                "store_failures_total",
                "Steps that the store refused or failed",
                &["reason"],
            ),
            registry,
        }
    }

    /// All metrics in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory fails for inconsistent metrics only, which registration has ruled out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Buckets from 100 µs to 10 s, in seconds.
const LATENCY: [f64; 16] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 4.0, 10.0];

const REGISTERED: &str = "metric names are constants, each used once";

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("ringproof_{name}"), help)
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let metric = IntCounter::with_opts(options(name, help)).expect(REGISTERED);
    registry.register(Box::new(metric.clone())).expect(REGISTERED);
    metric
}

fn counter_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let metric = IntCounterVec::new(options(name, help), labels).expect(REGISTERED);
    registry.register(Box::new(metric.clone())).expect(REGISTERED);
    metric
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let metric = IntGauge::with_opts(options(name, help)).expect(REGISTERED);
    registry.register(Box::new(metric.clone())).expect(REGISTERED);
    metric
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts { common_opts: options(name, help), buckets: buckets.to_vec() };
    let metric = Histogram::with_opts(options).expect(REGISTERED);
    registry.register(Box::new(metric.clone())).expect(REGISTERED);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_render_as_text_under_their_prefix() {
        let metrics = Metrics::new();
        metrics.calls.with_label_values(&["local", "matched"]).inc();
        let text = metrics.render();
        assert!(text.contains("ringproof_calls_total{outcome=\"matched\",trunk=\"local\"} 1"), "{text}");
        assert!(text.lines().all(|line| line.starts_with('#') || line.starts_with("ringproof_")), "{text}");
    }
}
