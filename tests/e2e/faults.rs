//! Every parameter and field with a wrong value: its pointer, what is wrong, and an example that is accepted.

use hyper::Method;
use serde_json::{Value, json};

use crate::config::{Config, phone};
use crate::http::Answer;
use crate::node::Node;
use crate::receiver::Receiver;

/// The one fault of an answer.
#[track_caller]
fn fault<'a>(problem: &'a Value, asked: &str) -> (&'a str, &'a str, &'a str) {
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{asked}: {problem}");
    let part = |name: &str| errors[0][name].as_str().unwrap();
    (part("pointer"), part("code"), part("detail"))
}

#[tokio::test]
async fn every_wrong_parameter_is_told_with_an_example_that_is_accepted() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let api = node.api();
    let created = api.create(&phone(1)).await;
    let one = format!("/v1/verifications/{}", created.id);
    let calls = format!("{one}/calls");
    let list = "/v1/verifications";
    let long = format!("reference={}", "x".repeat(129));
    let cases = [
        (list, "status=open", "invalid", "status=pending"),
        (list, "status=", "invalid", "status=pending"),
        (list, "status=Pending", "invalid", "status=pending"),
        (list, "phone=+966500000123", "invalid", "phone=%2B966500000123"),
        (list, "phone=0500000123", "invalid", "phone=%2B966500000123"),
        (list, "phone=%2B12", "invalid", "phone=%2B966500000123"),
        (list, "reference=", "invalid", "reference=signup-88"),
        (list, &long, "invalid", "reference=signup-88"),
        (list, "created_after=yesterday", "invalid", "2026-01-31T08:00:00Z"),
        (list, "created_after=2026-01-31", "invalid", "2026-01-31T08:00:00Z"),
        (list, "created_before=1764000000", "invalid", "2026-01-31T08:00:00Z"),
        (list, "created_before=2026-01-31T08:00:00+02:00", "invalid", "%2B"),
        (list, "limit=0", "invalid", "limit=20"),
        (list, "limit=101", "invalid", "limit=20"),
        (list, "limit=ten", "invalid", "limit=20"),
        (list, "limit=-1", "invalid", "limit=20"),
        (list, "limit=5&limit=6", "repeated", "once"),
        (list, "after=x", "invalid", "after=ver_"),
        (list, "after=evt_01JD7Z3W5K8Q2M4N6P8R0S2T4V", "invalid", "after=ver_"),
        (list, "after=ver_01jd7z3w5k8q2m4n6p8r0s2t4v", "invalid", "after=ver_"),
        (list, "offset=20", "unknown_parameter", "takes status, phone, reference"),
        (&one, "expand=calls", "unknown_parameter", "takes no query parameter"),
        (&calls, "limit=1.5", "invalid", "limit=20"),
        (&calls, "after=ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V", "invalid", "after=call_"),
        (&calls, "status=x", "unknown_parameter", "takes limit, after"),
        ("/v1/events", "type=verified", "invalid", "type=verification.verified"),
        ("/v1/events", "limit=1000", "invalid", "limit=20"),
        ("/v1/events", "after=1", "invalid", "after=evt_"),
        ("/v1/deliveries", "state=x", "invalid", "delivered"),
        ("/v1/deliveries", "endpoint=x", "invalid", "whe_"),
        ("/v1/deliveries", "event=x", "invalid", "evt_"),
        ("/v1/deliveries", "created_after=x", "invalid", "2026-01-31T08:00:00Z"),
        ("/v1/deliveries", "limit=0", "invalid", "limit=20"),
        ("/v1/deliveries", "after=x", "invalid", "dlv_"),
        ("/v1/deliveries", "since=x", "unknown_parameter", "takes state, endpoint"),
        ("/v1/endpoints", "limit=1", "unknown_parameter", "takes no query parameter"),
        ("/v1/events", "since=x", "unknown_parameter", "takes type, limit, after"),
    ];
    for (path, query, code, example) in cases {
        let answer = api.get(&format!("{path}?{query}")).await;
        let problem = answer.is_problem(422, "invalid_fields");
        let (pointer, told, detail) = fault(&problem, query);
        assert_eq!((pointer, told), (format!("?{}", query.split('=').next().unwrap()).as_str(), code), "{query}");
        assert!(detail.contains(example), "{query}: {detail}");
    }
    let between = "created_after=2026-01-31T08:00:00Z&created_before=2026-01-31T08:00:00Z";
    let problem = api.get(&format!("{list}?{between}")).await.is_problem(422, "invalid_fields");
    assert_eq!(fault(&problem, between).0, "?created_before");
    // All at once.
    let problem = api.get(&format!("{list}?status=x&limit=x&x=x")).await.is_problem(422, "invalid_fields");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 3);
    // The examples themselves.
    for (path, query) in [
        (list, "status=pending"),
        (list, "phone=%2B966500000123"),
        (list, "reference=signup-88"),
        (list, "created_after=2026-01-31T08:00:00Z"),
        (list, "created_before=2026-01-31T08:00:00%2B02:00"),
        (list, "limit=20"),
        (list, "limit=100&status=&".strip_suffix("&status=&").unwrap()),
        (&calls, "limit=20"),
        ("/v1/events", "type=verification.verified"),
    ] {
        assert_eq!(api.get(&format!("{path}?{query}")).await.status, 200, "{query}");
    }
}

