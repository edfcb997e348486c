//! The operator's side: what the numbers say, to whom, and what they never say.

use http_body_util::Full;
use hyper::Request as HttpRequest;
use serde_json::json;

use crate::caller::{Caller, Request};
use crate::config::{Config, phone};
use crate::http::{get, send};
use crate::node::Node;
use crate::receiver::Receiver;

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
    assert_eq!(count("build_info", &[&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))]).await, 1);

    let text = get(node.admin, "/metrics").await.text();
    let id = created.id.strip_prefix("ver_").unwrap();
    for told in ["7654", "115000", id, "127.0.0", "/hook", "rp_test", "whsec"] {
        assert!(!text.contains(told), "{told} is in the metrics");
    }
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
