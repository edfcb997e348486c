//! What keys may do, until when, and from where.

use std::fmt::Write;
use std::net::SocketAddr;

use hyper::Method;
use serde_json::json;

use crate::config::{Config, key, key_hash, phone};
use crate::http::{Answer, Api};
use crate::node::Node;
use crate::receiver::Receiver;

/// A node whose application has these keys beside the one that may do everything.
async fn node(keys: &[(&str, &str)], api: &str) -> (Receiver, Node) {
    let receiver = Receiver::start().await;
    let config = Config::new(&receiver.url());
    let mut more = String::new();
    for (name, held) in keys {
        write!(more, ", {{ hash = \"{}\", {held} }}", key_hash(&key(name))).unwrap();
    }
    let whole = format!("keys = [\"{}\"", key_hash(&key("demo")));
    assert!(config.applications.contains(&whole));
    let applications = config.applications.replace(&whole, &format!("{whole}{more}"));
    let node = Node::start(Config { applications, api: api.to_owned(), ..config }).await;
    (receiver, node)
}

fn lacks(answer: &Answer, scope: &str) {
    let problem = answer.is_problem(403, "insufficient_scope");
    assert!(problem["detail"].as_str().unwrap().contains(scope), "{problem}");
    let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
    assert_eq!(answer.header("www-authenticate"), challenge);
}

#[tokio::test]
async fn each_endpoint_asks_for_its_scope() {
    let keys = [
        ("writes", "scopes = [\"verifications:write\"]"),
        ("reads", "scopes = [\"verifications:read\"]"),
        ("calls", "scopes = [\"calls:read\"]"),
        ("replays", "scopes = [\"deliveries:write\"]"),
        ("tests", "scopes = [\"test:write\"]"),
    ];
    let (_receiver, node) = node(&keys, "").await;
    let of = |name: &str| node.api_of(&key(name));
    let created = of("writes").create(&phone(1)).await;
    let one = format!("/v1/verifications/{}", created.id);
    for path in [one.as_str(), "/v1/verifications", "/v1/events", "/v1/deliveries", "/v1/endpoints"] {
        assert_eq!(of("reads").get(path).await.status, 200, "{path}");
        lacks(&of("writes").get(path).await, "verifications:read");
        lacks(&of("calls").get(path).await, "verifications:read");
    }
    assert_eq!(of("calls").get(&format!("{one}/calls")).await.status, 200);
    lacks(&of("reads").get(&format!("{one}/calls")).await, "calls:read");
    lacks(&of("calls").get(&format!("{one}/trace")).await, "trace:read");
    lacks(&of("reads").ask(&json!({"phone": phone(2)})).await, "verifications:write");
    lacks(&of("reads").cancel(&created.id).await, "verifications:write");
    assert_eq!(of("writes").cancel(&created.id).await.status, 200);
    for (path, scope, holder) in [
        ("/v1/deliveries/dlv_00000000000G1/replay", "deliveries:write", "replays"),
        ("/v1/endpoints/whe_7JD7Z3W5K8Q2M4N6P8R0S2T4VA/enable", "deliveries:write", "replays"),
        ("/v1/test/calls", "test:write", "tests"),
    ] {
        lacks(&of("writes").post(path, &json!({})).await, scope);
        assert_ne!(of(holder).post(path, &json!({})).await.status, 403, "{path}");
    }
    let refused = node.metric("ringproof_creates_refused_total", &["insufficient_scope"]).await;
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn an_expired_key_is_told_so() {
    let (_receiver, node) =
        node(&[("old", "expires = \"2020-01-31T00:00:00Z\""), ("good", "expires = \"2999-12-31T00:00:00Z\"")], "")
            .await;
    let answer = node.api_of(&key("old")).ask(&json!({"phone": phone(1)})).await;
    let problem = answer.is_problem(401, "unauthorized");
    assert!(problem["detail"].as_str().unwrap().contains("expired at 2020-01-31T00:00:00Z"), "{problem}");
    assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""));
    node.api_of(&key("good")).create(&phone(1)).await;
    assert!(node.printed().contains("expired at 2020-01-31T00:00:00Z: requests with it get 401"));
}