#[tokio::test]
async fn every_wrong_field_is_told_with_an_example_that_is_accepted() {
    let receiver = Receiver::start().await;
    let node = Node::start(Config::new(&receiver.url())).await;
    let api = node.api();
    let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    // The pointer, a wrong value as a whole body, and a right one.
    let with = |more: Value| {
        let mut body = json!({"phone": phone(7)});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let cases = [
        ("/phone", json!({"phone": "0500000123"}), "+966500000123"),
        ("/phone", json!({"phone": 1}), "+966500000123"),
        ("/phone", json!({"phone": "0500", "country": "SA"}), "+966500000123"),
        ("/country", with(json!({"country": "Saudi"})), "\"SA\""),
        ("/ttl_seconds", with(json!({"ttl_seconds": 10})), "120"),
        ("/purpose", with(json!({"purpose": "fun"})), "\"login\""),
        ("/consent", with(json!({"purpose": "consent"})), "\"document\""),
        ("/consent/document", with(json!({"purpose": "consent", "consent": {"sha256": sha}})), "terms"),
        ("/consent/sha256", with(json!({"purpose": "consent", "consent": {"document": "d", "sha256": "x"}})), sha),
        ("/reference", with(json!({"reference": ""})), "signup-88"),
        ("/metadata", with(json!({"metadata": 1})), "\"order\""),
        ("/metadata/a", with(json!({"metadata": {"a": 1}})), "\"1234\""),
        ("/minimum_assurance", with(json!({"minimum_assurance": "E"})), "\"B\""),
        ("/locale", with(json!({"locale": "arabic_SA"})), "ar-SA"),
        ("/client", with(json!({"client": 1})), "192.0.2.7"),
        ("/client/ip", with(json!({"client": {"ip": "x"}})), "192.0.2.7"),
        ("/client/device_id", with(json!({"client": {"device_id": 1}})), "d-41"),
        ("/replaces", with(json!({"replaces": "1"})), "ver_01JD7Z3W5K8Q2M4N6P8R0S2T4V"),
        ("/colour", with(json!({"colour": 1})), "the fields are phone, country"),
        ("/client/colour", with(json!({"client": {"colour": 1}})), "the fields are ip, device_id"),
    ];
    for (pointer, body, example) in cases {
        let problem = api.ask(&body).await.is_problem(422, "invalid_fields");
        let (told, _, detail) = fault(&problem, &body.to_string());
        assert_eq!(told, pointer, "{body}");
        assert!(detail.contains(example), "{body}: {detail}");
    }
    let created = api.create(&phone(1)).await;
    let answer: Answer = api.post(&format!("/v1/verifications/{}/cancel", created.id), &json!({"why": 1})).await;
    assert_eq!(fault(&answer.is_problem(422, "invalid_fields"), "cancel").0, "/why");
    let cancel = format!("/v1/verifications/{}/cancel?why=1", created.id);
    let answer = api.request(Method::POST, &cancel, &[], None).await;
    assert_eq!(fault(&answer.is_problem(422, "invalid_fields"), "cancel").0, "?why");
    assert_eq!(api.status(&created.id).await, "pending");
}
