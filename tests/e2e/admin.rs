//! The operator's side: what the numbers say, to whom, and what they never say.

use http_body_util::Full;
use hyper::Request as HttpRequest;
use serde_json::json;

use crate::caller::{Caller, Request};
use crate::config::{Config, phone};
use crate::http::{get, send};
use crate::node::Node;
use crate::receiver::Receiver;
use crate::wait::until;

#[tokio::test]
async fn metrics_count_what_happened_and_name_nobody() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let caller = Caller::from("127.0.0.77", node.sip()).await;
    let created = node.api().create_with(&json!({"phone": phone(7_654_321), "reference": "r-7654321"})).await;
    assert_eq!(caller.call(&created.phone, &created.number).await, 486);
    for index in 0..20 {
        assert_eq!(caller.call(&phone(7_654_000 + index), &created.number).await, 486);
    }
    assert_eq!(caller.ask(&Request::new("OPTIONS")).await.code(), 200);
    receiver.event(&created.id, "verification.verified").await;
    node.all_delivered().await;

    let count = async |name: &str, labels: &[&str]| node.metric(&format!("ringproof_{name}"), labels).await;
    let invites = count("sip_requests_total", &["trunk=\"local\"", "method=\"INVITE\"", "transport=\"udp\""]).await;
    // A slow machine has a caller repeat itself.
    assert!((21..60).contains(&invites), "{invites}");
    assert_eq!(count("calls_total", &["trunk=\"local\"", "outcome=\"matched\""]).await, 1);
    assert_eq!(count("calls_total", &["outcome=\"unmatched\""]).await, 20);
    assert!(count("sip_responses_total", &["trunk=\"local\"", "code=\"486\""]).await >= 21);
    assert!(count("sip_requests_total", &["method=\"ACK\""]).await >= 21);
    assert_eq!(count("verifications_total", &["application=\"demo\"", "status=\"verified\""]).await, 1);
    assert_eq!(count("webhook_attempts_total", &["application=\"demo\"", "result=\"delivered\""]).await, 1);
    assert_eq!(count("invite_to_reply_seconds_count", &[]).await, 1);
    assert!(count("sip_batch_seconds_count", &[]).await >= 1);
    assert!(count("api_request_seconds_count", &["route=\"/v1/verifications\""]).await >= 1);
    assert_eq!(count("api_connections_limit", &[]).await, 16_384);
    assert!(node.metric("process_open_fds", &[]).await > 10);
    assert_eq!(count("build_info", &[&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))]).await, 1);

    let text = get(node.admin, "/metrics").await.text();
    let id = created.id.strip_prefix("ver_").unwrap();
    for told in ["7654", "115000", id, "127.0.0", "/hook", "rp_test", "whsec"] {
        assert!(!text.contains(told), "{told} is in the metrics");
    }
}

#[tokio::test]
async fn labels_hold_nothing_that_peers_and_clients_choose() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let (api, caller) = (node.api(), Caller::from("127.0.0.77", node.sip()).await);
    let created = api.create_with(&json!({"phone": phone(7_654_321), "reference": "r-7654321"})).await;
    assert_eq!(caller.call(&created.phone, &created.number).await, 486);
    assert_eq!(caller.call("+447700900123", "+447700900456").await, 486);
    assert_eq!(caller.ask(&Request::new("SUBSCRIBE")).await.code(), 405);
    let stranger = node.api_of("rp_test_9999999999");
    for path in ["/v1/verifications/ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V", "/v1/nothing/4711471", "/%2e%2e/4711471?a=4711471"]
    {
        let (own, strange) = (api.get(path).await.status, stranger.get(path).await.status);
        assert!((400..500).contains(&own) && (400..500).contains(&strange), "{path}: {own}, {strange}");
    }
    api.ask(&json!({"phone": "4711471", "4711471": 4_711_471})).await.is_problem(422, "invalid_fields");
    receiver.event(&created.id, "verification.verified").await;
    until("the store's figures", async || {
        (node.metric("ringproof_store_file_bytes", &["file=\"database\""]).await > 0).then_some(())
    })
    .await;
    assert!(node.metric("ringproof_store_disk_free_bytes", &[]).await > 0);

    let text = get(node.admin, "/metrics").await.text();
    let mut seen = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
        for (name, value) in labels.split("\",").filter_map(|label| label.split_once("=\"")) {
            let value = value.trim_end_matches('"');
            seen += 1;
            if matches!(name, "le" | "version") {
                continue;
            }
            let digits = value.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap();
            let most = if name == "code" { 3 } else { 2 };
            assert!(digits <= most, "{line}");
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c) || name == "route" && "/{}".contains(c);
            assert!(value.chars().all(plain), "{line}");
        }
    }
    assert!(seen > 100, "{seen}");
}

#[tokio::test]
async fn a_token_keeps_the_metrics_but_not_the_health_from_strangers() {
    let receiver = Receiver::start().await;
    let mut config = Config::new(&receiver.url());
    config.admin = "token = \"a-token-of-some-length\"".to_owned();
    let node = Node::start(config).await;
    for (token, status) in [(None, 401), (Some("wrong"), 401), (Some("a-token-of-some-length"), 200)] {
        let mut request = HttpRequest::get("/metrics").header("host", "127.0.0.1");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        assert_eq!(send(node.admin, request.body(Full::default()).unwrap()).await.status, status);
    }
    assert_eq!(get(node.admin, "/healthz").await.status, 200);
    assert_eq!(get(node.admin, "/readyz").await.status, 200);
    assert!(!node.printed().contains("a-token-of-some-length"));
}