#[tokio::test]
async fn a_key_counts_from_its_networks_alone_also_behind_a_proxy() {
    let keys = [("near", "cidrs = [\"127.0.0.0/8\"]"), ("far", "cidrs = [\"192.0.2.0/24\", \"2001:db8::/32\"]")];
    let (_receiver, direct) = node(&keys, "").await;
    let header = [("x-forwarded-for", "192.0.2.7")];
    assert_eq!(direct.api_of(&key("near")).get("/v1/verifications").await.status, 200);
    let answer = direct.api_of(&key("far")).get_with("/v1/verifications", &header).await;
    let problem = answer.is_problem(403, "ip_not_allowed");
    assert!(problem["detail"].as_str().unwrap().contains("from 127.0.0.1"), "{problem}");

    let (_receiver, behind) = node(&keys, "trusted_proxies = [\"127.0.0.1\"]").await;
    let ask = async |headers: &[(&str, &str)]| behind.api_of(&key("far")).get_with("/v1/verifications", headers).await;
    assert_eq!(ask(&header).await.status, 200);
    assert_eq!(ask(&[("forwarded", "for=\"[2001:db8::1]:4711\";proto=https")]).await.status, 200);
    assert_eq!(ask(&[("x-forwarded-for", "198.51.100.1, 192.0.2.7, 127.0.0.1")]).await.status, 200);
    for lie in ["192.0.2.7, 198.51.100.1", "192.0.2.7, unknown", ""] {
        ask(&[("x-forwarded-for", lie)]).await.is_problem(403, "ip_not_allowed");
    }
    ask(&[("x-forwarded-for", "192.0.2.7"), ("forwarded", "for=192.0.2.8")]).await.is_problem(403, "ip_not_allowed");
    ask(&[]).await.is_problem(403, "ip_not_allowed");
}

#[tokio::test]
async fn methods_that_a_path_does_not_take_are_405_and_head_is_get_without_a_body() {
    let (_receiver, node) = node(&[], "").await;
    let created = node.api().create(&phone(1)).await;
    let one = format!("/v1/verifications/{}", created.id);
    let paths = [
        ("/v1/verifications", "GET,HEAD,POST"),
        (one.as_str(), "GET,HEAD"),
        (&format!("{one}/cancel"), "POST"),
        (&format!("{one}/calls"), "GET,HEAD"),
        ("/v1/events", "GET,HEAD"),
    ];
    for (path, allowed) in paths {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if path.ends_with("cancel") && method == "POST" {
                continue;
            }
            let answer = node.api().request(Method::from_bytes(method.as_bytes()).unwrap(), path, &[], None).await;
            if allowed.split(',').any(|one| one == method) {
                assert!(method == "POST" || answer.status == 200, "{method} {path}: {}", answer.status);
                assert_eq!(answer.body.is_empty(), method == "HEAD", "{method} {path}");
            } else {
                if method == "HEAD" {
                    assert_eq!((answer.status, answer.body.len()), (405, 0), "{path}");
                } else {
                    answer.is_problem(405, "method_not_allowed");
                }
                let mut told: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
                told.sort_unstable();
                assert_eq!(told.join(","), allowed, "{method} {path}");
            }
        }
        let slash = node.api().get(&format!("{path}/")).await.is_problem(404, "not_found");
        assert!(slash["detail"].as_str().unwrap().contains("no path ends with a slash"));
    }
    let head = node.api().request(Method::HEAD, &one, &[], None).await;
    let get = node.api().get(&one).await;
    assert_eq!(head.header("content-length"), get.body.len().to_string());
}

#[tokio::test]
async fn a_key_is_looked_at_before_anything_else() {
    let (_receiver, node) = node(&[], "").await;
    let nobody = |address: SocketAddr| Api::new(address, &key("nobody"));
    for path in ["/v1/verifications?x=1", "/v1/verifications/x", "/v1/verifications/x/calls", "/v1/events?after=x"] {
        nobody(node.api).get(path).await.is_problem(401, "unauthorized");
    }
    nobody(node.api).post("/v1/verifications", &json!([])).await.is_problem(401, "unauthorized");
}
