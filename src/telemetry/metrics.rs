//! The metrics, by their names in Prometheus' text format.
//!
//! What the program counts is set where it happens. What the system knows of the process is read when somebody asks.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::process::ProcessMetrics;

/// Every metric of the node. Cheap to use; hot paths keep the children that they need.
#[derive(Debug, Clone)]
pub struct Metrics {
    book: Arc<Book>,
    process: Arc<ProcessMetrics>,
    /// Whether `/readyz` says 200: 1 or 0.
    pub ready: IntGauge,
    /// SIP requests from known peers, by trunk, method and transport.
    pub sip_requests: IntCounterVec,
    /// SIP responses sent, by trunk and status code.
    pub sip_responses: IntCounterVec,
    /// SIP connections open now, by transport.
    pub sip_connections: IntGaugeVec,
    /// SIP connections that came, by transport; also those closed at once.
    pub sip_connections_total: IntCounterVec,
    /// SIP connections that ended, by reason.
    pub sip_connections_closed: IntCounterVec,
    /// Times at which the system had no descriptor or memory for a SIP connection.
    pub sip_accept_failures: IntCounter,
    /// Messages dropped unanswered, by reason.
    pub sip_dropped: IntCounterVec,
    /// Datagrams that the kernel dropped: from strangers, or because a receive buffer was full.
    pub sip_socket_drops: IntCounter,
    /// Datagrams that the kernel lost in this network namespace because a receive buffer was full.
    pub udp_receive_buffer_errors: IntCounter,
    /// Calls, by trunk and outcome.
    pub calls: IntCounterVec,
    /// Calls above a cap of their trunk or peer, by trunk.
    pub calls_limited: IntCounterVec,
    /// Age in seconds of the youngest entry that the recent-calls table had to let go; -1 while none has.
    pub recent_calls_age: IntGauge,
    /// Test calls of the API, and calls of test phones, that were not placed, by reason.
    pub test_calls_refused: IntCounterVec,
    /// Calls that wait for their commit.
    pub calls_waiting: IntGauge,
    /// A batch of datagrams from the moment it is taken to that at which its answers are given to the kernel.
    pub sip_batch: Histogram,
    /// Matched INVITE to its final response, also where that is 503.
    pub invite_to_reply: Histogram,
    /// Matched INVITE to the first 2xx of a webhook endpoint.
    pub invite_to_webhook: Histogram,
    /// Verifications that reached a state, by application and status.
    pub verifications: IntCounterVec,
    /// Verifications pending now.
    pub verifications_pending: IntGauge,
    /// Creations refused, by application and problem code.
    pub creates_refused: IntCounterVec,
    /// Creations that a rate limit or `pending_per_phone` refused, by application and limit.
    pub rate_limited: IntCounterVec,
    /// API responses, by route and status code.
    pub api_responses: IntCounterVec,
    /// From a request's head to its answer's, by route.
    pub api_request: HistogramVec,
    /// Connections to the API that are open.
    pub api_connections: IntGauge,
    /// Connections to the API that may be open at once.
    pub api_connections_limit: IntGauge,
    /// Connections to the API that were not taken, by reason.
    pub api_connections_refused: IntCounterVec,
    /// Connections to the API that this side ended, by reason.
    pub api_connections_closed: IntCounterVec,
    /// Streams open to end users.
    pub client_streams: IntGauge,
    /// Long polls that wait.
    pub long_polls: IntGauge,
    /// Streams and long polls that found no place, by kind and by what was full.
    pub waits_refused: IntCounterVec,
    /// Webhook attempts, by application and result.
    pub webhook_attempts: IntCounterVec,
    /// Endpoints that were disabled, by application and reason.
    pub webhook_disabled: IntCounterVec,
    /// Configured endpoints that are disabled now.
    pub webhook_endpoints_disabled: IntGauge,
    /// Endpoints that are only probed now because their attempts fail.
    pub webhook_endpoints_probed: IntGauge,
    /// Deliveries not yet done.
    pub webhook_backlog: IntGauge,
    /// Time of a commit.
    pub store_commit: Histogram,
    /// Steps in one commit.
    pub store_batch: Histogram,
    /// Steps refused or failed in the store, by reason.
    pub store_failures: IntCounterVec,
    /// Bytes of the store's files, by file: `database` and `wal`.
    pub store_file_bytes: IntGaugeVec,
    /// Bytes that the node may still write to the disk of its data directory.
    pub store_disk_free: IntGauge,
    /// Answers kept for idempotency keys.
    pub store_idempotency: IntGauge,
    /// Reloads of the configuration, by result: `ok` or `refused`.
    pub config_reloads: IntCounterVec,
    /// Whether the configuration in force is the file as it was last read.
    pub config_successful: IntGauge,
    /// When the configuration in force was read, in seconds since 1970.
    pub config_success_timestamp: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all metrics in a registry of their own.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a list, one entry a metric")]
    pub fn new() -> Self {
        let book = Arc::new(Book::default());
        let r = &*book;
        let build = gauge_vec(r, "build_info", "Version of the program; always 1", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let recent_calls_age = gauge(
            r,
            "sip_recent_calls_age_seconds",
            "Age of the last entry that the recent-calls table had to let go; -1 while none has",
        );
        recent_calls_age.set(-1);
        Self {
            ready: gauge(r, "ready", "1 while the node is ready, as /readyz says it"),
            sip_requests: counter_vec(
                r,
                "sip_requests_total",
                "SIP requests from known peers",
                &["trunk", "method", "transport"],
            ),
            sip_responses: counter_vec(r, "sip_responses_total", "SIP responses sent", &["trunk", "code"]),
            sip_connections: gauge_vec(r, "sip_connections", "SIP connections open now", &["transport"]),
            sip_connections_total: counter_vec(
                r,
                "sip_connections_total",
                "SIP connections that came, those closed at once too",
                &["transport"],
            ),
            sip_connections_closed: counter_vec(
                r,
                "sip_connections_closed_total",
                "SIP connections that ended",
                &["reason"],
            ),
            sip_accept_failures: counter(
                r,
                "sip_accept_failures_total",
                "Times the system had no descriptor or memory for a SIP connection",
            ),
            sip_dropped: counter_vec(r, "sip_dropped_total", "SIP messages dropped unanswered", &["reason"]),
            sip_socket_drops: counter(
                r,
                "sip_socket_drops_total",
                "Datagrams dropped by the kernel: of strangers, or for want of buffer",
            ),
            udp_receive_buffer_errors: counter(
                r,
                "udp_receive_buffer_errors_total",
                "Datagrams lost in this network namespace because a receive buffer was full",
            ),
            calls: counter_vec(r, "calls_total", "Calls by what became of them", &["trunk", "outcome"]),
            calls_limited: counter_vec(r, "calls_limited_total", "Calls above a cap, answered 503", &["trunk"]),
            recent_calls_age,
            test_calls_refused: counter_vec(r, "test_calls_refused_total", "Test calls not placed", &["reason"]),
            calls_waiting: gauge(r, "calls_waiting", "Matched calls that wait for their commit"),
            sip_batch: histogram(r, "sip_batch_seconds", "Batch of datagrams taken to its answers sent", &BATCH),
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
            rate_limited: counter_vec(
                r,
                "rate_limited_total",
                "Creations that a limit refused",
                &["application", "limit"],
            ),
            api_responses: counter_vec(r, "api_responses_total", "API responses", &["route", "code"]),
            api_request: histogram_vec(
                r,
                "api_request_seconds",
                "API request to the head of its answer",
                &REQUEST,
                &["route"],
            ),
            api_connections: gauge(r, "api_connections", "Connections to the API that are open"),
            api_connections_limit: gauge(r, "api_connections_limit", "Connections to the API that may be open at once"),
            api_connections_refused: counter_vec(
                r,
                "api_connections_refused_total",
                "Connections to the API that were not taken",
                &["reason"],
            ),
            api_connections_closed: counter_vec(
                r,
                "api_connections_closed_total",
                "Connections to the API that the node ended",
                &["reason"],
            ),
            client_streams: gauge(r, "client_streams", "Streams open to end users"),
            long_polls: gauge(r, "long_polls", "Long polls that wait"),
            waits_refused: counter_vec(
                r,
                "waits_refused_total",
                "Streams and long polls that found no place",
                &["kind", "full"],
            ),
            webhook_attempts: counter_vec(r, "webhook_attempts_total", "Webhook attempts", &["application", "result"]),
            webhook_disabled: counter_vec(
                r,
                "webhook_endpoint_disabled_total",
                "Endpoints that were disabled",
                &["application", "reason"],
            ),
            webhook_endpoints_disabled: gauge(r, "webhook_endpoints_disabled", "Configured endpoints disabled now"),
            webhook_endpoints_probed: gauge(
                r,
                "webhook_endpoints_probed",
                "Endpoints that get one attempt at a time because all fail",
            ),
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
            config_reloads: {
                let reloads = counter_vec(r, "config_reloads_total", "Reloads of the configuration", &["result"]);
                // There from the start, so that the first one shows as a change.
                for result in ["ok", "refused"] {
                    reloads.with_label_values(&[result]);
                }
                reloads
            },
            config_successful: gauge(
                r,
                "config_last_reload_successful",
                "Whether the configuration in force is the file as it was last read",
            ),
            config_success_timestamp: gauge(
                r,
                "config_last_reload_success_timestamp_seconds",
                "When the configuration in force was read",
            ),
            store_file_bytes: gauge_vec(r, "store_file_bytes", "Size of the store's files", &["file"]),
            store_disk_free: gauge(
                r,
                "store_disk_free_bytes",
                "What may still be written to the disk of the data directory",
            ),
            store_idempotency: gauge(r, "store_idempotency_answers", "Answers kept for idempotency keys"),
            process: Arc::new(ProcessMetrics::new(r)),
            book,
        }
    }

    /// Every metric that there is, whether or not it has a value yet: its name and its labels.
    #[must_use]
    pub fn names(&self) -> Vec<(String, Vec<String>)> {
        self.book.names.lock().clone()
    }

    /// All metrics in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.refresh();
        let mut text = Vec::new();
        // Writing to memory fails for inconsistent metrics only, which registration has ruled out.
        let _ = TextEncoder::new().encode(&self.book.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Buckets from 100 µs to 10 s, in seconds.
const LATENCY: [f64; 16] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 4.0, 10.0];

/// Buckets from 10 µs to 1 s, in seconds: the node's own share of an answer.
const BATCH: [f64; 12] = [0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.1, 1.0];

/// Buckets from 1 ms to 30 s, in seconds: requests may wait for what they ask.
const REQUEST: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

const REGISTERED: &str = "metric names are constants, each used once";

/// The registry, and the names in it: a registry tells of those alone that have a value.
#[derive(Debug, Default)]
pub(super) struct Book {
    registry: Registry,
    names: Mutex<Vec<(String, Vec<String>)>>,
}

impl Book {
    fn register(&self, metric: impl Collector + 'static) {
        let found = metric.desc().into_iter().map(|desc| (desc.fq_name.clone(), desc.variable_labels.clone()));
        self.names.lock().extend(found);
        self.registry.register(Box::new(metric)).expect(REGISTERED);
    }
}

/// Metrics of the process keep the names that Prometheus' own client libraries give them.
fn options(name: &str, help: &str) -> Opts {
    let prefix = if name.starts_with("process_") { "" } else { "ringproof_" };
    Opts::new(format!("{prefix}{name}"), help)
}

fn counter(book: &Book, name: &str, help: &str) -> IntCounter {
    let metric = IntCounter::with_opts(options(name, help)).expect(REGISTERED);
    book.register(metric.clone());
    metric
}

fn counter_vec(book: &Book, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let metric = IntCounterVec::new(options(name, help), labels).expect(REGISTERED);
    book.register(metric.clone());
    metric
}

fn gauge(book: &Book, name: &str, help: &str) -> IntGauge {
    let metric = IntGauge::with_opts(options(name, help)).expect(REGISTERED);
    book.register(metric.clone());
    metric
}

fn gauge_vec(book: &Book, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let metric = IntGaugeVec::new(options(name, help), labels).expect(REGISTERED);
    book.register(metric.clone());
    metric
}

pub(super) fn float_gauge(book: &Book, name: &str, help: &str) -> Gauge {
    let metric = Gauge::with_opts(options(name, help)).expect(REGISTERED);
    book.register(metric.clone());
    metric
}

pub(super) fn float_counter(book: &Book, name: &str, help: &str) -> prometheus::Counter {
    let metric = prometheus::Counter::with_opts(options(name, help)).expect(REGISTERED);
    book.register(metric.clone());
    metric
}

fn histogram(book: &Book, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts { common_opts: options(name, help), buckets: buckets.to_vec() };
    let metric = Histogram::with_opts(options).expect(REGISTERED);
    book.register(metric.clone());
    metric
}

fn histogram_vec(book: &Book, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts { common_opts: options(name, help), buckets: buckets.to_vec() };
    let metric = HistogramVec::new(options, labels).expect(REGISTERED);
    book.register(metric.clone());
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
        let named = |line: &str| ["#", "ringproof_", "process_"].iter().any(|prefix| line.starts_with(prefix));
        assert!(text.lines().all(named), "{text}");
    }

    #[test]
    fn every_metric_has_its_line_in_the_operations_page_and_the_reverse() {
        let page = include_str!("../../docs/operations.md");
        let table = page.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let first_cell = |line: &str| line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name.to_owned());
        let mut told: Vec<String> = table.lines().filter_map(first_cell).collect();
        let mut registered: Vec<String> = Metrics::new()
            .names()
            .into_iter()
            .map(|(name, labels)| {
                let short = name.strip_prefix("ringproof_").unwrap_or(&name);
                if labels.is_empty() { short.to_owned() } else { format!("{short}{{{}}}", labels.join(",")) }
            })
            .collect();
        told.sort();
        registered.sort();
        assert_eq!(told, registered);
    }

    #[test]
    fn alert_rules_name_metrics_that_there_are() {
        let rules = include_str!("../../deploy/prometheus-alerts.yml");
        let registered: Vec<String> = Metrics::new().names().into_iter().map(|(name, _)| name).collect();
        let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let mut named = 0;
        for word in words.filter(|word| word.starts_with("ringproof_") || word.starts_with("process_")) {
            let name = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(registered.iter().any(|known| known == name), "{name}");
            named += 1;
        }
        assert!(named > 10, "{named}");
    }

    #[test]
    fn the_process_tells_of_itself() {
        let text = Metrics::new().render();
        let value = |name: &str| -> f64 {
            let line =
                text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{text}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_start_time_seconds") > 1_600_000_000.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
